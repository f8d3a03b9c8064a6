"""Failures grouped by cause: what makes two of them one, and how the affected are named."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final, TypeAlias

from keysync.failures import FailureRecord
from keysync.names import natural
from keysync.sync.model import Result

Identity: TypeAlias = tuple[object, ...]

_NAMED: Final = 3


def identity_of(record: FailureRecord) -> Identity:
    """What makes two failures one cause: codes and what they are about, never messages, which carry times and request ids.

    Two denials of different operations have different remedies, so the operation is part of a 403.
    """
    operation = record.operation if record.http_status == 403 else ""
    return record.kind, record.http_status, record.codes, record.about, operation


def cause_of(result: Result) -> Identity:
    """The cause behind a result; without a failure the outcome and the verdict."""
    if result.error is None:
        return result.outcome, result.verdict
    return result.outcome, *identity_of(result.error)


def cause_text(result: Result) -> str | None:
    """The cause of a failure as text for the status snapshot, equal where `cause_of` is; None without a failure."""
    return None if result.error is None else " ".join(str(part) for part in _flat(cause_of(result)) if part)


def _flat(cause: Identity) -> Iterator[object]:
    for part in cause:
        if isinstance(part, tuple):
            yield from part
        else:
            yield part


def many(count: int, noun: str) -> str:
    """A count with its noun: `1 account`, `300 accounts`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def affected(names: Collection[str], noun: str) -> str:
    """A count with three names: `300 accounts: farm1, farm2, farm3 and 297 more`; few are all named."""
    ordered: Sequence[str] = sorted(set(names), key=natural)
    if len(ordered) == 1:
        return f"{noun} {ordered[0]}"
    more = f" and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else ""
    return f"{many(len(ordered), noun)}: {', '.join(ordered[:_NAMED])}{more}"


def affected_accounts(resource_ids: Collection[str]) -> str:
    """`affected` for accounts: by name, and by ARM id where two accounts have one name."""
    names = {one: one.rsplit("/", 1)[-1] for one in resource_ids}
    alike = len(set(names.values())) < len(names)
    return affected(names if alike else list(names.values()), "account")
