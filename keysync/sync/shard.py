"""Which share of the accounts is this process's: rendezvous hashing, so that a larger number of shards moves few."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from keysync.config.formats import fold
from keysync.errors import UsageError


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
