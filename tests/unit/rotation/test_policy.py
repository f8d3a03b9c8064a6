"""What an account needs next, from ages, tags and the time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from keysync.rotation.claim import CLAIM_LASTS, Claim
from keysync.rotation.policy import Decision, Facts, Policy, SlotFacts, decide

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
POLICY = Policy(every=90 * DAY, grace=25 * HOUR, retire=True)
BY_HAND = replace(POLICY, every=None)


def facts(
    primary: timedelta, secondary: timedelta, *, active: str = "primary", switched: timedelta | None = None
) -> Facts:
    """An account whose keys and last switch have these ages."""
    slots = {"primary": SlotFacts("p1", NOW - primary), "secondary": SlotFacts("s1", NOW - secondary)}
    age = primary if switched is None else switched
    return Facts({"main": active, "spare": active}, slots, NOW - age, NOW)


def claim(phase: str, slot: str, version: str, age: timedelta) -> Claim:
    return Claim("5bd1e995", phase, slot, version, NOW - age)  # type: ignore[arg-type]


def test_a_young_key_is_rotated_when_it_is_old() -> None:
    due = NOW + 80 * DAY
    assert decide(facts(10 * DAY, 10 * DAY), POLICY) == Decision("primary", "regenerate", "secondary", due)


def test_the_age_of_the_active_key_counts_and_not_that_of_the_other() -> None:
    decision = decide(facts(10 * DAY, 100 * DAY, active="secondary", switched=50 * DAY), POLICY)
    assert (decision.step, decision.slot, decision.due) == ("regenerate", "primary", NOW - 10 * DAY)
    assert decision.is_ready(NOW)


def test_a_rotation_can_be_done_before_it_is_due() -> None:
    assert not decide(facts(10 * DAY, 10 * DAY), POLICY).is_ready(NOW)
    assert decide(facts(10 * DAY, 10 * DAY), POLICY, early=True).is_ready(NOW)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"obstacle": "read_only is set"}, "read_only is set"),
        ({"opens": NOW + HOUR}, "the window opens at 2026-06-01 13:00 UTC"),
        (
            {"switched": NOW - HOUR},
            "consumers have until 2026-06-02 12:00 UTC to read the active key of the last switch",
        ),
        (
            {"claim": claim("rotating", "secondary", "s1", HOUR / 60)},
            "another process has begun to rotate this account",
        ),
    ],
)
def test_a_due_rotation_is_blocked(changes: dict[str, object], reason: str) -> None:
    due = facts(100 * DAY, 100 * DAY)
    assert decide(due, POLICY).is_ready(NOW)
    decision = decide(replace(due, **changes), POLICY)  # type: ignore[arg-type]
    assert decision.blocked == reason
    assert not decision.is_ready(NOW)


def test_what_is_not_due_is_not_blocked() -> None:
    assert decide(replace(facts(DAY, DAY), opens=NOW + HOUR), POLICY).blocked is None


def test_a_claim_that_nothing_came_of_expires() -> None:
    due = replace(facts(100 * DAY, 100 * DAY), claim=claim("rotating", "secondary", "s1", CLAIM_LASTS))
    assert decide(due, POLICY).is_ready(NOW)


def test_an_interrupted_rotation_goes_on_with_the_switch() -> None:
    """At once: the window, the grace and the claim hold back a regeneration only."""
    regenerated = replace(
        facts(100 * DAY, HOUR), claim=claim("rotating", "secondary", "s0", HOUR / 60), opens=NOW + HOUR
    )
    assert decide(regenerated, POLICY) == Decision("primary", "switch", "secondary", NOW)


def test_an_interrupted_switch_goes_on_in_the_vaults_that_lack_it() -> None:
    half = replace(
        facts(100 * DAY, HOUR),
        active={"main": "primary", "spare": "secondary"},
        claim=claim("rotating", "secondary", "s0", HOUR),
    )
    assert decide(half, POLICY) == Decision("primary", "switch", "secondary", NOW)


def test_vaults_that_disagree_for_no_known_reason_stop_everything() -> None:
    decision = decide(replace(facts(100 * DAY, DAY), active={"main": "primary", "spare": "secondary"}), POLICY)
    assert decision.step is None
    assert decision.blocked == "the vaults disagree about the active key, and no rotation explains it"


def test_the_left_key_is_retired_after_the_grace() -> None:
    left = claim("switched", "primary", "p1", 26 * HOUR)
    after = replace(facts(100 * DAY, 26 * HOUR, active="secondary", switched=26 * HOUR), claim=left)
    assert decide(after, POLICY) == Decision("secondary", "retire", "primary", NOW - HOUR)
    assert decide(after, replace(POLICY, retire=False)).step == "regenerate"
    assert decide(replace(after, switched=NOW - HOUR), POLICY).due == NOW + 24 * HOUR


def test_a_key_that_was_retired_is_not_retired_again() -> None:
    left = claim("retiring", "primary", "p0", HOUR)
    after = replace(facts(HOUR, 26 * HOUR, active="secondary", switched=26 * HOUR), claim=left)
    assert decide(after, POLICY).step == "regenerate"


def test_without_a_policy_only_a_key_regenerated_by_hand_is_switched_to() -> None:
    assert decide(facts(100 * DAY, 100 * DAY), BY_HAND) == Decision("primary")
    assert decide(facts(100 * DAY, HOUR), BY_HAND) == Decision("primary", "switch", "secondary", NOW)
    assert decide(facts(HOUR, 100 * DAY), BY_HAND) == Decision("primary")


def test_secrets_of_one_run_have_no_order() -> None:
    assert decide(facts(DAY + HOUR / 60, DAY), BY_HAND) == Decision("primary")


def test_a_claim_survives_its_tag() -> None:
    made = Claim.new("rotating", "secondary", "61e2cb2d0c3f4c0fa1a0e5b4d3c2b1a0", NOW)
    assert Claim.parse(str(made)) == made
    assert len(str(made)) <= 256
    assert made.nonce != Claim.new("rotating", "secondary", "61e2", NOW).nonce


@pytest.mark.parametrize(
    "text", ["", "a b c", "n other primary v 2026-06-01T12:00:00Z", "n rotating primary v yesterday"]
)
def test_a_tag_of_another_tool_is_no_claim(text: str) -> None:
    assert Claim.parse(text) is None
