"""Groups failures by cause, and names the affected accounts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final, TypeAlias

from keysync.failures import FailureKind, FailureRecord
from keysync.names import natural
from keysync.sync.model import Result

Identity: TypeAlias = tuple[object, ...]
FailureIdentity: TypeAlias = tuple[FailureKind, int | None, tuple[str, ...], str, str]

_NAMED: Final = 3


def identity_of(record: FailureRecord) -> FailureIdentity:
    """The key by which failures have one cause: codes and scope, not messages, which contain times and request ids.

    Denials of different operations have different fixes, so a 403 includes the operation.
    """
    operation = record.operation if record.http_status == 403 else ""
    return record.kind, record.http_status, record.codes, record.about, operation


def cause_of(result: Result) -> Identity:
    """The cause of a result; without a failure its outcome and verdict."""
    if result.error is None:
        return result.outcome, result.verdict
    return result.outcome, *identity_of(result.error)


def cause_text(result: Result) -> str | None:
    """The cause of a failure as text for the status snapshot. It is equal if `cause_of` is; None without a failure."""
    if result.error is None:
        return None
    kind, status, codes, about, operation = identity_of(result.error)
    return " ".join(str(part) for part in (result.outcome, kind, status, *codes, about, operation) if part)


def by_cause(results: Iterable[Result]) -> dict[Identity, list[Result]]:
    """The results that have one failure in common, or without a failure the outcome and its reason."""
    causes: dict[Identity, list[Result]] = {}
    for result in results:
        cause = (result.outcome, result.reason) if result.error is None else cause_of(result)
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


def affected_accounts(resource_ids: Collection[str]) -> str:
    """`affected` for accounts: by name, or by ARM id if two accounts have the same name."""
    names = {resource_id: resource_id.rsplit("/", 1)[-1] for resource_id in resource_ids}
    ambiguous = len(set(names.values())) < len(names)
    return affected(names if ambiguous else list(names.values()), "account")
