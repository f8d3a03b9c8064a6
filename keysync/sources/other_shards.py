"""The secrets that accounts of other shards write."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Container, Iterable
from functools import cached_property

from keysync.sources.conflicts import secret_number


class OtherShardSecrets:
    """The secrets of other shards' accounts, each account's as `conflicts.secret_numbers` encodes them."""

    def __init__(self, secret_numbers: Iterable[bytes] = ()) -> None:
        self._numbers = array("q", b"".join(secret_numbers))

    def contains(self, url: str, secret: str) -> bool:
        """Whether another shard writes `secret` (without regard to case) to the vault at `url`."""
        wanted, numbers = secret_number(url, secret), self._ordered
        at = bisect_left(numbers, wanted)
        return at < len(numbers) and numbers[at] == wanted

    def union(self, url: str, names: Container[str]) -> Container[str]:
        """`names`, together with the secrets that other shards write to the vault at `url`."""
        return _Union(self, url, names) if self._numbers else names

    @cached_property
    def _ordered(self) -> array[int]:
        # Sorted on demand: only the search for orphans needs it.
        self._numbers = array("q", sorted(self._numbers))
        return self._numbers


class _Union(Container[str]):
    def __init__(self, others: OtherShardSecrets, url: str, names: Container[str]) -> None:
        self._others = others
        self._url = url
        self._names = names

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._names or self._others.contains(self._url, name))
