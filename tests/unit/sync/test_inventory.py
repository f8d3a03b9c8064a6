"""From a listing to what a run is about, and what its report says of the rest."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keysync.config.settings import Account
from keysync.errors import UsageError
from keysync.failures import FailureRecord
from keysync.sources.filters import SkippedAccount
from keysync.sources.list_scopes import Problem
from keysync.sources.shard import Shard
from keysync.sync.inventory import Inventory, preflight, selected

SUB = "11111111-2222-3333-4444-555555555555"


def account(name: str) -> Account:
    return Account(subscription_id=SUB, resource_group="rg", name=name, vaults=("main", "west"))


ALPHA, BETA, TWIN = account("alpha"), account("beta"), account("twin")
RECORD = FailureRecord(kind="cloud_error", summary="HTTP 403: no", hint="assign a role")
REFUSED = SkippedAccount(TWIN.resource_id, "somebody else writes it", 1, refused=True, account=TWIN)
BARE = SkippedAccount(account("lost").resource_id, "its tag names no vault", 0, refused=True)
USELESS = SkippedAccount(account("nokeys").resource_id, "it gives no keys", 0)
COVERAGE = Inventory((ALPHA, BETA), skipped=(REFUSED, USELESS), warnings=("discover[0].name: matches nothing",))


def test_accounts_are_named_by_name_or_id_without_case() -> None:
    """All where none is named."""
    assert selected(COVERAGE, ()) == (ALPHA, BETA)
    assert selected(COVERAGE, ("ALPHA",)) == (ALPHA,)
    assert selected(COVERAGE, (BETA.resource_id.upper(), "alpha")) == (ALPHA, BETA)


def test_each_account_is_in_one_shard() -> None:
    """Refused ones too, so that each is told once."""
    shards = [Shard(index, 3) for index in range(3)]
    assert sorted(one.name for shard in shards for one in selected(COVERAGE, (), shard)) == ["alpha", "beta"]
    told = [preflight(COVERAGE, (), shard).results for shard in shards]
    assert sorted(map(len, told)) == [0, 0, 4]


@pytest.mark.parametrize(
    ("name", "message"),
    [("gamma", "which has alpha, beta"), ("nokeys", "discover[0] finds it and skips it: it gives no keys")],
)
def test_a_name_that_nobody_has_is_a_usage_error(name: str, message: str) -> None:
    """With the accounts that there are, or why it is left out."""
    with pytest.raises(UsageError, match="--account") as caught:
        selected(COVERAGE, ("alpha", name))
    assert message in str(caught.value)


def test_a_message_does_not_name_ten_thousand_accounts() -> None:
    """Twenty, and how many more."""
    many = Inventory(tuple(account(f"acct{number:05}") for number in range(10_000)))
    with pytest.raises(UsageError) as caught:
        selected(many, ("gamma",))
    assert str(caught.value).endswith("acct00019 and 9980 more")


def test_a_message_names_accounts_in_natural_order() -> None:
    """farm2 comes before farm10."""
    farms = Inventory(tuple(account(f"farm{number}") for number in (10, 2, 1)))
    with pytest.raises(UsageError, match=r"which has farm1, farm2, farm10$"):
        selected(farms, ("gamma",))


def test_an_unknown_name_is_no_usage_error_where_not_all_was_listed() -> None:
    """It may well be there: the report says so, and that something is missing."""
    partly = replace(COVERAGE, complete=False, problems=(Problem(f"/subscriptions/{SUB}", RECORD, 1, kept=2),))
    assert selected(partly, ("gamma",)) == ()
    told = preflight(partly, ("gamma",))
    assert told.incomplete
    assert told.results == ()
    assert any("--account gamma: not found" in warning for warning in told.warnings)
    assert any(
        warning.startswith(f"discover[1]: /subscriptions/{SUB} was not listed completely: HTTP 403: no (assign a role)")
        for warning in told.warnings
    )
    assert any("2 accounts that only an earlier listing found" in warning for warning in told.warnings)


def test_a_refused_account_has_the_items_that_it_would_have_had() -> None:
    """One for each key and vault, with the reason; a refusal alone does not make a listing incomplete."""
    told = preflight(COVERAGE)
    assert [(each.ref.vault, each.ref.key, each.ref.secret) for each in told.results] == [
        ("main", "primary", "twin-primary-key"),
        ("main", "secondary", "twin-secondary-key"),
        ("west", "primary", "twin-primary-key"),
        ("west", "secondary", "twin-secondary-key"),
    ]
    assert {(each.outcome, each.reason) for each in told.results} == {("refused", "somebody else writes it")}
    assert not told.incomplete
    assert told.warnings == COVERAGE.warnings
    assert preflight(COVERAGE, ("alpha",)).results == ()


def test_a_refused_account_without_vaults_is_a_warning_that_counts() -> None:
    """There is no item that could say it, so the exit code has to."""
    told = preflight(replace(COVERAGE, skipped=(BARE, USELESS), warnings=()))
    assert told.incomplete
    assert told.warnings == (f"{BARE.resource_id} was refused: its tag names no vault",)
    assert selected(replace(COVERAGE, skipped=(BARE,)), ("lost", "alpha")) == (ALPHA,)
