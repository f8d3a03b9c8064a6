"""Which accounts an entry means, and what becomes of each."""

from __future__ import annotations

import fnmatch
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysync.config.settings import Account, Discover
from keysync.sources.arm_id import AccountId
from keysync.sources.filters import AccountFilter, SkippedAccount, apply_entry, pattern_of
from keysync.sources.listing import ListedAccount
from tests.support.settings import discover_of

SUB = "11111111-2222-3333-4444-555555555555"
VAULTS = {"main": "https://a.vault.azure.net", "west": "https://w.vault.azure.net", "twin": "https://a.vault.azure.net"}


def row(name: str = "renderwest", *, group: str = "rg", **more: Any) -> ListedAccount:
    return ListedAccount(AccountId(SUB, group, name), **more)


def entry(**more: Any) -> Discover:
    given: dict[str, Any] = {"subscription_id": SUB, "vaults": ["main"], **more}
    return discover_of(**{key: value for key, value in given.items() if value is not None})


def judged(found: ListedAccount, **more: Any) -> Account | SkippedAccount:
    return apply_entry(found, entry(**more), 3, VAULTS)


def skipped(found: ListedAccount, **more: Any) -> SkippedAccount:
    outcome = judged(found, **more)
    assert isinstance(outcome, SkippedAccount)
    assert outcome.entry == 3
    assert outcome.resource_id == found.id.resource_id
    return outcome


@given(st.text("aAbB*?.", max_size=8), st.text("aAbB.", max_size=8))
def test_only_star_and_question_mark_mean_anything(pattern: str, name: str) -> None:
    """Names are matched as fnmatch does, without regard to case."""
    assert bool(pattern_of(pattern).fullmatch(name)) == fnmatch.fnmatchcase(name.lower(), pattern.lower())


@pytest.mark.parametrize("pattern", ["[ab]*", "render.est", "(render)", "render+", "^renderwest$", "!render*"])
def test_what_means_something_elsewhere_is_plain_text(pattern: str) -> None:
    """Brackets and dots of other languages match themselves."""
    assert not pattern_of(pattern).fullmatch("renderwest")
    assert pattern_of(pattern.replace("*", "")).fullmatch(pattern.replace("*", ""))


@pytest.mark.parametrize(
    ("filters", "taken"),
    [
        ({}, True),
        ({"name": "RENDER*"}, True),
        ({"name": "render?est"}, True),
        ({"name": "render"}, False),
        ({"tags": {"KEYSYNC": "yes"}}, True),
        ({"tags": {"keysync": "Yes"}}, False),
        ({"tags": {"keysync": "yes", "team": "fx"}}, True),
        ({"tags": {"keysync": "yes", "team": "lighting"}}, False),
        ({"tags": {"nobody": "has"}}, False),
        ({"exclude": ["*WEST"]}, False),
        ({"exclude": ["*east", "render?est"]}, False),
        ({"exclude": ["west"]}, True),
    ],
)
def test_all_filters_have_to_agree(filters: dict[str, Any], taken: bool) -> None:
    """Names of tags are compared without case and values with it, as Resource Manager does."""
    assert AccountFilter(entry(**filters)).matches(row(tags={"Keysync": "yes", "team": "fx"})) is taken


@pytest.mark.parametrize(
    ("traits", "reason"),
    [
        ({"state": "Creating"}, "not provisioned: its state is Creating"),
        ({"state": "deleting"}, "not provisioned: its state is deleting"),
        ({"state": "Invalid"}, "not provisioned: its state is Invalid"),
        ({"pool_mode": "UserSubscription"}, "UserSubscription mode"),
        ({"modes": frozenset({"aad"})}, "does not allow SharedKey"),
        ({"modes": frozenset[str]()}, "does not allow SharedKey"),
    ],
)
def test_an_account_without_keys_is_left_out_and_nobody_has_to_do_anything(traits: dict[str, Any], reason: str) -> None:
    """It is told with the reason, and is no refusal."""
    found = skipped(row(**traits))
    assert reason in found.reason
    assert not found.refused


@pytest.mark.parametrize("state", ["Succeeded", "Failed", "Cancelled", "failed", "", "Updating"])
def test_an_account_is_served_whatever_became_of_its_last_operation(state: str) -> None:
    """Failed and Cancelled are states of that operation: the account has keys, and they are used."""
    assert isinstance(judged(row(state=state)), Account)


def test_an_account_is_served_as_its_entry_says() -> None:
    """What a listing does not tell is no reason to leave an account out; names and settings are the entry's."""
    account = judged(
        row(modes=None, state="", pool_mode=""),
        secrets={"primary": "{resource_group}-{account}", "secondary": None},
        credential={"type": "azure_cli"},
        schedule={"every": "1h"},
        read_only=True,
        adopt=True,
    )
    assert isinstance(account, Account)
    assert account.resource_id == row().id.resource_id
    assert account.secret_names() == {"primary": "rg-renderwest"}
    assert account.credential is not None
    assert account.credential.type == "azure_cli"
    assert account.schedule is not None
    assert account.read_only
    assert account.adopt


@pytest.mark.parametrize(
    ("value", "vaults"),
    [
        ("west", ("west",)),
        ("main,west", ("main", "west")),
        (" west , main ", ("west", "main")),
        ("west main west", ("west", "main")),
    ],
)
def test_a_tag_names_the_vaults(value: str, vaults: tuple[str, ...]) -> None:
    """Commas and spaces stand between several; the tag wins over `vaults`, whatever the case of its name."""
    account = judged(row(tags={"KV": value}), vaults_by_tag="kv")
    assert isinstance(account, Account)
    assert account.vaults == vaults


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("wets", "names the vault 'wets', which the configuration does not have: did you mean 'west'?"),
        ("west,zzzzzz", "there are main, west, twin"),
        ("West", "did you mean 'west'?"),
        (" , ", "is empty"),
        ("", "is empty"),
        ("main,twin", "one vault twice"),
    ],
)
def test_a_tag_that_names_no_vault_refuses_the_account(value: str, reason: str) -> None:
    """A slip in a tag must not send a key to the default vault instead."""
    found = skipped(row(tags={"kv": value}), vaults_by_tag="kv")
    assert reason in found.reason
    assert found.refused


def test_without_the_tag_the_default_counts_or_the_account_is_left_out() -> None:
    """`vaults` is for accounts that have no such tag."""
    account = judged(row(), vaults_by_tag="kv")
    assert isinstance(account, Account)
    assert account.vaults == ("main",)
    found = skipped(row(), vaults_by_tag="kv", vaults=None)
    assert "has no tag kv" in found.reason
    assert not found.refused


def test_a_name_that_no_vault_takes_refuses_the_account() -> None:
    """What a pattern makes of a group's name may be no name of a secret."""
    found = skipped(row(group="rg_1"), secrets={"primary": "{resource_group}-{account}"})
    assert "its primary key would go to 'rg_1-renderwest'" in found.reason
    assert found.refused
    long = {"primary": "{resource_group}-{account}"}
    assert "1 to 127" in skipped(row(group="g" * 90, name="a" * 24), secrets={**long, "secondary": "x" * 120 + "{account}"}).reason  # fmt: skip


@pytest.mark.parametrize(
    ("filters", "rows", "warnings"),
    [
        ({}, [], ["discover[3]: there is no Batch account in " + SUB]),
        ({"resource_groups": ["rg"]}, [], ["discover[3]: there is no Batch account in rg of " + SUB]),
        ({"name": "x*"}, [row()], ["discover[3].name: 'x*' matches none of the 1 accounts there"]),
        ({"tags": {"a": "b"}}, [row()], ["discover[3].tags: none of the 1 accounts whose name matches has a='b'"]),
        (
            {"tags": {"a": "1", "b": "2"}},
            [row(tags={"a": "1"}), row("other", tags={"b": "2"})],
            ["discover[3].tags: none of the 2 accounts whose name matches has all of the tags"],
        ),
        ({"exclude": ["x*", "r*"]}, [row()], ["discover[3].exclude: 'x*' matches none of the 1 accounts there"]),
        ({"name": "r*", "exclude": ["o*"]}, [row(), row("other")], []),
    ],
)
def test_a_filter_that_matches_nothing_is_named(
    filters: dict[str, Any], rows: list[ListedAccount], warnings: list[str]
) -> None:
    """It is likely a slip of the pen, so the warning says which filter it was."""
    sieve, counts = AccountFilter(entry(**filters)), Counter[str]()
    for each in rows:
        sieve.matches(each, counts)
    assert list(sieve.warnings(counts, 3)) == warnings
