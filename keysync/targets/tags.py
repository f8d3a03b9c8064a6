"""Tags of a secret as they are remembered: thousands of secrets have tags of the same names, so those are there once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from sys import intern


class Tags(Mapping[str, str]):
    """Tags that do not change; less than two thirds of what a dictionary takes. Equal to any mapping of the same content."""

    __slots__ = ("_names", "_values")

    def __init__(self, tags: Mapping[str, str]) -> None:
        self._names = _shared(tuple(map(intern, tags)))
        # Values are much alike too: the account, the key, whose it is.
        self._values = tuple(intern(value) if type(value) is str else value for value in tags.values())

    def __getitem__(self, name: str) -> str:
        for at, one in enumerate(self._names):
            if one == name:
                return self._values[at]
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return repr(dict(self))


@lru_cache(maxsize=256)
def _shared(names: tuple[str, ...]) -> tuple[str, ...]:
    return names
