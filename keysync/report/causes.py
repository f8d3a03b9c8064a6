"""Groups failures by cause, and names the affected accounts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from keysync.failures import FailureRecord
from keysync.names import natural
from keysync.sync.model import Result

_NAMED: Final = 3


def identity_of(record: FailureRecord) -> str:
    """A text that failures with one cause share: codes and scope, not messages, which contain times and request ids.

    Denials of different operations have different fixes, so a 403 includes the operation.
    """
    operation = record.operation if record.http_status == 403 else ""
    parts = (record.kind, record.http_status, *record.codes, record.about, operation)
    return " ".join(str(part) for part in parts if part)


def cause_of(result: Result) -> str:
    """A text that results with one cause share: the outcome, and the failure, or else the verdict."""
    return f"{result.outcome} {result.verdict if result.error is None else identity_of(result.error)}"


def by_cause(results: Iterable[Result]) -> dict[str, list[Result]]:
    """The results that have one failure in common, or without a failure the outcome and its reason."""
    causes: dict[str, list[Result]] = {}
    for result in results:
        cause = f"{result.outcome} {result.reason}" if result.error is None else cause_of(result)
        causes.setdefault(cause, []).append(result)
    return causes


def many(count: int, noun: str) -> str:
    """A count with its noun: `1 account`, `300 accounts`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def affected(names: Collection[str], noun: str) -> str:
    """A count with up to three names: `300 accounts: farm1, farm2, farm3 and 297 more`."""
    ordered: Sequence[str] = sorted(set(names), key=natural)
    if len(ordered) == 1:
        return f"{noun} {ordered[0]}"
    more = f" and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else ""
    return f"{many(len(ordered), noun)}: {', '.join(ordered[:_NAMED])}{more}"


def account_name(resource_id: str) -> str:
    """The last part of an ARM id."""
    return resource_id.rsplit("/", 1)[-1]


def affected_accounts(resource_ids: Collection[str]) -> str:
    """`affected` for accounts: by name, or by ARM id if two accounts have the same name."""
    names = {resource_id: account_name(resource_id) for resource_id in resource_ids}
    ambiguous = len(set(names.values())) < len(names)
    return affected(names if ambiguous else list(names.values()), "account")
