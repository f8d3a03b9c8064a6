"""The shard of the accounts that this process serves: rendezvous hashing, and where the shard number comes from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Self

from keysync.errors import UsageError
from keysync.names import fold


@dataclass(frozen=True, slots=True)
class Shard:
    """Share `index` of `count`, counted from 0 as Kubernetes counts Jobs and pods."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`I/N` with I from 0 to N-1. Raises UsageError."""
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if found is None or not int(found[1]) < int(found[2]):
            raise UsageError(
                f"--shard {text}: expected I/N with I from 0 to N-1, such as 0/3, 1/3 and 2/3 for three shards"
            )
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        """As `parse` reads it."""
        return f"{self.index}/{self.count}"

    def has(self, resource_id: str) -> bool:
        """Whether the account of this ARM id (without regard to case) is in the share; each is in exactly one."""
        lowered = fold(resource_id)
        return max(range(self.count), key=lambda index: _weight(lowered, index)) == self.index


def share_of(shard: Shard | None) -> Callable[[str], bool]:
    """What tells by ARM id whether an account is in the share; without a shard all are."""
    return everything if shard is None else shard.has


def everything(_resource_id: str) -> bool:
    """The share of whoever has no shard."""
    return True


def _weight(resource_id: str, index: int) -> bytes:
    return hashlib.blake2b(f"{index}:{resource_id}".encode(), digest_size=16).digest()


_MOST: Final = 999_999
_SOURCES: Final = "JOB_COMPLETION_INDEX, POD_INDEX or HOSTNAME"


def shard_of(shard: str | None, shards: int | None, environ: Mapping[str, str]) -> Shard | None:
    """The share that ``--shard I/N``, ``--shards N`` or else `environ` asks for; None where nothing does.

    With a number only, the index is the pod's own: of an Indexed Job (JOB_COMPLETION_INDEX), of a StatefulSet (POD_INDEX,
    from its label ``apps.kubernetes.io/pod-index``), or the number at the end of HOSTNAME. Raises UsageError.
    """
    if shard is not None and shards is not None:
        raise UsageError("--shard and --shards: give one of them, --shard I/N says both")
    if shard is not None:
        return Shard.parse(shard)
    if shards is not None:
        return _indexed(shards, "--shards", environ)
    whole, count = environ.get("KEYSYNC_SHARD", ""), environ.get("KEYSYNC_SHARDS", "")
    if whole:
        return _agreed(_whole(whole), whole, count)
    return _indexed(_number("KEYSYNC_SHARDS", count), "KEYSYNC_SHARDS", environ) if count else None


def _whole(text: str) -> Shard:
    try:
        return Shard.parse(text)
    except UsageError as error:
        raise UsageError(str(error).replace("--shard ", "KEYSYNC_SHARD=", 1)) from None


def _agreed(found: Shard, whole: str, count: str) -> Shard:
    """`found`, where the number beside it says the same: which of the two is meant cannot be told."""
    if count and _number("KEYSYNC_SHARDS", count) != found.count:
        told = f"KEYSYNC_SHARD={whole} and KEYSYNC_SHARDS={count} contradict each other: is the fleet shared by {found.count} or by {count}?"
        raise UsageError(f"{told} KEYSYNC_SHARD says both; unset KEYSYNC_SHARDS, or give them the same number")
    return found


def _number(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise UsageError(f"{name}={text}: expected a whole number")
    return int(text)


def _indexed(count: int, named: str, environ: Mapping[str, str]) -> Shard:
    if not 1 <= count <= _MOST:
        raise UsageError(f"{named}={count}: expected how many shards there are, 1 or more")
    found = next(_indices(environ), None)
    if found is None:
        raise UsageError(
            f"{named}={count}: which of them is this? None of {_SOURCES} has an index; or give --shard I/N"
        )
    source, index = found
    if index >= count:
        raise UsageError(f"{source}={environ[source]}: {named}={count} has the shards 0 to {count - 1}")
    return Shard(index, count)


def _indices(environ: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    for name in ("JOB_COMPLETION_INDEX", "POD_INDEX"):
        if environ.get(name):
            yield name, _number(name, environ[name])
    ordinal = re.search(r"-([0-9]{1,6})$", environ.get("HOSTNAME", ""))
    if ordinal is not None:
        yield "HOSTNAME", int(ordinal[1])
