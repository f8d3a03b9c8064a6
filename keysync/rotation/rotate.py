"""One step of a rotation. An interruption anywhere leaves a state from which a later run goes on.

The order keeps every consumer of the active secret on a working key: the new key is proven and in every vault before the
active secret has it, and only a slot that no active secret has named for `grace` is ever regenerated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from keysync.failures import CallFailed
from keysync.rotation.claim import CLAIM_LASTS, Claim, Phase
from keysync.rotation.policy import Decision
from keysync.rotation.prove import Proof
from keysync.secret.fingerprint import Fingerprint, Fingerprinter
from keysync.secret.value import SecretValue
from keysync.sources.interface import KeyName

_PROOFS: Final = 5  # of a new key: Batch may take some seconds until it accepts it
_PROOF_PAUSE_SECONDS: Final = 5.0
_CLAIM_MARGIN_SECONDS: Final = 5.0


class RotationStopped(Exception):
    """A step was not completed, for the reason in its message. A later run goes on."""


@dataclass(frozen=True, slots=True)
class ActiveSecret:
    """The active secret in one vault, just read: its fingerprint, the slot in its tag, and its claim (first vault only)."""

    fingerprint: Fingerprint
    slot: KeyName
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """All active secrets of an account, the first vault's first.

    `versions` are those of the key secrets in the first vault, by key. `now` is that vault's time, UTC.
    """

    secrets: tuple[ActiveSecret, ...]
    versions: Mapping[KeyName, str]
    now: datetime


class RotatedAccount(Protocol):
    """The account as a rotation sees it. Every method raises CallFailed; `request_seconds` limits each request."""

    @property
    def request_seconds(self) -> float: ...

    async def keys(self) -> Mapping[KeyName, SecretValue]:
        """Both keys, as the service lists them now."""
        ...

    async def regenerate(self, slot: KeyName, until: float) -> None:
        """Regenerates one key, by a single request that is never repeated, and is not sent after `until` (of the event loop's clock)."""
        ...

    async def prove(self, key: SecretValue) -> Proof:
        """Signs one call of the data plane with `key`."""
        ...

    async def read(self) -> Reading:
        """Reads the active secrets. Raises RotationStopped if one of them is not keysync's or not there."""
        ...

    async def write_claim(self, claim: Claim | None) -> None:
        """Sets or removes the claim in the first vault, by a PATCH that is sent once."""
        ...

    async def sync(self, switch: Claim | None = None) -> None:
        """One run over the account, read back in every vault.

        With `switch`, its active secrets get the other slot than `switch.slot`; the first vault is last, and gets the claim with
        it. Raises RotationStopped unless every secret is in sync after it.
        """
        ...


@dataclass(frozen=True, slots=True)
class Rotator:
    """Carries out steps. `observe` gets the names of the contract's log events as they happen, and the slot."""

    fingerprinter: Fingerprinter
    observe: Callable[[str, KeyName], None]

    async def step(self, account: RotatedAccount, decision: Decision) -> None:
        """Carries out `decision.step`. Raises RotationStopped or CallFailed; then nothing is lost."""
        active, slot = decision.active, decision.slot
        if active is None or slot is None:
            raise ValueError("a decision without a step")
        if decision.step == "regenerate":
            await self._regenerate(account, active, slot, "rotating")
        if decision.step == "retire":
            await self._regenerate(account, active, slot, "retiring")
            await account.sync()
            self.observe("key.retired", slot)
        else:
            await self._switch(account, active, slot)

    async def _switch(self, account: RotatedAccount, active: KeyName, slot: KeyName) -> None:
        """Proves the key in `slot`, and has every active secret name it."""
        await self._prove_new(account, slot)
        await account.sync()
        reading = await account.read()
        claim = reading.secrets[0].claim
        if claim is None or not claim.has_regenerated(slot, reading.versions[slot]):
            # Otherwise another process could regenerate this slot between the proof and the switch.
            claim = await self._claim(account, active, slot, "rotating")
        await account.sync(claim.switched(active, reading.versions[active], reading.now))
        self.observe("active.switched", slot)

    async def _regenerate(self, account: RotatedAccount, active: KeyName, slot: KeyName, phase: Phase) -> None:
        """Gives `slot`, which is not active, a new key. Only one process gets here for one claim."""
        keys = await account.keys()
        proof = await account.prove(keys[active])
        if proof.result != "proven":
            raise RotationStopped(f"the active key was not proven: {proof.reason}")
        self.observe("key.proven", active)
        until = asyncio.get_running_loop().time() + CLAIM_LASTS.total_seconds() / 2
        claim = await self._claim(account, active, slot, phase)
        try:
            await self._check_unchanged(account, keys, active, claim)
        except (RotationStopped, CallFailed):
            await account.write_claim(None)
            raise
        await self._regenerate_once(account, keys, slot, until)

    async def _claim(self, account: RotatedAccount, active: KeyName, slot: KeyName, phase: Phase) -> Claim:
        """Fischer's mutual exclusion: Key Vault has no conditional write.

        A process that saw no claim sends its own within `request_seconds` of that read. After twice that time its claim is
        there or will never be, so the claim that is there then is the only one. This relies on requests that have no effect
        more than `request_seconds` after they were sent.
        """
        try:
            async with asyncio.timeout(account.request_seconds):
                reading = await account.read()
                other = reading.secrets[0].claim
                if other is not None and other.is_running(reading.now):
                    raise RotationStopped("another process has begun to rotate this account")
                if any(secret.slot != active for secret in reading.secrets):
                    raise RotationStopped("the active key was switched meanwhile")
                claim = Claim.new(phase, slot, reading.versions[slot], reading.now)
                await account.write_claim(claim)
        except TimeoutError:
            raise RotationStopped(f"the account could not be claimed within {account.request_seconds:g} s") from None
        await asyncio.sleep(2 * account.request_seconds + _CLAIM_MARGIN_SECONDS)
        if (await account.read()).secrets[0].claim != claim:
            raise RotationStopped("another process claimed this account at the same time")
        return claim

    async def _check_unchanged(
        self, account: RotatedAccount, keys: Mapping[KeyName, SecretValue], active: KeyName, claim: Claim
    ) -> None:
        reading, again = await account.read(), await account.keys()
        live = self.fingerprinter.of(keys[active])
        if self._changed(keys, again) or reading.versions[claim.slot] != claim.version:
            raise RotationStopped("a key was regenerated meanwhile: nothing was regenerated")
        if any(secret.slot != active or secret.fingerprint != live for secret in reading.secrets):
            raise RotationStopped("an active secret changed meanwhile: nothing was regenerated")

    async def _regenerate_once(
        self, account: RotatedAccount, keys: Mapping[KeyName, SecretValue], slot: KeyName, until: float
    ) -> None:
        """Regenerates `slot`. After a lost reply the keys tell whether it took effect; it is never sent again."""
        lost: CallFailed | None = None
        try:
            await account.regenerate(slot, until)
        except CallFailed as failure:
            if not failure.record.ambiguous:
                await account.write_claim(None)
                raise
            lost = failure
        changed = self._changed(keys, await account.keys())
        if changed == {slot}:
            self.observe("key.regenerated", slot)
            return
        if not changed and lost is not None:
            # The claim stays: the request may still take effect.
            raise RotationStopped(
                f"no reply to the regeneration, and {slot} is unchanged: a later run begins again"
            ) from lost
        names = ", ".join(sorted(changed)) or "no key"
        raise RotationStopped(f"{names} changed where {slot} was regenerated: another program works on this account")

    async def _prove_new(self, account: RotatedAccount, slot: KeyName) -> None:
        key, proof = (await account.keys())[slot], Proof("unproven")
        for attempt in range(_PROOFS):
            if attempt:
                await asyncio.sleep(_PROOF_PAUSE_SECONDS)
            proof = await account.prove(key)
            if proof.result == "proven":
                self.observe("key.proven", slot)
                return
        raise RotationStopped(f"the new key was not proven: {proof.reason}")

    def _changed(self, before: Mapping[KeyName, SecretValue], after: Mapping[KeyName, SecretValue]) -> set[KeyName]:
        of = self.fingerprinter.of
        return {name for name in before if name not in after or of(before[name]) != of(after[name])}
