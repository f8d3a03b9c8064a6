"""Discovery for a share of the accounts: what each process tells is its part of what one for all would tell."""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keysync.azure.errors import AzureFailureTranslator
from keysync.config.settings import Account, Discover
from keysync.failures import CallFailed, FailureRecord
from keysync.secret.redact import Redactor
from keysync.sources.arm_id import AccountId
from keysync.sources.discovered_account import DiscoveredAccount
from keysync.sources.discovery import Discovery, DiscoveryResult
from keysync.sources.filters import SkippedAccount
from keysync.sources.listing import ListedAccount, ListingPage, ListingScope
from keysync.sources.other_shards import OtherShardSecrets
from keysync.sources.shard import everything
from tests.support.settings import discover_of

A, B = "aaaaaaaa-2222-3333-4444-555555555555", "bbbbbbbb-2222-3333-4444-555555555555"
MAIN, WEST = "https://a.vault.azure.net", "https://w.vault.azure.net"
VAULTS = {"main": MAIN, "west": WEST}
DOWN = CallFailed(FailureRecord(kind="cloud_error", summary="HTTP 403: AuthorizationFailed: no", http_status=403))

Pages: TypeAlias = dict[str, list[ListedAccount]]


@dataclass
class AccountLister:
    """Subscriptions with their accounts; those that are `down` fail behind them."""

    accounts: Pages = field(default_factory=dict)
    down: frozenset[str] = frozenset()

    def scopes(self, entry: Discover) -> Sequence[ListingScope]:
        return [
            ListingScope(f"/subscriptions/{one}", frozenset({one}), frozenset(), lambda one=one: self._pages(one))  # type: ignore[misc]
            for one in entry.scopes
        ]

    async def _pages(self, subscription: str) -> AsyncGenerator[ListingPage, None]:
        yield ListingPage(self.accounts.get(subscription, ()))
        if subscription in self.down:
            raise DOWN


def row(name: str, subscription: str = A, **more: Any) -> ListedAccount:
    return ListedAccount(AccountId(subscription, "rg", name), **more)


def entry(*subscriptions: str, **more: Any) -> Discover:
    return discover_of(**{"subscriptions": list(subscriptions), "vaults": ["main"], **more})


@dataclass
class Share:
    """The accounts of which `names` has the names; it counts who asks."""

    names: frozenset[str]
    asked: list[str] = field(default_factory=list)

    def __call__(self, resource_id: str) -> bool:
        self.asked.append(resource_id)
        return resource_id.rpartition("/")[2].lower() in self.names


def make(
    route: AccountLister, *entries: Discover, listed: Sequence[Account] = (), mine: Callable[[str], bool] | None = None
) -> Discovery:
    translator = AzureFailureTranslator(Redactor())
    return Discovery(entries, {"list": route}, translator, listed=listed, vaults=VAULTS, mine=mine or everything)


def names(listing: DiscoveryResult) -> list[str]:
    return [account.name for account in listing.accounts]


def reachable(root: object) -> list[object]:
    """What `root` is made of: containers, and objects of this project."""
    found, left = {id(root): root}, [root]
    while left:
        for one in gc.get_referents(left.pop()):
            made_here = type(one).__module__.startswith("keysync.") or isinstance(one, (dict, list, tuple))
            if id(one) not in found and made_here:
                found[id(one)] = one
                left.append(one)
    return list(found.values())


async def test_of_other_shares_no_account_is_kept() -> None:
    """Only what it takes to know them again, and which secrets they write."""
    route = AccountLister(
        {A: [row("mine"), *(row(f"other{number}") for number in range(5)), row("bare", state="Creating")]}
    )
    discovery = make(route, entry(A), mine=Share(frozenset({"mine"})))
    listing = await discovery.list()
    assert names(listing) == ["mine"]
    assert listing.skipped == ()
    kept = reachable(discovery)
    assert [one.name for one in kept if isinstance(one, Account)] == ["mine"]
    assert not any(isinstance(one, (ListedAccount, SkippedAccount)) for one in kept)
    assert sorted(one.name for one in kept if isinstance(one, DiscoveredAccount)) == [
        "bare",
        "mine",
        *(f"other{n}" for n in range(5)),
    ]


async def test_each_account_is_asked_for_its_share_once() -> None:
    """However often it is listed, also when it changed or an incomplete listing left it out."""
    route, share = AccountLister({A: [row("alpha"), row("beta")]}), Share(frozenset({"alpha"}))
    discovery = make(route, entry(A), mine=share)
    await discovery.list()
    route.accounts[A] = [row("alpha", state="Creating")]
    route.down = frozenset({A})
    await discovery.list()
    route.accounts[A], route.down = [row("alpha"), row("beta", pool_mode="UserSubscription")], frozenset()
    await discovery.list()
    assert sorted(share.asked) == [row("alpha").id.resource_id, row("beta").id.resource_id]


@pytest.mark.parametrize(("own", "other"), [(0, 1), (1, 0)])
async def test_accounts_of_two_shares_that_would_write_one_secret_are_refused_in_both(own: int, other: int) -> None:
    """Each share names the other's account, and serves its own again as soon as it is the only writer."""
    both = [row("twin"), row("twin", B)]
    route = AccountLister({A: [both[0]], B: [both[1]]})
    discovery = make(route, entry(A), entry(B), mine=_only(both[own].id.subscription))
    listing = await discovery.list()
    assert listing.accounts == ()
    (refused,) = listing.skipped
    assert (refused.resource_id, refused.entry, refused.refused) == (both[own].id.resource_id, own, True)
    assert refused.reason == (
        f"{both[other].id.resource_id} (discover[{other}]) would write the secret 'twin-primary-key' of {MAIN} too: neither is "
        "served. Give them different names, for example with {subscription_id} or {resource_group} under `secrets`"
    )
    assert not listing.others.contains(MAIN, "twin-primary-key")
    route.accounts[both[other].id.subscription] = []
    assert names(await discovery.list()) == ["twin"]


async def test_a_listed_account_of_another_share_wins_all_the_same() -> None:
    """It is none of this share's accounts, but what it writes is its."""
    listed = Account(subscription_id=B, resource_group="rg", name="alpha", vaults=("main",))
    discovery = make(
        AccountLister({A: [row("alpha")], B: [row("alpha", B)]}), entry(A, B), listed=[listed], mine=_only(A)
    )
    assert discovery.listed == ()
    assert discovery.others.contains(MAIN, "alpha-primary-key")
    listing = await discovery.list()
    assert listing.accounts == ()
    (refused,) = listing.skipped
    assert f"{listed.resource_id}, which is under `accounts` and wins" in refused.reason
    assert listing.others.contains(MAIN, "alpha-primary-key")


def _only(subscription: str) -> Callable[[str], bool]:
    return lambda resource_id: subscription in resource_id


async def test_what_another_share_writes_is_known_while_a_listing_is_not_whole() -> None:
    """Its account is not taken as gone: what it would write stays refused here, and it is counted."""
    route = AccountLister({A: [row("twin"), row("alpha")], B: [row("twin", B), row("other", B)]})
    discovery = make(route, entry(A), entry(B, name="t*"), mine=_only(A))
    await discovery.list()
    route.accounts[B], route.down = [], frozenset({B})
    listing = await discovery.list()
    assert (names(listing), listing.complete, listing.problems[0].kept) == (["alpha"], False, 1)
    assert row("twin", B).id.resource_id in listing.skipped[0].reason
    route.down = frozenset()
    listing = await discovery.list()
    assert (names(listing), listing.complete, listing.problems) == (["alpha", "twin"], True, ())


async def test_a_later_configuration_inherits_the_accounts_of_other_shares_too() -> None:
    """What is known of them outlives a reload, by entries and vaults as they are then."""
    route = AccountLister({A: [row("alpha"), row("beta")]})
    earlier = make(route, entry(A), mine=Share(frozenset({"alpha"})))
    await earlier.list()
    route.accounts, route.down = {}, frozenset({A, B})
    later = make(route, entry(B), entry(A), mine=Share(frozenset({"alpha"})))
    later.inherit(earlier)
    listing = await later.list()
    assert (names(listing), listing.entries, listing.problems[1].kept) == (["alpha"], (1,), 2)
    assert listing.others.contains(MAIN, "beta-primary-key")


async def test_where_nothing_changed_the_same_objects_are_told_again() -> None:
    """Nothing is judged anew, and nothing grows."""
    route = AccountLister({A: [row("alpha", tags={"v": "west"}), row("beta", tags={"v": "west"})]})
    discovery = make(route, entry(A, vaults_by_tag="v"), mine=Share(frozenset({"alpha"})))
    first = await discovery.list()
    again = await discovery.list()
    assert again.accounts is first.accounts
    assert again.others is first.others
    route.accounts[A] = [row("alpha", tags={"v": "west", "unasked": "x"}), row("beta", tags={"V": "main"})]
    changed = await discovery.list()
    assert changed.accounts[0] is first.accounts[0]
    assert changed.others.contains(MAIN, "beta-primary-key")
    assert not changed.others.contains(WEST, "beta-primary-key")


def test_names_beside_those_of_others() -> None:
    """Without others they are the same; with them a name counts that either has, in whatever case others spell it."""
    assert OtherShardSecrets().union(MAIN, {"own"}) == {"own"}
    listed = Account(subscription_id=A, resource_group="rg", name="Alpha", vaults=("main",))
    discovery = make(AccountLister(), listed=[listed], mine=Share(frozenset()))
    both = discovery.others.union(MAIN, {"own"})
    assert [name in both for name in ("own", "alpha-primary-key", "ALPHA-secondary-key", "beta")] == [
        True,
        True,
        True,
        False,
    ]
    assert "alpha-primary-key" not in discovery.others.union(WEST, ())


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
async def test_the_shares_together_are_the_whole(
    entries: list[Discover], steps: list[tuple[list[ListedAccount], frozenset[str]]], names: frozenset[str], listed: int
) -> None:
    """Whatever is listed, changes, collides and fails: the same accounts, refusals and reasons, each in one share."""
    route = AccountLister()
    every = frozenset({"abc", "abd", "abe", "bcd", "bce"})
    whole = make(route, *entries, listed=LISTED[:listed])
    shares = [make(route, *entries, listed=LISTED[:listed], mine=Share(one)) for one in (names, every - names)]
    for accounts, down in steps:
        route.accounts = {one: [each for each in accounts if each.id.subscription == one] for one in (A, B)}
        route.down = down
        told, (one, other) = await whole.list(), [await share.list() for share in shares]
        assert sorted((*one.accounts, *other.accounts), key=_id) == list(told.accounts)
        assert sorted((*one.skipped, *other.skipped), key=_id) == list(told.skipped)
        assert {**one.origins, **other.origins} == told.origins
        assert one.problems == other.problems == told.problems
        assert (one.warnings, one.complete) == (told.warnings, told.complete)
        for listing, beside, share in ((one, other, shares[1]), (other, one, shares[0])):
            written = _written((*beside.accounts, *share.listed))
            assert all(
                listing.others.contains(*place) == (place in written) for place in _written(told.accounts) | written
            )


def _id(one: Account | SkippedAccount) -> str:
    return one.resource_id.lower()


def _written(accounts: Sequence[Account]) -> set[tuple[str, str]]:
    return {(VAULTS[vault], name) for one in accounts for vault in one.vaults for name in one.secret_names().values()}
