"""Which accounts a configuration covers: those that are listed there, and those that discovery finds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import structlog

from keysync.azure.errors import FailureRecord
from keysync.config.formats import fold
from keysync.config.settings import Account, Config
from keysync.errors import UsageError
from keysync.sources.discovery import Discovery, Listing, Problem, origins_of
from keysync.sources.filters import LeftOut
from keysync.sources.interface import KEY_NAMES
from keysync.sources.other_shards import Others
from keysync.sources.unserved import Unserved
from keysync.sync.causes import natural
from keysync.sync.model import Beforehand, ItemRef, Result
from keysync.sync.shard import Shard
from keysync.sync.waiting import wait_for

_Trouble: TypeAlias = tuple[object, ...]
_NAMED: Final = 20  # accounts in a message


@dataclass(frozen=True, slots=True)
class Coverage:
    """The accounts that a configuration means, of the share that `Discovery` was opened for; `others` are those of the rest.

    `entries` has the index of the `discover` entry for each of the last accounts, which were found by one. `unserved` were
    served by this process within the last day and are not any more. Where not `complete`,
    nothing is to be taken as gone.
    """

    accounts: tuple[Account, ...]
    left_out: tuple[LeftOut, ...] = ()
    complete: bool = True
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    entries: tuple[int, ...] = ()
    others: Others = field(default_factory=Others)
    unserved: tuple[Unserved, ...] = ()

    @property
    def origins(self) -> Mapping[str, int]:
        """The index of the entry of each account that was found by one, by its ARM id."""
        return origins_of(self.accounts[len(self.accounts) - len(self.entries) :], self.entries)

    @property
    def refused(self) -> tuple[LeftOut, ...]:
        """Accounts that somebody has to do something about."""
        return tuple(one for one in self.left_out if one.refused)


async def resolve(
    config: Config, discovery: Discovery, stop: asyncio.Event | None = None, told: set[_Trouble] | None = None
) -> Coverage:
    """What `config` covers now: lists anew what is due, and logs what went wrong. Never raises for a failure of Azure.

    `told` remembers from one listing to the next what has been logged, so that it is not told again. A `stop` ends the listing; then nothing but the accounts of the configuration itself is covered, and not complete.
    """
    if not config.discover:
        return unlisted(config, discovery)
    listing = await _listed(discovery, stop)
    coverage = Coverage(
        accounts=(*discovery.listed, *listing.accounts),
        left_out=listing.left_out,
        complete=listing.complete,
        problems=listing.problems,
        warnings=listing.warnings,
        entries=listing.entries,
        others=listing.others,
        unserved=listing.unserved,
    )
    _log(coverage, told)
    return coverage


def unlisted(config: Config, discovery: Discovery) -> Coverage:
    """What `config` covers while nothing was listed."""
    return Coverage(discovery.listed, complete=not config.discover, others=discovery.others)


async def _listed(discovery: Discovery, stop: asyncio.Event | None) -> Listing:
    if stop is None:
        return await discovery.list()
    listing = asyncio.create_task(discovery.list(), name="discovery")
    try:
        await wait_for([listing], stop, None)
        if listing.done():
            return listing.result()
    finally:
        listing.cancel()
        await asyncio.gather(listing, return_exceptions=True)
    record = FailureRecord(kind="timeout", summary="interrupted before the accounts were listed")
    return Listing(complete=False, problems=(Problem("discover", record, 0),))


def _log(coverage: Coverage, told: set[_Trouble] | None) -> None:
    log: Any = structlog.get_logger("keysync")
    before: set[_Trouble] = set(told or ())
    if told is not None:
        told.clear()
        told |= {_trouble(problem) for problem in coverage.problems}
        told |= {(one.account, one.since) for one in coverage.unserved}
    for one in coverage.unserved:
        if (one.account, one.since) not in before:
            log.warning("discovery.unserved", account=one.account, reason=one.reason)
    for problem in coverage.problems:
        if _trouble(problem) in before:
            continue
        log.error(
            "discovery.failed",
            entry=problem.entry,
            scope=problem.scope,
            kept=problem.kept,
            reason=problem.record.summary,
            **problem.record.to_dict(),
        )
    for left_out in coverage.left_out:
        # Those that were refused are in the report, and so in the log of the pass.
        log.debug(
            "discovery.left_out",
            account=left_out.resource_id,
            entry=left_out.entry,
            refused=left_out.refused,
            reason=left_out.reason,
        )


def _trouble(problem: Problem) -> _Trouble:
    record = problem.record
    return (problem.entry, problem.scope, record.kind, record.http_status, record.codes)


def selected(coverage: Coverage, names: Sequence[str], shard: Shard | None = None) -> tuple[Account, ...]:
    """The accounts named by `--account` (name or ARM id; all where none is named) that are in `shard`, if that is still open.

    To tell a name that nobody has from one of another shard, `coverage` has to be that of all shards.
    Raises UsageError for a name that nobody has; where not all could be listed, `beforehand` tells of it instead.
    """
    for name in _unknown(coverage, names) if coverage.complete else ():
        raise UsageError(_no_such_account(coverage, name))
    mine = _Mine(names, shard)
    return tuple(account for account in coverage.accounts if mine.has(account.resource_id))


def beforehand(
    coverage: Coverage,
    names: Sequence[str] = (),
    shard: Shard | None = None,
    is_about: Callable[[ItemRef], bool] = lambda _ref: True,
) -> Beforehand:
    """What the report of a pass over `selected` has to say of the accounts that are no part of it.

    `is_about` tells the secrets that the run is about.
    """
    mine = _Mine(names, shard)
    refused = [one for one in coverage.refused if mine.has(one.resource_id)]
    nameless = sorted((one for one in refused if one.account is None), key=lambda one: natural(one.resource_id))
    bare = [f"{one.resource_id} was refused: {one.reason}" for one in nameless]
    lost = [f"--account {name}: not found, and not all accounts could be listed" for name in _unknown(coverage, names)]
    return Beforehand(
        results=tuple(result for one in refused for result in _results(one) if is_about(result.ref)),
        warnings=(*(_told(problem) for problem in coverage.problems), *lost, *bare, *coverage.warnings),
        incomplete=not coverage.complete or bool(bare),
    )


class _Mine:
    """What `--account` and `--shard` leave."""

    def __init__(self, names: Sequence[str], shard: Shard | None) -> None:
        self._names = {fold(name) for name in names}
        self._shard = shard

    def has(self, resource_id: str) -> bool:
        named = not self._names or not self._names.isdisjoint(_names(resource_id))
        return named and (self._shard is None or self._shard.has(resource_id))


def _names(resource_id: str) -> tuple[str, str]:
    lowered = fold(resource_id)
    return lowered, lowered.rsplit("/", 1)[-1]


def _unknown(coverage: Coverage, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    there = [*(one.resource_id for one in coverage.accounts), *(one.resource_id for one in coverage.refused)]
    known = {name for resource_id in there for name in _names(resource_id)}
    return [name for name in names if fold(name) not in known]


def _no_such_account(coverage: Coverage, name: str) -> str:
    for one in coverage.left_out:
        if fold(name) in _names(one.resource_id):
            return f"--account {name}: discover[{one.entry}] finds it and leaves it out: {one.reason}"
    there = sorted((account.name for account in coverage.accounts), key=natural)
    more = f" and {len(there) - _NAMED} more" if len(there) > _NAMED else ""
    told = ", ".join(there[:_NAMED]) + more if there else "none"
    return f"--account {name}: no such account in the configuration, which has {told}"


def _results(one: LeftOut) -> Iterator[Result]:
    account = one.account
    if account is None:
        return
    names = account.secret_names()
    for vault in account.vaults:
        for key in KEY_NAMES:
            if key in names:
                yield Result(ItemRef(account.resource_id, key, vault, names[key]), "refused", reason=one.reason)


def _told(problem: Problem) -> str:
    kept = f"; {problem.kept} that only an earlier listing found count as there" if problem.kept else ""
    hint = f" ({problem.record.hint})" if problem.record.hint else ""
    return (
        f"discover[{problem.entry}]: {problem.scope} was not listed whole: {problem.record.summary}{hint}. What was found is "
        f"served, and nothing is taken as gone{kept}"
    )
