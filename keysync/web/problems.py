"""The problems by cause: a cause of several accounts is shown once, the others in the row of their account."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Final

from keysync.failures import FailureRecord
from keysync.names import natural
from keysync.report.causes import account_name, affected_accounts, by_cause
from keysync.report.status import AccountStatus
from keysync.sync.model import Result
from keysync.web.format import Tone

MAX_CAUSES: Final = 20
_WRITTEN: Final = frozenset({"created", "updated", "adopted"})


@dataclass(frozen=True, slots=True)
class SharedCause:
    """A cause that affects several accounts. `number` is its position on the page, from 1.

    `result` is that of one secret. `first` is its account's name if the hints of the others differ, else None.
    """

    number: int
    tone: Tone
    affected: str
    result: Result
    first: str | None


Causes = Mapping[str, SharedCause]


def shared_causes(accounts: Sequence[AccountStatus]) -> Causes:
    """The causes that affect more than one account, most accounts first, at most `MAX_CAUSES`."""
    causes = by_cause(result for account in accounts for result in account.results if _is_problem(result))
    affected = {cause: {result.ref.account for result in results} for cause, results in causes.items()}
    several = sorted((cause for cause in causes if len(affected[cause]) > 1), key=lambda cause: -len(affected[cause]))
    return {
        cause: _shared(number, causes[cause], affected[cause]) for number, cause in enumerate(several[:MAX_CAUSES], 1)
    }


def _shared(number: int, results: Sequence[Result], accounts: set[str]) -> SharedCause:
    account = min(accounts, key=natural)
    result = next(result for result in results if result.ref.account == account)
    hints = {each.error.hint for each in results if each.error is not None}
    first = account_name(account) if len(hints) > 1 else None
    tone: Tone = "warn" if result.outcome in {"refused", "skipped"} else "bad"
    return SharedCause(number, tone, affected_accounts(accounts), result, first)


def problems(account: AccountStatus, causes: Causes) -> Iterator[tuple[Result, str, SharedCause | None]]:
    """A result for each cause, the affected secrets if these are not all of the account, and the shared cause if it is one."""
    for cause, results in by_cause(filter(_is_problem, account.results)).items():
        names = (f"{result.ref.vault}/{result.ref.secret}" for result in results)
        secrets = ", ".join(names) if len(results) < len(account.results) else ""
        yield results[0], secrets, causes.get(cause)


def _is_problem(result: Result) -> bool:
    return result.error is not None or bool(result.reason and result.outcome not in _WRITTEN)


def problem_text(error: FailureRecord | None, reason: str | None) -> str:
    """What is wrong: the `reason`, the service's message, or the kind of the error."""
    if reason or error is None:
        return reason or ""
    return (error.cloud_error and error.cloud_error.message) or error.kind.replace("_", " ")


def problem_name(error: FailureRecord | None, reason: str | None) -> str:
    """The HTTP status and the code, to recognise the error and to search for it; else the beginning of the text."""
    parts: list[str] = []
    if error is not None:
        kind = "" if error.kind in {"cloud_error", "http_error"} else error.kind.replace("_", " ")
        parts = [f"HTTP {error.http_status}" if error.http_status else "", error.code or kind]
    return " ".join(part for part in parts if part) or shorten(problem_text(error, reason), 72, placeholder=" …")


def facts(error: FailureRecord | None, *, only_ids: bool) -> list[tuple[str, str]]:
    """Pairs of name and value that describe an error."""
    if error is None:
        return []
    cloud = error.cloud_error
    values = {
        "kind": error.kind,
        "HTTP status": error.http_status,
        "code": error.code,
        "message": cloud and cloud.message,
        "target": cloud and cloud.target,
        "details": cloud and "; ".join(f"{detail.code}: {detail.message}" for detail in cloud.details),
        "request id": error.request_id,
        "correlation id": error.correlation_id,
        "client request id": error.client_request_id,
    }
    return [(name, str(value)) for name, value in values.items() if value and (name.endswith(" id") or not only_ids)]
