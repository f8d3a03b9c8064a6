"""The shard of accounts that this process covers: rendezvous hashing, and the source of the shard's index."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Self

from keysync.errors import UsageError
from keysync.names import fold

_MOST: Final = 999_999


def rendezvous_weight(key: str, index: int) -> bytes:
    """The weight of a shard for the account with the ARM id `key` (lower case): the shard with the highest has the account."""
    return hashlib.blake2b(f"{index}:{key}".encode(), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Shard:
    """Shard `index` of `count`, counted from 0 like Jobs and pods in Kubernetes."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str, option: str = "--shard ") -> Self:
        """`I/N` with I from 0 to N-1. Raises UsageError."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if match is None or not int(match[1]) < int(match[2]):
            raise UsageError(
                f"{option}{text}: expected I/N with I from 0 to N-1, such as 0/3, 1/3 and 2/3 for three shards"
            )
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        """The form that `parse` reads."""
        return f"{self.index}/{self.count}"

    def has(self, resource_id: str) -> bool:
        """Whether the account with this ARM id (without regard to case) is in the shard. Each account is in exactly one shard."""
        key = fold(resource_id)
        return max(range(self.count), key=lambda index: rendezvous_weight(key, index)) == self.index


def share_of(shard: Shard | None) -> Callable[[str], bool]:
    """A function that says by ARM id whether an account is in the shard; without a shard, all are."""
    return (lambda _resource_id: True) if shard is None else shard.has


def shard_of(shard: str | None, shards: int | None, environ: Mapping[str, str]) -> Shard | None:
    """The shard from ``--shard I/N``, from ``--shards N``, or from `environ`; None for no sharding.

    With a count only, the index is that of the pod: of an Indexed Job (JOB_COMPLETION_INDEX), of a StatefulSet (POD_INDEX,
    from its label ``apps.kubernetes.io/pod-index``), or the number at the end of HOSTNAME. Raises UsageError, also if
    KEYSYNC_SHARD and KEYSYNC_SHARDS contradict each other, since neither is more likely right.
    """
    if shard is not None and shards is not None:
        raise UsageError("--shard and --shards: give only one; --shard I/N contains both numbers")
    if shard is not None:
        return Shard.parse(shard)
    if shards is not None:
        return _indexed(shards, "--shards", environ)
    text, count = environ.get("KEYSYNC_SHARD", ""), environ.get("KEYSYNC_SHARDS", "")
    if not text:
        return _indexed(_number("KEYSYNC_SHARDS", count), "KEYSYNC_SHARDS", environ) if count else None
    parsed = Shard.parse(text, "KEYSYNC_SHARD=")
    if count and _number("KEYSYNC_SHARDS", count) != parsed.count:
        problem = f"KEYSYNC_SHARD={text} and KEYSYNC_SHARDS={count} contradict each other: are there {parsed.count} shards or {count}?"
        raise UsageError(f"{problem} KEYSYNC_SHARD contains both numbers; unset KEYSYNC_SHARDS, or use the same number")
    return parsed


def _number(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise UsageError(f"{name}={text}: expected a whole number")
    return int(text)


def _indexed(count: int, option: str, environ: Mapping[str, str]) -> Shard:
    if not 1 <= count <= _MOST:
        raise UsageError(f"{option}={count}: expected the number of shards, 1 or more")
    numbers = {name: environ.get(name, "") for name in ("JOB_COMPLETION_INDEX", "POD_INDEX")}
    ordinal = re.search(r"-([0-9]{1,6})$", environ.get("HOSTNAME", ""))
    numbers["HOSTNAME"] = ordinal[1] if ordinal is not None else ""
    for name, number in numbers.items():
        if number and (index := _number(name, number)) < count:
            return Shard(index, count)
        if number:
            raise UsageError(f"{name}={environ[name]}: {option}={count} has the shards 0 to {count - 1}")
    sources = "JOB_COMPLETION_INDEX, POD_INDEX or HOSTNAME"
    raise UsageError(
        f"{option}={count}: the index of this shard is unknown. None of {sources} has it; or give --shard I/N"
    )
