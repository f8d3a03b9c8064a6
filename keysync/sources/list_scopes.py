"""Lists the scopes of all `discover` entries concurrently, and keeps earlier results of a scope whose listing fails."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from keysync.calls import ACCOUNT_TIMEOUT_HINT
from keysync.config.model import Discover
from keysync.failures import CallFailed, FailureRecord, FailureTranslator
from keysync.sources.discovered_account import DiscoveredAccount
from keysync.sources.filters import AccountFilter
from keysync.sources.listing import AccountLister, ListedAccount, ListingScope, UnlistedScope

# A run that starts slightly early should not have to wait for the next one.
_EARLY: Final = 0.95

AccountsByFolder: TypeAlias = dict[str, dict[str, DiscoveredAccount]]
"""Accounts by `AccountId.folder` and name in lower case, which are equal for two spellings of one id."""

Remember: TypeAlias = Callable[[ListedAccount, DiscoveredAccount | None, int], DiscoveredAccount]
"""Turns a listed account, what is known of it, and the entry's index into the object to keep."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A scope that entry `entry` could not list completely. `kept` of its accounts come from an earlier listing only."""

    scope: str
    record: FailureRecord
    entry: int
    kept: int = 0


@dataclass(frozen=True, slots=True)
class EntryScope:
    """A scope of an entry, with the entry's index and filter."""

    entry: int
    scope: ListingScope
    filter: AccountFilter


def _no_accounts() -> AccountsByFolder:
    return defaultdict(dict)


@dataclass(slots=True)
class ScopeResult:
    """The accounts of one scope that match its entry; `at` is the monotonic time of the listing in seconds."""

    accounts: AccountsByFolder = field(default_factory=_no_accounts)
    counts: Counter[str] = field(default_factory=Counter[str])
    unlisted: list[UnlistedScope] = field(default_factory=list[UnlistedScope])
    complete: bool = False
    at: float = float("-inf")
    kept: int = 0


class ScopeListings:
    """The scopes of all entries, each with the result of its latest listing; parameters as in `Discovery`.

    `check` is called for each listed account and may raise CallFailed; `remember` for each that matches.
    """

    def __init__(
        self,
        entries: Sequence[Discover],
        listers: Mapping[str, AccountLister],
        translator: FailureTranslator,
        *,
        check: Callable[[ListedAccount], None],
        remember: Remember,
        seconds: float = 120.0,
        concurrency: int = 64,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._entries = entries
        self._translator = translator
        self._check = check
        self._remember = remember
        self._seconds = seconds
        self._slots = asyncio.Semaphore(concurrency)
        self._monotonic = monotonic
        filters = [AccountFilter(entry) for entry in entries]
        self._scopes = [
            EntryScope(index, scope, filters[index])
            for index, entry in enumerate(entries)
            for scope in listers[entry.via].scopes(entry)
        ]
        self._results = [ScopeResult() for _ in self._scopes]

    def __iter__(self) -> Iterator[tuple[EntryScope, ScopeResult]]:
        """Each scope with its latest result, in the order of the entries."""
        return zip(self._scopes, self._results, strict=True)

    @property
    def complete(self) -> bool:
        """Whether the latest listing of every scope was complete."""
        return all(result.complete for result in self._results)

    def inherit(self, earlier: ScopeListings) -> None:
        """Takes over the accounts of `earlier` for each entry that is unchanged. Every scope is due at once."""
        known: dict[str, dict[int, ScopeResult]] = {}
        for part, result in earlier:
            known.setdefault(part.scope.name, {})[part.entry] = result
        for number, part in enumerate(self._scopes):
            for entry, result in known.get(part.scope.name, {}).items():
                if earlier._entries[entry] == self._entries[part.entry]:
                    self._results[number] = ScopeResult(_without_results(result.accounts))

    async def refresh(self) -> bool:
        """Lists each scope that is due. Returns whether any result changed; never raises for a failure of Azure."""
        now = self._monotonic()
        fresh = {number: ScopeResult(at=now) for number in range(len(self._scopes)) if self._is_due(number, now)}
        tasks = {
            asyncio.create_task(self._list(number, result), name=f"list {self._scopes[number].scope.name}")
            for number, result in fresh.items()
        }
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=self._seconds)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        changed = False
        for number, result in fresh.items():
            before, self._results[number] = self._results[number], self._with_kept(number, result)
            if result.complete == before.complete and result.accounts == before.accounts:
                result.accounts = before.accounts
            else:
                changed = True
        return changed

    def _is_due(self, number: int, now: float) -> bool:
        every, result = self._entries[self._scopes[number].entry].every, self._results[number]
        return every is None or not result.complete or now - result.at >= every.total_seconds() * _EARLY

    async def _list(self, number: int, result: ScopeResult) -> None:
        """Fills `result` page by page, so that accounts before a failure are kept."""
        part, known = self._scopes[number], self._results[number].accounts
        try:
            async with self._slots, aclosing(part.scope.pages()) as pages:
                async for page in pages:
                    result.unlisted += page.unlisted
                    for account in page.accounts:
                        _check_scope(account, part.scope)
                        self._check(account)
                        if part.filter.matches(account, result.counts):
                            folder, name = account.id.folder, account.id.folded_name
                            before = known[folder].get(name) if folder in known else None
                            result.accounts[folder][name] = self._remember(account, before, part.entry)
        except Exception as error:  # noqa: BLE001  # a failure of one scope does not affect the others
            record = self._translator.record(error, operation="listAccounts", scope=part.scope.name)
            result.unlisted.append(UnlistedScope(part.scope.name, record))
        else:
            result.complete = not result.unlisted

    def _with_kept(self, number: int, result: ScopeResult) -> ScopeResult:
        """`result`; if it is incomplete, with the accounts of the earlier result that may be missing."""
        if result.complete:
            return result
        if not result.unlisted:
            summary = f"the listing was not done within {self._seconds:g} s (timeouts.account)"
            record = FailureRecord(kind="timeout", summary=summary, hint=ACCOUNT_TIMEOUT_HINT)
            result.unlisted.append(UnlistedScope(self._scopes[number].scope.name, record))
        subscriptions = {unlisted.subscription for unlisted in result.unlisted}
        for folder, names in self._results[number].accounts.items():
            if None in subscriptions or folder.partition("/")[0] in subscriptions:
                missing = names.keys() - result.accounts[folder].keys()
                result.kept += len(missing)
                result.accounts[folder].update((name, names[name]) for name in missing)
        return result

    def problems(self) -> Iterator[Problem]:
        """What could not be listed."""
        for part, result in self:
            for number, unlisted in enumerate(result.unlisted):
                yield Problem(unlisted.scope, unlisted.record, part.entry, 0 if number else result.kept)

    def warnings(self) -> Iterator[str]:
        """Filters without a match, for each entry whose listings were all complete."""
        counts = [Counter[str]() for _ in self._entries]
        complete = [True] * len(self._entries)
        for part, result in self:
            counts[part.entry].update(result.counts)
            complete[part.entry] &= result.complete
        for index, entry in enumerate(self._entries):
            if complete[index]:
                yield from AccountFilter(entry).warnings(counts[index], index)


def _check_scope(account: ListedAccount, scope: ListingScope) -> None:
    """Raises CallFailed if the reply has an account that was not requested."""
    if not scope.covers(account.id):
        summary = f"the list of {scope.name} has an account of another scope"
        raise CallFailed(FailureRecord(kind="invalid_response", summary=summary))


def _without_results(accounts: AccountsByFolder) -> AccountsByFolder:
    """The same accounts, to which no entry was applied yet: indexes of entries may have changed."""
    return {
        folder: {name: account.with_traits(account.traits) for name, account in names.items()}
        for folder, names in accounts.items()
    }
