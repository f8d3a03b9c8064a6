"""The verdict: the state of a secret, from both keys and both secrets of its account."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keysync.sources.azure_batch import KEY_NAMES
from keysync.sources.interface import KeyName
from keysync.sync.model import Observed, Verdict
from keysync.sync.ownership import own_tags
from keysync.sync.plan import plan_account, verdict_of
from keysync.targets.interface import Absent, Disabled, Observation, SoftDeleted
from tests.support.observations import OTHER, item, look, ours, print_of, stored
from tests.support.runs import World


def value_of(name: KeyName, what: str) -> str:
    """The text of the key in a secret of `name`: its own, the other one, or neither."""
    return {"own": name, "other": OTHER[name]}.get(what, f"gone {name}")


def pair(name: KeyName, own_value: str, other_value: str) -> tuple[Observed, Observed]:
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
    both = pair(name, own_value, other_value)
    assert verdict_of(both[0], both) == verdict


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
    assert verdict_of(look(item(name), found), [pair(OTHER[name], "neither", "own")[0]]) == verdict


@pytest.mark.parametrize(
    ("observation", "verdict"),
    [(Absent(), "missing"), (Disabled("v1", {}), "disabled"), (SoftDeleted(), "soft_deleted")],
)
def test_a_secret_that_cannot_be_read_has_a_verdict(observation: Observation, verdict: Verdict) -> None:
    """Absent, disabled and deleted secrets have verdicts of their own."""
    assert verdict_of(look(item(), observation)) == verdict


@pytest.mark.parametrize(
    "sibling",
    [
        None,
        look(item("secondary"), Absent()),
        look(item("secondary"), Disabled("v1", own_tags(item("secondary")))),
        look(item("secondary"), stored("gone")),
        look(item("secondary"), stored("gone", {"managed-by": "terraform"})),
        look(item("secondary"), ours("gone", "secondary", managed=True)),
    ],
    ids=["none", "absent", "disabled", "by hand", "another tool", "certificate"],
)
def test_both_changed_needs_two_managed_secrets(sibling: Observed | None) -> None:
    """An unmanaged or unobserved secret is no evidence that both keys were regenerated."""
    assert verdict_of(look(item(), ours("gone")), [sibling] if sibling else []) == "stale"


@pytest.mark.parametrize("observation", [None, Absent(), Disabled("v1", {}), stored("gone")])
def test_duplicated_needs_the_same_value_in_both_secrets(observation: Observation | None) -> None:
    """A primary with the secondary key is swapped, unless the secondary is known to have that key too."""
    sibling = look(item("secondary"), observation) if observation is not None else None
    assert verdict_of(look(item(), ours("secondary")), [sibling] if sibling else []) == "swapped"


HOLDINGS = st.sampled_from(["own", "other", "neither", "unmanaged", "absent", "disabled", "unseen"])


def observed(account: str, name: KeyName, what: str) -> Observed | None:
    one = item(name, account)
    match what:
        case "unseen":
            return None
        case "absent":
            return look(one, Absent())
        case "disabled":
            return look(one, Disabled("v1", own_tags(one)))
        case "unmanaged":
            return look(one, stored("gone"))
    return look(one, stored(value_of(name, what), own_tags(one)))


@given(st.fixed_dictionaries(dict.fromkeys(KEY_NAMES, HOLDINGS)), st.booleans())
@settings(max_examples=80)
def test_verdicts_do_not_depend_on_the_order(holdings: dict[KeyName, str], reverse: bool) -> None:
    """The order of observations does not change a verdict, and an item that was not observed is no evidence."""
    found = {name: one for name, what in holdings.items() if (one := observed("alpha", name, what))}
    changes = plan_account(list(found.values())[:: -1 if reverse else 1], World().now)
    assert {change.ref.key: change.verdict for change in changes} == {
        name: verdict_of(one, [other for other in found.values() if other is not one]) for name, one in found.items()
    }


def three(*texts: str) -> list[Observed]:
    """The secrets of the keys one, two and three, with these values."""
    names = ("one", "two", "three")
    keys = {name: print_of(name) for name in names}
    items = [item(name) for name in names]
    return [Observed(one, keys, stored(text, own_tags(one))) for one, text in zip(items, texts, strict=True)]


@pytest.mark.parametrize(
    ("texts", "verdicts"),
    [
        (("one", "two", "three"), ["in_sync"] * 3),
        (("two", "two", "three"), ["duplicated", "in_sync", "in_sync"]),
        (("two", "three", "one"), ["swapped"] * 3),
        (("gone", "gone", "three"), ["stale", "stale", "in_sync"]),
        (("gone", "gone", "gone"), ["both_changed"] * 3),
        (("gone", "one", "gone"), ["stale", "swapped", "stale"]),
    ],
)
def test_an_account_may_have_three_keys(texts: tuple[str, ...], verdicts: list[Verdict]) -> None:
    """Each secret is compared with every key of its account."""
    items = three(*texts)
    assert [verdict_of(one, items) for one in items] == verdicts
