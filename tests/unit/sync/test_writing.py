"""Writing one secret: one writer at a time, restored secrets are planned again, and nothing unmanaged is overwritten."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from keysync.failures import FailureRecord
from keysync.secret.value import SecretValue
from keysync.sync.locks import SecretLocks
from keysync.sync.model import Result
from keysync.sync.ownership import MANAGED_BY, own_tags
from keysync.targets.interface import Metadata, WriteConflict
from tests.support.memory import MemoryVault
from tests.support.observations import item
from tests.support.runs import World, key, outcomes, ref

PRIMARY, SECONDARY = ref("alpha").secret, ref("alpha", "secondary").secret
MANAGED_TAGS = own_tags(item())


class WatchedVault(MemoryVault):
    """Counts concurrent writes: of each secret, and of all."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.in_progress: Counter[str] = Counter()
        self.max_of_one = 0
        self.max_of_all = 0

    async def write(self, name: str, value: SecretValue, metadata: Metadata, *, before: str | None) -> str:
        """Gives other tasks several turns before it writes."""
        self.in_progress[name] += 1
        self.max_of_one = max(self.max_of_one, self.in_progress[name])
        self.max_of_all = max(self.max_of_all, self.in_progress.total())
        try:
            for _ in range(5):
                await asyncio.sleep(0)
            return await super().write(name, value, metadata, before=before)
        finally:
            self.in_progress[name] -= 1


def watched() -> tuple[World, WatchedVault]:
    """A world with a `WatchedVault`."""
    world = World("alpha")
    vault = WatchedVault(world.fingerprinter, log=world.log, clock=lambda: world.now)
    world.vaults["main"] = vault
    return world, vault


def both_stale(vault: MemoryVault) -> None:
    for name, secret in (("primary", PRIMARY), ("secondary", SECONDARY)):
        vault.put(secret, key("gone"), own_tags(item("primary" if name == "primary" else "secondary")))


def primary_only(world: World) -> None:
    """Removes the account's secondary key."""
    del world.sources["alpha"].values["secondary"]


@pytest.mark.parametrize("state", ["absent", "stale"])
async def test_two_runs_never_write_one_secret_at_once(state: str) -> None:
    """Concurrent runs write different secrets at the same time, but each secret once and one run at a time."""
    world, vault = watched()
    if state == "stale":
        both_stale(vault)
    reports = await asyncio.gather(world.run(), world.run(), world.run())
    assert (vault.max_of_one, vault.max_of_all) == (1, 2)
    assert Counter(world.writes()) == {f"write {PRIMARY}": 1, f"write {SECONDARY}": 1}
    counts = Counter(result.outcome for report in reports for result in report.results)
    assert counts == {"created" if state == "absent" else "updated": 2, "unchanged": 4}


@pytest.mark.parametrize("state", ["absent", "stale"])
async def test_a_slow_run_does_not_write_an_old_key(state: str) -> None:
    """A run that read the account before a key was regenerated does not overwrite the new key of a faster run."""
    world = World("alpha")
    primary_only(world)
    if state == "stale":
        world.vault.put(PRIMARY, key("gone"), MANAGED_TAGS)
    plan, inputs = (await world.planner()).take()
    world.sources["alpha"].values["primary"] = key("regenerated")
    await world.run()
    (result,) = await world.write(plan, inputs)
    assert result.outcome == "refused"
    assert world.vault.text(PRIMARY) == key("regenerated")


def test_old_records_of_writes_are_dropped() -> None:
    """Records of writes are dropped once no run in progress can have started before them."""
    now = [100.0]
    locks = SecretLocks(lambda: now[0])
    locks.touched(ref("alpha"))
    assert locks.touched_since(ref("alpha"), 95.0)
    assert locks.touched_since(ref("alpha"), 100.0)
    assert not locks.touched_since(ref("alpha"), 100.1)
    assert not locks.touched_since(ref("beta"), 0.0)
    now[0] = 701.0
    locks.touched(ref("beta"))
    assert not locks.touched_since(ref("alpha"), 0.0)
    assert locks.touched_since(ref("beta"), 695.0)


async def test_locks_are_by_vault_and_name_without_case() -> None:
    """Key Vault ignores case, so locks do too. A secret of the same name in another vault has its own lock."""
    locks = SecretLocks()
    upper = type(ref("alpha"))(ref("alpha").account, "primary", "main", PRIMARY.upper())
    entered = []

    async def enter(one: Any) -> None:
        async with locks.lock(one):
            entered.append((one.vault, one.secret))

    async with locks.lock(ref("alpha")):
        tasks = [asyncio.create_task(enter(one)) for one in (upper, ref("alpha", vault="spare"))]
        for _ in range(5):
            await asyncio.sleep(0)
        assert entered == [("spare", PRIMARY)]
    await asyncio.gather(*tasks)
    assert entered[1:] == [("main", PRIMARY.upper())]


async def test_a_write_that_waits_at_the_stop_is_skipped() -> None:
    """A write that still waits for its lock at the stop is skipped, and its reason says so."""
    world = World("alpha")
    primary_only(world)
    async with world.locks.lock(ref("alpha")):
        task = asyncio.create_task(world.apply(grace_seconds=0))
        for _ in range(20):
            await asyncio.sleep(0)
        world.stop.set()
        (result,) = await task
    assert (result.outcome, result.reason) == ("skipped", "interrupted before it was written")
    assert world.writes() == []


async def one_of(world: World, **settings: Any) -> Result:
    """The result of alpha's primary key in one run."""
    primary_only(world)
    world.items["alpha"] = settings
    (result,) = (await world.run()).results
    return result


def deleted(world: World, text: str, tags: dict[str, str] = MANAGED_TAGS, **more: Any) -> None:
    world.vault.put(PRIMARY, text, tags, **more)
    world.vault.remove(PRIMARY)


async def test_a_recovered_secret_is_written_if_it_is_stale() -> None:
    """A recovered secret with an old key gets the current one in one version, and keeps its tags."""
    world = World("alpha")
    deleted(world, key("gone"), {**MANAGED_TAGS, "cost": "7"})
    result = await one_of(world, recover=True)
    assert (result.outcome, result.verdict) == ("recovered", "soft_deleted")
    assert world.writes() == [f"recover {PRIMARY}", f"write {PRIMARY}"]
    assert world.vault.text(PRIMARY) == world.sources["alpha"].values["primary"]
    assert world.vault.latest(PRIMARY).tags == {**MANAGED_TAGS, "cost": "7"}
    assert result.version == world.vault.latest(PRIMARY).id


async def test_a_recovered_secret_in_sync_gets_no_version() -> None:
    """A recovered secret with the current key does not change."""
    world = World("alpha")
    deleted(world, world.sources["alpha"].values["primary"])
    result = await one_of(world, recover=True)
    assert (result.outcome, result.version) == ("recovered", world.vault.latest(PRIMARY).id)
    assert world.writes() == [f"recover {PRIMARY}"]


@pytest.mark.parametrize(
    ("enable", "outcome", "writes"),
    [(True, "recovered", ["recover", "enable", "write"]), (False, "skipped", ["recover"])],
)
async def test_a_recovered_secret_is_enabled_only_if_configured(enable: bool, outcome: str, writes: list[str]) -> None:
    """A secret that was disabled before it was deleted is still disabled. `disabled` decides what happens then."""
    world = World("alpha")
    deleted(world, key("gone"), enabled=False)
    assert (await one_of(world, recover=True, enable=enable)).outcome == outcome
    assert world.writes() == [f"{each} {PRIMARY}" for each in writes]


@pytest.mark.parametrize("tags", [{}, {MANAGED_BY: "terraform"}, own_tags(item(owner="them"))])
async def test_a_recovered_unmanaged_secret_is_not_written(tags: dict[str, str]) -> None:
    """If another tool tags the secret during the recovery, it is unmanaged."""
    world = World("alpha")
    deleted(world, key("gone"))
    world.vault.on_recover = lambda name: world.vault.retag(name, tags)
    result = await one_of(world, recover=True)
    assert result.outcome == "refused"
    assert "keysync adopt" in (result.reason or "")
    assert world.writes() == [f"recover {PRIMARY}"]
    assert world.vault.text(PRIMARY) == key("gone")


async def test_a_recovery_does_not_become_an_adoption() -> None:
    """A secret that lost its tags during the recovery is not adopted, since no plan has shown that."""
    world = World("alpha")
    deleted(world, world.sources["alpha"].values["primary"])
    world.vault.on_recover = lambda name: world.vault.retag(name, {})
    result = await one_of(world, recover=True, adopt="untagged")
    assert result.outcome == "refused"
    assert "was changed after it was compared" in (result.reason or "")
    assert world.writes() == [f"recover {PRIMARY}"]


@pytest.mark.parametrize(("text", "writes"), [("gone", ["enable", "write"]), ("alpha-1", ["enable"])])
async def test_an_enabled_secret_is_written_only_if_it_is_stale(text: str, writes: list[str]) -> None:
    """`disabled: enable` enables a managed secret without a version. Then its value is compared."""
    world = World("alpha")
    world.vault.put(PRIMARY, key(text), MANAGED_TAGS, enabled=False)
    result = await one_of(world, enable=True)
    assert result.outcome == "updated"
    assert world.writes() == [f"{each} {PRIMARY}" for each in writes]
    assert world.vault.text(PRIMARY) == world.sources["alpha"].values["primary"]
    assert world.vault.latest(PRIMARY).enabled
    assert (await world.run()).results[0].outcome == "unchanged"


async def test_a_conflict_after_the_write_is_reported_once() -> None:
    """A conflict with another writer is a failure, and nothing is written again."""
    world = World("alpha")
    record = FailureRecord(kind="conflict", summary="another tool wrote it right after keysync did")
    world.vault.put(PRIMARY, key("gone"), MANAGED_TAGS)
    world.vault.write_failures[PRIMARY] = WriteConflict(record)
    result = await one_of(world)
    assert (result.outcome, result.error, result.reason) == ("failed", record, record.summary)
    assert world.writes() == [f"write {PRIMARY}"]


async def test_an_adoption_needs_a_fresh_read() -> None:
    """A secret that was unmarked in the plan and has another tool's tags ten seconds later is not adopted."""
    world = World("alpha")
    primary_only(world)
    world.items["alpha"] = {"adopt": "untagged"}
    world.vault.put(PRIMARY, world.sources["alpha"].values["primary"])
    plan, inputs = (await world.planner()).take()
    world.monotonic += 10.1
    world.vault.retag(PRIMARY, {MANAGED_BY: "terraform"})
    (result,) = await world.write(plan, inputs)
    assert (plan.changes[0].kind, result.outcome) == ("adopt", "refused")
    assert world.vault.latest(PRIMARY).tags == {MANAGED_BY: "terraform"}


async def test_adopt_covers_only_unmanaged_secrets() -> None:
    """A run of `keysync adopt` adopts and reports unmanaged secrets, and no others."""
    world = World("alpha", "beta")
    world.vault.put(PRIMARY, world.sources["alpha"].values["primary"])
    world.vault.put(SECONDARY, key("gone"), own_tags(item("secondary")))
    world.items["alpha"] = {"adopt": "untagged"}
    report = await world.run(only_unmanaged=True)
    assert outcomes(report.results) == {PRIMARY: "adopted"}
    assert world.writes() == [f"patch {PRIMARY}"]


@pytest.mark.parametrize("state", ["disabled", "deleted"])
async def test_a_restored_secret_is_within_the_limit_of_versions(state: str) -> None:
    """At 450 versions another needs `--accept`, even if the secret was enabled or recovered first."""
    world = World("alpha")
    for _ in range(450):
        world.vault.put(PRIMARY, key("gone"), MANAGED_TAGS, enabled=state != "disabled")
    if state == "deleted":
        world.vault.remove(PRIMARY)
    await one_of(world, enable=True, recover=True)
    assert len(world.vault.history_of[PRIMARY]) == 450


async def test_the_suggested_checksum_covers_failed_writes() -> None:
    """If another write failed, the checksum covers it too, as the next run plans it again."""
    world = World("alpha")
    world.items["alpha"] = {"changes_per_day": 1}
    world.vault.put(PRIMARY, key("gone"), MANAGED_TAGS)
    world.vault.write_failures[SECONDARY] = RuntimeError("denied")
    report = await world.run()
    assert outcomes(report.results) == {PRIMARY: "refused", SECONDARY: "failed"}
    accepted = await world.run(accept=report.checksum)
    assert outcomes(accepted.results)[PRIMARY] == "updated"
