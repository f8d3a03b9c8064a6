"""An account, its vaults and several processes that rotate its keys, with lost replies, late effects and kills."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TypeVar

from keysync.failures import CallFailed, FailureRecord
from keysync.rotation.claim import CLAIM_TAG, Claim
from keysync.rotation.policy import Facts, Policy, SlotFacts, decide
from keysync.rotation.prove import Proof
from keysync.rotation.rotate import ActiveSecret, Reading, RotationStopped, Rotator
from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.reveal import reveal
from keysync.secret.value import SecretValue

T = TypeVar("T")

SLOTS = ("primary", "secondary")
ACTIVE_TAG = "keysync-active"
REQUEST_SECONDS = 30.0
_START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Secret:
    """A secret: its value, the number of its version, when that was made, and its tags."""

    value: str
    version: int
    created: datetime
    tags: dict[str, str] = field(default_factory=dict)


class World:
    """The truth. `grace` is how late a consumer may read the active secret again."""

    def __init__(self, vaults: int, grace: timedelta) -> None:
        self.grace = grace
        self.numbers = dict.fromkeys(SLOTS, 0)
        self.vaults: list[dict[str, Secret]] = []
        self.violations: list[str] = []
        self.regenerations: list[str] = []
        self.switches = 0
        self._left: dict[str, datetime] = {}  # when the last active secret with this value got another
        self._unused: set[tuple[str, str]] = set()  # slots that were regenerated in a phase, and not active since
        for _ in range(vaults):
            names = {slot: Secret(self.key(slot), 1, self.now()) for slot in SLOTS}
            self.vaults.append({**names, "active": Secret(self.key("primary"), 1, self.now(), {ACTIVE_TAG: "primary"})})

    def now(self) -> datetime:
        """The time of every service, in whole seconds as Key Vault gives it."""
        try:
            return _START + timedelta(seconds=int(asyncio.get_running_loop().time()))
        except RuntimeError:
            return _START

    def key(self, slot: str) -> str:
        """The live key."""
        return f"{slot}-{self.numbers[slot]}"

    def regenerate(self, slot: str) -> None:
        """Replaces a key, and checks that no consumer uses it and that the one before was used."""
        old = self.key(slot)
        if any(vault["active"].value == old for vault in self.vaults):
            self.violations.append(f"{self.now()}: {slot} was regenerated while it was active")
        elif self._left.get(old, _START - self.grace) > self.now() - self.grace:
            self.violations.append(f"{self.now()}: {slot} was regenerated before its consumers had left it")
        claim = Claim.parse(self.vaults[0]["active"].tags.get(CLAIM_TAG, ""))
        phase = "none" if claim is None else claim.phase
        # A key that was retired is regenerated once more when it becomes active again.
        if (slot, phase) in self._unused:
            self.violations.append(f"{self.now()}: {slot} was regenerated twice, {phase}")
        self._unused.add((slot, phase))
        self.regenerations.append(slot)
        self.numbers[slot] += 1

    def write(self, vault: int, name: str, value: str, tags: Mapping[str, str], before: int) -> None:
        """Writes a version if `before` is still the latest. A real vault checks nothing; keysync reads right before it writes."""
        secret = self.vaults[vault][name]
        if secret.version != before:
            raise CallFailed(FailureRecord(kind="conflict", summary="the secret changed"))
        old = secret.value
        self.vaults[vault][name] = Secret(value, before + 1, self.now(), dict(tags))
        if name != "active" or old == value:
            return
        self._left[old] = self.now()
        self._unused = {each for each in self._unused if each[0] != tags[ACTIVE_TAG]}
        if value not in map(self.key, SLOTS):
            self.violations.append(f"{self.now()}: a dead key became active")
        if vault == 0:
            self.switches += 1


@dataclass
class Faults:
    """How often a request fails. `on` ends them all at once."""

    random: Random
    rate: float
    on: bool = True

    def happens(self, share: float = 1.0) -> bool:
        """Whether a fault happens now."""
        return self.on and self.random.random() < self.rate * share


class Process:
    """One keysync over the account: an ordinary run and a step of the rotation, again and again."""

    def __init__(self, world: World, policy: Policy, random: Random, faults: Faults) -> None:
        self._world = world
        self._policy = policy
        self._random = random
        self._faults = faults
        self._version = 0  # of the active secret in the first vault, when it was last read
        self.request_seconds = REQUEST_SECONDS
        fingerprinter = Fingerprinter()
        self._fingerprinter = fingerprinter
        self._rotator = Rotator(fingerprinter, lambda _event, _slot: None)

    async def work(self) -> None:
        """Until it is cancelled."""
        while True:
            # All processes start their runs at nearly the same time, as those with one cron expression do.
            await asyncio.sleep(600 - asyncio.get_running_loop().time() % 600 + self._random.uniform(0, 2))
            try:
                await self.sync()
                decision = decide(await self.facts(), self._policy)
                if decision.is_ready(self._world.now()):
                    await self._rotator.step(self, decision)
            except (CallFailed, RotationStopped):
                continue

    async def facts(self) -> Facts:
        """The account as a run shows it. The obstacle is any secret that is not in sync."""
        reading = await self.read()
        vaults = self._world.vaults
        out_of_sync = any(vault[slot].value != self._world.key(slot) for vault in vaults for slot in SLOTS) or any(
            vault["active"].value != self._world.key(vault["active"].tags[ACTIVE_TAG]) for vault in vaults
        )
        return Facts(
            active={str(number): vault["active"].tags[ACTIVE_TAG] for number, vault in enumerate(vaults)},
            slots={
                slot: SlotFacts(reading.versions[slot], min(vault[slot].created for vault in vaults)) for slot in SLOTS
            },
            switched=max(vault["active"].created for vault in vaults),
            now=reading.now,
            claim=reading.secrets[0].claim,
            obstacle="a secret is not in sync" if out_of_sync else None,
        )

    async def keys(self) -> Mapping[str, SecretValue]:
        """Lists the keys."""
        return await self._request(lambda: {slot: SecretValue(self._world.key(slot)) for slot in SLOTS})

    async def regenerate(self, slot: str, until: float) -> None:
        """Regenerates a key."""
        if asyncio.get_running_loop().time() > until:
            raise CallFailed(FailureRecord(kind="stale", summary="too late"))
        await self._request(lambda: self._world.regenerate(slot), writes=True)

    async def prove(self, key: SecretValue) -> Proof:
        """A call of the data plane with `key`."""
        if self._faults.happens(0.5):
            return Proof("unproven", "no answer")
        live = await self._request(lambda: reveal(key) in map(self._world.key, SLOTS))
        return Proof("proven") if live else Proof("refused", "401")

    async def read(self) -> Reading:
        """Reads all secrets, each in a request of its own."""
        active: list[ActiveSecret] = []
        versions: dict[str, int] = {}
        for number, vault in enumerate(self._world.vaults):
            secret = await self._request(lambda vault=vault: Secret(**vars(vault["active"])))
            claim = Claim.parse(secret.tags.get(CLAIM_TAG, "")) if number == 0 else None
            fingerprint = self._fingerprinter.of(SecretValue(secret.value))
            active.append(ActiveSecret(fingerprint, secret.tags[ACTIVE_TAG], claim))
            if number == 0:
                self._version = secret.version
        for slot in SLOTS:
            versions[slot] = await self._request(lambda slot=slot: self._world.vaults[0][slot].version)
        return Reading(tuple(active), {slot: str(number) for slot, number in versions.items()}, self._world.now())

    async def write_claim(self, claim: Claim | None) -> None:
        """Changes the tag of the version that was read."""
        version = self._version

        def patch() -> None:
            secret = self._world.vaults[0]["active"]
            if secret.version == version:
                secret.tags = {
                    ACTIVE_TAG: secret.tags[ACTIVE_TAG],
                    **({} if claim is None else {CLAIM_TAG: str(claim)}),
                }

        await self._request(patch, writes=True)

    async def sync(self, switch: Claim | None = None) -> None:
        """One run, in each vault on its own."""
        keys = await self.keys()
        for number in reversed(range(len(self._world.vaults))):
            for slot in SLOTS:
                await self._keep(number, slot, reveal(keys[slot]))
            await self._keep_active(number, keys, switch)

    async def _keep(self, vault: int, name: str, value: str) -> None:
        current = await self._request(lambda: Secret(**vars(self._world.vaults[vault][name])))
        if current.value != value:
            write = self._world.write
            await self._request(lambda: write(vault, name, value, current.tags, current.version), writes=True)

    async def _keep_active(self, vault: int, keys: Mapping[str, SecretValue], switch: Claim | None) -> None:
        current = await self._request(lambda: Secret(**vars(self._world.vaults[vault]["active"])))
        tags = dict(current.tags)
        if switch is not None:
            tags[ACTIVE_TAG] = next(slot for slot in SLOTS if slot != switch.slot)
            if vault == 0:
                tags[CLAIM_TAG] = str(switch)
        value = reveal(keys[tags[ACTIVE_TAG]])
        if (value, tags) != (current.value, current.tags):
            write = self._world.write
            await self._request(lambda: write(vault, "active", value, tags, current.version), writes=True)

    async def _request(self, effect: Callable[[], T], *, writes: bool = False) -> T:
        """One request. That of a write has its effect up to a deadline after it was sent, even if the caller has given up."""
        slow = self._faults.happens(0.2)
        delay = self._random.uniform(0.0, REQUEST_SECONDS if slow else 0.5)
        if self._faults.happens(0.3):
            await asyncio.sleep(delay)
            raise _lost("lost before it arrived")
        sent = self._later(delay, effect)
        patience = self._random.uniform(0.0, 1.0) if writes and self._faults.happens(0.5) else REQUEST_SECONDS
        try:
            async with asyncio.timeout(patience):
                result = await sent
        except TimeoutError:
            raise _lost("no reply") from None
        if self._faults.happens(0.3):
            raise _lost("the reply was lost")
        return result

    def _later(self, delay: float, effect: Callable[[], T]) -> asyncio.Future[T]:
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def happen() -> None:
            try:
                result = effect()
            except CallFailed as failure:
                if not done.done():
                    done.set_exception(failure)
            else:
                if not done.done():
                    done.set_result(result)

        asyncio.get_running_loop().call_later(delay, happen)
        return done


def _lost(summary: str) -> CallFailed:
    return CallFailed(FailureRecord(kind="timeout", summary=summary, ambiguous=True))


async def live(world: World, policy: Policy, random: Random, *, processes: int, rate: float, days: float) -> None:
    """Lets `processes` work for `days` with faults and kills, then for two intervals without."""
    faults = Faults(random, rate)
    end = asyncio.get_running_loop().time() + days * 86_400

    async def restarted() -> None:
        while True:
            task = asyncio.create_task(Process(world, policy, random, faults).work())
            try:
                async with asyncio.timeout(random.expovariate(1 / 7200) if faults.on else None):
                    await task
            except TimeoutError:
                continue  # killed: the task was cancelled wherever it was

    tasks = [asyncio.create_task(restarted()) for _ in range(processes)]
    await asyncio.sleep(end - asyncio.get_running_loop().time())
    faults.on = False
    assert policy.every is not None
    await asyncio.sleep(2 * (policy.every + policy.grace).total_seconds())
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, asyncio.CancelledError), repr(result)
