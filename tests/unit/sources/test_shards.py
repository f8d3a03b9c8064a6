"""Discovery in shards: together the processes cover what one unsharded process covers."""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keysync.azure.errors import AzureFailureTranslator
from keysync.config.model import Account, Discover
from keysync.failures import CallFailed, FailureRecord
from keysync.secret.redact import Redactor
from keysync.sources.discovery import DiscoveredAccount, Discovery, Inventory
from keysync.sources.filters import SkippedAccount
from keysync.sources.listing import AccountId, ListedAccount, ListingScope
from keysync.sources.shard import share_of
from tests.support.settings import discover_of, discovery_config

A, B = "aaaaaaaa-2222-3333-4444-555555555555", "bbbbbbbb-2222-3333-4444-555555555555"
MAIN, WEST = "https://a.vault.azure.net", "https://w.vault.azure.net"
VAULTS = {"main": MAIN, "west": WEST}
DOWN = CallFailed(FailureRecord(kind="cloud_error", summary="HTTP 403: AuthorizationFailed: no", http_status=403))

Pages: TypeAlias = dict[str, list[ListedAccount]]


@dataclass
class FakeLister:
    """Subscriptions with their accounts; the listing of a `down` subscription fails at its end."""

    accounts: Pages = field(default_factory=dict)
    down: frozenset[str] = frozenset()

    def scopes(self, entry: Discover) -> Sequence[ListingScope]:
        return [
            ListingScope(f"/subscriptions/{one}", frozenset({one}), frozenset(), lambda one=one: self._pages(one))  # type: ignore[misc]
            for one in entry.scopes
        ]

    async def _pages(self, subscription: str) -> AsyncGenerator[None]:
        yield self.accounts.get(subscription, ())
        if subscription in self.down:
            raise DOWN


def row(name: str, subscription: str = A, **more: Any) -> ListedAccount:
    return ListedAccount(AccountId(subscription, "rg", name), **more)


def entry(*subscriptions: str, **more: Any) -> Discover:
    return discover_of(**{"subscriptions": list(subscriptions), "vaults": ["main"], **more})


@dataclass
class FakeShard:
    """A shard of the accounts with these `names`; it counts its calls."""

    names: frozenset[str]
    calls: list[str] = field(default_factory=list)

    def __call__(self, resource_id: str) -> bool:
        self.calls.append(resource_id)
        return resource_id.rpartition("/")[2].lower() in self.names


def make(
    lister: FakeLister, *entries: Discover, listed: Sequence[Account] = (), mine: Callable[[str], bool] | None = None
) -> Discovery:
    config = discovery_config(VAULTS, entries, listed)
    return Discovery(config, {"list": lister}, AzureFailureTranslator(Redactor()), mine=mine or share_of(None))


def names(listing: Inventory) -> list[str]:
    return [account.name for account in listing.accounts]


def reachable(root: object) -> list[object]:
    """The containers and keysync objects that are reachable from `root`."""
    found, left = {id(root): root}, [root]
    while left:
        for one in gc.get_referents(left.pop()):
            made_here = type(one).__module__.startswith("keysync.") or isinstance(one, (dict, list, tuple))
            if id(one) not in found and made_here:
                found[id(one)] = one
                left.append(one)
    return list(found.values())


async def test_accounts_of_other_shards_are_not_kept() -> None:
    """Only their identity and the secrets that they write."""
    lister = FakeLister(
        {A: [row("mine"), *(row(f"other{number}") for number in range(5)), row("bare", state="Creating")]}
    )
    discovery = make(lister, entry(A), mine=FakeShard(frozenset({"mine"})))
    listing = await discovery.list()
    assert names(listing) == ["mine"]
    assert listing.skipped == ()
    kept = reachable(discovery)
    assert [one.name for one in kept if isinstance(one, Account)] == ["mine"]
    assert not any(isinstance(one, SkippedAccount) for one in kept)
    assert sorted(one.listed.id.name for one in kept if isinstance(one, DiscoveredAccount)) == [
        "bare",
        "mine",
        *(f"other{n}" for n in range(5)),
    ]


async def test_the_shard_of_an_account_is_computed_once() -> None:
    """Also if it changed, or was missing from an incomplete listing."""
    lister, shard = FakeLister({A: [row("alpha"), row("beta")]}), FakeShard(frozenset({"alpha"}))
    discovery = make(lister, entry(A), mine=shard)
    await discovery.list()
    lister.accounts[A] = [row("alpha", state="Creating")]
    lister.down = frozenset({A})
    await discovery.list()
    lister.accounts[A], lister.down = [row("alpha"), row("beta", why_keyless="its pools are its users'")], frozenset()
    await discovery.list()
    assert sorted(shard.calls) == [row("alpha").id.resource_id, row("beta").id.resource_id]


@pytest.mark.parametrize(("own", "other"), [(0, 1), (1, 0)])
async def test_conflicting_accounts_of_two_shards_are_refused_in_both(own: int, other: int) -> None:
    """Each shard names the other's account, and covers its own again when it is the only writer."""
    both = [row("twin"), row("twin", B)]
    lister = FakeLister({A: [both[0]], B: [both[1]]})
    discovery = make(lister, entry(A), entry(B), mine=_only(both[own].id.subscription))
    listing = await discovery.list()
    assert listing.accounts == ()
    (refused,) = listing.skipped
    assert (refused.resource_id, refused.entry, refused.refused) == (both[own].id.resource_id, own, True)
    assert refused.reason == (
        f"{both[other].id.resource_id} (discover[{other}]) would write the secret 'twin-primary-key' of {MAIN} too: neither is "
        "served. Give them different names, for example with {subscription_id} or {resource_group} under `secrets`"
    )
    assert (MAIN, "twin-primary-key") not in listing.others
    lister.accounts[both[other].id.subscription] = []
    assert names(await discovery.list()) == ["twin"]


async def test_an_account_under_accounts_of_another_shard_wins() -> None:
    """It is not in this shard, but its secrets are its own."""
    listed = Account(subscription_id=B, resource_group="rg", name="alpha", vaults=("main",))
    discovery = make(FakeLister({A: [row("alpha")], B: [row("alpha", B)]}), entry(A, B), listed=[listed], mine=_only(A))
    assert discovery.static.accounts == ()
    assert (MAIN, "alpha-primary-key") in discovery.static.others
    listing = await discovery.list()
    assert listing.accounts == ()
    (refused,) = listing.skipped
    assert f"{listed.resource_id}, which is under `accounts` and wins" in refused.reason
    assert (MAIN, "alpha-primary-key") in listing.others


def _only(subscription: str) -> Callable[[str], bool]:
    return lambda resource_id: subscription in resource_id


async def test_secrets_of_another_shard_stay_known_while_a_listing_is_incomplete() -> None:
    """Its account does not count as gone: conflicts stay refused, and it is counted as kept."""
    lister = FakeLister({A: [row("twin"), row("alpha")], B: [row("twin", B), row("other", B)]})
    discovery = make(lister, entry(A), entry(B, name="t*"), mine=_only(A))
    await discovery.list()
    lister.accounts[B], lister.down = [], frozenset({B})
    listing = await discovery.list()
    assert (names(listing), listing.complete, listing.problems[0].kept) == (["alpha"], False, 1)
    assert row("twin", B).id.resource_id in listing.skipped[0].reason
    lister.down = frozenset()
    listing = await discovery.list()
    assert (names(listing), listing.complete, listing.problems) == (["alpha", "twin"], True, ())


async def test_a_new_configuration_inherits_accounts_of_other_shards() -> None:
    """With its own entries and vaults."""
    lister = FakeLister({A: [row("alpha"), row("beta")]})
    earlier = make(lister, entry(A), mine=FakeShard(frozenset({"alpha"})))
    await earlier.list()
    lister.accounts, lister.down = {}, frozenset({A, B})
    later = make(lister, entry(B), entry(A), mine=FakeShard(frozenset({"alpha"})))
    later.inherit(earlier)
    listing = await later.list()
    assert (names(listing), [*listing.origins.values()], listing.problems[1].kept) == (["alpha"], [1], 2)
    assert (MAIN, "beta-primary-key") in listing.others


async def test_without_changes_the_same_objects_are_returned() -> None:
    """Entries are not applied again, and memory does not grow."""
    lister = FakeLister({A: [row("alpha", tags={"v": "west"}), row("beta", tags={"v": "west"})]})
    discovery = make(lister, entry(A, vaults_by_tag="v"), mine=FakeShard(frozenset({"alpha"})))
    first = await discovery.list()
    again = await discovery.list()
    assert again.accounts is first.accounts
    assert again.others is first.others
    lister.accounts[A] = [row("alpha", tags={"v": "west", "unasked": "x"}), row("beta", tags={"V": "main"})]
    changed = await discovery.list()
    assert changed.accounts[0] is first.accounts[0]
    assert (MAIN, "beta-primary-key") in changed.others
    assert (WEST, "beta-primary-key") not in changed.others


def test_the_written_names_include_those_of_other_shards() -> None:
    """In lower case, and for each vault by its URL."""
    own, other = (
        Account(subscription_id=A, resource_group="rg", name=name, vaults=("main",)) for name in ("Alpha", "Beta")
    )
    inventory = make(FakeLister(), listed=[own, other], mine=FakeShard(frozenset({"alpha"}))).static
    assert [each.name for each in inventory.accounts] == ["Alpha"]
    written = inventory.written({**VAULTS, "twin": MAIN})
    names = ("alpha-primary-key", "alpha-secondary-key", "beta-primary-key", "gamma-primary-key")
    for vault, expected in (
        ("main", [True, True, True, False]),
        ("twin", [True, True, True, False]),
        ("west", [False] * 4),
    ):
        assert [name in written[vault] for name in names] == expected


rows = st.lists(
    st.builds(
        row,
        st.sampled_from(["abc", "abd", "abe", "bcd", "bce"]),
        st.sampled_from([A, B]),
        tags=st.sampled_from([{}, {"v": "west"}, {"V": "main, west"}, {"v": "nowhere"}]),
        state=st.sampled_from(["", "Succeeded", "Creating"]),
    ),
    max_size=8,
)
ENTRIES = [
    entry(A, name="a*", vaults_by_tag="v"),
    entry(A, B, name="*", secrets={"primary": "{account}", "secondary": "second-{account}"}),
    entry(B, name="b*", vaults=["west"], tags={"v": "west"}),
]
LISTED = [
    Account(subscription_id=A, resource_group="RG", name="abe", vaults=("west",)),
    Account(subscription_id=B, resource_group="RG", name="bce", vaults=("main",)),
]


@settings(max_examples=60)
@given(
    st.permutations(ENTRIES),
    st.lists(st.tuples(rows, st.frozensets(st.sampled_from([A, B]))), min_size=1, max_size=4),
    st.frozensets(st.sampled_from(["abc", "abd", "abe", "bcd", "bce"])),
    st.integers(0, 2),
)
async def test_the_shards_together_equal_the_whole(
    entries: list[Discover], steps: list[tuple[list[ListedAccount], frozenset[str]]], names: frozenset[str], listed: int
) -> None:
    """After any changes, conflicts and failures: the same accounts, refusals and reasons, each in one shard."""
    lister = FakeLister()
    every = frozenset({"abc", "abd", "abe", "bcd", "bce"})
    whole = make(lister, *entries, listed=LISTED[:listed])
    shards = [make(lister, *entries, listed=LISTED[:listed], mine=FakeShard(one)) for one in (names, every - names)]
    for accounts, down in steps:
        lister.accounts = {one: [each for each in accounts if each.id.subscription == one] for one in (A, B)}
        lister.down = down
        expected, (one, other) = await whole.list(), [await shard.list() for shard in shards]
        assert sorted((*one.accounts, *other.accounts), key=_id) == sorted(expected.accounts, key=_id)
        assert sorted((*one.skipped, *other.skipped), key=_id) == list(expected.skipped)
        assert {**one.origins, **other.origins} == expected.origins
        assert one.problems == other.problems == expected.problems
        assert (one.warnings, one.complete) == (expected.warnings, expected.complete)
        for listing, beside in ((one, other), (other, one)):
            written = _written(beside.accounts)
            assert all(
                (place in listing.others) == (place in written) for place in _written(expected.accounts) | written
            )


def _id(one: Account | SkippedAccount) -> str:
    return one.resource_id.lower()


def _written(accounts: Sequence[Account]) -> set[tuple[str, str]]:
    return {(VAULTS[vault], name) for one in accounts for vault in one.vaults for name in one.secret_names().values()}
