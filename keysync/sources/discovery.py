"""Discovery: which accounts a configuration covers, each with its vaults and secret names."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from keysync.calls import ACCOUNT_TIMEOUT_HINT
from keysync.config.model import Account, Config
from keysync.failures import FailureRecord, FailureTranslator
from keysync.names import fold
from keysync.sources.conflicts import Conflicts, OtherShardSecrets, SecretKeys, Writer, secret_keys
from keysync.sources.filters import AccountFilter, SkippedAccount, apply_entry
from keysync.sources.list_scopes import Problem, ScopeListing, problems_of, warnings_of
from keysync.sources.listing import AccountLister, ListedAccount, ListingPage, UnlistedScope, invalid_response
from keysync.sources.shard import everything
from keysync.sources.unserved_accounts import Unserved, UnservedAccounts


@dataclass(frozen=True, slots=True)
class Inventory:
    """The accounts that a configuration covers in the shard of this process: those under `accounts`, then discovered ones.

    If not `complete`, accounts may be missing, and none counts as gone. `warnings` concern filters without a match. `origins`
    has the index of each discovered account's entry, by ARM id. `others` are the secrets of other shards' accounts. `unserved`
    are accounts that were covered within the last day and no longer are.
    """

    accounts: tuple[Account, ...] = ()
    skipped: tuple[SkippedAccount, ...] = ()
    complete: bool = True
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    origins: Mapping[str, int] = field(default_factory=dict[str, int])
    others: OtherShardSecrets = field(default_factory=OtherShardSecrets)
    unserved: tuple[Unserved, ...] = ()

    @property
    def refused(self) -> tuple[SkippedAccount, ...]:
        """The skipped accounts that need an action by the user."""
        return tuple(account for account in self.skipped if account.refused)


@dataclass(frozen=True, slots=True)
class DiscoveredAccount:
    """A listed account, and what its entry (by index) makes of it: the `result`, and the `secrets` that it would write.

    `mine`: it is in the shard of this process. Of another shard's account the `result` is not kept.
    """

    listed: ListedAccount
    mine: bool
    entry: int | None = None
    secrets: SecretKeys = ()
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
        mine: Callable[[str], bool] = everything,
        keyless: set[str] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._entries = config.discover
        self._vaults = {name: vault.url for name, vault in config.vaults.items()}
        self._translator = translator
        self._mine = mine
        self._keyless = set[str]() if keyless is None else keyless
        self._monotonic = monotonic
        self._seconds = config.timeouts.account.total_seconds()
        self._slots = asyncio.Semaphore(config.concurrency)
        filters = [AccountFilter(index, entry) for index, entry in enumerate(config.discover)]
        self._scopes = [
            ScopeListing(each, scope) for each in filters for scope in listers[each.entry.via].scopes(each.entry)
        ]
        tags = (name for entry in config.discover for name in (*entry.tags, entry.vaults_by_tag) if name is not None)
        self._used_tags = frozenset(fold(name) for name in tags)
        own = tuple(account for account in config.accounts if mine(account.resource_id))
        own_keys = {account.key for account in own}
        self._others = [secret_keys(each, self._vaults) for each in config.accounts if each.key not in own_keys]
        self._configured = {account.key: account for account in config.accounts} if config.discover else {}
        self._known: dict[str, DiscoveredAccount] = {}
        self._inventory: Inventory | None = None
        self._unserved = UnservedAccounts()
        self.static = Inventory(own, complete=not config.discover, others=OtherShardSecrets(self._others))
        """The inventory without a listing: the accounts under `accounts`."""

    async def list(self) -> Inventory:
        """Lists the scopes that are due, and returns what is covered; never raises for a failure of Azure.

        An entry with `every` is due when that time has passed, or if its last listing was incomplete.
        """
        if not self._entries:
            return self.static
        if await self._refresh():
            self._inventory = None  # also after an exception below: an old result must not pass for a complete one
        if self._inventory is None:
            self._inventory = self._resolve()
            self._unserved.update(self._inventory.accounts, self._inventory.skipped, self._monotonic())
        return replace(
            self._inventory,
            complete=all(listing.complete for listing in self._scopes),
            problems=tuple(problems_of(self._scopes)),
            warnings=tuple(warnings_of(self._scopes)),
            unserved=self._unserved.recent(self._monotonic()),
        )

    def inherit(self, earlier: Discovery) -> None:
        """Takes over the knowledge of an earlier configuration about unchanged entries.

        It counts until such an entry is listed again; all entries are due at once. Tags that only other entries use stay
        unknown until then. `earlier` must have the same shard.
        """
        by_name: defaultdict[str, list[ScopeListing]] = defaultdict(list)
        for listing in earlier._scopes:
            by_name[listing.scope.name].append(listing)
        for listing in self._scopes:
            for before in by_name[listing.scope.name]:
                if before.filter.entry == listing.filter.entry:
                    listing.accounts = before.accounts
        # No entry was applied to them yet: their indexes and the vaults may have changed.
        self._known = {key: DiscoveredAccount(known.listed, known.mine) for key, known in earlier._known.items()}
        self._inventory = None
        if earlier._inventory is not None:
            unchanged = {index for index, entry in enumerate(earlier._entries) if entry in self._entries}
            origins = earlier._inventory.origins.items()
            covered = {fold(account): account for account, entry in origins if entry in unchanged}
            expected = {key: account for key, account in covered.items() if key not in self._configured}
            self._unserved.inherit(earlier._unserved, expected, remember=earlier._entries == self._entries)

    async def _refresh(self) -> bool:
        """Lists each scope that is due. Returns whether any result changed."""
        now = self._monotonic()
        due = [number for number, listing in enumerate(self._scopes) if listing.is_due(now)]
        listings = await asyncio.gather(*(self._list(self._scopes[number], now) for number in due))
        changed = False
        for number, listing in zip(due, listings, strict=True):
            before, self._scopes[number] = self._scopes[number], listing
            changed |= (listing.complete, listing.accounts) != (before.complete, before.accounts)
        return changed

    async def _list(self, before: ScopeListing, now: float) -> ScopeListing:
        """A new listing of a scope. Accounts before a failure count; an incomplete listing keeps those of the one before."""
        listing, name = ScopeListing(before.filter, before.scope, now), before.scope.name
        deadline = asyncio.timeout(self._seconds)
        try:
            async with deadline, self._slots, aclosing(before.scope.pages()) as pages:
                async for page in pages:
                    self._add(page, listing)
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

    def _add(self, page: ListingPage, listing: ScopeListing) -> None:
        """Adds a page to a listing. Raises CallFailed if it has an account that was not requested."""
        listing.unlisted += page.unlisted
        for account in page.accounts:
            if not listing.scope.covers(account.id):
                raise invalid_response(f"the list of {listing.scope.name} has an account of another scope")
            key = account.id.key
            if key in self._configured and account.why_keyless is None:
                self._keyless.discard(key)
            elif key in self._configured:
                self._keyless.add(key)
            if listing.filter.matches(account, listing.counts):
                used = {name: value for name, value in account.tags.items() if fold(name) in self._used_tags}
                listing.accounts[key] = replace(account, tags=used)

    def _resolve(self) -> Inventory:
        """All known accounts, each with its entry applied, without conflicts."""
        self._known = {key: self._applied(key, listed, entry) for key, (listed, entry) in self._matches().items()}
        conflicts = self._conflicts()
        accounts, others = list(self.static.accounts), list(self._others)
        skipped: list[SkippedAccount] = []
        origins: dict[str, int] = {}
        for known in self._known.values():
            account, refused = known.result, conflicts.has(known.secrets)
            if isinstance(account, SkippedAccount):
                skipped.append(account)
            elif account is None:
                others += [] if refused else [known.secrets]
            elif refused and known.entry is not None:
                reason = conflicts.reason(account, known.entry, self._vaults)
                skipped.append(SkippedAccount(account.resource_id, reason, known.entry, refused=True, account=account))
            elif known.entry is not None:
                accounts.append(account)
                origins[account.resource_id] = known.entry
        return Inventory(tuple(accounts), tuple(skipped), origins=origins, others=OtherShardSecrets(others))

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
                    first = next((earlier for earlier in incomplete if earlier.may_have(account)), listing)
                    found[key] = account, first.filter.index
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
        secrets = secret_keys(result, self._vaults) if isinstance(result, Account) else ()
        return DiscoveredAccount(listed, mine, entry, secrets, result if mine else None)

    def _conflicts(self) -> Conflicts:
        configured = [
            (Writer(account.resource_id, None), secret_keys(account, self._vaults))
            for account in self._configured.values()
        ]
        discovered = [(Writer(each.listed.id.resource_id, each.entry), each.secrets) for each in self._known.values()]
        return Conflicts([*configured, *discovered])
