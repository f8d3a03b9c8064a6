"""The report for a person: a table to read at a glance, then what to do about whatever is not as it should be."""

from __future__ import annotations

import re
from collections.abc import Iterable
from textwrap import shorten
from typing import Final, TextIO

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from keysync.azure.errors import FailureRecord
from keysync.report.controls import without_controls
from keysync.report.json import summary
from keysync.sync.model import BAD, WRITES, Report, Result

_STYLES: Final = {
    "created": "green", "updated": "green", "adopted": "green", "recovered": "green", "disabled": "magenta",
    "deleted": "magenta", "create": "cyan", "update": "cyan", "adopt": "cyan", "recover": "cyan", "disable": "magenta",
    "delete": "magenta",
    "unchanged": "dim", "skipped": "yellow", "refused": "bold yellow", "failed": "bold red", "unknown": "bold red",
}  # fmt: skip
# An update says why in its verdict.
_PLAIN: Final = frozenset({"updated", "update"})
_MARKS: Final = {"failed": "✗", "unknown": "?", "refused": "!", "skipped": "-", "unchanged": "=", "disable": "x", "disabled": "x",
          "delete": "x", "deleted": "x"}  # fmt: skip
# Somebody did something that was not meant.
_ALARMING: Final = frozenset({"swapped", "duplicated", "both_changed", "foreign"})
# A larger report shows only what is not plainly unchanged.
_SHOW_ALL: Final = 40
_PIPED_WIDTH: Final = 400
# A command that a sentence tells stands behind a colon, and goes to the end of the sentence or to a semicolon.
_COMMAND: Final = re.compile(r"(?<=: )((?:keysync|az) [^;]+)")
# The whole message of a service stands in the report and the log.
_LONGEST_REASON: Final = 1000


class _Terminal(Console):
    """A console whose text commands no terminal: a secret's tags and a service's words are anybody's."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments to print; a control character within a text becomes U+FFFD."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=without_controls(segment.text))


def console_for(stream: TextIO) -> Console:
    """A console that is plain and does not wrap where `stream` is no terminal; NO_COLOR is rich's own affair."""
    return (
        _Terminal(file=stream, highlight=False)
        if stream.isatty()
        else _Terminal(file=stream, highlight=False, width=_PIPED_WIDTH)
    )


def print_report(console: Console, report: Report, *, accepted_by: str | None = "checksum") -> None:
    """Prints table, failures with their hints, a stop if there was one, and the summary line.

    `accepted_by` is what a plan shows for a later `--accept`, None where nothing takes it.
    """
    shown = [result for result in report.results if len(report.results) <= _SHOW_ALL or not _plain(result)]
    if shown:
        console.print(_table(console, shown))
        console.print()
    for head, reason, tail in _notes(report.results, cut=console.is_terminal):
        print_told(console, reason, head)
        if tail.plain:
            console.print(tail, soft_wrap=not console.is_terminal)
    for warning in report.warnings:
        print_told(console, warning, Text("warning: ", style="yellow"))
    if report.stopped:
        print_told(console, report.stopped, Text("stopped: ", style="bold red"))
    if report.interrupted:
        console.print(Text("interrupted: this is what was done until then", style="bold yellow"))
    console.print(_summary_line(report, accepted_by), soft_wrap=True)


def print_told(console: Console, sentence: str, head: Text | None = None) -> None:
    """Prints a sentence; on a terminal each command that it tells stands whole on a line of its own, to be copied."""
    text = (head or Text()).copy()
    if not console.is_terminal:
        # A pipe gets one line a sentence, for grep.
        console.print(text.append(sentence, style="none"), soft_wrap=True)
        return
    parts = _COMMAND.split(sentence)
    for words, told in zip(parts[::2], [*parts[1::2], ""], strict=True):
        if text.plain or words.strip("; "):
            console.print(text.append(words.strip("; "), style="none"))
        if told:
            console.print(Text(f"    {told}", style="cyan"), soft_wrap=True)
        text = Text()


def account_name(resource_id: str) -> str:
    """The last part of an ARM id."""
    return resource_id.rsplit("/", 1)[-1]


def _plain(result: Result) -> bool:
    return result.outcome == "unchanged" and result.reason is None


def _table(console: Console, results: Iterable[Result]) -> Table:
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, show_edge=False)
    for heading in ("account", "key", "vault", "secret", "found", "outcome"):
        table.add_column(heading, no_wrap=not console.is_terminal, overflow="fold")
    for result in results:
        outcome = Text(f"{_MARKS.get(result.outcome, '+')} {result.outcome}", style=_STYLES[result.outcome])
        ref = result.ref
        table.add_row(
            escape(account_name(ref.account)), ref.key, escape(ref.vault), escape(ref.secret), _found(result), outcome
        )
    return table


def _found(result: Result) -> Text:
    text = "" if result.verdict == "unknown" else result.verdict.replace("_", " ")
    return Text(text, style="bold yellow" if result.verdict in _ALARMING else "dim")


def _notes(results: Iterable[Result], *, cut: bool) -> Iterable[tuple[Text, str, Text]]:
    """One note for each distinct reason of an account, however many of its items have it: whom, what, and what to do."""
    notes: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        if result.reason is not None and (result.outcome not in _PLAIN or result.verdict in _ALARMING):
            notes.setdefault((result.ref.account, result.outcome, result.reason), []).append(result)
    for (account, outcome, reason), group in notes.items():
        head = Text(f"{outcome} ", style=_STYLES[outcome])
        secrets = ", ".join(sorted({result.ref.secret for result in group}))
        head.append(f"{account_name(account)} ({secrets}): ", style="bold")
        error = group[0].error
        yield head, shorten(reason, _LONGEST_REASON, placeholder=" …") if error and cut else reason, _cure(error)


def _cure(error: FailureRecord | None) -> Text:
    lines = []
    if error is not None and error.hint:
        lines.append(Text(f"    → {error.hint}", style="cyan"))
    if error is not None and error.request_id:
        lines.append(Text(f"    request {error.request_id}", style="dim"))
    return Text("\n").join(lines)


def _summary_line(report: Report, accepted_by: str | None) -> Text:
    counts = summary(report)
    accounts = counts.pop("accounts")
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count) or "nothing to do"
    left = sum(result.outcome in WRITES for result in report.results)
    held_back = f" (read-only: {left} {'change was' if left == 1 else 'changes were'} not written)" if left else ""
    plan = " (nothing was written)" if report.dry_run else held_back
    style = "bold red" if any(result.outcome in BAD for result in report.results) else "bold green"
    noun = "account" if accounts == 1 else "accounts"
    line = Text(f"{accounts} {noun}: {told} in {report.duration_seconds:.2f} s{plan}", style=style)
    if report.has_changes and report.dry_run and accepted_by is not None:
        line.append(f"  {accepted_by} {report.checksum}", style="dim")
    return line
