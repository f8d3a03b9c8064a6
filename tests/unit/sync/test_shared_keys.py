"""No two accounts have a key in common: where two replies say so, neither is believed."""

from __future__ import annotations

import asyncio

from keysync.failures import CallFailed, FailureRecord
from keysync.secret.value import SecretValue
from keysync.sync.model import Result
from keysync.sync.ownership import own_tags
from keysync.sync.plan import Item
from tests.support.runs import GROUP, World, key, outcomes, ref


def reasons(results: tuple[Result, ...], account: str) -> set[str | None]:
    """Why the secrets of an account were refused."""
    return {one.reason for one in results if one.ref.account == f"{GROUP}/{account}" and one.outcome == "refused"}


async def test_two_accounts_with_one_key_are_both_refused_by_name() -> None:
    """Whichever two of their keys are equal; the third account is written."""
    world = World("alpha", "beta", "gamma")
    world.sources["beta"].values["secondary"] = world.sources["alpha"].values["primary"]
    report = await world.run()
    assert outcomes(report.results) == {
        "alpha-primary-key": "refused",
        "alpha-secondary-key": "refused",
        "beta-primary-key": "refused",
        "beta-secondary-key": "refused",
        "gamma-primary-key": "created",
        "gamma-secondary-key": "created",
    }
    assert f"{GROUP}/beta" in str(reasons(report.results, "alpha"))
    assert f"{GROUP}/alpha" in str(reasons(report.results, "beta"))
    assert set(world.vault.history_of) == {"gamma-primary-key", "gamma-secondary-key"}
    assert report.failed


async def test_a_plan_shows_it_too() -> None:
    """A dry run refuses what a run would refuse."""
    world = World("alpha", "beta")
    world.sources["beta"].values = world.sources["alpha"].values
    report = await world.run(dry_run=True)
    assert set(outcomes(report.results).values()) == {"refused"}


async def test_an_account_in_sync_is_refused_beside_its_double() -> None:
    """Its secrets hold what the service says, but whose keys these are is not known any more."""
    world = World("alpha", "beta")
    await world.run()
    world.sources["beta"].values = dict(world.sources["alpha"].values)
    log = len(world.writes())
    report = await world.run()
    assert set(outcomes(report.results).values()) == {"refused"}
    assert world.writes()[log:] == []


async def test_a_vault_that_fails_hides_no_double() -> None:
    """The keys of an account count although none of its secrets could be read."""
    world = World("alpha", "beta")
    failure = CallFailed(FailureRecord(kind="dns", summary="no vault"))
    for name in ("primary", "secondary"):
        world.vault.failures[f"alpha-{name}-key"] = failure
    world.sources["beta"].values = dict(world.sources["alpha"].values)
    report = await world.run()
    assert outcomes(report.results) == {
        "alpha-primary-key": "failed",
        "alpha-secondary-key": "failed",
        "beta-primary-key": "refused",
        "beta-secondary-key": "refused",
    }


async def test_an_account_that_serves_two_vaults_has_no_double() -> None:
    """It is asked for each vault, and is one account all the same."""
    world = World("alpha", vaults=("main", "west"))
    report = await world.run()
    assert {result.outcome for result in report.results} == {"created"}


async def test_a_late_double_is_refused_although_the_first_was_written() -> None:
    """What was written before is not undone; the late account names the first."""
    world = World("late", "good")
    world.sources["late"].values = dict(world.sources["good"].values)
    gate = world.sources["late"].gate = asyncio.Event()
    made: list[str] = []

    def on_write() -> None:
        made.append("one")
        if len(made) == 2:
            gate.set()

    world.vault.on_write = on_write
    report = await world.run(collect_seconds=0.01)
    assert outcomes(report.results) == {
        "good-primary-key": "created",
        "good-secondary-key": "created",
        "late-primary-key": "refused",
        "late-secondary-key": "refused",
    }
    assert f"{GROUP}/good" in str(reasons(report.results, "late"))
    assert set(world.vault.history_of) == {"good-primary-key", "good-secondary-key"}


async def test_a_double_that_shows_during_the_writing_stops_what_is_not_written_yet() -> None:
    """The reasons may grow while a plan is carried out, and count from then on."""
    world = World("alpha")
    batch = await world.batch()
    plan = batch.plan()
    untrusted: dict[str, str] = {}
    batch.untrusted = untrusted
    world.vault.on_write = lambda: untrusted.update({f"{GROUP}/alpha": "the same key"})
    results = tuple(await world.applier(concurrency=1).apply(plan, batch.inputs()))
    assert outcomes(results) == {"alpha-primary-key": "created", "alpha-secondary-key": "refused"}
    assert set(world.vault.history_of) == {"alpha-primary-key"}


async def test_the_refusal_ends_with_its_cause() -> None:
    """Nothing of it is remembered: the next run judges what it is given."""
    world = World("alpha", "beta")
    true = world.sources["beta"].values
    world.sources["beta"].values = dict(world.sources["alpha"].values)
    await world.run()
    world.sources["beta"].values = true
    report = await world.run()
    assert set(outcomes(report.results).values()) == {"created"}
    assert world.fingerprinter.of(world.vault.history_of["beta-primary-key"][-1].value) == world.fingerprinter.of(
        SecretValue(key("beta-1"))
    )


async def test_a_share_of_what_is_managed_is_counted_as_before() -> None:
    """A secret that was in sync and is refused still counts among those that the limits are a share of."""
    world = World("alpha", "beta")
    for name in ("primary", "secondary"):
        for account in ("alpha", "beta"):
            value = world.sources[account].values[name]
            world.vault.put(f"{account}-{name}-key", value, own_tags(Item(ref(account, name))))
    world.sources["beta"].values = dict(world.sources["alpha"].values)
    batch = await world.batch()
    assert len(batch.in_sync) == 2
    batch.refuse({f"{GROUP}/alpha": "the same key"})
    assert batch.in_sync == []
    assert [(change.kind, change.managed) for change in batch.changes if change.ref.account.endswith("alpha")] == [
        ("refused", True)
    ] * 2
