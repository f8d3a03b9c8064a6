"""The inventory: the accounts that a configuration covers, configured or discovered, and the selection of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import structlog

from keysync.config.model import Account
from keysync.errors import UsageError
from keysync.failures import FailureRecord
from keysync.names import fold, natural
from keysync.sources.discovery import Discovery, Inventory, Problem
from keysync.sources.shard import Shard
from keysync.sync.items import Selection
from keysync.sync.model import ItemRef, Preflight, Result
from keysync.sync.waiting import until_stopped

_MAX_NAMED: Final = 20  # accounts in a message


async def resolve(
    discovery: Discovery, stop: asyncio.Event | None = None, logged: set[tuple[object, ...]] | None = None
) -> Inventory:
    """Lists the entries of `discover` that are due, and logs what failed. Never raises for a failure of Azure.

    A problem whose identity is in `logged` is not logged again; the set is updated. After a `stop`, the inventory has only the configured accounts,
    and is not complete.
    """
    inventory = await until_stopped(discovery.list(), stop or asyncio.Event())
    if inventory is None:
        record = FailureRecord(kind="timeout", summary="interrupted before the accounts were listed")
        inventory = replace(discovery.static, problems=(Problem("discover", record, 0),))
    _log(inventory, set[tuple[object, ...]]() if logged is None else logged)
    return inventory


def _log(inventory: Inventory, logged: set[tuple[object, ...]]) -> None:
    log: Any = structlog.get_logger("keysync")
    unserved = {(each.account, each.since): each for each in inventory.unserved}
    problems = {(p.entry, p.scope, p.record.kind, p.record.http_status, p.record.codes): p for p in inventory.problems}
    for account in (unserved[each] for each in unserved if each not in logged):
        log.warning("discovery.unserved", account=account.account, reason=account.reason)
    for problem in (problems[each] for each in problems if each not in logged):
        fields = {"entry": problem.entry, "scope": problem.scope, "kept": problem.kept, **problem.record.to_dict()}
        log.error("discovery.incomplete", reason=problem.record.summary, **fields)
    logged.clear()
    logged.update(unserved, problems)
    for skipped in inventory.skipped:
        # At debug level only: the report of the run has the refused ones.
        fields = {"entry": skipped.entry, "refused": skipped.refused, "reason": skipped.reason}
        log.debug("discovery.skipped", account=skipped.resource_id, **fields)


def selected(inventory: Inventory, names: Sequence[str], shard: Shard | None = None) -> tuple[Account, ...]:
    """The accounts named by `--account` (name or ARM id; all if there are none) that are in `shard`.

    `inventory` must have the accounts of all shards, so that an account of another shard is not an unknown name.
    Raises UsageError for an unknown name, unless the inventory is not complete: then `preflight` has a warning.
    """
    for name in _unknown(inventory, names) if inventory.complete else ():
        for skipped in inventory.skipped:
            if _is_named(skipped.resource_id, name):
                skips = f"discover[{skipped.entry}] finds it and skips it: {skipped.reason}"
                raise UsageError(f"--account {name}: {skips}")
        known = sorted((account.name for account in inventory.accounts), key=natural)
        more = f" and {len(known) - _MAX_NAMED} more" if len(known) > _MAX_NAMED else ""
        listed = ", ".join(known[:_MAX_NAMED]) + more if known else "none"
        raise UsageError(f"--account {name}: no such account in the configuration, which has {listed}")
    return tuple(account for account in inventory.accounts if _selects(names, shard, account.resource_id))


def preflight(inventory: Inventory, selection: Selection, shard: Shard | None = None) -> Preflight:
    """The part of the report about accounts that a run over `selected` does not cover."""
    refused = [account for account in inventory.refused if _selects(selection.accounts, shard, account.resource_id)]
    # An account without a vault has no item to report, so it is a warning, and the report is incomplete.
    without_items = sorted((one for one in refused if one.account is None), key=lambda one: natural(one.resource_id))
    results = [
        Result(ItemRef(skipped.resource_id, key, vault, name), "refused", reason=skipped.reason)
        for skipped in refused
        if skipped.account is not None
        for vault in skipped.account.vaults
        for key, name in skipped.account.secret_names().items()
    ]
    warnings: list[str] = []
    for problem in inventory.problems:
        hint = f" ({problem.record.hint})" if problem.record.hint else ""
        kept = f"; {problem.kept} accounts that only an earlier listing found still count" if problem.kept else ""
        cause = f"{problem.scope} was not listed completely: {problem.record.summary}{hint}"
        warnings.append(
            f"discover[{problem.entry}]: {cause}. The accounts found are served, and none counts as gone{kept}"
        )
    unknown = _unknown(inventory, selection.accounts)
    warnings += (f"--account {name}: not found, and not all accounts could be listed" for name in unknown)
    warnings += (f"{account.resource_id} was refused: {account.reason}" for account in without_items)
    return Preflight(
        results=tuple(result for result in results if selection.includes(result.ref)),
        warnings=(*warnings, *inventory.warnings),
        incomplete=not inventory.complete or bool(without_items),
    )


def _selects(names: Sequence[str], shard: Shard | None, resource_id: str) -> bool:
    named = not names or any(_is_named(resource_id, name) for name in names)
    return named and (shard is None or shard.has(resource_id))


def _is_named(resource_id: str, name: str) -> bool:
    return fold(name) in {fold(resource_id), fold(resource_id).rpartition("/")[2]}


def _unknown(inventory: Inventory, names: Sequence[str]) -> list[str]:
    known = [*(each.resource_id for each in inventory.accounts), *(each.resource_id for each in inventory.refused)]
    return [name for name in names if not any(_is_named(resource_id, name) for resource_id in known)]
