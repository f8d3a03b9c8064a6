"""The shard of accounts that this process covers: rendezvous hashing, and the source of the shard's index."""

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
    """Shard `index` of `count`, counted from 0 like Jobs and pods in Kubernetes."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`I/N` with I from 0 to N-1. Raises UsageError."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if match is None or not int(match[1]) < int(match[2]):
            raise UsageError(
                f"--shard {text}: expected I/N with I from 0 to N-1, such as 0/3, 1/3 and 2/3 for three shards"
            )
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        """The form that `parse` reads."""
        return f"{self.index}/{self.count}"

    def has(self, resource_id: str) -> bool:
        """Whether the account with this ARM id (without regard to case) is in the shard. Each account is in exactly one shard."""
        lowered = fold(resource_id)
        return max(range(self.count), key=lambda index: _weight(lowered, index)) == self.index


def share_of(shard: Shard | None) -> Callable[[str], bool]:
    """A function that says by ARM id whether an account is in the shard; without a shard, all are."""
    return everything if shard is None else shard.has


def everything(_resource_id: str) -> bool:
    """True: without sharding, every account is covered."""
    return True


def _weight(resource_id: str, index: int) -> bytes:
    return hashlib.blake2b(f"{index}:{resource_id}".encode(), digest_size=16).digest()


_MOST: Final = 999_999
_SOURCES: Final = "JOB_COMPLETION_INDEX, POD_INDEX or HOSTNAME"


def shard_of(shard: str | None, shards: int | None, environ: Mapping[str, str]) -> Shard | None:
    """The shard from ``--shard I/N``, from ``--shards N``, or from `environ`; None for no sharding.

    With a count only, the index is that of the pod: of an Indexed Job (JOB_COMPLETION_INDEX), of a StatefulSet (POD_INDEX,
    from its label ``apps.kubernetes.io/pod-index``), or the number at the end of HOSTNAME. Raises UsageError.
    """
    if shard is not None and shards is not None:
        raise UsageError("--shard and --shards: give only one; --shard I/N contains both numbers")
    if shard is not None:
        return Shard.parse(shard)
    if shards is not None:
        return _indexed(shards, "--shards", environ)
    shard_text, count = environ.get("KEYSYNC_SHARD", ""), environ.get("KEYSYNC_SHARDS", "")
    if shard_text:
        return _checked_count(_from_environment(shard_text), shard_text, count)
    return _indexed(_number("KEYSYNC_SHARDS", count), "KEYSYNC_SHARDS", environ) if count else None


def _from_environment(text: str) -> Shard:
    try:
        return Shard.parse(text)
    except UsageError as error:
        raise UsageError(str(error).replace("--shard ", "KEYSYNC_SHARD=", 1)) from None


def _checked_count(shard: Shard, shard_text: str, count: str) -> Shard:
    """`shard` if KEYSYNC_SHARDS does not contradict it. Raises UsageError, since neither number is more likely right."""
    if count and _number("KEYSYNC_SHARDS", count) != shard.count:
        problem = f"KEYSYNC_SHARD={shard_text} and KEYSYNC_SHARDS={count} contradict each other: are there {shard.count} shards or {count}?"
        raise UsageError(f"{problem} KEYSYNC_SHARD contains both numbers; unset KEYSYNC_SHARDS, or use the same number")
    return shard


def _number(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise UsageError(f"{name}={text}: expected a whole number")
    return int(text)


def _indexed(count: int, option: str, environ: Mapping[str, str]) -> Shard:
    if not 1 <= count <= _MOST:
        raise UsageError(f"{option}={count}: expected the number of shards, 1 or more")
    numbered = next(_indices(environ), None)
    if numbered is None:
        raise UsageError(
            f"{option}={count}: the index of this shard is unknown. None of {_SOURCES} has it; or give --shard I/N"
        )
    source, index = numbered
    if index >= count:
        raise UsageError(f"{source}={environ[source]}: {option}={count} has the shards 0 to {count - 1}")
    return Shard(index, count)


def _indices(environ: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    for name in ("JOB_COMPLETION_INDEX", "POD_INDEX"):
        if environ.get(name):
            yield name, _number(name, environ[name])
    ordinal = re.search(r"-([0-9]{1,6})$", environ.get("HOSTNAME", ""))
    if ordinal is not None:
        yield "HOSTNAME", int(ordinal[1])
