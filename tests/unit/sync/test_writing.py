"""Writing with care: one writer a secret, what came back is judged again, and nothing of somebody else is overwritten."""

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
from keysync.targets.errors import WriteConflict
from keysync.targets.interface import Metadata
from tests.support.looks import item
from tests.support.memory import MemoryVault
from tests.support.runs import World, key, outcomes, ref

PRIMARY, SECONDARY = ref("alpha").secret, ref("alpha", "secondary").secret
OURS = own_tags(item())


class WatchedVault(MemoryVault):
    """Counts how many writes of one secret, and of all of them, are under way at once."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.under_way: Counter[str] = Counter()
        self.most_of_one = 0
        self.most_of_all = 0

    async def write(self, name: str, value: SecretValue, metadata: Metadata, *, before: str | None) -> str:
        """Takes its time, so that others could come between."""
        self.under_way[name] += 1
        self.most_of_one = max(self.most_of_one, self.under_way[name])
        self.most_of_all = max(self.most_of_all, self.under_way.total())
        try:
            for _ in range(5):
                await asyncio.sleep(0)
            return await super().write(name, value, metadata, before=before)
        finally:
            self.under_way[name] -= 1


def watched() -> tuple[World, WatchedVault]:
    """A world whose vault is watched."""
    world = World("alpha")
    vault = WatchedVault(world.fingerprinter, log=world.log, clock=lambda: world.now)
    world.vaults["main"] = vault
    return world, vault


def both_stale(vault: MemoryVault) -> None:
    for name, secret in (("primary", PRIMARY), ("secondary", SECONDARY)):
        vault.put(secret, key("gone"), own_tags(item("primary" if name == "primary" else "secondary")))


def alone(world: World) -> None:
    """Leaves the account its primary key only."""
    del world.sources["alpha"].values["secondary"]


@pytest.mark.parametrize("state", ["absent", "stale"])
async def test_two_runs_never_write_one_secret_together(state: str) -> None:
    """Runs that overlap take turns at each secret, go on side by side with others, and make one version together."""
    world, vault = watched()
    if state == "stale":
        both_stale(vault)
    reports = await asyncio.gather(world.run(), world.run(), world.run())
    assert (vault.most_of_one, vault.most_of_all) == (1, 2)
    assert Counter(world.writes()) == {f"write {PRIMARY}": 1, f"write {SECONDARY}": 1}
    told = Counter(result.outcome for report in reports for result in report.results)
    assert told == {"created" if state == "absent" else "updated": 2, "unchanged": 4}


@pytest.mark.parametrize("state", ["absent", "stale"])
async def test_a_run_does_not_put_an_old_key_back(state: str) -> None:
    """A run that read the account before a key was regenerated leaves what a faster one wrote, however short ago."""
    world = World("alpha")
    alone(world)
    if state == "stale":
        world.vault.put(PRIMARY, key("gone"), OURS)
    slow = await world.batch()
    plan = slow.plan()
    world.sources["alpha"].values["primary"] = key("regenerated")
    await world.run()
    (result,) = await world.applier().apply(plan, slow.inputs())
    assert result.outcome == "refused"
    assert world.vault.text(PRIMARY) == key("regenerated")


def test_what_was_written_long_ago_is_forgotten() -> None:
    """The memory of writes holds what a run under way could be older than, and no more."""
    locks = SecretLocks()
    locks.touched(ref("alpha"), 100.0, forget_before=90.0)
    assert locks.touched_since(ref("alpha"), 95.0)
    assert locks.touched_since(ref("alpha"), 100.0)
    assert not locks.touched_since(ref("alpha"), 100.1)
    assert not locks.touched_since(ref("beta"), 0.0)
    locks.touched(ref("beta"), 111.0, forget_before=101.0)
    assert not locks.touched_since(ref("alpha"), 0.0)
    assert locks.touched_since(ref("beta"), 105.0)


async def test_locks_go_by_vault_and_name_without_case() -> None:
    """Key Vault's names have no case, so neither have locks; another vault's secret of that name is another."""
    locks = SecretLocks()
    upper = type(ref("alpha"))(ref("alpha").account, "primary", "main", PRIMARY.upper())
    entered = []

    async def enter(one: Any) -> None:
        async with locks.writing(one):
            entered.append((one.vault, one.secret))

    async with locks.writing(ref("alpha")):
        tasks = [asyncio.create_task(enter(one)) for one in (upper, ref("alpha", vault="spare"))]
        for _ in range(5):
            await asyncio.sleep(0)
        assert entered == [("spare", PRIMARY)]
    await asyncio.gather(*tasks)
    assert entered[1:] == [("main", PRIMARY.upper())]


async def test_a_write_that_waits_for_another_when_the_end_comes_is_skipped() -> None:
    """Who was still waiting for its turn has written nothing, and says so."""
    world = World("alpha")
    alone(world)
    async with world.locks.writing(ref("alpha")):
        task = asyncio.create_task(world.apply(grace_seconds=0))
        for _ in range(20):
            await asyncio.sleep(0)
        world.stop.set()
        (result,) = await task
    assert (result.outcome, result.reason) == ("skipped", "interrupted before it was written")
    assert world.writes() == []


async def one_of(world: World, **settings: Any) -> Result:
    """The result of alpha's primary key in one run."""
    alone(world)
    world.items["alpha"] = settings
    (result,) = (await world.run()).results
    return result


def deleted(world: World, text: str, tags: dict[str, str] = OURS, **more: Any) -> None:
    world.vault.put(PRIMARY, text, tags, **more)
    world.vault.remove(PRIMARY)


async def test_a_recovered_secret_is_written_if_it_is_stale() -> None:
    """What came back with an old key gets the live one in one version, and keeps the tags that it came back with."""
    world = World("alpha")
    deleted(world, key("gone"), {**OURS, "cost": "7"})
    result = await one_of(world, recover=True)
    assert (result.outcome, result.verdict) == ("recovered", "soft_deleted")
    assert world.writes() == [f"recover {PRIMARY}", f"write {PRIMARY}"]
    assert world.vault.text(PRIMARY) == world.sources["alpha"].values["primary"]
    assert world.vault.latest(PRIMARY).tags == {**OURS, "cost": "7"}
    assert result.version == world.vault.latest(PRIMARY).id


async def test_a_recovered_secret_that_is_right_gets_no_version() -> None:
    """What came back with the live key is left as it is."""
    world = World("alpha")
    deleted(world, world.sources["alpha"].values["primary"])
    result = await one_of(world, recover=True)
    assert (result.outcome, result.version) == ("recovered", world.vault.latest(PRIMARY).id)
    assert world.writes() == [f"recover {PRIMARY}"]


@pytest.mark.parametrize(
    ("enable", "outcome", "writes"),
    [(True, "recovered", ["recover", "enable", "write"]), (False, "skipped", ["recover"])],
)
async def test_a_recovered_secret_that_is_disabled_stays_so_unless_configured(
    enable: bool, outcome: str, writes: list[str]
) -> None:
    """A secret that somebody disabled before it was deleted comes back disabled, and `disabled` decides what then."""
    world = World("alpha")
    deleted(world, key("gone"), enabled=False)
    assert (await one_of(world, recover=True, enable=enable)).outcome == outcome
    assert world.writes() == [f"{each} {PRIMARY}" for each in writes]


@pytest.mark.parametrize("tags", [{}, {MANAGED_BY: "terraform"}, own_tags(item(owner="them"))])
async def test_a_recovered_secret_that_turns_out_to_be_unmanaged_is_not_written(tags: dict[str, str]) -> None:
    """If somebody marks the secret in the moment when it comes back, it is theirs."""
    world = World("alpha")
    deleted(world, key("gone"))
    world.vault.on_recover = lambda name: world.vault.retag(name, tags)
    result = await one_of(world, recover=True)
    assert result.outcome == "refused"
    assert "keysync adopt" in (result.reason or "")
    assert world.writes() == [f"recover {PRIMARY}"]
    assert world.vault.text(PRIMARY) == key("gone")


async def test_a_recovery_does_not_turn_into_an_adoption() -> None:
    """A secret that was unmarked in the moment when it came back is not taken over by the way: that is for a plan to show."""
    world = World("alpha")
    deleted(world, world.sources["alpha"].values["primary"])
    world.vault.on_recover = lambda name: world.vault.retag(name, {})
    result = await one_of(world, recover=True, adopt="unmarked")
    assert result.outcome == "refused"
    assert "was changed after it was compared" in (result.reason or "")
    assert world.writes() == [f"recover {PRIMARY}"]


@pytest.mark.parametrize(("text", "writes"), [("gone", ["enable", "write"]), ("alpha-1", ["enable"])])
async def test_an_enabled_secret_is_written_only_if_it_is_stale(text: str, writes: list[str]) -> None:
    """`disabled: enable` enables a secret of ours without a version, and only then its value can be compared."""
    world = World("alpha")
    world.vault.put(PRIMARY, key(text), OURS, enabled=False)
    result = await one_of(world, enable=True)
    assert result.outcome == "updated"
    assert world.writes() == [f"{each} {PRIMARY}" for each in writes]
    assert world.vault.text(PRIMARY) == world.sources["alpha"].values["primary"]
    assert world.vault.latest(PRIMARY).enabled
    assert (await world.run()).results[0].outcome == "unchanged"


async def test_a_conflict_after_the_write_is_reported_once() -> None:
    """Another writer that overtook ours is a failure of its own kind; nothing is written a second time."""
    world = World("alpha")
    record = FailureRecord(kind="conflict", summary="somebody else wrote it right after keysync did")
    world.vault.put(PRIMARY, key("gone"), OURS)
    world.vault.write_failures[PRIMARY] = WriteConflict(record)
    result = await one_of(world)
    assert (result.outcome, result.error, result.reason) == ("failed", record, record.summary)
    assert world.writes() == [f"write {PRIMARY}"]


async def test_adopting_rests_on_a_fresh_look_too() -> None:
    """A secret that was unmarked when shown and is another tool's ten seconds later is not taken over."""
    world = World("alpha")
    alone(world)
    world.items["alpha"] = {"adopt": "unmarked"}
    world.vault.put(PRIMARY, world.sources["alpha"].values["primary"])
    batch = await world.batch()
    plan = batch.plan()
    world.monotonic += 10.1
    world.vault.retag(PRIMARY, {MANAGED_BY: "terraform"})
    (result,) = await world.applier().apply(plan, batch.inputs())
    assert (plan.changes[0].kind, result.outcome) == ("adopt", "refused")
    assert world.vault.latest(PRIMARY).tags == {MANAGED_BY: "terraform"}


async def test_only_what_is_unmanaged_is_left_to_adopt() -> None:
    """The run of `keysync adopt` takes over and reports what is not ours, and leaves everything else alone."""
    world = World("alpha", "beta")
    world.vault.put(PRIMARY, world.sources["alpha"].values["primary"])
    world.vault.put(SECONDARY, key("gone"), own_tags(item("secondary")))
    world.items["alpha"] = {"adopt": "unmarked"}
    report = await world.run(only_unmanaged=True)
    assert outcomes(report.results) == {PRIMARY: "adopted"}
    assert world.writes() == [f"patch {PRIMARY}"]


@pytest.mark.parametrize("state", ["disabled", "deleted"])
async def test_a_secret_that_came_back_keeps_within_the_budget_of_versions(state: str) -> None:
    """At 450 versions no other is made unasked, also where the secret had to be enabled or recovered first."""
    world = World("alpha")
    for _ in range(450):
        world.vault.put(PRIMARY, key("gone"), OURS, enabled=state != "disabled")
    if state == "deleted":
        world.vault.remove(PRIMARY)
    await one_of(world, enable=True, recover=True)
    assert len(world.vault.history_of[PRIMARY]) == 450


async def test_the_command_for_a_held_change_works_though_another_write_failed() -> None:
    """Where the same run failed to write another secret, the told checksum is still that of what the next one finds."""
    world = World("alpha")
    world.items["alpha"] = {"changes_per_day": 1}
    world.vault.put(PRIMARY, key("gone"), OURS)
    world.vault.write_failures[SECONDARY] = RuntimeError("denied")
    report = await world.run()
    assert outcomes(report.results) == {PRIMARY: "refused", SECONDARY: "failed"}
    accepted = await world.run(accept=report.checksum)
    assert outcomes(accepted.results)[PRIMARY] == "updated"
