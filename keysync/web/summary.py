"""The headline of the page: one line that says whether every secret is in sync."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from keysync.report.status import Status, Tally
from keysync.web.format import count
from keysync.web.query import NEED_ATTENTION

Tone: TypeAlias = Literal["good", "warn", "bad", "wait"]


@dataclass(frozen=True, slots=True)
class SummaryLine:
    """`text` for the page, a shorter `title` for the browser tab, and `tone` for icon and colour."""

    text: str
    title: str
    tone: Tone


def summary_line(status: Status, tally: Tally) -> SummaryLine:
    """The line for the most serious state."""
    if not status.live:
        return SummaryLine("keysync is not working", "not working", "bad")
    if status.leader is False:
        return _standby(status)
    if status.stopped is not None:
        return SummaryLine("Stopped by a safety limit", "stopped by a limit", "bad")
    if tally.out_of_sync:
        share = f"{tally.out_of_sync:,} of {tally.secrets:,}"
        unread = f", {tally.unread:,} could not be read" if tally.unread else ""
        pending = f", {tally.pending:,} not checked yet" if tally.pending else ""
        return SummaryLine(f"{share} secrets out of sync{unread}{pending}", f"{share} out of sync", "bad")
    if tally.unread:
        share = f"{tally.unread:,} of {tally.secrets:,}"
        pending = f", {tally.pending:,} not checked yet" if tally.pending else ""
        return SummaryLine(f"{share} secrets could not be read{pending}", f"{share} not read", "bad")
    return _all_in_sync(status, tally)


def _standby(status: Status) -> SummaryLine:
    reason = status.ready_reason or "standing by"
    text = reason[:1].upper() + reason[1:]
    return SummaryLine(text, "standing by", "wait") if status.ready else SummaryLine(text, "could not take over", "bad")


def _all_in_sync(status: Status, tally: Tally) -> SummaryLine:
    if not tally.accounts:
        return SummaryLine("No accounts to keep in sync", "no accounts", "wait")
    urgent = sum(account.state in NEED_ATTENTION for account in status.accounts)
    if urgent:
        needs = f"{count(urgent, 'account')} {'needs' if urgent == 1 else 'need'} attention"
        return SummaryLine(needs, needs, "bad")
    if status.stale_accounts:
        stale = count(len(status.stale_accounts), "account")
        return SummaryLine(f"{stale} not seen in sync for too long", f"{stale} stale", "warn")
    if status.unserved:
        unserved = f"{count(len(status.unserved), 'account')} no longer served"
        return SummaryLine(unserved, unserved, "warn")
    if status.ready and not tally.secrets:
        return SummaryLine("No secrets to keep in sync", "no secrets", "wait")
    if not tally.in_sync:
        return SummaryLine("The first run is not done yet", "first run", "wait")
    if tally.pending:
        share = f"{tally.in_sync:,} of {tally.secrets:,}"
        return SummaryLine(f"{share} secrets in sync, the others not checked yet", f"{share} in sync so far", "wait")
    text = f"All {count(tally.secrets, 'secret')} in sync" if tally.secrets > 1 else "The secret is in sync"
    return SummaryLine(text, text.lower(), "good")
