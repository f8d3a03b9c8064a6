"""Complete and failing listings, and the accounts kept from earlier ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from keysync.azure.errors import AzureFailureTranslator
from keysync.config.model import Account, Discover
from keysync.failures import CallFailed, FailureRecord
from keysync.secret.redact import Redactor
from keysync.sources.discovery import Discovery, Inventory
from keysync.sources.listing import AccountId, AccountLister, ListedAccount, ListingScope, UnlistedScope
from tests.support.settings import discover_of, discovery_config

A, B = "aaaaaaaa-2222-3333-4444-555555555555", "bbbbbbbb-2222-3333-4444-555555555555"
VAULTS = {"main": "https://a.vault.azure.net", "west": "https://w.vault.azure.net"}


@dataclass
class FakeLister:
    """Subscriptions with pages of accounts; an exception in place of a page is raised."""

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

    async def _pages(self, subscription: str) -> AsyncGenerator[None]:
        self.listed.append(subscription)
        for page in self.pages[subscription]:
            if isinstance(page, Exception):
                raise page
            yield [*page, *self.unlisted]
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


def make(
    listers: FakeLister | Mapping[str, AccountLister],
    *entries: Discover,
    listed: Sequence[Account] = (),
    seconds: float = 5,
    **more: Any,
) -> Discovery:
    config = discovery_config(VAULTS, entries, listed, account_seconds=seconds)
    listers = {"list": listers} if isinstance(listers, FakeLister) else listers
    return Discovery(config, listers, AzureFailureTranslator(Redactor()), **more)


def names(listing: Inventory) -> list[str]:
    return [account.name for account in listing.accounts]


async def test_all_pages_of_all_subscriptions_are_merged() -> None:
    """Sorted by id, each with the entry that found it."""
    lister = FakeLister()
    lister.put(A, ["alpha"], ["beta"])
    lister.put(B, ["gamma"])
    listing = await make(lister, entry(B), entry(A)).list()
    assert names(listing) == ["alpha", "beta", "gamma"]
    assert [listing.origins[account.resource_id] for account in listing.accounts] == [1, 1, 0]
    assert listing.complete
    assert (listing.problems, listing.warnings, listing.skipped) == ((), (), ())


async def test_accounts_before_a_failing_page_are_kept() -> None:
    """The other subscription is not affected. The result is incomplete."""
    lister = FakeLister()
    lister.put(A, ["alpha"], DOWN)
    lister.put(B, ["gamma"])
    listing = await make(lister, entry(A, B)).list()
    assert names(listing) == ["alpha", "gamma"]
    assert not listing.complete
    (problem,) = listing.problems
    assert (problem.scope, problem.record, problem.entry, problem.kept) == (f"/subscriptions/{A}", DOWN.record, 0, 0)


async def test_accounts_stay_while_a_later_listing_is_incomplete() -> None:
    """No account of the failed subscription counts as gone; in the other one a missing account does."""
    lister = FakeLister()
    lister.put(A, ["alpha"], ["beta"])
    lister.put(B, ["gamma", "delta"])
    discovery = make(lister, entry(A, B))
    await discovery.list()
    lister.put(A, ["alpha", "epsilon"], DOWN)
    lister.put(B, ["gamma"])
    for _ in range(2):
        listing = await discovery.list()
        assert names(listing) == ["alpha", "beta", "epsilon", "gamma"]
        assert not listing.complete
        assert listing.problems[0].kept == 1
    lister.put(A, ["alpha"])
    listing = await discovery.list()
    assert names(listing) == ["alpha", "gamma"]
    assert listing.complete


async def test_a_hung_listing_ends_at_the_deadline() -> None:
    """Accounts before the deadline count. The record is a timeout."""
    lister = FakeLister(hang=asyncio.Event())
    lister.put(A, ["alpha"])
    listing = await make(lister, entry(A), seconds=0.05).list()
    assert names(listing) == ["alpha"]
    assert not listing.complete
    assert listing.problems[0].record.kind == "timeout"


async def test_a_cancelled_listing_ends_its_calls() -> None:
    """No task is left behind."""
    lister = FakeLister(hang=asyncio.Event())
    lister.put(A, ["alpha"])
    task = asyncio.create_task(make(lister, entry(A)).list())
    await lister.hanging.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_unexpected_exception_fails_one_scope() -> None:
    """It becomes a failure record."""
    lister = FakeLister()
    lister.put(A, TypeError("surprise"))
    lister.put(B, ["gamma"])
    listing = await make(lister, entry(A, B)).list()
    assert names(listing) == ["gamma"]
    assert listing.problems[0].record.kind == "internal"
    assert "surprise" not in listing.problems[0].record.summary


async def test_an_entry_with_an_interval_is_listed_when_it_is_due() -> None:
    """Without an interval in each run; with one when it has passed, or if the last listing was incomplete."""
    lister, clock = FakeLister(), Clock()
    lister.put(A, ["alpha"])
    lister.put(B, ["gamma"])
    discovery = make(lister, entry(A, every="10m"), entry(B), monotonic=clock)

    async def listed() -> list[str]:
        lister.listed.clear()
        await discovery.list()
        return sorted(lister.listed)

    assert await listed() == [A, B]
    clock.now = 300
    assert await listed() == [B]
    clock.now = 599
    assert await listed() == [A, B]
    lister.put(A, DOWN)
    clock.now = 1200
    assert await listed() == [A, B]
    clock.now = 1201
    assert await listed() == [A, B]
    lister.put(A, ["alpha"])
    clock.now = 1202
    assert await listed() == [A, B]
    clock.now = 1203
    assert await listed() == [B]


async def test_an_account_under_accounts_is_not_discovered_again() -> None:
    """It wins in any spelling of its id."""
    lister = FakeLister()
    lister.put(A, ["Alpha", "beta"])
    mine = Account(subscription_id=A, resource_group="RG", name="alpha", vaults=("west",))
    listing = await make(lister, entry(A), listed=[mine]).list()
    assert names(listing) == ["alpha", "beta"]
    assert listing.accounts[0] is mine
    assert not listing.skipped


async def test_the_first_matching_entry_applies() -> None:
    """Two entries that match one account are no conflict."""
    lister = FakeLister()
    lister.put(A, ["alpha", "beta"])
    listing = await make(lister, entry(A, name="b*", vaults=["west"]), entry(A)).list()
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
async def test_a_failure_does_not_move_an_account_to_another_entrys_vaults(first: dict[str, Any], vault: str) -> None:
    """An account that an earlier, failed entry might have found belongs to that entry, even in the first listing."""
    down, up = FakeLister(), FakeLister()
    down.put(A, DOWN)
    up.put(A, ["alpha"])
    entries = [entry(A, vaults=["west"], **first), entry(A, via="resource_graph")]
    routes = {"list": down, "resource_graph": up}
    listing = await make(routes, *entries).list()
    assert [account.vaults for account in listing.accounts] == [(vault,)]


async def test_conflicts_across_entries_are_refused() -> None:
    """Both accounts are refused. An account without keys is skipped instead and causes no conflict."""
    lister = FakeLister()
    lister.put(A, ["alpha"])
    lister.put(B, ["alpha"])
    discovery = make(lister, entry(A), entry(B))
    listing = await discovery.list()
    assert listing.accounts == ()
    assert [(one.entry, one.refused) for one in listing.skipped] == [(0, True), (1, True)]
    assert listing.complete
    lister.put(B, ["alpha"], why_keyless="its pools are its users'")
    listing = await discovery.list()
    assert names(listing) == ["alpha"]
    assert [(one.entry, one.refused) for one in listing.skipped] == [(1, False)]


async def test_an_unchanged_account_keeps_its_object_and_spelling() -> None:
    """Resource Manager spells ids differently at times; the first spelling stays."""
    lister = FakeLister()
    lister.put(A, ["alpha"])
    discovery = make(lister, entry(A))
    (first,) = (await discovery.list()).accounts
    assert (await discovery.list()).accounts[0] is first
    lister.pages[A] = [[ListedAccount(AccountId(A.upper(), "RG", "Alpha"))]]
    (again,) = (await discovery.list()).accounts
    assert again.resource_id == first.resource_id
    lister.pages[A] = [[ListedAccount(AccountId(A, "rg", "alpha"), why_keyless="its pools are its users'")]]
    assert (await discovery.list()).accounts == ()


async def test_an_account_that_moves_to_another_entry_keeps_its_spelling() -> None:
    """Two listers may spell an id differently; data keyed by it must not be affected."""
    one, two = FakeLister(), FakeLister()
    one.put(A, ["alpha"])
    two.pages[A] = [[ListedAccount(AccountId(A, "RG", "ALPHA"))]]
    routes = {"list": one, "resource_graph": two}
    entries = [entry(A), entry(A, via="resource_graph", vaults=["west"])]
    discovery = make(routes, *entries)
    (first,) = (await discovery.list()).accounts
    one.put(A, [])
    (moved,) = (await discovery.list()).accounts
    assert (first.vaults, moved.vaults) == (("main",), ("west",))
    assert moved.resource_id == first.resource_id == AccountId(A, "rg", "alpha").resource_id


async def test_a_new_configuration_inherits_unchanged_entries() -> None:
    """Also at another index. All entries are listed again, and a complete listing decides."""
    lister = FakeLister()
    lister.put(A, ["alpha"])
    lister.put(B, ["beta"])
    earlier = make(lister, entry(A, every="1h"), entry(B))
    await earlier.list()
    lister.put(A, DOWN)
    lister.put(B, DOWN)
    later = make(lister, entry(B, name="b*"), entry(A, every="1h"))
    later.inherit(earlier)
    listing = await later.list()
    assert names(listing) == ["alpha"]
    assert listing.complete is False
    lister.put(A, [])
    lister.put(B, [])
    listing = await later.list()
    assert (names(listing), listing.complete) == ([], True)


async def test_an_account_that_is_no_longer_covered_is_reported_for_a_day() -> None:
    """With the reason: its state, its deletion, or its new id. Until it is covered again."""
    lister, clock = FakeLister(), Clock()
    lister.put(A, ["alpha", "beta", "gamma"])
    discovery = make(lister, entry(A), monotonic=clock)
    assert (await discovery.list()).unserved == ()
    place = {name: AccountId(A, "rg", name) for name in ("alpha", "beta", "gamma")}
    moved = AccountId(A, "elsewhere", "gamma")
    lister.pages[A] = [[ListedAccount(place["alpha"], state="Deleting"), ListedAccount(moved)]]
    clock.now = 60.0
    for clock.now in (60.0, 120.0):
        listing = await discovery.list()
        assert names(listing) == ["gamma"]
        assert [(one.account, one.reason, one.since) for one in listing.unserved] == [
            (place["alpha"].resource_id, "it is not provisioned: its state is Deleting", 60.0),
            (place["beta"].resource_id, "it was deleted, or no entry of `discover` matches it any more", 60.0),
            (place["gamma"].resource_id, f"it was moved: it is found as {moved.resource_id} now", 60.0),
        ]
    lister.pages[A] = [[ListedAccount(place["alpha"]), ListedAccount(moved)]]
    clock.now = 180.0
    listing = await discovery.list()
    assert [one.account for one in listing.unserved] == [place["beta"].resource_id, place["gamma"].resource_id]
    clock.now = 60.0 + 86_400.0
    assert (await discovery.list()).unserved == ()


async def test_an_account_missing_from_an_incomplete_listing_is_still_covered() -> None:
    """So it is not reported."""
    lister = FakeLister()
    lister.put(A, ["alpha", "beta"])
    discovery = make(lister, entry(A))
    await discovery.list()
    lister.put(A, DOWN)
    listing = await discovery.list()
    assert (names(listing), listing.unserved) == (["alpha", "beta"], ())


async def test_changed_entries_report_no_missing_accounts() -> None:
    """Neither does an account that is now under `accounts`. An account of an unchanged entry is reported."""
    lister = FakeLister()
    lister.put(A, ["alpha", "beta"])
    lister.put(B, ["gamma", "delta"])
    earlier = make(lister, entry(A), entry(B))
    before = await earlier.list()
    delta = next(account for account in before.accounts if account.name == "delta")
    lister.put(B, ["delta"])
    later = make(lister, entry(A, exclude=["beta"]), entry(B), listed=[delta])
    later.inherit(earlier)
    assert [one.account for one in (await later.list()).unserved] == [AccountId(B, "rg", "gamma").resource_id]
    same = make(lister, entry(A, exclude=["beta"]), entry(B), listed=[delta])
    same.inherit(later)
    assert [one.account for one in (await same.list()).unserved] == [AccountId(B, "rg", "gamma").resource_id]
    excluded = make(lister, entry(A, exclude=["beta"]), entry(B, exclude=["gamma"]), listed=[delta])
    excluded.inherit(same)
    assert (await excluded.list()).unserved == ()


async def test_only_the_unlisted_subscription_keeps_its_accounts() -> None:
    """For a scope with several subscriptions that names the one it could not list."""
    lister = FakeLister()
    both = ListingScope("both", frozenset({A, B}), frozenset(), lambda: lister._pages("both"))
    rows = [ListedAccount(AccountId(A, "rg", "alpha")), ListedAccount(AccountId(B, "rg", "beta"))]

    class OneScope:
        def scopes(self, _entry: Discover) -> Sequence[ListingScope]:
            return [both]

    discovery = make({"list": OneScope()}, entry(A, B))
    lister.pages["both"] = [rows]
    await discovery.list()
    lister.pages["both"] = [[]]
    lister.unlisted = [UnlistedScope(f"/subscriptions/{B}", DOWN.record, B)]
    listing = await discovery.list()
    assert names(listing) == ["beta"]
    assert not listing.complete


async def test_filters_without_a_match_warn_only_after_a_complete_listing() -> None:
    """An account that was not listed may match."""
    lister = FakeLister()
    lister.put(A, ["alpha"])
    lister.put(B, [])
    discovery = make(lister, entry(A, B, name="x*"))
    assert (await discovery.list()).warnings == ("discover[0].name: 'x*' matches none of the 1 accounts there",)
    lister.put(B, DOWN)
    assert (await discovery.list()).warnings == ()
