"""Discovery: lists what the entries of `discover` mean, and remembers it for the time when a listing is not whole."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from keysync.calls import ACCOUNT_TIMEOUT_HINT
from keysync.config.settings import Account, Discover
from keysync.failures import CallFailed, FailureRecord, FailureTranslator
from keysync.names import fold
from keysync.sources.arm_id import AccountId
from keysync.sources.conflicts import is_suspect, places, settle, shared
from keysync.sources.discovered_account import DiscoveredAccount, Traits
from keysync.sources.filters import AccountFilter, SkippedAccount, destination, judge
from keysync.sources.listing import AccountLister, ListedAccount, ListingScope, UnlistedScope
from keysync.sources.other_shards import OtherShardSecrets
from keysync.sources.unserved import ServedAccounts, Unserved

# A run that starts a little early should not have to wait for the one after it.
_EARLY: Final = 0.95


@dataclass(frozen=True, slots=True)
class Problem:
    """A scope that entry `entry` could not list whole. `kept` accounts of it are known from an earlier one only."""

    scope: str
    record: FailureRecord
    entry: int
    kept: int = 0


@dataclass(frozen=True, slots=True)
class Listing:
    """What the entries cover, without what is listed under `accounts`; of the share of this process.

    `entries` has the index of the entry of each account, in their order. Where not `complete`, something may be missing, and
    nothing is to be taken as gone. `warnings` are about filters that matched nothing. `others` are the accounts of other shares,
    those under `accounts` too. `unserved` are accounts that were served within the last day and are not any more.
    """

    accounts: tuple[Account, ...] = ()
    skipped: tuple[SkippedAccount, ...] = ()
    complete: bool = True
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    entries: tuple[int, ...] = ()
    others: OtherShardSecrets = field(default_factory=OtherShardSecrets)
    unserved: tuple[Unserved, ...] = ()

    @property
    def origins(self) -> Mapping[str, int]:
        """The index of the entry of each account, by its ARM id."""
        return origins_of(self.accounts, self.entries)


def origins_of(found: Sequence[Account], entries: Sequence[int]) -> Mapping[str, int]:
    """The index of the entry of each of the accounts `found`, by its ARM id."""
    return {account.resource_id: entry for account, entry in zip(found, entries, strict=True)}


# By `AccountId.folder` and name in lower case: what two spellings of one account have in common.
_Accounts: TypeAlias = dict[str, dict[str, DiscoveredAccount]]


def _no_accounts() -> _Accounts:
    return defaultdict(dict)


@dataclass(slots=True)
class _Heard:
    """What a listing of one scope has brought so far: accounts that the entry means."""

    accounts: _Accounts = field(default_factory=_no_accounts)
    counts: Counter[str] = field(default_factory=Counter)
    static_only: list[UnlistedScope] = field(default_factory=list)
    whole: bool = False
    at: float = float("-inf")
    kept: int = 0


@dataclass(frozen=True, slots=True)
class _Part:
    """A scope of an entry."""

    entry: int
    scope: ListingScope
    sieve: AccountFilter


class Discovery:
    """The entries of `discover`, listed again at each call of `list`; for one event loop.

    `routes` are the ways to list by the entries' `via`; `listed` the accounts that win over discovered ones; `vaults` the
    configured vaults, name to URL. `mine` tells by ARM id which accounts are in the share of this process; it is asked once for
    each, and little is kept of the others. `keyless` learns which of `listed` a listing shows without keys that work, and which with
    them (`BatchAccount` says more). A listing takes `seconds` at most, with `concurrency` scopes at once; `monotonic`
    (seconds) is handed in so that tests control time.
    """

    def __init__(
        self,
        entries: Sequence[Discover],
        routes: Mapping[str, AccountLister],
        translator: FailureTranslator,
        *,
        listed: Sequence[Account],
        vaults: Mapping[str, str],
        mine: Callable[[str], bool] = lambda _account: True,
        keyless: set[str] | None = None,
        seconds: float = 120.0,
        concurrency: int = 64,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._entries = tuple(entries)
        self._translator = translator
        self._vaults = dict(vaults)
        self._mine = mine
        self._keyless = set[str]() if keyless is None else keyless
        self.listed = tuple(account for account in listed if mine(account.resource_id))
        """Those that are listed and in the share of this process."""
        own = {id(account) for account in self.listed}
        self._others = [self._places(account) for account in listed if id(account) not in own]
        # Without an entry nobody can write what they write: the configuration was checked.
        self._listed = [(account, self._places(account)) for account in listed] if entries else []
        self._listed_names = _names(listed) if entries else {}
        self._seconds = seconds
        self._slots = asyncio.Semaphore(concurrency)
        self._monotonic = monotonic
        sieves = [AccountFilter(entry) for entry in self._entries]
        self._parts = [
            _Part(index, scope, sieves[index])
            for index, entry in enumerate(self._entries)
            for scope in routes[entry.via].scopes(entry)
        ]
        self._heard = [_Heard() for _ in self._parts]
        self._asked = frozenset(fold(name) for entry in entries for name in _tags(entry))
        self._traits: dict[Traits, Traits] = {}
        self._settled: Listing | None = None
        self._served = ServedAccounts()

    @property
    def others(self) -> OtherShardSecrets:
        """Accounts that are listed and in another share."""
        return OtherShardSecrets(self._others)

    async def list(self) -> Listing:
        """Lists anew what is due, and tells what is covered; never raises for a failure of Azure.

        An entry with `every` is listed again when that time is over, or when its last listing was not whole.
        """
        await self._refresh([number for number in range(len(self._parts)) if self._is_due(number)])
        if self._settled is None:
            self._settled = self._settle()
            self._served.update(self._settled.accounts, self._settled.skipped, self._monotonic())
        return replace(
            self._settled,
            complete=all(heard.whole for heard in self._heard),
            problems=tuple(self._problems()),
            warnings=tuple(self._warnings()),
            unserved=self._served.recent(self._monotonic()),
        )

    def inherit(self, earlier: Discovery) -> None:
        """Takes over what the discovery of an earlier configuration knows, where an entry is still the same.

        It counts for as long as such an entry cannot be listed; all of it is due at once. Of tags that only other entries ask
        about nothing is known until then. `earlier` must have had the same share.
        """
        known: dict[str, dict[int, _Heard]] = {}
        for part, heard in zip(earlier._parts, earlier._heard, strict=True):
            known.setdefault(part.scope.name, {})[part.entry] = heard
        for number, part in enumerate(self._parts):
            for entry, heard in known.get(part.scope.name, {}).items():
                if earlier._entries[entry] == self._entries[part.entry]:
                    self._heard[number] = _Heard(_unjudged(heard.accounts))
        self._settled = None
        if earlier._settled is not None:
            before = zip(earlier._settled.accounts, earlier._settled.entries, strict=True)
            meant = [account for account, entry in before if earlier._entries[entry] in self._entries]
            meant = [account for account in meant if not self._is_listed(account)]
            self._served.inherit(earlier._served, meant, remember=earlier._entries == self._entries)

    def _is_listed(self, account: Account) -> bool:
        return fold(account.name) in self._listed_names.get(_folder(account), ())

    # Listing

    def _is_due(self, number: int) -> bool:
        every, heard = self._entries[self._parts[number].entry].every, self._heard[number]
        if every is None or not heard.whole:
            return True
        return self._monotonic() - heard.at >= every.total_seconds() * _EARLY

    async def _refresh(self, due: Sequence[int]) -> None:
        now = self._monotonic()
        fresh = {number: _Heard(at=now) for number in due}
        tasks = {
            asyncio.create_task(self._hear(number, heard), name=f"list {self._parts[number].scope.name}")
            for number, heard in fresh.items()
        }
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=self._seconds)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for number, heard in fresh.items():
            before, self._heard[number] = self._heard[number], self._with_known(number, heard)
            if heard.whole == before.whole and heard.accounts == before.accounts:
                heard.accounts = before.accounts
            else:
                self._settled = None

    async def _hear(self, number: int, heard: _Heard) -> None:
        """Fills `heard` page by page, so that what came before a failure is kept."""
        part, before = self._parts[number], self._heard[number].accounts
        try:
            async with self._slots, aclosing(part.scope.pages()) as pages:
                async for page in pages:
                    heard.static_only += page.static_only
                    for row in page.rows:
                        self._check(row, part.scope)
                        if part.sieve.takes(row, heard.counts):
                            folder, name = row.id.folder, row.id.folded_name
                            known = before[folder].get(name) if folder in before else None
                            heard.accounts[folder][name] = self._held(row, known, part.entry)
        except Exception as error:  # noqa: BLE001  # one scope's failure is one scope's
            record = self._translator.record(error, operation="listAccounts", scope=part.scope.name)
            heard.static_only.append(UnlistedScope(part.scope.name, record))
        else:
            heard.whole = not heard.static_only

    def _check(self, row: ListedAccount, scope: ListingScope) -> None:
        """Notes whether a listed account has keys that work. Raises CallFailed for a row that nobody asked for."""
        if not scope.covers(row.id):
            told = f"the list of {scope.name} has an account of another scope"
            raise CallFailed(FailureRecord(kind="invalid_response", summary=told))
        if self._listed_names and row.id.folded_name in self._listed_names.get(row.id.folder, ()):
            if row.why_keyless is None:
                self._keyless.discard(fold(row.id.resource_id))
            else:
                self._keyless.add(fold(row.id.resource_id))

    def _with_known(self, number: int, heard: _Heard) -> _Heard:
        """What was heard, with what an earlier listing knows beyond it where this one is not whole."""
        if heard.whole:
            return heard
        if not heard.static_only:
            told = f"the listing was not done within {self._seconds:g} s (timeouts.account)"
            record = FailureRecord(kind="timeout", summary=told, hint=ACCOUNT_TIMEOUT_HINT)
            heard.static_only.append(UnlistedScope(self._parts[number].scope.name, record))
        dark = {static_only.subscription for static_only in heard.static_only}
        for folder, names in self._heard[number].accounts.items():
            if None in dark or folder.partition("/")[0] in dark:
                missing = names.keys() - heard.accounts[folder].keys()
                heard.kept += len(missing)
                heard.accounts[folder].update((name, names[name]) for name in missing)
        return heard

    def _held(self, row: ListedAccount, known: DiscoveredAccount | None, entry: int) -> DiscoveredAccount:
        """The same object as before wherever nothing changed: it is cheaper, and an id keeps its spelling."""
        asked = self._asked
        tags = tuple([each for each in row.tags.items() if fold(each[0]) in asked]) if asked else ()
        traits = Traits(tags, row.modes, row.pool_mode, row.state)
        if known is None:
            place, traits = row.id, self._traits.setdefault(traits, traits)
            held = DiscoveredAccount(place.subscription, place.group, place.name, traits, self._mine(place.resource_id))
        elif known.traits == traits:
            return known
        else:
            held = known.with_traits(self._traits.setdefault(traits, traits))
        self._judge(held, entry)
        return held

    # Judging

    def _judge(self, held: DiscoveredAccount, entry: int) -> None:
        """What becomes of an account by that entry; of another share's only where it is written."""
        if held.entry == entry:
            return
        held.entry, held.places, held.made = entry, b"", None
        if held.mine:
            held.made = self._account(held)
            held.places = self._places(held.made) if isinstance(held.made, Account) else b""
        else:
            found = destination(held.row, self._entries[entry], entry, self._vaults)
            if not isinstance(found, SkippedAccount):
                held.places = places(found.vaults, found.names.values(), self._vaults)

    def _account(self, held: DiscoveredAccount) -> Account | SkippedAccount:
        return judge(held.row, self._entries[held.entry], held.entry, self._vaults)

    def _places(self, account: Account) -> bytes:
        return places(account.vaults, account.secret_names().values(), self._vaults)

    def _settle(self) -> Listing:
        """What is known, judged and without those that would write one secret."""
        everyone = [*self._owned()]
        refused = self._refused(everyone)
        mine = [held for held in everyone if held.mine]
        served = [(held, held.made) for held in mine if isinstance(held.made, Account) and held not in refused]
        out = [held.made for held in mine if isinstance(held.made, SkippedAccount)]
        out += [told for held, told in refused.items() if held.mine]
        self._traits = {held.traits: held.traits for held in everyone}
        return Listing(
            accounts=tuple(account for _, account in served),
            skipped=tuple(sorted(out, key=lambda one: fold(one.resource_id))),
            entries=tuple(held.entry for held, _ in served),
            others=OtherShardSecrets(
                [*self._others, *(held.places for held in everyone if not held.mine and held not in refused)]
            ),
        )

    def _owned(self) -> Iterator[DiscoveredAccount]:
        """In the order of their ids, each account that is not listed, judged by the first entry that means it.

        An earlier entry whose listing failed where the account is might have found it: it is the earlier one's, so that a
        failure moves no account to another entry's vaults.
        """
        layers: defaultdict[str, list[tuple[int, dict[str, DiscoveredAccount]]]] = defaultdict(list)
        for part, heard in zip(self._parts, self._heard, strict=True):
            for folder, names in heard.accounts.items():
                layers[folder].append((part.entry, names))
        holes = [part for part, heard in zip(self._parts, self._heard, strict=True) if not heard.whole]
        before = {entry: [part for part in holes if part.entry < entry] for entry in range(len(self._entries))}
        for folder in sorted(layers):
            listed = self._listed_names.get(folder, ())
            for name in sorted(set[str]().union(*(names for _, names in layers[folder]))):
                if name not in listed:
                    entry, held = _first(name, layers[folder])
                    self._judge(held, self._before(held, before[entry], entry))
                    yield held

    @staticmethod
    def _before(held: DiscoveredAccount, holes: Sequence[_Part], entry: int) -> int:
        """The entry of the first of `holes` that might have found the account, else `entry`."""
        if not holes:
            return entry
        row = held.row
        return next((part.entry for part in holes if part.scope.covers(row.id) and part.sieve.takes(row)), entry)

    def _refused(self, everyone: Sequence[DiscoveredAccount]) -> Mapping[DiscoveredAccount, SkippedAccount]:
        """Those of `everyone` that would write a secret that another one writes."""
        twice = shared([*(own for _, own in self._listed), *(held.places for held in everyone)])
        if not twice:
            return {}
        listed = [account for account, own in self._listed if is_suspect(own, twice)]
        suspects: dict[str, tuple[DiscoveredAccount, Account]] = {}
        for held in everyone:
            # Of other shares' accounts only these are looked at as a whole.
            account = (held.made or self._account(held)) if is_suspect(held.places, twice) else None
            if isinstance(account, Account):
                suspects[account.resource_id] = held, account
        _, refused = settle(listed, [(held.entry, account) for held, account in suspects.values()], self._vaults)
        return {suspects[one.resource_id][0]: one for one in refused}

    # Telling

    def _problems(self) -> Iterator[Problem]:
        for part, heard in zip(self._parts, self._heard, strict=True):
            for place, static_only in enumerate(heard.static_only):
                yield Problem(static_only.scope, static_only.record, part.entry, 0 if place else heard.kept)

    def _warnings(self) -> Iterator[str]:
        counts = [Counter[str]() for _ in self._entries]
        whole = [True] * len(self._entries)
        for part, heard in zip(self._parts, self._heard, strict=True):
            counts[part.entry].update(heard.counts)
            whole[part.entry] &= heard.whole
        for index, entry in enumerate(self._entries):
            if whole[index]:
                yield from AccountFilter(entry).warnings(counts[index], index)


def _names(accounts: Sequence[Account]) -> Mapping[str, set[str]]:
    """Names in lower case by `AccountId.folder`."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for one in accounts:
        found[_folder(one)].add(fold(one.name))
    return found


def _folder(account: Account) -> str:
    return AccountId(account.subscription_id, account.resource_group, account.name).folder


def _tags(entry: Discover) -> Iterator[str]:
    """The names of the tags that an entry asks about."""
    yield from entry.tags
    if entry.vaults_by_tag is not None:
        yield entry.vaults_by_tag


def _unjudged(accounts: _Accounts) -> _Accounts:
    """The same accounts, for entries that may be others."""
    return {
        folder: {name: one.with_traits(one.traits) for name, one in names.items()} for folder, names in accounts.items()
    }


def _first(name: str, layers: Sequence[tuple[int, dict[str, DiscoveredAccount]]]) -> tuple[int, DiscoveredAccount]:
    """The first entry that has the account of that name, and the account; there is one.

    What others have of it is spelt like that, and not judged.
    """
    (entry, first), *later = [layer for layer in layers if name in layer[1]]
    for _, names in later:
        names[name] = first[name].with_traits(names[name].traits)
    return entry, first[name]
