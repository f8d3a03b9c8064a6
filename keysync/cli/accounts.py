"""`accounts`: lists the accounts that a configuration covers. Reads no key."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final, Literal

from keysync import logs
from keysync.cli.compose import open_clients, open_runtime
from keysync.cli.options import Options, load
from keysync.cli.signals import interruptible
from keysync.cli.streams import console_for
from keysync.config.model import Account, Config
from keysync.names import natural
from keysync.report.console import Console, Span, to_json
from keysync.report.text import account_name
from keysync.secret.redact import Redactor
from keysync.sources.discovery import Inventory, Problem
from keysync.sync.inventory import resolve
from keysync.sync.runtime import Shared

AccountState = Literal["served", "skipped", "refused"]

_STYLES: Final = {"served": "green", "skipped": "yellow", "refused": "bold red"}
_WORDS: Final = {"served": "served", "skipped": "skipped", "refused": "refused"}


@dataclass(frozen=True, slots=True)
class Line:
    """One account. `source` is ``listed`` or ``discover[N]``. `secrets` maps keys to names; both it and `vaults` are empty if unknown."""

    account: str
    source: str
    vaults: tuple[str, ...]
    secrets: Mapping[str, str]
    state: AccountState
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The account in the JSON output."""
        return {
            "account": self.account,
            "source": self.source,
            "vaults": list(self.vaults),
            "secrets": dict(self.secrets),
            "state": self.state,
            "reason": self.reason,
        }


def run(options: Options) -> int:
    """Prints the accounts. Returns 1 if not all could be listed or one is refused, else 0. Raises KeysyncError."""
    config = load(options)
    redactor = Redactor()
    # The result already names every problem.
    logs.configure(
        "critical" if options.log_level == "info" else options.log_level, options.log_format, redactor.redact
    )
    return asyncio.run(_run(options, config, redactor))


async def _run(options: Options, config: Config, redactor: Redactor) -> int:
    with interruptible() as interruption:
        async with AsyncExitStack() as stack:
            clients = await open_clients(stack, config, redactor)
            runtime = await open_runtime(stack, clients, Shared(redactor, shard=options.shard))
            inventory = await resolve(runtime.discovery, interruption.stop)
    lines = list(_lines(inventory))
    if options.output == "json":
        sys.stdout.write(to_json(_to_dict(inventory, lines)) + "\n")
    else:
        _print(console_for(sys.stdout), inventory, sorted(lines, key=_order))
    refused = any(line.state == "refused" for line in lines)
    return interruption.exit_code or int(not inventory.complete or refused)


def _lines(inventory: Inventory) -> Iterator[Line]:
    origins = inventory.origins
    for account in inventory.accounts:
        yield _line(account, origins.get(account.resource_id), "served", None)
    for skipped in inventory.skipped:
        state: AccountState = "refused" if skipped.refused else "skipped"
        if skipped.account is not None:
            yield _line(skipped.account, skipped.entry, state, skipped.reason)
        else:
            yield Line(skipped.resource_id, f"discover[{skipped.entry}]", (), {}, state, skipped.reason)


def _line(account: Account, entry: int | None, state: AccountState, reason: str | None) -> Line:
    source = "listed" if entry is None else f"discover[{entry}]"
    return Line(account.resource_id, source, account.vaults, account.secret_names(), state, reason)


def _to_dict(inventory: Inventory, lines: list[Line]) -> dict[str, Any]:
    return {
        "complete": inventory.complete,
        "summary": {state: sum(line.state == state for line in lines) for state in _STYLES},
        "accounts": [line.to_dict() for line in lines],
        "problems": [_problem(problem) for problem in inventory.problems],
        "warnings": list(inventory.warnings),
    }


def _problem(problem: Problem) -> dict[str, Any]:
    source = f"discover[{problem.entry}]"
    record = problem.record
    return {"source": source, "scope": problem.scope, "reason": record.summary, "error": record.to_dict()}


def _order(line: Line) -> tuple[bool, tuple[tuple[int, str], ...], str]:
    """Served accounts first, each group by name."""
    return line.state != "served", natural(account_name(line.account)), line.account


def _print(console: Console, inventory: Inventory, lines: list[Line]) -> None:
    if lines:
        console.table(_HEADINGS, [_row(line) for line in lines])
    for line in lines:
        if line.reason:
            head = Span(f"{_WORDS[line.state]} ", _STYLES[line.state]), Span(account_name(line.account), "bold")
            console.line(*head, Span(f": {line.reason}"))
    for problem in inventory.problems:
        scope = Span(f"discover[{problem.entry}] {problem.scope}: ", "bold")
        console.line(Span("not listed completely ", "bold red"), scope, Span(problem.record.summary))
        if problem.record.hint:
            console.line(Span(f"    → {problem.record.hint}", "cyan"))
    for warning in inventory.warnings:
        console.line(Span(f"warning: {warning}", "yellow"))
    console.line(_summary(inventory, lines), no_wrap=True)


_HEADINGS: Final = ("account", "subscription", "group", "source", "vaults", "secrets", "state")


def _row(line: Line) -> tuple[Span, ...]:
    parts = line.account.split("/")
    cells = (
        account_name(line.account),
        parts[2],
        parts[4],
        line.source,
        ", ".join(line.vaults),
        ", ".join(line.secrets.values()),
    )
    return (*(Span(cell) for cell in cells), Span(_WORDS[line.state], _STYLES[line.state]))


def _summary(inventory: Inventory, lines: list[Line]) -> Span:
    counts = {state: sum(line.state == state for line in lines) for state in _STYLES}
    text = ", ".join(f"{count} {_WORDS[state]}" for state, count in counts.items() if count) or "none covered"
    partly = "" if inventory.complete else "; not all could be listed"
    bad = not inventory.complete or counts["refused"]
    return Span(f"accounts: {text}{partly}", "bold red" if bad else "bold green")
