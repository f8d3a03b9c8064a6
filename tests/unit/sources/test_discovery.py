"""Listings that are whole, that fail, and what is remembered of earlier ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from keysync.azure.errors import AzureFailureTranslator
from keysync.config.settings import Account, Discover
from keysync.failures import CallFailed, FailureRecord
from keysync.secret.redact import Redactor
from keysync.sources.arm_id import AccountId
from keysync.sources.discovery import Discovery, DiscoveryResult
from keysync.sources.listing import ListedAccount, ListingPage, ListingScope, UnlistedScope
from tests.support.settings import discover_of

A, B = "aaaaaaaa-2222-3333-4444-555555555555", "bbbbbbbb-2222-3333-4444-555555555555"
VAULTS = {"main": "https://a.vault.azure.net", "west": "https://w.vault.azure.net"}


@dataclass
class MemoryRoute:
    """Subscriptions with pages of accounts; an exception among the pages is raised there."""

    pages: dict[str, list[list[ListedAccount] | Exception]] = field(default_factory=dict)
    listed: list[str] = field(default_factory=list)
    unlisted: Sequence[UnlistedScope] = ()
    hang: asyncio.Event | None = None
    hanging: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, subscription: str, *pages: list[str] | Exception, **more: Any) -> None:
        self.pages[subscription] = [
            page
            if isinstance(page, Exception)
            else [ListedAccount(AccountId(subscription, "rg", name), **more) for name in page]
            for page in pages
        ]

    def scopes(self, entry: Discover) -> Sequence[ListingScope]:
        groups = frozenset(group.lower() for group in entry.resource_groups)
        return [
            ListingScope(f"/subscriptions/{one}", frozenset({one}), groups, lambda one=one: self._pages(one))  # type: ignore[misc]
            for one in entry.scopes
        ]

    async def _pages(self, subscription: str) -> AsyncGenerator[ListingPage, None]:
        self.listed.append(subscription)
        for page in self.pages[subscription]:
            if isinstance(page, Exception):
                raise page
            yield ListingPage(page, self.unlisted)
        if self.hang is not None:
            self.hanging.set()
            await self.hang.wait()


DOWN = CallFailed(FailureRecord(kind="cloud_error", summary="HTTP 403: AuthorizationFailed: no", http_status=403))


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def entry(*subscriptions: str, **more: Any) -> Discover:
    return discover_of(**{"subscriptions": list(subscriptions), "vaults": ["main"], **more})


def make(route: MemoryRoute, *entries: Discover, listed: Sequence[Account] = (), **more: Any) -> Discovery:
    return Discovery(
        entries,
        {"list": route},
        AzureFailureTranslator(Redactor()),
        listed=listed,
        vaults=VAULTS,
        **{"seconds": 5, **more},
    )


def names(listing: DiscoveryResult) -> list[str]:
    return [account.name for account in listing.accounts]


async def test_all_pages_of_all_subscriptions_come_together() -> None:
    """Accounts of each, in the order of their ids, with the entry that found them."""
    route = MemoryRoute()
    route.put(A, ["alpha"], ["beta"])
    route.put(B, ["gamma"])
    listing = await make(route, entry(B), entry(A)).list()
    assert names(listing) == ["alpha", "beta", "gamma"]
    assert [listing.origins[account.resource_id] for account in listing.accounts] == [1, 1, 0]
    assert listing.complete
    assert (listing.problems, listing.warnings, listing.skipped) == ((), (), ())


async def test_a_failing_page_leaves_what_was_found_and_says_so() -> None:
    """The other subscription is not touched, and the listing is not complete."""
    route = MemoryRoute()
    route.put(A, ["alpha"], DOWN)
    route.put(B, ["gamma"])
    listing = await make(route, entry(A, B)).list()
    assert names(listing) == ["alpha", "gamma"]
    assert not listing.complete
    (problem,) = listing.problems
    assert (problem.scope, problem.record, problem.entry, problem.kept) == (f"/subscriptions/{A}", DOWN.record, 0, 0)


async def test_what_an_earlier_listing_found_stays_while_a_later_one_is_not_whole() -> None:
    """Of the subscription that failed nothing is taken as gone; of the other one it is; then all is as Azure says."""
    route = MemoryRoute()
    route.put(A, ["alpha"], ["beta"])
    route.put(B, ["gamma", "delta"])
    discovery = make(route, entry(A, B))
    await discovery.list()
    route.put(A, ["alpha", "epsilon"], DOWN)
    route.put(B, ["gamma"])
    for _ in range(2):
        listing = await discovery.list()
        assert names(listing) == ["alpha", "beta", "epsilon", "gamma"]
        assert not listing.complete
        assert listing.problems[0].kept == 1
    route.put(A, ["alpha"])
    listing = await discovery.list()
    assert names(listing) == ["alpha", "gamma"]
    assert listing.complete


async def test_nobody_waits_for_a_listing_that_hangs() -> None:
    """What came before the deadline counts, and the record says that it was the deadline."""
    route = MemoryRoute(hang=asyncio.Event())
    route.put(A, ["alpha"])
    listing = await make(route, entry(A), seconds=0.05).list()
    assert names(listing) == ["alpha"]
    assert not listing.complete
    assert listing.problems[0].record.kind == "timeout"


async def test_a_listing_that_is_cancelled_ends_its_calls() -> None:
    """No task is left behind."""
    route = MemoryRoute(hang=asyncio.Event())
    route.put(A, ["alpha"])
    task = asyncio.create_task(make(route, entry(A)).list())
    await route.hanging.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_whatever_a_reply_makes_go_wrong_is_one_scopes_failure() -> None:
    """An exception that nobody foresaw is a record too."""
    route = MemoryRoute()
    route.put(A, TypeError("surprise"))
    route.put(B, ["gamma"])
    listing = await make(route, entry(A, B)).list()
    assert names(listing) == ["gamma"]
    assert listing.problems[0].record.kind == "internal"
    assert "surprise" not in listing.problems[0].record.summary


async def test_an_entry_with_its_own_interval_is_listed_when_it_is_due() -> None:
    """Without one at each run; with one when it is over, or at once where the last listing was not whole."""
    route, clock = MemoryRoute(), Clock()
    route.put(A, ["alpha"])
    route.put(B, ["gamma"])
    discovery = make(route, entry(A, every="10m"), entry(B), monotonic=clock)

    async def listed() -> list[str]:
        route.listed.clear()
        await discovery.list()
        return sorted(route.listed)

    assert await listed() == [A, B]
    clock.now = 300
    assert await listed() == [B]
    clock.now = 599
    assert await listed() == [A, B]
    route.put(A, DOWN)
    clock.now = 1200
    assert await listed() == [A, B]
    clock.now = 1201
    assert await listed() == [A, B]
    route.put(A, ["alpha"])
    clock.now = 1202
    assert await listed() == [A, B]
    clock.now = 1203
    assert await listed() == [B]


async def test_a_listed_account_is_not_discovered_again() -> None:
    """What stands under `accounts` wins, however its id is spelt."""
    route = MemoryRoute()
    route.put(A, ["Alpha", "beta"])
    mine = Account(subscription_id=A, resource_group="RG", name="alpha", vaults=("west",))
    listing = await make(route, entry(A), listed=[mine]).list()
    assert names(listing) == ["beta"]
    assert not listing.skipped


async def test_the_first_entry_that_finds_an_account_has_it() -> None:
    """Two entries that mean one account are no conflict."""
    route = MemoryRoute()
    route.put(A, ["alpha", "beta"])
    listing = await make(route, entry(A, name="b*", vaults=["west"]), entry(A)).list()
    assert {account.name: account.vaults for account in listing.accounts} == {"alpha": ("main",), "beta": ("west",)}


@pytest.mark.parametrize(
    ("first", "vault"),
    [
        ({}, "west"),
        ({"name": "b*"}, "main"),
        ({"resource_groups": ["RG"]}, "west"),
        ({"resource_groups": ["x"]}, "main"),
    ],
)
async def test_a_failure_moves_no_account_to_another_entrys_vaults(first: dict[str, Any], vault: str) -> None:
    """An account that an earlier entry would have found is its, even in the first listing, when that one failed."""
    down, up = MemoryRoute(), MemoryRoute()
    down.put(A, DOWN)
    up.put(A, ["alpha"])
    entries = [entry(A, vaults=["west"], **first), entry(A, via="resource_graph")]
    routes = {"list": down, "resource_graph": up}
    listing = await Discovery(entries, routes, AzureFailureTranslator(Redactor()), listed=(), vaults=VAULTS).list()
    assert [account.vaults for account in listing.accounts] == [(vault,)]


async def test_conflicts_across_entries_are_refused() -> None:
    """Whoever found them, both are left out, and an account without keys is left out beside them."""
    route = MemoryRoute()
    route.put(A, ["alpha"])
    route.put(B, ["alpha"])
    discovery = make(route, entry(A), entry(B))
    listing = await discovery.list()
    assert listing.accounts == ()
    assert [(one.entry, one.refused) for one in listing.skipped] == [(0, True), (1, True)]
    assert listing.complete
    route.put(B, ["alpha"], pool_mode="UserSubscription")
    listing = await discovery.list()
    assert names(listing) == ["alpha"]
    assert [(one.entry, one.refused) for one in listing.skipped] == [(1, False)]


async def test_an_account_that_did_not_change_is_the_same_object_under_the_same_spelling() -> None:
    """Resource Manager spells ids now this way, now that; the first spelling stays."""
    route = MemoryRoute()
    route.put(A, ["alpha"])
    discovery = make(route, entry(A))
    (first,) = (await discovery.list()).accounts
    assert (await discovery.list()).accounts[0] is first
    route.pages[A] = [[ListedAccount(AccountId(A.upper(), "RG", "Alpha"))]]
    (again,) = (await discovery.list()).accounts
    assert again.resource_id == first.resource_id
    route.pages[A] = [[ListedAccount(AccountId(A, "rg", "alpha"), pool_mode="UserSubscription")]]
    assert (await discovery.list()).accounts == ()


async def test_an_account_that_moves_to_another_entry_keeps_its_spelling() -> None:
    """Two ways to list may spell one id in two ways, and nothing that is keyed by it should notice."""
    one, two = MemoryRoute(), MemoryRoute()
    one.put(A, ["alpha"])
    two.pages[A] = [[ListedAccount(AccountId(A, "RG", "ALPHA"))]]
    routes = {"list": one, "resource_graph": two}
    entries = [entry(A), entry(A, via="resource_graph", vaults=["west"])]
    discovery = Discovery(entries, routes, AzureFailureTranslator(Redactor()), listed=(), vaults=VAULTS)
    (first,) = (await discovery.list()).accounts
    one.put(A, [])
    (moved,) = (await discovery.list()).accounts
    assert (first.vaults, moved.vaults) == (("main",), ("west",))
    assert moved.resource_id == first.resource_id == AccountId(A, "rg", "alpha").resource_id


async def test_another_configuration_takes_over_what_the_earlier_one_knew() -> None:
    """Of an entry that is still the same, wherever it stands now; all of it is listed anew, and then Azure's word counts."""
    route = MemoryRoute()
    route.put(A, ["alpha"])
    route.put(B, ["beta"])
    earlier = make(route, entry(A, every="1h"), entry(B))
    await earlier.list()
    route.put(A, DOWN)
    route.put(B, DOWN)
    later = make(route, entry(B, name="b*"), entry(A, every="1h"))
    later.inherit(earlier)
    listing = await later.list()
    assert names(listing) == ["alpha"]
    assert listing.complete is False
    route.put(A, [])
    route.put(B, [])
    listing = await later.list()
    assert (names(listing), listing.complete) == ([], True)


async def test_a_served_account_that_is_not_served_any_more_is_named_for_a_day() -> None:
    """With the reason: its state, its deletion, or its place where it was moved; until it is served again."""
    route, clock = MemoryRoute(), Clock()
    route.put(A, ["alpha", "beta", "gamma"])
    discovery = make(route, entry(A), monotonic=clock)
    assert (await discovery.list()).unserved == ()
    place = {name: AccountId(A, "rg", name) for name in ("alpha", "beta", "gamma")}
    moved = AccountId(A, "elsewhere", "gamma")
    route.pages[A] = [[ListedAccount(place["alpha"], state="Deleting"), ListedAccount(moved)]]
    clock.now = 60.0
    for clock.now in (60.0, 120.0):
        listing = await discovery.list()
        assert names(listing) == ["gamma"]
        assert [(one.account, one.reason, one.since) for one in listing.unserved] == [
            (place["alpha"].resource_id, "it is not provisioned: its state is Deleting", 60.0),
            (place["beta"].resource_id, "it was deleted, or no entry of `discover` matches it any more", 60.0),
            (place["gamma"].resource_id, f"it was moved: it is found as {moved.resource_id} now", 60.0),
        ]
    route.pages[A] = [[ListedAccount(place["alpha"]), ListedAccount(moved)]]
    clock.now = 180.0
    listing = await discovery.list()
    assert [one.account for one in listing.unserved] == [place["beta"].resource_id, place["gamma"].resource_id]
    clock.now = 60.0 + 86_400.0
    assert (await discovery.list()).unserved == ()


async def test_what_an_incomplete_listing_does_not_show_is_still_served() -> None:
    """So it is not named either."""
    route = MemoryRoute()
    route.put(A, ["alpha", "beta"])
    discovery = make(route, entry(A))
    await discovery.list()
    route.put(A, DOWN)
    listing = await discovery.list()
    assert (names(listing), listing.unserved) == (["alpha", "beta"], ())


async def test_what_another_configuration_leaves_to_others_was_meant() -> None:
    """A changed entry and an account that is listed now are no news; of an entry that is the same an account may be missing."""
    route = MemoryRoute()
    route.put(A, ["alpha", "beta"])
    route.put(B, ["gamma", "delta"])
    earlier = make(route, entry(A), entry(B))
    before = await earlier.list()
    delta = next(account for account in before.accounts if account.name == "delta")
    route.put(B, ["delta"])
    later = make(route, entry(A, exclude=["beta"]), entry(B), listed=[delta])
    later.inherit(earlier)
    assert [one.account for one in (await later.list()).unserved] == [AccountId(B, "rg", "gamma").resource_id]
    same = make(route, entry(A, exclude=["beta"]), entry(B), listed=[delta])
    same.inherit(later)
    assert [one.account for one in (await same.list()).unserved] == [AccountId(B, "rg", "gamma").resource_id]
    excluded = make(route, entry(A, exclude=["beta"]), entry(B, exclude=["gamma"]), listed=[delta])
    excluded.inherit(same)
    assert (await excluded.list()).unserved == ()


async def test_only_the_subscription_that_cannot_be_seen_keeps_what_was_known() -> None:
    """Where a scope is of several, and says which of them it could not see."""
    route = MemoryRoute()
    both = ListingScope("both", frozenset({A, B}), frozenset(), lambda: route._pages("both"))
    rows = [ListedAccount(AccountId(A, "rg", "alpha")), ListedAccount(AccountId(B, "rg", "beta"))]

    class OneScope:
        def scopes(self, _entry: Discover) -> Sequence[ListingScope]:
            return [both]

    entries = [entry(A, B)]
    discovery = Discovery(entries, {"list": OneScope()}, AzureFailureTranslator(Redactor()), listed=(), vaults=VAULTS)
    route.pages["both"] = [rows]
    await discovery.list()
    route.pages["both"] = [[]]
    route.unlisted = [UnlistedScope(f"/subscriptions/{B}", DOWN.record, B)]
    listing = await discovery.list()
    assert names(listing) == ["beta"]
    assert not listing.complete


async def test_filters_without_a_match_warn_only_where_the_listing_is_whole() -> None:
    """What nobody saw may well be there."""
    route = MemoryRoute()
    route.put(A, ["alpha"])
    route.put(B, [])
    discovery = make(route, entry(A, B, name="x*"))
    assert (await discovery.list()).warnings == ("discover[0].name: 'x*' matches none of the 1 accounts there",)
    route.put(B, DOWN)
    assert (await discovery.list()).warnings == ()
