"""The problems by cause: a cause of several accounts is shown once, the others in the row of their account."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import Final

from keysync.failures import FailureRecord
from keysync.names import natural
from keysync.report.causes import Identity, affected_accounts, cause_of
from keysync.report.status import AccountStatus, VaultStatus
from keysync.sync.model import Result
from keysync.web.format import Tone

MAX_CAUSES: Final = 20
_WRITTEN: Final = frozenset({"created", "updated", "adopted"})
Causes = Mapping[Identity, "SharedCause"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of an account or a vault. `mark` identifies it on the page; `facts` are pairs of name and value.

    `keys` names the affected secrets if they are not all of the account's. `shared` is the number of its `SharedCause`, 0 for
    none.
    """

    mark: str
    summary: str
    text: str
    hint: str | None
    facts: tuple[tuple[str, str], ...]
    keys: str = ""
    shared: int = 0


@dataclass(frozen=True, slots=True)
class SharedCause:
    """A cause that affects several accounts. `number` is its position on the page, from 1.

    `problem` is that of one account. `first` is its name if the hints of the others differ, else None.
    """

    number: int
    tone: Tone
    affected: str
    problem: Problem
    first: str | None


def shared_causes(accounts: Sequence[AccountStatus]) -> Causes:
    """The causes that affect more than one account, most accounts first, at most `MAX_CAUSES`."""
    by_cause: defaultdict[Identity, list[Result]] = defaultdict(list)
    for account in accounts:
        for cause, results in _by_cause(account).items():
            by_cause[cause] += results
    affected = {cause: {result.ref.account for result in results} for cause, results in by_cause.items()}
    several = sorted((cause for cause in by_cause if len(affected[cause]) > 1), key=lambda cause: -len(affected[cause]))
    return {
        cause: _shared(number, by_cause[cause], affected[cause]) for number, cause in enumerate(several[:MAX_CAUSES], 1)
    }


def _shared(number: int, results: Sequence[Result], accounts: set[str]) -> SharedCause:
    account = min(accounts, key=natural)
    result = next(result for result in results if result.ref.account == account)
    hints = {each.error.hint for each in results if each.error is not None}
    return SharedCause(
        number=number,
        tone="warn" if result.outcome in {"refused", "skipped"} else "bad",
        affected=affected_accounts(accounts),
        problem=_problem("", result.reason, result.error),
        first=account.rsplit("/", 1)[-1] if len(hints) > 1 else None,
    )


def problems(account: AccountStatus, causes: Causes) -> Iterator[Problem]:
    """The account's problems, one for each cause. A shared cause adds only the details of this account."""
    for number, (cause, results) in enumerate(_by_cause(account).items()):
        problem = _problem(f"{account.account.resource_id} {number}", results[0].reason, results[0].error)
        if len(results) < len(account.results):
            keys = ", ".join(f"{result.ref.vault}/{result.ref.secret}" for result in results)
            problem = replace(problem, keys=keys)
        yield _without_shared(problem, causes[cause]) if cause in causes else problem


def vault_problem(vault: VaultStatus) -> Problem | None:
    """The problem of a vault that fails as a whole."""
    return None if vault.error is None else _problem(f"vault {vault.name}", None, vault.error)


def _without_shared(problem: Problem, cause: SharedCause) -> Problem:
    """The problem without the text that the shared cause already shows."""
    return replace(
        problem,
        text=problem.summary if problem.text == cause.problem.text else problem.text,
        hint=None if problem.hint == cause.problem.hint else problem.hint,
        facts=tuple(fact for fact in problem.facts if fact[0].endswith(" id")),
        shared=cause.number,
    )


def _by_cause(account: AccountStatus) -> dict[Identity, list[Result]]:
    """The results with a problem. Those with the same key have the same problem."""
    causes: dict[Identity, list[Result]] = {}
    for result in account.results:
        if result.error is not None:
            causes.setdefault(cause_of(result), []).append(result)
        elif result.reason and result.outcome not in _WRITTEN:
            causes.setdefault((result.outcome, result.reason), []).append(result)
    return causes


def _problem(mark: str, reason: str | None, error: FailureRecord | None) -> Problem:
    if error is None:
        text = reason or ""
        return Problem(mark, shorten(text, 72, placeholder=" …"), text, None, ())
    cloud = error.cloud_error
    kind = error.kind.replace("_", " ")
    text = reason or (cloud and cloud.message) or kind
    # The HTTP status and the code, to recognise the error and to search for it.
    code = error.code or ("" if error.kind in {"cloud_error", "http_error"} else kind)
    status = f"HTTP {error.http_status}" if error.http_status else ""
    summary = " ".join(part for part in (status, code) if part) or shorten(text, 72, placeholder=" …")
    facts = {
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
    return Problem(mark, summary, text, error.hint, tuple((name, str(value)) for name, value in facts.items() if value))
