"""Events of runs for notifications: changes of state, not states. Pure functions of earlier states and a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

from keysync.sync.model import BAD, DONE, ItemRef, Outcome, Report, Result

EventName: TypeAlias = Literal["changed", "failed", "recovered", "stopped", "released"]
ItemState: TypeAlias = Literal["ok", "failed"]

_CHANGED: Final[frozenset[Outcome]] = frozenset(DONE.values())
_OK: Final = frozenset[Outcome]((*_CHANGED, "unchanged"))


@dataclass(frozen=True, slots=True)
class ItemEvent:
    """One item changed, failed or recovered; `result` is the item's result in the run that shows it."""

    name: EventName
    result: Result


@dataclass(frozen=True, slots=True)
class StopEvent:
    """A stop by a safety limit began, continues with another plan, or is over. `checksum` identifies the blocked plan."""

    name: EventName
    checksum: str
    reason: str | None = None


Event: TypeAlias = ItemEvent | StopEvent


def transitions(
    before: Mapping[ItemRef, ItemState], results: Iterable[Result]
) -> tuple[tuple[ItemEvent, ...], dict[ItemRef, ItemState]]:
    """The events of `results` given the states `before`, and the new states. An item without a result keeps its state.

    For new items a failure is an event and being in sync is not. An outcome that is neither good nor bad (skipped, or only
    planned) changes no state.
    """
    after = dict(before)
    events: list[ItemEvent] = []
    for result in results:
        if result.outcome in BAD:
            if after.get(result.ref) != "failed":
                events.append(ItemEvent("failed", result))
            after[result.ref] = "failed"
        elif result.outcome in _OK:
            if after.get(result.ref) == "failed":
                events.append(ItemEvent("recovered", result))
            after[result.ref] = "ok"
        if result.outcome in _CHANGED:
            events.append(ItemEvent("changed", result))
    return tuple(events), after


def stop_transitions(before: str | None, report: Report) -> tuple[tuple[StopEvent, ...], str | None]:
    """The event of a run that a safety limit stopped or released, and the checksum of the plan that is blocked after it.

    `before` is the checksum that was blocked until then. Each plan causes one event while it is blocked. An interrupted run
    does not show that a stop is over.
    """
    if report.stopped is not None:
        events = () if before == report.checksum else (StopEvent("stopped", report.checksum, report.stopped),)
        return events, report.checksum
    if before is None or report.interrupted:
        return (), before
    return (StopEvent("released", before),), None


def describe(event: Event, *, identity: str, moment: datetime, run_id: str, installation: str | None) -> dict[str, Any]:
    """The event in the form of docs/notifications.md; `moment` in UTC. Fields about an item are None for a stop."""
    fields: dict[str, Any] = {
        "id": identity,
        "time": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "event": event.name,
        "installation": installation,
        "run_id": run_id,
        **dict.fromkeys(("account", "vault", "secret", "key", "outcome", "verdict", "reason", "error")),
    }
    if isinstance(event, StopEvent):
        return {**fields, "reason": event.reason, "checksum": event.checksum}
    result, ref, error = event.result, event.result.ref, event.result.error
    fields |= {"account": ref.account, "vault": ref.vault, "secret": ref.secret, "key": ref.key}
    fields |= {"outcome": result.outcome, "verdict": result.verdict, "reason": result.reason}
    if error is not None:
        names = ("kind", "http_status", "code", "request_id", "hint")
        fields["error"] = {name: getattr(error, name) for name in names}
    return fields
