"""What is worth telling of a run: changes of state, not states. Pure functions of what was known and what came out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

from keysync.sync.model import BAD, DONE, ItemRef, Outcome, Report, Result

EventName: TypeAlias = Literal["changed", "failed", "recovered", "stopped", "released"]
ItemState: TypeAlias = Literal["ok", "failed"]

_CHANGED: Final[frozenset[Outcome]] = frozenset(DONE.values())
_OK: Final[frozenset[Outcome]] = _CHANGED | {"unchanged"}


@dataclass(frozen=True, slots=True)
class ItemEvent:
    """One item changed, failed or recovered; `result` is the item's result in the run that shows it."""

    name: EventName
    result: Result

    def to_dict(self) -> dict[str, Any]:
        """The part of the documented event that is the item's."""
        result, ref = self.result, self.result.ref
        return {
            "account": ref.account,
            "vault": ref.vault,
            "secret": ref.secret,
            "key": ref.key,
            "outcome": result.outcome,
            "verdict": getattr(result, "verdict", None),
            "reason": result.reason,
            "error": _error(result),
        }


@dataclass(frozen=True, slots=True)
class StopEvent:
    """A safety stop began, went on with another plan, or is over; `checksum` names the plan that was held back."""

    name: EventName
    checksum: str
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The part of the documented event that is the stop's; it belongs to no item."""
        nothing = dict.fromkeys(("account", "vault", "secret", "key", "outcome", "verdict"))
        return {**nothing, "reason": self.reason, "error": None, "checksum": self.checksum}


Event: TypeAlias = ItemEvent | StopEvent


def transitions(
    before: Mapping[ItemRef, ItemState], results: Iterable[Result]
) -> tuple[tuple[ItemEvent, ...], dict[ItemRef, ItemState]]:
    """The events of `results` after the states `before`, and the states after them; what has no result keeps its state.

    An item that was not seen before counts as well, so the first run tells of failures and of nothing that is in sync. An
    outcome that is neither good nor bad (skipped, or planned only) changes no state.
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
    """The events of a run that was stopped, or no longer is, and the checksum that is held back after it.

    `before` is the checksum that was held back until then. One plan is told once for as long as it is held back; a run that
    was interrupted has not shown that a stop is over.
    """
    if report.stopped is not None:
        told = () if before == report.checksum else (StopEvent("stopped", report.checksum, report.stopped),)
        return told, report.checksum
    if before is None or report.interrupted:
        return (), before
    return (StopEvent("released", before),), None


def describe(event: Event, *, identity: str, moment: datetime, run_id: str, installation: str | None) -> dict[str, Any]:
    """The event as it is documented in docs/notifications.md; `moment` in UTC."""
    return {
        "id": identity,
        "time": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "event": event.name,
        "installation": installation,
        "run_id": run_id,
        **event.to_dict(),
    }


def _error(result: Result) -> dict[str, Any] | None:
    error = result.error
    if error is None:
        return None
    return {
        "kind": error.kind,
        "http_status": error.http_status,
        "code": error.code,
        "request_id": error.request_id,
        "hint": error.hint,
    }
