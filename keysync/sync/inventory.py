"""Which accounts a configuration covers: those that are listed there, and those that discovery finds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import structlog

from keysync.config.settings import Account, Config
from keysync.errors import UsageError
from keysync.failures import FailureRecord
from keysync.names import fold, natural
from keysync.sources.discovery import Discovery, DiscoveryResult, origins_of
from keysync.sources.filters import SkippedAccount
from keysync.sources.interface import KEY_NAMES
from keysync.sources.list_scopes import Problem
from keysync.sources.other_shards import OtherShardSecrets
from keysync.sources.shard import Shard
from keysync.sources.unserved_accounts import Unserved
from keysync.sync.model import ItemRef, Preflight, Result
from keysync.sync.waiting import wait_for

_Trouble: TypeAlias = tuple[object, ...]
_NAMED: Final = 20  # accounts in a message


@dataclass(frozen=True, slots=True)
class Inventory:
    """The accounts that a configuration means, of the share that `Discovery` was opened for; `others` are those of the rest.

    `entries` has the index of the `discover` entry for each of the last accounts, which were found by one. `unserved` were
    served by this process within the last day and are not any more. Where not `complete`,
    nothing is to be taken as gone.
    """

    accounts: tuple[Account, ...]
    skipped: tuple[SkippedAccount, ...] = ()
    complete: bool = True
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    entries: tuple[int, ...] = ()
    others: OtherShardSecrets = field(default_factory=OtherShardSecrets)
    unserved: tuple[Unserved, ...] = ()

    @property
    def origins(self) -> Mapping[str, int]:
        """The index of the entry of each account that was found by one, by its ARM id."""
        return origins_of(self.accounts[len(self.accounts) - len(self.entries) :], self.entries)

    @property
    def refused(self) -> tuple[SkippedAccount, ...]:
        """Accounts that somebody has to do something about."""
        return tuple(one for one in self.skipped if one.refused)


async def resolve(
    config: Config, discovery: Discovery, stop: asyncio.Event | None = None, told: set[_Trouble] | None = None
) -> Inventory:
    """What `config` covers now: lists anew what is due, and logs what went wrong. Never raises for a failure of Azure.

    `told` remembers from one listing to the next what has been logged, so that it is not told again. A `stop` ends the listing; then nothing but the accounts of the configuration itself is covered, and not complete.
    """
    if not config.discover:
        return static_only(config, discovery)
    listing = await _listed(discovery, stop)
    inventory = Inventory(
        accounts=(*discovery.listed, *listing.accounts),
        skipped=listing.skipped,
        complete=listing.complete,
        problems=listing.problems,
        warnings=listing.warnings,
        entries=listing.entries,
        others=listing.others,
        unserved=listing.unserved,
    )
    _log(inventory, told)
    return inventory


def static_only(config: Config, discovery: Discovery) -> Inventory:
    """What `config` covers while nothing was listed."""
    return Inventory(discovery.listed, complete=not config.discover, others=discovery.others)


async def _listed(discovery: Discovery, stop: asyncio.Event | None) -> DiscoveryResult:
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
    return DiscoveryResult(complete=False, problems=(Problem("discover", record, 0),))


def _log(inventory: Inventory, told: set[_Trouble] | None) -> None:
    log: Any = structlog.get_logger("keysync")
    before: set[_Trouble] = set(told or ())
    if told is not None:
        told.clear()
        told |= {_trouble(problem) for problem in inventory.problems}
        told |= {(one.account, one.since) for one in inventory.unserved}
    for one in inventory.unserved:
        if (one.account, one.since) not in before:
            log.warning("discovery.unserved", account=one.account, reason=one.reason)
    for problem in inventory.problems:
        if _trouble(problem) in before:
            continue
        log.error(
            "discovery.incomplete",
            entry=problem.entry,
            scope=problem.scope,
            kept=problem.kept,
            reason=problem.record.summary,
            **problem.record.to_dict(),
        )
    for skipped in inventory.skipped:
        # Those that were refused are in the report, and so in the log of the run.
        log.debug(
            "discovery.skipped",
            account=skipped.resource_id,
            entry=skipped.entry,
            refused=skipped.refused,
            reason=skipped.reason,
        )


def _trouble(problem: Problem) -> _Trouble:
    record = problem.record
    return (problem.entry, problem.scope, record.kind, record.http_status, record.codes)


def selected(inventory: Inventory, names: Sequence[str], shard: Shard | None = None) -> tuple[Account, ...]:
    """The accounts named by `--account` (name or ARM id; all where none is named) that are in `shard`, if that is still open.

    To tell a name that nobody has from one of another shard, `inventory` has to be that of all shards.
    Raises UsageError for a name that nobody has; where not all could be listed, `preflight` tells of it instead.
    """
    for name in _unknown(inventory, names) if inventory.complete else ():
        raise UsageError(_no_such_account(inventory, name))
    mine = _Mine(names, shard)
    return tuple(account for account in inventory.accounts if mine.has(account.resource_id))


def preflight(
    inventory: Inventory,
    names: Sequence[str] = (),
    shard: Shard | None = None,
    is_about: Callable[[ItemRef], bool] = lambda _ref: True,
) -> Preflight:
    """What the report of a run over `selected` has to say of the accounts that are no part of it.

    `is_about` tells the secrets that the run is about.
    """
    mine = _Mine(names, shard)
    refused = [one for one in inventory.refused if mine.has(one.resource_id)]
    nameless = sorted((one for one in refused if one.account is None), key=lambda one: natural(one.resource_id))
    bare = [f"{one.resource_id} was refused: {one.reason}" for one in nameless]
    lost = [f"--account {name}: not found, and not all accounts could be listed" for name in _unknown(inventory, names)]
    return Preflight(
        results=tuple(result for one in refused for result in _results(one) if is_about(result.ref)),
        warnings=(*(_told(problem) for problem in inventory.problems), *lost, *bare, *inventory.warnings),
        incomplete=not inventory.complete or bool(bare),
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


def _unknown(inventory: Inventory, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    there = [*(one.resource_id for one in inventory.accounts), *(one.resource_id for one in inventory.refused)]
    known = {name for resource_id in there for name in _names(resource_id)}
    return [name for name in names if fold(name) not in known]


def _no_such_account(inventory: Inventory, name: str) -> str:
    for one in inventory.skipped:
        if fold(name) in _names(one.resource_id):
            return f"--account {name}: discover[{one.entry}] finds it and leaves it out: {one.reason}"
    there = sorted((account.name for account in inventory.accounts), key=natural)
    more = f" and {len(there) - _NAMED} more" if len(there) > _NAMED else ""
    told = ", ".join(there[:_NAMED]) + more if there else "none"
    return f"--account {name}: no such account in the configuration, which has {told}"


def _results(one: SkippedAccount) -> Iterator[Result]:
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
