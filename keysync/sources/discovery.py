"""Discovery: lists what the entries of `discover` mean, and remembers it for the time when a listing is not whole."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from keysync.azure.errors import FailureRecord, FailureTranslator
from keysync.azure.hints import ACCOUNT_TIMEOUT
from keysync.config.settings import Account, Discover
from keysync.sources.collisions import settle
from keysync.sources.rows import Route, Row, Scope, Unlisted
from keysync.sources.sieve import LeftOut, Sieve, judge

# A pass that starts a little early should not have to wait for the one after it.
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
    """What the entries cover, without what is listed under `accounts`.

    `origins` has the index of the entry of each account, by its ARM id. Where not `complete`, something may be missing, and
    nothing is to be taken as gone. `warnings` are about filters that matched nothing.
    """

    accounts: tuple[Account, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    complete: bool = True
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    origins: Mapping[str, int] = field(default_factory=dict)


_Found: TypeAlias = list[tuple[int, Account]]
_LeftOut: TypeAlias = list[LeftOut]


@dataclass(slots=True)
class _Heard:
    """What a listing of one scope has brought so far: rows that the entry means, by key."""

    rows: dict[str, Row] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    unlisted: list[Unlisted] = field(default_factory=list)
    whole: bool = False
    at: float = float("-inf")
    kept: int = 0


@dataclass(frozen=True, slots=True)
class _Part:
    """A scope of an entry."""

    entry: int
    scope: Scope
    sieve: Sieve


class Discovery:
    """The entries of `discover`, listed again at each call of `list`; for one event loop.

    `routes` are the ways to list by the entries' `via`; `listed` the accounts that win over discovered ones; `vaults` the
    configured vaults, name to URL. A listing takes `seconds` at most, with `concurrency` scopes at once; `monotonic`
    (seconds) is handed in so that tests control time.
    """

    def __init__(
        self,
        entries: Sequence[Discover],
        routes: Mapping[str, Route],
        translator: FailureTranslator,
        *,
        listed: Sequence[Account],
        vaults: Mapping[str, str],
        seconds: float = 120.0,
        concurrency: int = 64,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._entries = tuple(entries)
        self._translator = translator
        self._listed = tuple(listed)
        self._listed_keys = frozenset(account.resource_id.lower() for account in listed)
        self._vaults = dict(vaults)
        self._seconds = seconds
        self._slots = asyncio.Semaphore(concurrency)
        self._monotonic = monotonic
        sieves = [Sieve(entry) for entry in self._entries]
        self._parts = [
            _Part(index, scope, sieves[index])
            for index, entry in enumerate(self._entries)
            for scope in routes[entry.via].scopes(entry)
        ]
        self._heard = [_Heard() for _ in self._parts]
        self._judged: dict[str, tuple[int, Row, Account | LeftOut]] = {}
        self._settled: tuple[_Found, tuple[tuple[Account, ...], tuple[LeftOut, ...]]] | None = None

    async def list(self) -> Listing:
        """Lists anew what is due, and tells what is covered; never raises for a failure of Azure.

        An entry with `every` is listed again when that time is over, or when its last listing was not whole.
        """
        await self._refresh([number for number in range(len(self._parts)) if self._is_due(number)])
        found, left_out = self._judge()
        if self._settled is None or self._settled[0] != found:
            self._settled = (found, settle(self._listed, found, self._vaults))
        accounts, refused = self._settled[1]
        return Listing(
            accounts=accounts,
            left_out=tuple(sorted((*left_out, *refused), key=lambda one: one.resource_id.lower())),
            complete=all(heard.whole for heard in self._heard),
            problems=tuple(self._problems()),
            warnings=tuple(self._warnings()),
            origins={account.resource_id: entry for entry, account in found},
        )

    def inherit(self, earlier: Discovery) -> None:
        """Takes over what the discovery of an earlier configuration knows, where an entry is still the same.

        It counts for as long as such an entry cannot be listed; all of it is due at once.
        """
        known: dict[str, dict[int, _Heard]] = {}
        for part, heard in zip(earlier._parts, earlier._heard, strict=True):
            known.setdefault(part.scope.name, {})[part.entry] = heard
        for number, part in enumerate(self._parts):
            for entry, heard in known.get(part.scope.name, {}).items():
                if earlier._entries[entry] == self._entries[part.entry]:
                    self._heard[number] = _Heard(rows=dict(heard.rows))

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
            asyncio.create_task(self._hear(self._parts[number], heard), name=f"list {self._parts[number].scope.name}")
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
            self._heard[number] = self._with_known(number, heard)

    async def _hear(self, part: _Part, heard: _Heard) -> None:
        """Fills `heard` page by page, so that what came before a failure is kept."""
        try:
            async with self._slots, aclosing(part.scope.pages()) as pages:
                async for page in pages:
                    heard.unlisted += page.unlisted
                    for row in page.rows:
                        if part.sieve.takes(row, heard.counts):
                            heard.rows[row.key] = row
        except Exception as error:  # noqa: BLE001  # one scope's failure is one scope's
            record = self._translator.record(error, operation="listAccounts", scope=part.scope.name)
            heard.unlisted.append(Unlisted(part.scope.name, record))
        else:
            heard.whole = not heard.unlisted

    def _with_known(self, number: int, heard: _Heard) -> _Heard:
        """What was heard, with what an earlier listing knows beyond it where this one is not whole."""
        if heard.whole:
            return heard
        if not heard.unlisted:
            told = f"the listing was not done within {self._seconds:g} s (timeouts.account)"
            record = FailureRecord(kind="timeout", summary=told, hint=ACCOUNT_TIMEOUT)
            heard.unlisted.append(Unlisted(self._parts[number].scope.name, record))
        dark = {unlisted.subscription for unlisted in heard.unlisted}
        before = {
            key: row
            for key, row in self._heard[number].rows.items()
            if None in dark or row.id.subscription.lower() in dark
        }
        heard.kept = len(before.keys() - heard.rows.keys())
        heard.rows = {**before, **heard.rows}
        return heard

    # Judging

    def _judge(self) -> tuple[_Found, _LeftOut]:
        """Each account once, by the entry that it belongs to."""
        before, self._judged = self._judged, {}
        for key, (entry, row) in sorted(self._owned().items()):
            known = before.get(key)
            # The same objects as before wherever nothing changed: it is cheaper, and an id keeps its spelling.
            if known is None or (known[0], known[1]) != (entry, row):
                spelt = replace(row, id=known[1].id) if known is not None else row
                known = (entry, spelt, judge(spelt, self._entries[entry], entry, self._vaults))
            self._judged[key] = known
        outcomes = [(entry, outcome) for entry, _, outcome in self._judged.values()]
        return (
            [(entry, outcome) for entry, outcome in outcomes if isinstance(outcome, Account)],
            [outcome for _, outcome in outcomes if isinstance(outcome, LeftOut)],
        )

    def _owned(self) -> dict[str, tuple[int, Row]]:
        """By key, each account that is not listed, and the first entry that means it.

        An earlier entry whose listing failed where the account is might have found it: it is the earlier one's, so that a
        failure moves no account to another entry's vaults.
        """
        owned: dict[str, tuple[int, Row]] = {}
        for part, heard in zip(self._parts, self._heard, strict=True):
            for key, row in heard.rows.items():
                if key not in self._listed_keys:
                    owned.setdefault(key, (part.entry, row))
        holes = [part for part, heard in zip(self._parts, self._heard, strict=True) if not heard.whole]
        for part in reversed(holes):
            for key, (entry, row) in owned.items():
                if part.entry < entry and part.scope.covers(row.id) and part.sieve.takes(row):
                    owned[key] = (part.entry, row)
        return owned

    # Telling

    def _problems(self) -> Iterator[Problem]:
        for part, heard in zip(self._parts, self._heard, strict=True):
            for place, unlisted in enumerate(heard.unlisted):
                yield Problem(unlisted.scope, unlisted.record, part.entry, 0 if place else heard.kept)

    def _warnings(self) -> Iterator[str]:
        counts = [Counter[str]() for _ in self._entries]
        whole = [True] * len(self._entries)
        for part, heard in zip(self._parts, self._heard, strict=True):
            counts[part.entry].update(heard.counts)
            whole[part.entry] &= heard.whole
        for index, entry in enumerate(self._entries):
            if whole[index]:
                yield from Sieve(entry).warnings(counts[index], index)
