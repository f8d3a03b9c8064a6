"""The verdict tells from both live keys and both secrets what happened to a secret."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keysync.failures import FailureRecord
from keysync.sources.interface import KEY_NAMES, KeyName
from keysync.sync.model import ItemObservation, KeyRefused, Unobserved, Verdict
from keysync.sync.ownership import own_tags
from keysync.sync.plan import make_plan
from keysync.sync.verdict import verdict_of
from keysync.targets.interface import Absent, Disabled, Observation, SoftDeleted
from tests.support.looks import OTHER, item, look, ours, stored
from tests.support.runs import World

RECORD = FailureRecord(kind="dns", summary="no such host")


def held(name: KeyName, what: str) -> str:
    """The text of the key that a secret of `name` holds: its own, the other one, or neither."""
    return {"own": name, "other": OTHER[name]}.get(what, f"gone {name}")


def pair(name: KeyName, mine: str, theirs: str) -> tuple[ItemObservation, ItemObservation]:
    other = OTHER[name]
    return look(item(name), ours(held(name, mine), name)), look(item(other), ours(held(other, theirs), other))


@pytest.mark.parametrize("name", KEY_NAMES)
@pytest.mark.parametrize(
    ("mine", "theirs", "verdict"),
    [
        ("own", "own", "in_sync"),
        ("own", "other", "in_sync"),
        ("own", "neither", "in_sync"),
        ("other", "own", "duplicated"),
        ("other", "other", "swapped"),
        ("other", "neither", "swapped"),
        ("neither", "own", "stale"),
        ("neither", "other", "stale"),
        ("neither", "neither", "both_changed"),
    ],
)
def test_two_secrets_of_ours_are_told_by_what_they_hold(
    name: KeyName, mine: str, theirs: str, verdict: Verdict
) -> None:
    """Each of the two keys is judged alike: what a secret of ours holds, and what the other one does, decides."""
    assert verdict_of(*pair(name, mine, theirs)) == verdict


@pytest.mark.parametrize("name", KEY_NAMES)
@pytest.mark.parametrize("mark", ["none", "another tool", "certificate"])
@pytest.mark.parametrize(("mine", "verdict"), [("own", "in_sync"), ("other", "unmanaged"), ("neither", "unmanaged")])
def test_a_secret_that_is_not_ours_is_unmanaged_unless_it_is_right(
    name: KeyName, mark: str, mine: str, verdict: Verdict
) -> None:
    """Whatever else it holds, a secret of somebody else or of a certificate is foreign."""
    tags = {"none": {}, "another tool": {"managed-by": "terraform"}, "certificate": own_tags(item(name))}[mark]
    found = stored(held(name, mine), tags, managed=mark == "certificate")
    assert verdict_of(look(item(name), found), pair(OTHER[name], "neither", "own")[0]) == verdict


@pytest.mark.parametrize(
    ("observation", "verdict"),
    [(Absent(), "missing"), (Disabled("v1", {}), "disabled"), (SoftDeleted(), "soft_deleted")],
)
def test_a_secret_that_cannot_be_read_is_told_by_why(observation: Observation, verdict: Verdict) -> None:
    """A free name, a disabled and a deleted secret have verdicts of their own."""
    assert verdict_of(look(item(), observation)) == verdict


@pytest.mark.parametrize("observed", [Unobserved(item(), RECORD), KeyRefused(item(), "no base64")])
def test_what_did_not_answer_is_unknown(observed: ItemObservation) -> None:
    """Nobody guesses the state of an item of which one side is missing."""
    assert verdict_of(observed) == "unknown"


@pytest.mark.parametrize(
    "sibling",
    [
        None,
        Unobserved(item("secondary"), RECORD),
        KeyRefused(item("secondary"), "no base64"),
        look(item("secondary"), Absent()),
        look(item("secondary"), Disabled("v1", own_tags(item("secondary")))),
        look(item("secondary"), stored("gone")),
        look(item("secondary"), stored("gone", {"managed-by": "terraform"})),
        look(item("secondary"), ours("gone", "secondary", managed=True)),
    ],
    ids=["none", "unseen", "refused", "absent", "disabled", "by hand", "another tool", "certificate"],
)
def test_both_changed_takes_two_secrets_of_ours(sibling: ItemObservation | None) -> None:
    """Nobody is accused of regenerating both keys on the word of a secret that is not ours or was not seen."""
    assert verdict_of(look(item(), ours("gone")), sibling) == "stale"


@pytest.mark.parametrize("observation", [None, Absent(), Disabled("v1", {}), stored("gone")])
def test_duplicated_takes_the_other_secret_to_hold_the_same(observation: Observation | None) -> None:
    """A primary that holds the secondary key is swapped unless the secondary is seen to hold that key too."""
    sibling = look(item("secondary"), observation) if observation is not None else None
    assert verdict_of(look(item(), ours("secondary")), sibling) == "swapped"


HOLDINGS = st.sampled_from(["own", "other", "neither", "unmanaged", "absent", "disabled", "unseen"])


def observed(account: str, name: KeyName, what: str) -> ItemObservation:
    one = item(name, account)
    match what:
        case "unseen":
            return Unobserved(one, RECORD)
        case "absent":
            return look(one, Absent())
        case "disabled":
            return look(one, Disabled("v1", own_tags(one)))
        case "unmanaged":
            return look(one, stored("gone"))
    return look(one, stored(held(name, what), own_tags(one)))


@given(
    st.fixed_dictionaries({(account, name): HOLDINGS for account in ("alpha", "beta") for name in KEY_NAMES}),
    st.randoms(use_true_random=False),
)
@settings(max_examples=80)
def test_verdicts_do_not_depend_on_who_answers_first(holdings: dict[tuple[str, KeyName], str], chance: Any) -> None:
    """In whatever order observations come, each secret has the same verdict, and it is that of its own account's pair."""
    found = {place: observed(*place, what) for place, what in holdings.items()}
    shuffled = list(found.values())
    chance.shuffle(shuffled)
    told = {change.ref: change.verdict for change in make_plan(shuffled, World().now).changes}
    assert told == {
        one.item.ref: verdict_of(one, found[account, OTHER[name]]) for (account, name), one in found.items()
    }
