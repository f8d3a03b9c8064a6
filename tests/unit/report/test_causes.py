"""Failures with one cause, and the names of the affected accounts."""

from __future__ import annotations

from keysync.failures import FailureRecord
from keysync.names import natural
from keysync.report.causes import affected, identity_of


def test_affected_accounts_are_a_count_with_three_names_in_natural_order() -> None:
    """farm2 comes before farm10. A single account is only named."""
    names = [f"farm{number}" for number in range(300, 0, -1)]
    assert affected(names, "account") == "300 accounts: farm1, farm2, farm3 and 297 more"
    assert affected(["farm10"], "account") == "account farm10"
    assert sorted(["farm10", "Farm2", "farm1"], key=natural) == ["farm1", "Farm2", "farm10"]


def test_a_cause_is_identified_by_codes_and_scope_not_by_message() -> None:
    """Two vaults are two causes; two times in a message are one."""
    one = FailureRecord("timeout", "at 1", about="vault a", request_id="1")
    assert identity_of(one) == identity_of(FailureRecord("timeout", "at 2", about="vault a", request_id="2"))
    assert identity_of(one) != identity_of(FailureRecord("timeout", "at 1", about="vault b"))
