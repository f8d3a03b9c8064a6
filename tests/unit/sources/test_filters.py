"""Which accounts an entry matches, and the result for each."""

from __future__ import annotations

import fnmatch
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysync.config.model import Account, Discover
from keysync.sources.filters import AccountFilter, SkippedAccount, apply_entry, pattern_of
from keysync.sources.listing import AccountId, ListedAccount
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
def test_only_star_and_question_mark_are_wildcards(pattern: str, name: str) -> None:
    """Names are matched like fnmatch does, without regard to case."""
    assert bool(pattern_of(pattern).fullmatch(name)) == fnmatch.fnmatchcase(name.lower(), pattern.lower())


@pytest.mark.parametrize("pattern", ["[ab]*", "render.est", "(render)", "render+", "^renderwest$", "!render*"])
def test_other_special_characters_are_plain_text(pattern: str) -> None:
    """Brackets and dots match themselves."""
    assert not pattern_of(pattern).fullmatch("renderwest")
    assert pattern_of(pattern.replace("*", "")).fullmatch(pattern.replace("*", ""))


@pytest.mark.parametrize(
    ("filters", "matches"),
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
def test_all_filters_must_match(filters: dict[str, Any], matches: bool) -> None:
    """Tag names are compared without regard to case, tag values with it, like Resource Manager does."""
    assert AccountFilter(0, entry(**filters)).matches(row(tags={"Keysync": "yes", "team": "fx"})) is matches


@pytest.mark.parametrize(
    ("traits", "reason"),
    [
        ({"state": "Creating"}, "not provisioned: its state is Creating"),
        ({"state": "deleting"}, "not provisioned: its state is deleting"),
        ({"state": "Invalid"}, "not provisioned: its state is Invalid"),
        ({"pool_mode": "UserSubscription"}, "UserSubscription mode"),
        ({"modes": ["AAD"]}, "does not allow SharedKey"),
        ({"modes": [7]}, "does not allow SharedKey"),
        ({"modes": []}, "does not allow SharedKey"),
    ],
)
def test_an_account_without_keys_is_skipped(traits: dict[str, Any], reason: str) -> None:
    """The reason is reported. It is no refusal, since no action is needed."""
    shown = {"tags": {}, "modes": ["SharedKey"], "pool_mode": "BatchService", "state": "Succeeded", **traits}
    found = skipped(ListedAccount.of(row().id.resource_id, **shown))
    assert reason in found.reason
    assert not found.refused


@pytest.mark.parametrize("state", ["Succeeded", "Failed", "Cancelled", "failed", "", "Updating"])
def test_an_account_is_covered_after_a_failed_operation(state: str) -> None:
    """Failed and Cancelled concern that operation: the account has keys, and they are in use."""
    assert isinstance(judged(row(state=state)), Account)


def test_an_account_gets_the_settings_of_its_entry() -> None:
    """Properties missing from a listing are no reason to skip an account."""
    account = judged(
        ListedAccount.of(row().id.resource_id, None, None, None, None),
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
    """Separated by commas and spaces. The tag overrides `vaults`; the case of its name does not matter."""
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
def test_a_tag_without_a_known_vault_refuses_the_account(value: str, reason: str) -> None:
    """A typing mistake in a tag must not send a key to the default vault."""
    found = skipped(row(tags={"kv": value}), vaults_by_tag="kv")
    assert reason in found.reason
    assert found.refused


def test_without_the_tag_the_default_vaults_apply_or_the_account_is_skipped() -> None:
    """`vaults` is for accounts without the tag."""
    account = judged(row(), vaults_by_tag="kv")
    assert isinstance(account, Account)
    assert account.vaults == ("main",)
    found = skipped(row(), vaults_by_tag="kv", vaults=None)
    assert "has no tag kv" in found.reason
    assert not found.refused


def test_an_invalid_secret_name_refuses_the_account() -> None:
    """A pattern with the group's name may give an invalid secret name."""
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
def test_a_filter_without_a_match_is_named(
    filters: dict[str, Any], rows: list[ListedAccount], warnings: list[str]
) -> None:
    """It is probably a typing mistake, so the warning names the filter."""
    account_filter, counts = AccountFilter(3, entry(**filters)), Counter[str]()
    for each in rows:
        account_filter.matches(each, counts)
    assert list(account_filter.warnings(counts)) == warnings
