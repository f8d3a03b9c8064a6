"""Numbers, times and states as text for people: the filters of the templates, and the headline of the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from keysync.names import natural
from keysync.report.status import AccountStatus, Status, sync_state_of, verdict_of
from keysync.sync.model import DONE, WRITES, Result

Tone: TypeAlias = Literal["good", "warn", "bad", "wait"]

STATES: Final[Mapping[str, tuple[str, Tone]]] = {
    "in_sync": ("in sync", "good"),
    "changed": ("just written", "good"),
    "drift": ("drift", "warn"),
    "refused": ("refused", "warn"),
    "failing": ("failing", "bad"),
    "needs_accept": ("needs --accept", "bad"),
    "pending": ("not checked yet", "wait"),
    "ok": ("ok", "good"),
    "read_only": ("read-only", "wait"),
    "stale": ("stale", "warn"),
    "attention": ("needs attention", "warn"),
}
_PLANNED: Final[Mapping[str, str]] = {kind: f"would be {done}" for kind, done in DONE.items()}


def number(value: int) -> str:
    """``1,250``."""
    return f"{value:,}"


def count(value: int, noun: str) -> str:
    """``1 secret``, ``1,250 secrets``."""
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {noun}s"


def relative(when: datetime, now: datetime) -> str:
    """The distance in one unit, rounded down: ``now``, ``42 s ago``, ``in 3 min``, ``5 h ago``, ``2 d ago``."""
    seconds = int(abs(when - now).total_seconds())
    if seconds < 1:
        return "now"
    text = f"{seconds // 86_400:,} d"
    for limit, length, unit in ((120, 1, "s"), (120 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            text = f"{seconds // length} {unit}"
            break
    return f"in {text}" if when > now else f"{text} ago"


def clock(when: datetime, now: datetime) -> str:
    """The time in UTC, with the date unless it is today."""
    when, now = when.astimezone(UTC), now.astimezone(UTC)
    return when.strftime("%H:%M:%S" if when.date() == now.date() else "%Y-%m-%d %H:%M:%S")


def machine(when: datetime) -> str:
    """The time in UTC for the attribute `datetime` of the element `time`."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def label(state: str) -> str:
    """A state of an account or a vault in words."""
    return STATES[state][0]


def tone(state: str) -> Tone:
    """The colour and icon of a state."""
    return STATES[state][1]


def account_tone(account: AccountStatus) -> Tone:
    """The tone of an account's row."""
    usual = tone(account.state)
    return "warn" if account.stale and usual in {"good", "wait"} else usual


def secret_label(result: Result) -> str:
    """The state of a secret in a word or two: its verdict, and the outcome of the last run."""
    verdict, outcome = verdict_of(result).replace("_", " "), result.outcome
    match sync_state_of(result):
        case "in_sync":
            return verdict if outcome == "unchanged" else outcome
        case "unread":
            return "may have been written" if outcome == "unknown" else "could not be read"
        case _:
            # The verdict `unknown` says less than the outcome.
            difference = f"{verdict}, " if verdict not in {"unknown", "in sync"} else ""
            return difference + _PLANNED.get(outcome, outcome)


def secret_tone(result: Result) -> Tone:
    """The tone of a secret. Nothing failed if it was refused, skipped or only planned."""
    if sync_state_of(result) == "in_sync":
        return "good"
    return "warn" if result.outcome in WRITES | {"refused", "skipped"} else "bad"


def by_name(results: Iterable[Result]) -> list[Result]:
    """The secrets in natural order: farm2 before farm10."""
    return sorted(results, key=lambda result: (natural(result.ref.secret), natural(result.ref.vault)))


def in_sync(results: tuple[Result, ...]) -> str:
    """``9 of 10 in sync``."""
    return f"{sum(sync_state_of(result) == 'in_sync' for result in results)} of {len(results)} in sync"


def outcomes(summary: Mapping[str, int]) -> str:
    """The summary of a run: ``1 updated, 11 unchanged``."""
    parts = [f"{value:,} {name}" for name, value in summary.items() if value and name != "accounts"]
    return ", ".join(parts) or "nothing to do"


class SummaryLine(NamedTuple):
    """Whether every secret is in sync: `text` for the page, a shorter `title` for the browser tab, `tone` for icon and colour."""

    text: str
    title: str
    tone: Tone


def summary_line(status: Status, counts: Mapping[str, int]) -> SummaryLine:
    """The line for the most serious state."""
    out_of_sync, unread, in_sync = (
        f"{counts[state]:,} of {counts['secrets']:,}" for state in ("out_of_sync", "unread", "in_sync")
    )
    pending = f", {counts['pending']:,} not checked yet" if counts["pending"] else ""
    others = (f", {counts['unread']:,} could not be read" if counts["unread"] else "") + pending
    standby = status.ready_reason or "standing by"
    standby = standby[:1].upper() + standby[1:]
    stale, unserved = count(len(status.stale_accounts), "account"), count(len(status.unserved), "account")
    all_in_sync = (
        f"All {count(counts['secrets'], 'secret')} in sync" if counts["secrets"] > 1 else "The secret is in sync"
    )
    lines: tuple[tuple[object, str, str, Tone], ...] = (
        (not status.live, "keysync is not working", "not working", "bad"),
        (status.leader is False and status.ready, standby, "standing by", "wait"),
        (status.leader is False, standby, "could not take over", "bad"),
        (status.stopped is not None, "Stopped by a safety limit", "stopped by a limit", "bad"),
        (counts["out_of_sync"], f"{out_of_sync} secrets out of sync{others}", f"{out_of_sync} out of sync", "bad"),
        (counts["unread"], f"{unread} secrets could not be read{pending}", f"{unread} not read", "bad"),
        (not status.accounts, "No accounts to keep in sync", "no accounts", "wait"),
        (status.stale_accounts, f"{stale} not seen in sync for too long", f"{stale} stale", "warn"),
        (status.unserved, f"{unserved} no longer served", f"{unserved} no longer served", "warn"),
        (not counts["in_sync"], "The first run is not done yet", "first run", "wait"),
        (pending, f"{in_sync} secrets in sync, the others not checked yet", f"{in_sync} in sync so far", "wait"),
    )
    found = next((SummaryLine(text, title, tone) for applies, text, title, tone in lines if applies), None)
    return found or SummaryLine(all_in_sync, all_in_sync.lower(), "good")


FILTERS: Final[tuple[Any, ...]] = (
    number, relative, clock, machine, label, tone, account_tone, secret_label, secret_tone, by_name, in_sync, outcomes
)  # fmt: skip
