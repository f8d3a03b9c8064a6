"""Discovery: which accounts a configuration covers, each with its vaults and secret names."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final

from keysync.calls import ACCOUNT_TIMEOUT_HINT
from keysync.config.model import Account, Config
from keysync.failures import FailureRecord, FailureTranslator, invalid_response
from keysync.names import fold
from keysync.sources.conflicts import Secret, Writer, conflict_reason, conflicts_of, secrets_of
from keysync.sources.filters import AccountFilter, SkippedAccount, apply_entry
from keysync.sources.listing import AccountLister, ListedAccount, ListingScope, UnlistedScope

# A run that starts slightly early should not have to wait for the next one.
_EARLY: Final = 0.95
_UNSERVED_SECONDS: Final = 86_400.0
_NO_TAGS: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Problem:
    """A scope that entry `entry` could not list completely. `kept` of its accounts come from an earlier listing only."""

    scope: str
    record: FailureRecord
    entry: int
    kept: int = 0


@dataclass(frozen=True, slots=True)
class Unserved:
    """An account that is no longer covered: its ARM id, the reason, and the monotonic time in seconds when that began."""

    account: str
    reason: str
    since: float


@dataclass(frozen=True, slots=True)
class Inventory:
    """The accounts that a configuration covers in the shard of this process: those under `accounts`, then discovered ones.

    If not `complete`, accounts may be missing, and none counts as gone. `warnings` concern filters without a match. `origins`
    has the index of each discovered account's entry, by ARM id. `others` are the secrets of other shards' accounts.
    `unserved` are accounts that were covered within the last day and no longer are.
    """

    accounts: tuple[Account, ...] = ()
    skipped: tuple[SkippedAccount, ...] = ()
    complete: bool = True
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    origins: Mapping[str, int] = field(default_factory=dict[str, int])
    others: frozenset[Secret] = frozenset()
    unserved: tuple[Unserved, ...] = ()

    @property
    def refused(self) -> tuple[SkippedAccount, ...]:
        """The skipped accounts that need an action by the user."""
        return tuple(account for account in self.skipped if account.refused)

    def written(self, vaults: Mapping[str, str]) -> dict[str, set[str]]:
        """By vault, the names (lower case) of the secrets that accounts of all shards write. `vaults` maps names to URLs."""
        names: defaultdict[str, set[str]] = defaultdict(set)
        for url, name in chain(self.others, *(secrets_of(account, vaults) for account in self.accounts)):
            names[url].add(name)
        return {vault: names[url] for vault, url in vaults.items()}


@dataclass(slots=True)
class ScopeListing:
    """A scope of an entry, and the accounts (by `AccountId.key`) that its latest listing showed and the entry matches.

    `counts` are the matches of the entry's filters, `at` is the monotonic time of the listing in seconds, and `kept` of the
    accounts come from an earlier listing only.
    """

    filter: AccountFilter
    scope: ListingScope
    at: float = float("-inf")
    accounts: dict[str, ListedAccount] = field(default_factory=dict[str, ListedAccount])
    counts: Counter[str] = field(default_factory=Counter[str])
    unlisted: list[UnlistedScope] = field(default_factory=list[UnlistedScope])
    complete: bool = False
    kept: int = 0

    def is_due(self, now: float) -> bool:
        """Whether it has to be listed again."""
        every = self.filter.entry.every
        return every is None or not self.complete or now - self.at >= every.total_seconds() * _EARLY

    def keep(self, before: ScopeListing) -> None:
        """Adds the accounts of the listing `before` that this one may lack because it is incomplete."""
        lacking = {unlisted.subscription for unlisted in self.unlisted}
        for key, account in before.accounts.items():
            if key not in self.accounts and not lacking.isdisjoint({None, fold(account.id.subscription)}):
                self.accounts[key] = account
                self.kept += 1


@dataclass(frozen=True, slots=True)
class DiscoveredAccount:
    """A listed account, and what its entry (by index, -1 for none) makes of it: the `result`, and the `secrets` to write.

    `mine`: it is in the shard of this process. Of another shard's account the `result` is not kept.
    """

    listed: ListedAccount
    mine: bool
    entry: int = -1
    secrets: tuple[Secret, ...] = ()
    result: Account | SkippedAccount | None = None


class Discovery:
    """Lists the entries of `discover` at each call of `list`, and keeps the result while nothing changes; for one event loop.

    `listers` list accounts by the entries' `via`. `mine` says by ARM id which accounts are in the shard of this process; it is
    called once for each account. `keyless` is updated for each account under `accounts` that a listing shows (see
    `BatchAccount`). `monotonic` (seconds) is a parameter so that tests control time.
    """

    def __init__(
        self,
        config: Config,
        listers: Mapping[str, AccountLister],
        translator: FailureTranslator,
        *,
        mine: Callable[[str], bool] = lambda _resource_id: True,
        keyless: set[str] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._entries = config.discover
        self._vaults = {name: vault.url for name, vault in config.vaults.items()}
        self._translator, self._mine, self._monotonic = translator, mine, monotonic
        self._keyless = set[str]() if keyless is None else keyless
        self._seconds = config.timeouts.account.total_seconds()
        self._slots = asyncio.Semaphore(config.concurrency)
        self._filters = [AccountFilter(index, entry) for index, entry in enumerate(config.discover)]
        self._scopes = [
            ScopeListing(each, scope) for each in self._filters for scope in listers[each.entry.via].scopes(each.entry)
        ]
        tags = (name for entry in config.discover for name in (*entry.tags, entry.vaults_by_tag) if name is not None)
        self._used_tags = frozenset(fold(name) for name in tags)
        own = tuple(account for account in config.accounts if mine(account.resource_id))
        own_keys = {account.key for account in own}
        others = (secrets_of(each, self._vaults) for each in config.accounts if each.key not in own_keys)
        self._configured = {account.key: account for account in config.accounts} if config.discover else {}
        self._known: dict[str, DiscoveredAccount] = {}
        self._inventory: Inventory | None = None
        self._covered: Mapping[str, str] = {}
        self._unserved: dict[str, Unserved] = {}
        self.static = Inventory(own, complete=not config.discover, others=frozenset[Secret]().union(*others))
        """The inventory without a listing: the accounts under `accounts`."""

    async def list(self) -> Inventory:
        """Lists the scopes that are due, and returns what is covered; never raises for a failure of Azure.

        An entry with `every` is due when that time has passed, or if its last listing was incomplete.
        """
        if not self._entries:
            return self.static
        if await self._refresh():
            self._inventory = None  # also after an exception below: an old result must not pass for a complete one
        now = self._monotonic()
        if self._inventory is None:
            self._inventory = self._resolve()
            self._note_unserved(self._inventory, now)
        self._unserved = {
            key: account
            for key, account in sorted(self._unserved.items())
            if key not in self._covered and now - account.since < _UNSERVED_SECONDS
        }
        return replace(
            self._inventory,
            complete=all(listing.complete for listing in self._scopes),
            # Kept accounts are counted once for a scope.
            problems=tuple(
                Problem(unlisted.scope, unlisted.record, listing.filter.index, 0 if number else listing.kept)
                for listing in self._scopes
                for number, unlisted in enumerate(listing.unlisted)
            ),
            warnings=tuple(self._warnings()),
            unserved=tuple(self._unserved.values()),
        )

    def _note_unserved(self, inventory: Inventory, now: float) -> None:
        """Adds the accounts that `inventory` no longer covers, each with the reason."""
        before, self._covered = self._covered, {each.key: each.resource_id for each in inventory.accounts}
        missing = before.keys() - self._covered.keys()
        if not missing:
            return
        reasons = {fold(account.resource_id): account.reason for account in inventory.skipped}
        moved = {key.rpartition("/")[2]: self._covered[key] for key in self._covered.keys() - before.keys()}
        for key in missing:
            new_id = moved.get(key.rpartition("/")[2])
            gone = "it was deleted, or no entry of `discover` matches it any more"
            reason = reasons.get(key) or (f"it was moved: it is found as {new_id} now" if new_id else gone)
            self._unserved[key] = Unserved(before[key], reason, now)

    def inherit(self, earlier: Discovery) -> None:
        """Takes over the knowledge of an earlier configuration about unchanged entries.

        It counts until such an entry is listed again; all entries are due at once. Tags that only other entries use stay
        unknown until then. `earlier` must have the same shard.
        """
        known = {(each.scope.name, each.filter.index): each.accounts for each in earlier._scopes}
        for listing in self._scopes:
            if listing.filter.entry in earlier._entries:
                before = listing.scope.name, earlier._entries.index(listing.filter.entry)
                listing.accounts = known.get(before, listing.accounts)
        # No entry was applied to them yet: their indexes and the vaults may have changed.
        self._known = {key: DiscoveredAccount(known.listed, known.mine) for key, known in earlier._known.items()}
        self._inventory = None
        if earlier._inventory is not None:
            unchanged = {index for index, entry in enumerate(earlier._entries) if entry in self._entries}
            origins = earlier._inventory.origins.items()
            covered = {fold(account): account for account, entry in origins if entry in unchanged}
            self._covered = {key: account for key, account in covered.items() if key not in self._configured}
            self._unserved = dict(earlier._unserved) if earlier._entries == self._entries else {}

    def _warnings(self) -> Iterator[str]:
        """Filters without a match, for each entry whose listings were all complete."""
        for account_filter in self._filters:
            listings = [listing for listing in self._scopes if listing.filter is account_filter]
            if all(listing.complete for listing in listings):
                yield from account_filter.warnings(sum((listing.counts for listing in listings), Counter[str]()))

    async def _refresh(self) -> bool:
        """Lists each scope that is due. Returns whether any result changed."""
        now = self._monotonic()
        due = [number for number, listing in enumerate(self._scopes) if listing.is_due(now)]
        listings = await asyncio.gather(*(self._list(self._scopes[number], now) for number in due))
        changed = False
        for number, listing in zip(due, listings, strict=True):
            before, self._scopes[number] = self._scopes[number], listing
            if (listing.complete, listing.accounts) == (before.complete, before.accounts):
                listing.accounts = before.accounts  # the same objects, so that an account is in memory once
            else:
                changed = True
        return changed

    async def _list(self, before: ScopeListing, now: float) -> ScopeListing:
        """A new listing of a scope. Accounts before a failure count; an incomplete listing keeps those of the one before."""
        listing, name = ScopeListing(before.filter, before.scope, now), before.scope.name
        deadline = asyncio.timeout(self._seconds)
        try:
            async with deadline, self._slots, aclosing(before.scope.pages()) as pages:
                async for page in pages:
                    for item in page:
                        self._add(item, listing)
            listing.complete = not listing.unlisted
        except Exception as error:  # noqa: BLE001  # a failure of one scope does not affect the others
            record = self._translator.record(error, operation="listAccounts", scope=name)
            if deadline.expired():
                summary = f"the listing was not done within {self._seconds:g} s (timeouts.account)"
                record = FailureRecord(kind="timeout", summary=summary, hint=ACCOUNT_TIMEOUT_HINT)
            listing.unlisted.append(UnlistedScope(name, record))
        if not listing.complete:
            listing.keep(before)
        return listing

    def _add(self, item: ListedAccount | UnlistedScope, listing: ScopeListing) -> None:
        """Adds a part of a page to a listing. Raises CallFailed for an account that was not requested."""
        if isinstance(item, UnlistedScope):
            listing.unlisted.append(item)
            return
        if not listing.scope.covers(item.id):
            raise invalid_response(f"the list of {listing.scope.name} has an account of another scope")
        key = item.id.key
        if key in self._configured:
            (self._keyless.discard if item.why_keyless is None else self._keyless.add)(key)
        if listing.filter.matches(item, listing.counts):
            used = self._used_tags
            tags = {name: value for name, value in item.tags.items() if fold(name) in used} if used else _NO_TAGS
            listing.accounts[key] = replace(item, tags=tags)

    def _resolve(self) -> Inventory:
        """All known accounts, each with its entry applied, without conflicts."""
        self._known = {key: self._applied(key, listed, entry) for key, (listed, entry) in self._matches().items()}
        configured = self._configured.values()
        conflicts = conflicts_of(
            [
                *((Writer(each.resource_id, None), secrets_of(each, self._vaults)) for each in configured),
                *((Writer(each.listed.id.resource_id, each.entry), each.secrets) for each in self._known.values()),
            ]
        )
        accounts, others = list(self.static.accounts), set(self.static.others)
        skipped: list[SkippedAccount] = []
        origins: dict[str, int] = {}
        for known in self._known.values():
            account, refused = known.result, not conflicts.keys().isdisjoint(known.secrets)
            if isinstance(account, SkippedAccount):
                skipped.append(account)
            elif account is None:
                others.update(() if refused else known.secrets)
            elif refused:
                reason = conflict_reason(account, known.entry, known.secrets, conflicts)
                skipped.append(SkippedAccount(account.resource_id, reason, known.entry, refused=True, account=account))
            else:
                accounts.append(account)
                origins[account.resource_id] = known.entry
        return Inventory(tuple(accounts), tuple(skipped), origins=origins, others=frozenset(others))

    def _matches(self) -> dict[str, tuple[ListedAccount, int]]:
        """The accounts that are not under `accounts`, sorted by id, each with the first entry that matches it.

        An earlier entry with an incomplete listing gets each account that it might have found. So a failure does not move an
        account to another entry's vaults.
        """
        found: dict[str, tuple[ListedAccount, int]] = {}
        incomplete: list[ScopeListing] = []
        for listing in self._scopes:
            for key, account in listing.accounts.items():
                if key not in found and key not in self._configured:
                    may_have = (e for e in incomplete if e.scope.covers(account.id) and e.filter.matches(account))
                    found[key] = account, next(may_have, listing).filter.index
            incomplete += [] if listing.complete else [listing]
        return {key: found[key] for key in sorted(found)}

    def _applied(self, key: str, listed: ListedAccount, entry: int) -> DiscoveredAccount:
        """The account with its entry applied; the known object if nothing changed. The id keeps its first spelling."""
        known = self._known.get(key)
        if known is not None:
            listed = replace(listed, id=known.listed.id)
            if (known.listed, known.entry) == (listed, entry):
                return known
        mine = self._mine(listed.id.resource_id) if known is None else known.mine
        result = apply_entry(listed, self._entries[entry], entry, self._vaults)
        secrets = secrets_of(result, self._vaults) if isinstance(result, Account) else ()
        return DiscoveredAccount(listed, mine, entry, secrets, result if mine else None)
