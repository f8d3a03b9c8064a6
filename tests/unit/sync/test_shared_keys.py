"""No two accounts share a key. If two replies say so, neither is trusted."""

from __future__ import annotations

import asyncio

from keysync.failures import CallFailed, FailureRecord
from keysync.secret.value import SecretValue
from keysync.sync.collect import Collected
from keysync.sync.model import Item, Result
from keysync.sync.ownership import own_tags
from tests.support.runs import GROUP, World, key, outcomes, ref


def reasons(results: tuple[Result, ...], account: str) -> set[str | None]:
    """The reasons why secrets of an account were refused."""
    return {
        result.reason
        for result in results
        if result.ref.account == f"{GROUP}/{account}" and result.outcome == "refused"
    }


async def test_two_accounts_with_one_key_are_both_refused() -> None:
    """Any two equal keys count. The third account is written."""
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


async def test_a_plan_refuses_shared_keys_too() -> None:
    """A dry run refuses them like a run."""
    world = World("alpha", "beta")
    world.sources["beta"].values = world.sources["alpha"].values
    report = await world.run(dry_run=True)
    assert set(outcomes(report.results).values()) == {"refused"}


async def test_an_in_sync_account_with_a_shared_key_is_refused() -> None:
    """Its secrets match the reply, but it is unknown which account has these keys."""
    world = World("alpha", "beta")
    await world.run()
    world.sources["beta"].values = dict(world.sources["alpha"].values)
    log = len(world.writes())
    report = await world.run()
    assert set(outcomes(report.results).values()) == {"refused"}
    assert world.writes()[log:] == []


async def test_a_failed_vault_hides_no_shared_key() -> None:
    """The keys of an account count even if none of its secrets could be read."""
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


async def test_an_account_with_two_vaults_shares_no_key() -> None:
    """It has a work item per vault, but is one account."""
    world = World("alpha", vaults=("main", "west"))
    report = await world.run()
    assert {result.outcome for result in report.results} == {"created"}


async def test_a_late_account_with_a_shared_key_is_refused() -> None:
    """Earlier writes are not undone. The reason of the late account names the first."""
    world = World("late", "good")
    world.sources["late"].values = dict(world.sources["good"].values)
    gate = world.sources["late"].gate = asyncio.Event()
    written: list[str] = []

    def on_write() -> None:
        written.append("one")
        if len(written) == 2:
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


async def test_a_shared_key_found_during_the_writing_stops_the_rest() -> None:
    """A shared key found during the writing stops the remaining writes."""
    world = World("alpha")
    planner = await world.planner()
    plan, inputs = planner.take()
    keys = [world.fingerprinter.of(SecretValue(world.sources["alpha"].values["primary"]))]
    world.vault.on_write = lambda: planner.add(Collected(f"{GROUP}/late", keys=keys))
    results = await world.write(plan, inputs, concurrency=1)
    assert outcomes(results) == {"alpha-primary-key": "created", "alpha-secondary-key": "refused"}
    assert set(world.vault.history_of) == {"alpha-primary-key"}


async def test_the_refusal_ends_with_its_cause() -> None:
    """The next run starts without any untrusted account."""
    world = World("alpha", "beta")
    right_values = world.sources["beta"].values
    world.sources["beta"].values = dict(world.sources["alpha"].values)
    await world.run()
    world.sources["beta"].values = right_values
    report = await world.run()
    assert set(outcomes(report.results).values()) == {"created"}
    assert world.fingerprinter.of(world.vault.history_of["beta-primary-key"][-1].value) == world.fingerprinter.of(
        SecretValue(key("beta-1"))
    )


async def test_refused_secrets_still_count_as_managed() -> None:
    """A refused secret that was in sync still counts as managed for the limits."""
    world = World("alpha", "beta")
    for name in ("primary", "secondary"):
        for account in ("alpha", "beta"):
            value = world.sources[account].values[name]
            world.vault.put(f"{account}-{name}-key", value, own_tags(Item(ref(account, name))))
    world.sources["beta"].values = dict(world.sources["alpha"].values)
    plan, _ = (await world.planner()).take()
    assert [(change.kind, change.managed) for change in plan.changes] == [("refused", True)] * 4
