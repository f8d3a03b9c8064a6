"""`accounts`: what a configuration covers, without reading a key."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from keysync import logs
from keysync.cli.compose import Extras, wire
from keysync.cli.options import Options, load
from keysync.cli.signals import interruptible
from keysync.config.settings import Account, Config
from keysync.report.console import Paper, Part, paper_for, to_json
from keysync.report.text import account_name
from keysync.secret.redact import Scrubber
from keysync.sources.discovery import Problem
from keysync.sync.causes import natural
from keysync.sync.inventory import Coverage, resolve
from keysync.sync.shard import share_of

State = Literal["served", "left_out", "refused"]

_STYLES: Final = {"served": "green", "left_out": "yellow", "refused": "bold red"}
_WORDS: Final = {"served": "served", "left_out": "left out", "refused": "refused"}


@dataclass(frozen=True, slots=True)
class Line:
    """One account. `source` is ``listed`` or ``discover[N]``; vaults and secrets are empty where they cannot be told."""

    account: str
    source: str
    vaults: tuple[str, ...]
    secrets: Mapping[str, str]
    state: State
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the JSON."""
        return {
            "account": self.account,
            "source": self.source,
            "vaults": list(self.vaults),
            "secrets": dict(self.secrets),
            "state": self.state,
            "reason": self.reason,
        }


def run(options: Options) -> int:
    """Prints the accounts; 0, or 1 where they could not all be listed or one is refused. Raises KeysyncError."""
    config = load(options)
    scrubber = Scrubber()
    # What went wrong stands in the result; the log would say it twice.
    logs.configure("critical" if options.log_level == "info" else options.log_level, options.log_format, scrubber.scrub)
    return asyncio.run(_run(options, config, scrubber))


async def _run(options: Options, config: Config, scrubber: Scrubber) -> int:
    with interruptible() as interruption:
        extras = Extras(mine=share_of(options.shard))
        async with wire(config, (), scrubber, lambda _operation, _status: None, extras) as wired:
            coverage = await resolve(config, wired.discovery, interruption.stop)
    lines = list(_lines(coverage))
    if options.output == "json":
        sys.stdout.write(to_json(_to_dict(coverage, lines)) + "\n")
    else:
        _print(paper_for(sys.stdout), coverage, sorted(lines, key=_order))
    refused = any(line.state == "refused" for line in lines)
    return interruption.exit_code or int(not coverage.complete or refused)


def _lines(coverage: Coverage) -> Iterator[Line]:
    origins = coverage.origins
    for account in coverage.accounts:
        yield _line(account, origins.get(account.resource_id), "served", None)
    for one in coverage.left_out:
        state: State = "refused" if one.refused else "left_out"
        if one.account is not None:
            yield _line(one.account, one.entry, state, one.reason)
        else:
            yield Line(one.resource_id, f"discover[{one.entry}]", (), {}, state, one.reason)


def _line(account: Account, entry: int | None, state: State, reason: str | None) -> Line:
    source = "listed" if entry is None else f"discover[{entry}]"
    return Line(account.resource_id, source, account.vaults, account.secret_names(), state, reason)


def _to_dict(coverage: Coverage, lines: list[Line]) -> dict[str, Any]:
    return {
        "complete": coverage.complete,
        "summary": {state: sum(line.state == state for line in lines) for state in _STYLES},
        "accounts": [line.to_dict() for line in lines],
        "problems": [_problem(problem) for problem in coverage.problems],
        "warnings": list(coverage.warnings),
    }


def _problem(problem: Problem) -> dict[str, Any]:
    told = {"source": f"discover[{problem.entry}]", "scope": problem.scope, "reason": problem.record.summary}
    return {**told, "error": problem.record.to_dict()}


def _order(line: Line) -> tuple[bool, tuple[tuple[int, str], ...], str]:
    """What is served first, each by name."""
    return line.state != "served", natural(account_name(line.account)), line.account


def _print(paper: Paper, coverage: Coverage, lines: list[Line]) -> None:
    if lines:
        paper.table(_HEADINGS, [_row(line) for line in lines])
    for line in lines:
        if line.reason:
            head = Part(f"{_WORDS[line.state]} ", _STYLES[line.state]), Part(account_name(line.account), "bold")
            paper.line(*head, Part(f": {line.reason}"))
    for problem in coverage.problems:
        where = Part(f"discover[{problem.entry}] {problem.scope}: ", "bold")
        paper.line(Part("not listed whole ", "bold red"), where, Part(problem.record.summary))
        if problem.record.hint:
            paper.line(Part(f"    → {problem.record.hint}", "cyan"))
    for warning in coverage.warnings:
        paper.line(Part(f"warning: {warning}", "yellow"))
    paper.line(_summary(coverage, lines), whole=True)


_HEADINGS: Final = ("account", "subscription", "group", "source", "vaults", "secrets", "state")


def _row(line: Line) -> tuple[Part, ...]:
    parts = line.account.split("/")
    cells = (
        account_name(line.account),
        parts[2],
        parts[4],
        line.source,
        _all(line.vaults),
        _all(line.secrets.values()),
    )
    return (*(Part(cell) for cell in cells), Part(_WORDS[line.state], _STYLES[line.state]))


def _all(names: Iterable[str]) -> str:
    return ", ".join(names)


def _summary(coverage: Coverage, lines: list[Line]) -> Part:
    counts = {state: sum(line.state == state for line in lines) for state in _STYLES}
    told = ", ".join(f"{count} {_WORDS[state]}" for state, count in counts.items() if count) or "none covered"
    partly = "" if coverage.complete else "; not all could be listed"
    bad = not coverage.complete or counts["refused"]
    return Part(f"accounts: {told}{partly}", "bold red" if bad else "bold green")
