"""The plan: right for every state of a vault, and without any value."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keysync.failures import CallFailed, FailureRecord
from keysync.sources.azure_batch import KEY_NAMES
from keysync.sync.model import Item, ItemPolicy, in_order
from keysync.sync.ownership import KEY, KEYSYNC, MANAGED_BY, OWNER, SOURCE, own_tags
from keysync.sync.plan import plan_account
from tests.support.runs import GROUP, World, key, ref

NOW = datetime(2026, 11, 24, tzinfo=UTC)
ACCOUNTS = ("alpha", "beta", "gamma")
STATES = (
    "absent", "ours", "ours stale", "same by hand", "other by hand", "other's same", "other's", "managed", "disabled", "deleted",
)  # fmt: skip
UNMANAGED = {"other by hand", "other's same", "other's", "managed", "disabled", "deleted"}
WORLDS = st.fixed_dictionaries({(account, name): st.sampled_from(STATES) for account in ACCOUNTS for name in KEY_NAMES})
ADOPTS = st.fixed_dictionaries({account: st.booleans() for account in ACCOUNTS})


def put(world: World, account: str, name: Any, state: str) -> None:
    item = Item(ref(account, name))
    right, wrong = world.sources[account].values[name], key("wrong")
    secret, ours, others = item.ref.secret, own_tags(item), {MANAGED_BY: "terraform"}
    match state:
        case "ours":
            world.vault.put(secret, right, ours)
        case "ours stale":
            world.vault.put(secret, wrong, ours)
        case "same by hand":
            world.vault.put(secret, right, {"team": "x"})
        case "other by hand":
            world.vault.put(secret, wrong)
        case "other's same":
            world.vault.put(secret, right, others)
        case "other's":
            world.vault.put(secret, wrong, others)
        case "managed":
            world.vault.put(secret, wrong, ours, managed=True)
        case "disabled":
            world.vault.put(secret, wrong, ours, enabled=False)
        case "deleted":
            world.vault.put(secret, wrong, {"team": "x"})
            world.vault.remove(secret)


def world_of(states: dict[tuple[str, Any], str], adopts: dict[str, bool]) -> World:
    world = World(*ACCOUNTS)
    for account, adopt in adopts.items():
        world.items[account] = {"adopt": "untagged" if adopt else "never"}
    for (account, name), state in states.items():
        put(world, account, name, state)
    return world


@given(WORLDS, ADOPTS)
@settings(max_examples=60)
def test_an_applied_plan_leaves_no_changes(states: dict[tuple[str, Any], str], adopts: dict[str, bool]):
    """After a run the next one has nothing to write, and every managed or adopted secret has the live key."""

    async def run() -> None:
        world = world_of(states, adopts)
        await world.apply()
        assert (await world.plan()).writes == ()
        for (account, name), state in states.items():
            if state not in UNMANAGED:
                assert world.vault.text(ref(account, name).secret) == world.sources[account].values[name]

    asyncio.run(run())


@given(WORLDS, ADOPTS)
@settings(max_examples=60)
def test_unmanaged_secrets_do_not_change(states: dict[tuple[str, Any], str], adopts: dict[str, bool]):
    """Secrets that are unmanaged, owned by a certificate, disabled or deleted get no version and no tag."""

    async def run() -> None:
        world = world_of(states, adopts)
        unmanaged = {ref(*each).secret for each, state in states.items() if state in UNMANAGED}
        before = {name: list(versions) for name, versions in world.vault.history_of.items() if name in unmanaged}
        await world.apply()
        assert {name: versions for name, versions in world.vault.history_of.items() if name in unmanaged} == before

    asyncio.run(run())


@given(WORLDS, ADOPTS, st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_order_does_not_matter(states: dict[tuple[str, Any], str], adopts: dict[str, bool], chance: Any):
    """The order of observations does not change the plan."""

    async def run() -> None:
        for account in await world_of(states, adopts).collect():
            observed = list(account.observed)
            changes = in_order(plan_account(observed, NOW))
            chance.shuffle(observed)
            assert in_order(plan_account(observed, NOW)) == changes
            assert [change.ref for change in changes] == sorted(change.ref for change in changes)

    asyncio.run(run())


@given(WORLDS, ADOPTS)
@settings(max_examples=30)
def test_no_value_is_in_a_plan(states: dict[tuple[str, Any], str], adopts: dict[str, bool]):
    """The plan, the collected data and the results show no key when printed."""

    async def run() -> None:
        world = world_of(states, adopts)
        collected, plan = await world.collect(), await world.plan()
        results = [change.unwritten() for change in plan.changes] + list(await world.apply())
        printed = f"{collected!r} {plan!r} {results!r} {json.dumps([result.to_dict() for result in results])}"
        values = [value for source in world.sources.values() for value in source.values.values()]
        assert not [value for value in [*values, key("wrong")] if value in printed]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("state", "kind", "reason"),
    [
        ("absent", "create", None),
        ("ours", "unchanged", None),
        ("ours stale", "update", "not the live key"),
        ("same by hand", "unchanged", "keysync adopt --secret main/alpha-primary-key --yes"),
        ("other by hand", "refused", "made by hand"),
        ("other's", "refused", "terraform"),
        ("managed", "refused", "certificate"),
        ("disabled", "skipped", "--enabled true"),
        ("deleted", "refused", "az keyvault secret recover"),
    ],
)
async def test_each_state_has_its_change_and_reason(state: str, kind: str, reason: str | None):
    """The change depends on the state in the vault. If nothing is done, the reason says why and what to do."""
    world = World("alpha")
    put(world, "alpha", "primary", state)
    change = (await world.plan()).changes[0]
    assert change.kind == kind
    assert (reason is None and change.reason is None) or (reason or "") in (change.reason or "")


async def test_an_adoption_makes_no_version():
    """An unmarked secret with the right value gets keysync's tags and keeps its own tags and version."""
    world = World("alpha")
    world.items["alpha"] = {"adopt": "untagged", "tags": {"env": "prod"}}
    put(world, "alpha", "primary", "same by hand")
    results = await world.apply()
    name = ref("alpha").secret
    assert results[0].outcome == "adopted"
    assert len(world.vault.history_of[name]) == 1
    assert world.vault.latest(name).tags == {
        "team": "x",
        "env": "prod",
        MANAGED_BY: KEYSYNC,
        SOURCE: f"{GROUP}/alpha",
        KEY: "primary",
    }


@pytest.mark.parametrize(
    "tags",
    [
        {MANAGED_BY: "terraform"},
        {MANAGED_BY: KEYSYNC, SOURCE: f"{GROUP}/alpha", KEY: "primary", OWNER: "other"},
        {MANAGED_BY: KEYSYNC, SOURCE: f"{GROUP}/beta", KEY: "primary", OWNER: "mine"},
    ],
    ids=["another tool", "another installation", "another account"],
)
async def test_a_secret_with_other_tags_is_not_adopted(tags: dict[str, str]):
    """`adopt` takes over unmarked secrets, never one with the tags of another tool, installation or account."""
    world = World("alpha")
    world.items["alpha"] = {"adopt": "untagged", "owner": "mine"}
    world.vault.put(ref("alpha").secret, world.sources["alpha"].values["primary"], tags)
    change = (await world.plan()).changes[0]
    assert change.kind in {"unchanged", "refused"}


@pytest.mark.parametrize(
    "change",
    [{MANAGED_BY: "x"}, {SOURCE: f"{GROUP}/beta"}, {KEY: "secondary"}, {OWNER: "other"}, {OWNER: ""}],
)
async def test_a_secret_is_managed_only_with_all_tags(change: dict[str, str]):
    """A secret with a tag of another account, key, owner or tool is never overwritten."""
    world = World("alpha")
    world.items["alpha"] = {"owner": "mine"}
    item = Item(ref("alpha"), ItemPolicy(owner="mine"))
    world.vault.put(item.ref.secret, key("wrong"), {**own_tags(item), **change})
    assert (await world.plan()).changes[0].kind == "refused"


async def test_arm_ids_are_compared_without_case():
    """A source tag in another case still marks the secret as managed."""
    world = World("alpha")
    item = Item(ref("alpha"))
    world.vault.put(item.ref.secret, key("wrong"), {**own_tags(item), SOURCE: item.ref.account.upper()})
    assert (await world.plan()).changes[0].kind == "update"


async def test_an_update_keeps_the_tags_of_others():
    """A new version keeps the tags and content type of other tools. keysync's and the user's tags win."""
    world = World("alpha")
    world.items["alpha"] = {"tags": {"env": "prod"}}
    item = Item(ref("alpha"))
    world.vault.put(item.ref.secret, key("wrong"), {**own_tags(item), "cost": "7", "env": "old"}, content_type="text/x")
    await world.apply()
    assert world.vault.latest(item.ref.secret).tags == {**own_tags(item), "cost": "7", "env": "prod"}
    assert world.vault.latest(item.ref.secret).content_type == "text/x"
    assert len(world.vault.history_of[item.ref.secret]) == 2


@pytest.mark.parametrize(("others", "kind"), [(12, "adopt"), (13, "refused")])
async def test_a_secret_without_room_for_tags_is_not_adopted(others: int, kind: str):
    """Fifteen tags are written. Sixteen are refused, with both numbers."""
    world = World("alpha")
    world.items["alpha"] = {"adopt": "replace"}
    world.vault.put(ref("alpha").secret, key("wrong"), {f"t{index}": "x" for index in range(others)})
    change = (await world.plan()).changes[0]
    assert change.kind == kind
    if kind == "refused":
        assert "16" in (change.reason or "")
        assert "15" in (change.reason or "")


async def test_failures_and_refusals_are_in_the_plan():
    """An item with a failed side or a refused key is one change, with the reason."""
    world = World("alpha", "beta")
    del world.sources["alpha"].values["primary"]
    world.sources["alpha"].refused["primary"] = "no base64"
    record = FailureRecord(kind="dns", summary="no such host")
    world.vault.failures[ref("beta").secret] = CallFailed(record)
    plan = (await world.planner()).take()[0]
    found = {change.ref.secret: change for change in plan.changes}
    assert (found["alpha-primary-key"].kind, found["alpha-primary-key"].reason) == ("refused", "no base64")
    assert (found["beta-primary-key"].kind, found["beta-primary-key"].reason) == ("failed", "no such host")
    assert found["beta-primary-key"].error is record
    assert {change.ref.key for change in plan.writes} == {"secondary"}
