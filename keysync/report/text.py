"""The report as text: a table of changes, then each problem and how to fix it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import shorten
from typing import Final

from keysync.errors import Instruction
from keysync.names import natural
from keysync.report.causes import account_name, affected_accounts, by_cause, many
from keysync.report.console import Console, Span
from keysync.sync.model import BAD, DONE, WRITES, Report, Result

_STYLES: Final = {
    "created": "green", "updated": "green", "adopted": "green", "recovered": "green", "disabled": "magenta",
    "deleted": "magenta", "create": "cyan", "update": "cyan", "adopt": "cyan", "recover": "cyan", "disable": "magenta",
    "delete": "magenta",
    "unchanged": "dim", "skipped": "yellow", "refused": "bold yellow", "failed": "bold red", "unknown": "bold red",
}  # fmt: skip
# The verdict of an update already says why.
_PLAIN: Final = frozenset({"updated", "update"})
_MARKS: Final = {"failed": "✗", "unknown": "?", "refused": "!", "skipped": "-", "unchanged": "=", "disable": "x", "disabled": "x",
          "delete": "x", "deleted": "x"}  # fmt: skip
_CHANGES: Final = WRITES | set(DONE.values())
# Another writer made a change that was probably a mistake.
_ALARMING: Final = frozenset({"swapped", "duplicated", "both_changed", "unmanaged"})
# A command in an `Instruction` follows a colon and ends at the end of the sentence or at a semicolon.
_COMMAND: Final = re.compile(r"(?<=: )((?:keysync|az) [^;]+)")
# The report and the log contain the whole message of a service.
_MAX_REASON: Final = 1000


def print_report(
    console: Console, report: Report, *, accepted_by: str | None = "checksum", show_all: bool = False
) -> None:
    """Prints the changes, the problems by cause, a stop by a safety limit, and the summary line.

    `show_all` prints a row for each secret, also if it is unchanged or named in a problem below the table. `accepted_by` is the
    word before the checksum that a later `--accept` takes; None if no command takes it.
    """
    ordered = sorted(report.results, key=lambda result: natural(result.ref.secret))
    shown = [result for result in ordered if show_all or result.outcome in _CHANGES]
    if shown:
        console.table(_HEADINGS, [_row(result) for result in shown])
    for warning in report.warnings:
        print_message(console, warning, Span("warning: ", "yellow"))
    noted = [each for each in ordered if each.reason and (each.outcome not in _PLAIN or each.verdict in _ALARMING)]
    for group in sorted(by_cause(noted).values(), key=lambda group: group[0].outcome in BAD):
        _print_note(console, group)
    if report.stopped:
        print_message(console, Instruction(report.stopped), Span("stopped: ", "bold red"))
    if report.interrupted:
        console.line(Span("interrupted: the report shows what was done until then", "bold yellow"))
    console.line(*_summary_line(report, accepted_by), no_wrap=True)


def print_message(console: Console, sentence: str, *head: Span) -> None:
    """Prints a sentence. On a terminal, each command of an `Instruction` has its own line, for copying."""
    if not console.is_terminal or not isinstance(sentence, Instruction):
        # One line for each sentence, for grep.
        console.line(*head, Span(sentence))
        return
    parts = _COMMAND.split(sentence)
    for text, command in zip(parts[::2], [*parts[1::2], ""], strict=True):
        if head or text.strip("; "):
            console.line(*head, Span(text.strip("; ")))
        if command:
            console.line(Span(f"    {command}", "cyan"), no_wrap=True)
        head = ()


_HEADINGS: Final = ("account", "key", "vault", "secret", "found", "outcome")


def _row(result: Result) -> tuple[Span, ...]:
    ref, mark = result.ref, _MARKS.get(result.outcome, "+")
    verdict = "" if result.verdict == "unknown" else result.verdict.replace("_", " ")
    return (
        *(Span(cell) for cell in (account_name(ref.account), ref.key, ref.vault, ref.secret)),
        Span(verdict, "bold yellow" if result.verdict in _ALARMING else "dim"),
        Span(f"{mark} {result.outcome}", _STYLES[result.outcome]),
    )


def _print_note(console: Console, group: Sequence[Result]) -> None:
    """Prints the affected secrets of one cause, the reason, the hint and the request id."""
    outcome, error, reason = group[0].outcome, group[0].error, group[0].reason or ""
    head = (Span(f"{outcome} ", _STYLES[outcome]), Span(f"{_affected(group)}: ", "bold"))
    if error is None:
        print_message(console, Instruction(reason), *head)
        return
    shown = shorten(reason, _MAX_REASON, placeholder=" …") if console.is_terminal else reason
    console.line(*head, Span(shown))
    if error.hint:
        hints = {result.error.hint for result in group if result.error is not None}
        first = account_name(group[0].ref.account)
        scope = f"for {first}, and the others in the same way: " if len(hints) > 1 else ""
        console.line(Span(f"    → {scope}{error.hint}", "cyan"))
    if error.request_id:
        console.line(Span(f"    request {error.request_id}", "dim"))


def _affected(group: Sequence[Result]) -> str:
    accounts = {result.ref.account for result in group}
    if len(accounts) > 1:
        return affected_accounts(accounts)
    secrets = sorted({result.ref.secret for result in group}, key=natural)
    return f"{account_name(group[0].ref.account)} ({', '.join(secrets)})"


def _summary_line(report: Report, accepted_by: str | None) -> tuple[Span, ...]:
    counts = report.summary()
    accounts = many(counts.pop("accounts"), "account")
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count) or "nothing to do"
    unwritten = sum(result.outcome in WRITES for result in report.results)
    note = ""
    if report.dry_run:
        note = " (nothing was written)"
    elif unwritten:
        note = f" (read-only: {many(unwritten, 'change')} {'was' if unwritten == 1 else 'were'} not written)"
    style = "bold red" if any(result.outcome in BAD for result in report.results) else "bold green"
    line = Span(f"{accounts}: {outcomes} in {report.duration_seconds:.2f} s{note}", style)
    if report.has_changes and report.dry_run and accepted_by is not None:
        return (line, Span(f"  {accepted_by} {report.checksum}", "dim"))
    return (line,)
