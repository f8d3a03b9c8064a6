"""`accounts`: lists the accounts that a configuration covers. Reads no key."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from keysync.cli.compose import open_clients, open_runtime
from keysync.cli.options import Options
from keysync.cli.signals import interruptible
from keysync.cli.streams import console_for
from keysync.config.model import Config
from keysync.names import natural
from keysync.report.causes import account_name
from keysync.report.console import Span, to_json
from keysync.secret.redact import Redactor
from keysync.sources.discovery import Inventory
from keysync.sync.inventory import resolve
from keysync.sync.runtime import Shared

_STYLES: Final = {"served": "green", "skipped": "yellow", "refused": "bold red"}
_HEADINGS: Final = ("account", "subscription", "group", "source", "vaults", "secrets", "state")


@dataclass(frozen=True, slots=True)
class Line:
    """One account, as in the JSON output. `secrets` maps keys to names; both it and `vaults` are empty if unknown."""

    account: str
    source: str
    """``listed`` or ``discover[N]``."""
    vaults: tuple[str, ...]
    secrets: Mapping[str, str]
    state: Literal["served", "skipped", "refused"] = "served"
    reason: str | None = None


async def run(options: Options, config: Config, redactor: Redactor) -> int:
    """Prints the accounts. Returns 1 if not all could be listed or one is refused, else 0. Raises KeysyncError."""
    with interruptible() as interruption:
        async with AsyncExitStack() as stack:
            clients = await open_clients(stack, config, redactor)
            runtime = await open_runtime(stack, clients, Shared(redactor, shard=options.shard))
            inventory = await resolve(runtime.discovery, interruption.stop)
    lines = list(_lines(inventory))
    states: Counter[str] = Counter(line.state for line in lines)
    counts = {state: states[state] for state in _STYLES}
    if options.output == "json":
        sys.stdout.write(to_json(_to_dict(inventory, lines, counts)) + "\n")
    else:
        _print(inventory, lines, counts)
    return interruption.exit_code or int(not inventory.complete or bool(inventory.refused))


def _lines(inventory: Inventory) -> Iterator[Line]:
    for account in inventory.accounts:
        entry = inventory.origins.get(account.resource_id)
        source = "listed" if entry is None else f"discover[{entry}]"
        yield Line(account.resource_id, source, account.vaults, account.secret_names())
    for skipped in inventory.skipped:
        known = skipped.account  # None if it is unknown how it would have been covered
        vaults, secrets = (known.vaults, known.secret_names()) if known else ((), {})
        state: Literal["skipped", "refused"] = "refused" if skipped.refused else "skipped"
        yield Line(skipped.resource_id, f"discover[{skipped.entry}]", vaults, secrets, state, skipped.reason)


def _to_dict(inventory: Inventory, lines: list[Line], counts: dict[str, int]) -> dict[str, Any]:
    problems = [
        {
            "source": f"discover[{problem.entry}]",
            "scope": problem.scope,
            "reason": problem.record.summary,
            "error": problem.record.to_dict(),
        }
        for problem in inventory.problems
    ]
    accounts = [asdict(line) for line in lines]
    summary = {"complete": inventory.complete, "summary": counts, "accounts": accounts, "problems": problems}
    return {**summary, "warnings": list(inventory.warnings)}


def _print(inventory: Inventory, lines: list[Line], counts: dict[str, int]) -> None:
    console = console_for(sys.stdout)
    # Served accounts first, each group by name.
    lines = sorted(lines, key=lambda line: (line.state != "served", natural(account_name(line.account)), line.account))
    if lines:
        console.table(_HEADINGS, [_row(line) for line in lines])
    for line in lines:
        if line.reason:
            head = Span(f"{line.state} ", _STYLES[line.state]), Span(account_name(line.account), "bold")
            console.line(*head, Span(f": {line.reason}"))
    for problem in inventory.problems:
        scope = Span(f"discover[{problem.entry}] {problem.scope}: ", "bold")
        console.line(Span("not listed completely ", "bold red"), scope, Span(problem.record.summary))
        if problem.record.hint:
            console.line(Span(f"    → {problem.record.hint}", "cyan"))
    for warning in inventory.warnings:
        console.line(Span(f"warning: {warning}", "yellow"))
    counted = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none covered"
    partly = "" if inventory.complete else "; not all could be listed"
    style = "bold red" if not inventory.complete or inventory.refused else "bold green"
    console.line(Span(f"accounts: {counted}{partly}", style), no_wrap=True)


def _row(line: Line) -> tuple[Span, ...]:
    _, _, subscription, _, group, *_, name = line.account.split("/")
    cells = (name, subscription, group, line.source, ", ".join(line.vaults), ", ".join(line.secrets.values()))
    return *(Span(cell) for cell in cells), Span(line.state, _STYLES[line.state])
