"""The verdict: the state of a secret, from both keys and both secrets of its account."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keysync.failures import FailureRecord
from keysync.sources.azure_batch import KEY_NAMES
from keysync.sources.interface import KeyName
from keysync.sync.model import ItemObservation, KeyRefused, Unobserved, Verdict
from keysync.sync.ownership import own_tags
from keysync.sync.plan import make_plan
from keysync.sync.verdict import verdict_of
from keysync.targets.interface import Absent, Disabled, Observation, SoftDeleted
from tests.support.observations import OTHER, item, look, ours, stored
from tests.support.runs import World

RECORD = FailureRecord(kind="dns", summary="no such host")


def value_of(name: KeyName, what: str) -> str:
    """The text of the key in a secret of `name`: its own, the other one, or neither."""
    return {"own": name, "other": OTHER[name]}.get(what, f"gone {name}")


def pair(name: KeyName, own_value: str, other_value: str) -> tuple[ItemObservation, ItemObservation]:
    other = OTHER[name]
    return look(item(name), ours(value_of(name, own_value), name)), look(
        item(other), ours(value_of(other, other_value), other)
    )


@pytest.mark.parametrize("name", KEY_NAMES)
@pytest.mark.parametrize(
    ("own_value", "other_value", "verdict"),
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
def test_the_values_of_two_managed_secrets_decide(
    name: KeyName, own_value: str, other_value: str, verdict: Verdict
) -> None:
    """The same rules apply to both keys. The values of both secrets decide."""
    assert verdict_of(*pair(name, own_value, other_value)) == verdict


@pytest.mark.parametrize("name", KEY_NAMES)
@pytest.mark.parametrize("mark", ["none", "another tool", "certificate"])
@pytest.mark.parametrize(
    ("own_value", "verdict"), [("own", "in_sync"), ("other", "unmanaged"), ("neither", "unmanaged")]
)
def test_another_tools_secret_is_unmanaged_unless_it_is_in_sync(
    name: KeyName, mark: str, own_value: str, verdict: Verdict
) -> None:
    """With any other value, a secret of another tool or a certificate is unmanaged."""
    tags = {"none": {}, "another tool": {"managed-by": "terraform"}, "certificate": own_tags(item(name))}[mark]
    found = stored(value_of(name, own_value), tags, managed=mark == "certificate")
    assert verdict_of(look(item(name), found), pair(OTHER[name], "neither", "own")[0]) == verdict


@pytest.mark.parametrize(
    ("observation", "verdict"),
    [(Absent(), "missing"), (Disabled("v1", {}), "disabled"), (SoftDeleted(), "soft_deleted")],
)
def test_a_secret_that_cannot_be_read_has_a_verdict(observation: Observation, verdict: Verdict) -> None:
    """Absent, disabled and deleted secrets have verdicts of their own."""
    assert verdict_of(look(item(), observation)) == verdict


@pytest.mark.parametrize("observed", [Unobserved(item(), RECORD), KeyRefused(item(), "no base64")])
def test_an_item_without_a_response_is_unknown(observed: ItemObservation) -> None:
    """If one side is missing, the state is not guessed."""
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
def test_both_changed_needs_two_managed_secrets(sibling: ItemObservation | None) -> None:
    """An unmanaged or unobserved secret is no evidence that both keys were regenerated."""
    assert verdict_of(look(item(), ours("gone")), sibling) == "stale"


@pytest.mark.parametrize("observation", [None, Absent(), Disabled("v1", {}), stored("gone")])
def test_duplicated_needs_the_same_value_in_both_secrets(observation: Observation | None) -> None:
    """A primary with the secondary key is swapped, unless the secondary is known to have that key too."""
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
    return look(one, stored(value_of(name, what), own_tags(one)))


@given(
    st.fixed_dictionaries({(account, name): HOLDINGS for account in ("alpha", "beta") for name in KEY_NAMES}),
    st.randoms(use_true_random=False),
)
@settings(max_examples=80)
def test_verdicts_do_not_depend_on_the_order(holdings: dict[tuple[str, KeyName], str], chance: Any) -> None:
    """The order of observations does not change a verdict, and other accounts do not affect it."""
    found = {pair_key: observed(*pair_key, what) for pair_key, what in holdings.items()}
    shuffled = list(found.values())
    chance.shuffle(shuffled)
    verdicts = {change.ref: change.verdict for change in make_plan(shuffled, World().now).changes}
    assert verdicts == {
        one.item.ref: verdict_of(one, found[account, OTHER[name]]) for (account, name), one in found.items()
    }
