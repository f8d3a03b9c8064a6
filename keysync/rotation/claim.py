"""The state of a rotation, in a tag of the active secret: the vault is the only state, so that a crash loses nothing."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeAlias, get_args

from keysync.sources.interface import KeyName

CLAIM_TAG: Final = "keysync-rotation"
"""Five parts: nonce, phase, slot, version and time, such as `9f86d081884c7d65 rotating secondary 61e2… 2026-11-28T17:03:30Z`."""

CLAIM_LASTS: Final = timedelta(minutes=15)
"""How long a claim excludes other rotations of the account. Longer than any request can take to have its effect."""

Phase: TypeAlias = Literal["rotating", "switched", "retiring"]
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Claim:
    """What one rotation of an account is about to do, or has done.

    `rotating`: regenerates the idle `slot`, then switches to it. `switched`: consumers use the other slot; `slot` is the one
    that they used before. `retiring`: regenerates that `slot`. `version` is the version of the slot's secret when the phase
    began: another version means that the key was regenerated. `time` is the vault's, in UTC. The `nonce` tells two processes
    apart.
    """

    nonce: str
    phase: Phase
    slot: KeyName
    version: str
    time: datetime

    @classmethod
    def new(cls, phase: Phase, slot: KeyName, version: str, time: datetime) -> Claim:
        """A claim with a nonce of its own."""
        return cls(secrets.token_hex(8), phase, slot, version, time)

    @classmethod
    def parse(cls, text: str) -> Claim | None:
        """The claim in a tag; None if the tag was not written by keysync."""
        try:
            nonce, phase, slot, version, time = text.split()
            at = datetime.strptime(time, _TIME).replace(tzinfo=UTC)
        except ValueError:
            return None
        return cls(nonce, phase, slot, version, at) if phase in get_args(Phase) else None  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{self.nonce} {self.phase} {self.slot} {self.version} {self.time:{_TIME}}"

    def is_running(self, now: datetime) -> bool:
        """Whether a process may still be at work for it. `now` is the vault's time."""
        return self.phase != "switched" and now < self.time + CLAIM_LASTS

    def has_regenerated(self, slot: KeyName, version: str) -> bool:
        """Whether this claim regenerated `slot`, whose secret has `version` now, and the switch to it is still to come."""
        return self.phase == "rotating" and self.slot == slot and self.version != version

    def left(self, slot: KeyName, version: str) -> bool:
        """Whether consumers have left `slot` and its key, of `version` now, is still the one that they used."""
        return self.phase != "rotating" and self.slot == slot and self.version == version

    def switched(self, slot: KeyName, version: str, time: datetime) -> Claim:
        """The claim after the switch: `slot` is the one that consumers used before, with its `version`."""
        return replace(self, phase="switched", slot=slot, version=version, time=time)
