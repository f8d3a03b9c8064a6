"""Events of runs for notifications: changes of state, not states. Pure functions of an earlier state and a run.

docs/notifications.md describes the fields. `notify` adds the fields that all events of a run have in common. A stop has the
fields of an item too, as None.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from keysync.sync.model import BAD, DONE, ItemRef, Outcome, Report, Result

EventName: TypeAlias = Literal["changed", "failed", "recovered", "stopped", "released"]

_CHANGED: Final[frozenset[Outcome]] = frozenset(DONE.values())
_OK: Final = frozenset[Outcome]((*_CHANGED, "unchanged"))
_OF_ITEMS: Final = ("account", "vault", "secret", "key", "outcome", "verdict", "reason", "error")


class Event(NamedTuple):
    """A change of state; `fields` describe the item or the stop."""

    name: EventName
    fields: dict[str, Any]


def transitions(before: Collection[ItemRef], results: Iterable[Result]) -> tuple[list[Event], set[ItemRef]]:
    """The events of `results` after a run in which the items `before` had failed, and the items that have failed now.

    For new items a failure is an event and being in sync is not. An outcome that is neither good nor bad (skipped, or only
    planned) and an item without a result change no state.
    """
    failed = set(before)
    events: list[Event] = []
    for result in results:
        if result.outcome in BAD and result.ref not in failed:
            failed.add(result.ref)
            events.append(_of_item("failed", result))
        elif result.outcome in _OK and result.ref in failed:
            failed.discard(result.ref)
            events.append(_of_item("recovered", result))
        if result.outcome in _CHANGED:
            events.append(_of_item("changed", result))
    return events, failed


def stop_transitions(before: str | None, report: Report) -> tuple[list[Event], str | None]:
    """The event if a safety limit stopped the run or released the plan, and the checksum of the plan that is blocked after it.

    `before` is the checksum that was blocked until then. Each plan causes one event while it is blocked. An interrupted run
    does not show that a stop is over.
    """
    if report.stopped is not None:
        events = [] if before == report.checksum else [_of_stop("stopped", report.checksum, report.stopped)]
        return events, report.checksum
    if before is None or report.interrupted:
        return [], before
    return [_of_stop("released", before)], None


def _of_item(name: EventName, result: Result) -> Event:
    ref, error = result.ref, result.error
    known = ("kind", "http_status", "code", "request_id", "hint")
    fields = {
        "account": ref.account,
        "vault": ref.vault,
        "secret": ref.secret,
        "key": ref.key,
        "outcome": result.outcome,
        "verdict": result.verdict,
        "reason": result.reason,
        "error": None if error is None else {key: getattr(error, key) for key in known},
    }
    return Event(name, fields)


def _of_stop(name: EventName, checksum: str, reason: str | None = None) -> Event:
    return Event(name, {**dict.fromkeys(_OF_ITEMS), "reason": reason, "checksum": checksum})
