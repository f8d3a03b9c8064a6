"""The headline of the page: one line that says whether every secret is in sync."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from keysync.report.status import Status
from keysync.web.format import Tone, count


class SummaryLine(NamedTuple):
    """`text` for the page, a shorter `title` for the browser tab, and `tone` for icon and colour."""

    text: str
    title: str
    tone: Tone


def summary_line(status: Status, counts: Mapping[str, int]) -> SummaryLine:
    """The line for the most serious state."""
    if not status.live:
        return SummaryLine("keysync is not working", "not working", "bad")
    if status.leader is False:
        reason = status.ready_reason or "standing by"
        text = reason[:1].upper() + reason[1:]
        if status.ready:
            return SummaryLine(text, "standing by", "wait")
        return SummaryLine(text, "could not take over", "bad")
    if status.stopped is not None:
        return SummaryLine("Stopped by a safety limit", "stopped by a limit", "bad")
    unread = f", {counts['unread']:,} could not be read" if counts["unread"] else ""
    pending = f", {counts['pending']:,} not checked yet" if counts["pending"] else ""
    if counts["out_of_sync"]:
        share = f"{counts['out_of_sync']:,} of {counts['secrets']:,}"
        return SummaryLine(f"{share} secrets out of sync{unread}{pending}", f"{share} out of sync", "bad")
    if counts["unread"]:
        share = f"{counts['unread']:,} of {counts['secrets']:,}"
        return SummaryLine(f"{share} secrets could not be read{pending}", f"{share} not read", "bad")
    return _all_in_sync(status, counts)


def _all_in_sync(status: Status, counts: Mapping[str, int]) -> SummaryLine:
    if not status.accounts:
        return SummaryLine("No accounts to keep in sync", "no accounts", "wait")
    stale = len(status.stale_accounts)
    if stale:
        text = count(stale, "account")
        return SummaryLine(f"{text} not seen in sync for too long", f"{text} stale", "warn")
    if status.unserved:
        unserved = f"{count(len(status.unserved), 'account')} no longer served"
        return SummaryLine(unserved, unserved, "warn")
    if not counts["in_sync"]:
        return SummaryLine("The first run is not done yet", "first run", "wait")
    if counts["pending"]:
        share = f"{counts['in_sync']:,} of {counts['secrets']:,}"
        return SummaryLine(f"{share} secrets in sync, the others not checked yet", f"{share} in sync so far", "wait")
    text = f"All {count(counts['secrets'], 'secret')} in sync" if counts["secrets"] > 1 else "The secret is in sync"
    return SummaryLine(text, text.lower(), "good")
