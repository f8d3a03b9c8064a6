"""How the affected of one cause are named, and what is counted for `--accept`."""

from __future__ import annotations

from keysync.failures import FailureRecord
from keysync.sync.causes import affected, identity_of, natural
from keysync.sync.limits import held_message


def test_the_affected_are_a_count_with_three_names_in_natural_order() -> None:
    """farm2 comes before farm10; one is named alone."""
    names = [f"farm{number}" for number in range(300, 0, -1)]
    assert affected(names, "account") == "300 accounts: farm1, farm2, farm3 and 297 more"
    assert affected(["farm10"], "account") == "account farm10"
    assert sorted(["farm10", "Farm2", "farm1"], key=natural) == ["farm1", "Farm2", "farm10"]


def test_one_cause_is_known_by_codes_and_subject_and_never_by_a_message() -> None:
    """Two vaults are two causes, two times are one."""
    one = FailureRecord("timeout", "at 1", about="vault a", request_id="1")
    assert identity_of(one) == identity_of(FailureRecord("timeout", "at 2", about="vault a", request_id="2"))
    assert identity_of(one) != identity_of(FailureRecord("timeout", "at 1", about="vault b"))


def test_accepting_a_held_orphan_says_how_many_changes_it_makes() -> None:
    """The change itself is one of them."""
    assert held_message("To disable it", {"disable": 3}, "X") == "To disable it (it makes all that waits: 3 disable): X"
    assert held_message("To disable it", {"disable": 1}, "X") == "To disable it: X"
