"""What is known of the accounts of other shards: which secrets they write."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Container, Iterable
from functools import cached_property

from keysync.sources.conflicts import number_of


class OtherShardSecrets:
    """The secrets of accounts that other shards serve; `places` has them as `collisions.places` does."""

    def __init__(self, places: Iterable[bytes] = ()) -> None:
        self._numbers = array("q", b"".join(places))

    def serve(self, url: str, secret: str) -> bool:
        """Whether one of them writes that secret (in whichever case) to the vault of that URL."""
        wanted, numbers = number_of(url, secret), self._ordered
        at = bisect_left(numbers, wanted)
        return at < len(numbers) and numbers[at] == wanted

    def beside(self, url: str, names: Container[str]) -> Container[str]:
        """`names` of secrets, and those that they write to the vault of that URL."""
        return _Beside(self, url, names) if self._numbers else names

    @cached_property
    def _ordered(self) -> array[int]:
        # Only a search for orphans asks.
        self._numbers = array("q", sorted(self._numbers))
        return self._numbers


class _Beside(Container[str]):
    def __init__(self, others: OtherShardSecrets, url: str, names: Container[str]) -> None:
        self._others = others
        self._url = url
        self._names = names

    def __contains__(self, name: object) -> bool:
        return name in self._names or (isinstance(name, str) and self._others.serve(self._url, name))
