"""The inventory: the selection of a run, and the report about other accounts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keysync.config.model import Account
from keysync.errors import UsageError
from keysync.failures import FailureRecord
from keysync.sources.discovery import Inventory, Problem
from keysync.sources.filters import SkippedAccount
from keysync.sources.shard import Shard
from keysync.sync.inventory import preflight, selected
from keysync.sync.items import Selection

SUB = "11111111-2222-3333-4444-555555555555"


def account(name: str) -> Account:
    return Account(subscription_id=SUB, resource_group="rg", name=name, vaults=("main", "west"))


ALPHA, BETA, TWIN = account("alpha"), account("beta"), account("twin")
RECORD = FailureRecord(kind="cloud_error", summary="HTTP 403: no", hint="assign a role")
REFUSED = SkippedAccount(TWIN.resource_id, "another account writes it", 1, refused=True, account=TWIN)
WITHOUT_VAULTS = SkippedAccount(account("lost").resource_id, "its tag names no vault", 0, refused=True)
WITHOUT_KEYS = SkippedAccount(account("nokeys").resource_id, "it gives no keys", 0)
INVENTORY = Inventory((ALPHA, BETA), skipped=(REFUSED, WITHOUT_KEYS), warnings=("discover[0].name: matches nothing",))


def test_accounts_are_named_by_name_or_id_without_case() -> None:
    """Without names, all accounts are selected."""
    assert selected(INVENTORY, ()) == (ALPHA, BETA)
    assert selected(INVENTORY, ("ALPHA",)) == (ALPHA,)
    assert selected(INVENTORY, (BETA.resource_id.upper(), "alpha")) == (ALPHA, BETA)


def test_each_account_is_in_one_shard() -> None:
    """Refused ones too, so that each is reported once."""
    shards = [Shard(index, 3) for index in range(3)]
    assert sorted(each.name for shard in shards for each in selected(INVENTORY, (), shard)) == ["alpha", "beta"]
    report = [preflight(INVENTORY, Selection(), shard).results for shard in shards]
    assert sorted(map(len, report)) == [0, 0, 4]


@pytest.mark.parametrize(
    ("name", "message"),
    [("gamma", "which has alpha, beta"), ("nokeys", "discover[0] finds it and skips it: it gives no keys")],
)
def test_an_unknown_name_is_a_usage_error(name: str, message: str) -> None:
    """The error names the known accounts, or why the account is skipped."""
    with pytest.raises(UsageError, match="--account") as caught:
        selected(INVENTORY, ("alpha", name))
    assert message in str(caught.value)


def test_a_message_does_not_name_ten_thousand_accounts() -> None:
    """It names twenty, and the number of the others."""
    many = Inventory(tuple(account(f"acct{number:05}") for number in range(10_000)))
    with pytest.raises(UsageError) as caught:
        selected(many, ("gamma",))
    assert str(caught.value).endswith("acct00019 and 9980 more")


def test_a_message_names_accounts_in_natural_order() -> None:
    """farm2 comes before farm10."""
    farms = Inventory(tuple(account(f"farm{number}") for number in (10, 2, 1)))
    with pytest.raises(UsageError, match=r"which has farm1, farm2, farm10$"):
        selected(farms, ("gamma",))


def test_an_unknown_name_is_a_warning_if_the_inventory_is_incomplete() -> None:
    """The account may exist. The report has a warning, and is incomplete."""
    partly = replace(INVENTORY, complete=False, problems=(Problem(f"/subscriptions/{SUB}", RECORD, 1, kept=2),))
    assert selected(partly, ("gamma",)) == ()
    report = preflight(partly, Selection(accounts=("gamma",)))
    assert report.incomplete
    assert report.results == ()
    assert any("--account gamma: not found" in warning for warning in report.warnings)
    assert any(
        warning.startswith(f"discover[1]: /subscriptions/{SUB} was not listed completely: HTTP 403: no (assign a role)")
        for warning in report.warnings
    )
    assert any("2 accounts that only an earlier listing found" in warning for warning in report.warnings)


def test_a_refused_account_has_its_items_in_the_report() -> None:
    """One per key and vault, with the reason. A refusal alone does not make the report incomplete."""
    report = preflight(INVENTORY, Selection())
    assert [(each.ref.vault, each.ref.key, each.ref.secret) for each in report.results] == [
        ("main", "primary", "twin-primary-key"),
        ("main", "secondary", "twin-secondary-key"),
        ("west", "primary", "twin-primary-key"),
        ("west", "secondary", "twin-secondary-key"),
    ]
    assert {(each.outcome, each.reason) for each in report.results} == {("refused", "another account writes it")}
    assert not report.incomplete
    assert report.warnings == INVENTORY.warnings
    assert preflight(INVENTORY, Selection(accounts=("alpha",))).results == ()


def test_a_refused_account_without_vaults_makes_the_report_incomplete() -> None:
    """It has no item, so the report is incomplete and the exit code shows it."""
    report = preflight(replace(INVENTORY, skipped=(WITHOUT_VAULTS, WITHOUT_KEYS), warnings=()), Selection())
    assert report.incomplete
    assert report.warnings == (f"{WITHOUT_VAULTS.resource_id} was refused: its tag names no vault",)
    assert selected(replace(INVENTORY, skipped=(WITHOUT_VAULTS,)), ("lost", "alpha")) == (ALPHA,)
