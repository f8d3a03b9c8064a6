"""The problems by cause: a cause of several accounts is shown once, the others in the row of their account."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import Any, Final, TypeAlias, cast

from keysync.names import natural
from keysync.report.causes import affected_accounts
from keysync.report.status import AccountStatus, SecretStatus
from keysync.web.summary import Tone

MAX_CAUSES: Final = 20
CauseKey: TypeAlias = tuple[str | None, ...]

_WRITTEN: Final = frozenset({"created", "updated", "adopted"})
_MILD: Final = frozenset({"refused", "skipped"})


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of an account or a vault. `keys` names the affected secrets if they are not all of the account's; `facts` are pairs
    of name and value.
    """

    mark: str
    keys: str
    summary: str
    text: str
    hint: str | None
    facts: tuple[tuple[str, str], ...]
    shared: int = 0
    """The number of its `SharedCause`, 0 for none."""


@dataclass(frozen=True, slots=True)
class SharedCause:
    """A cause that affects several accounts. `number` is its position on the page, from 1. `first` is the account that `hint` names."""

    number: int
    tone: Tone
    affected: str
    summary: str
    text: str
    hint: str | None
    first: str | None


def shared_causes(accounts: Sequence[AccountStatus]) -> dict[CauseKey, SharedCause]:
    """The causes that affect more than one account, most accounts first, at most `MAX_CAUSES`."""
    affected: dict[CauseKey, dict[str, SecretStatus]] = {}
    hints: dict[CauseKey, set[str | None]] = {}
    for account in accounts:
        for secret in account.secrets:
            key = _key(secret)
            if key is not None:
                affected.setdefault(key, {}).setdefault(account.account, secret)
                hints.setdefault(key, set()).add((secret.error or {}).get("hint"))
    several = sorted((key for key in affected if len(affected[key]) > 1), key=lambda key: -len(affected[key]))
    return {
        key: _shared(number, affected[key], len(hints[key]) > 1) for number, key in enumerate(several[:MAX_CAUSES], 1)
    }


def _shared(number: int, secrets: Mapping[str, SecretStatus], hints_differ: bool) -> SharedCause:
    account = min(secrets, key=natural)
    secret = secrets[account]
    problem = problem_of("", secret.reason, secret.error)
    return SharedCause(
        number=number,
        tone="warn" if secret.outcome in _MILD else "bad",
        affected=affected_accounts(secrets.keys()),
        summary=problem.summary,
        text=problem.text,
        hint=problem.hint,
        first=account.rsplit("/", 1)[-1] if hints_differ else None,
    )


def problems_of(account: AccountStatus, shared: Mapping[CauseKey, SharedCause]) -> Iterator[Problem]:
    """The account's problems, one for each cause. A shared cause adds only the details of this account."""
    causes: dict[CauseKey, list[SecretStatus]] = {}
    for secret in account.secrets:
        key = _key(secret)
        if key is not None:
            causes.setdefault(key, []).append(secret)
    for number, (key, group) in enumerate(causes.items()):
        problem = problem_of(f"{account.account} {number}", group[0].reason, group[0].error, _keys(group, account))
        yield _without_shared(problem, shared[key]) if key in shared else problem


def _without_shared(problem: Problem, cause: SharedCause) -> Problem:
    """The problem without the text that the shared cause already shows."""
    ids = tuple(fact for fact in problem.facts if fact[0].endswith(" id"))
    return replace(
        problem,
        text=problem.summary if problem.text == cause.text else problem.text,
        hint=None if problem.hint == cause.hint else problem.hint,
        facts=ids,
        shared=cause.number,
    )


def _key(secret: SecretStatus) -> CauseKey | None:
    """Secrets with the same key have the same problem. None if the secret has no problem."""
    if secret.cause is not None:
        return (secret.cause,)
    if secret.error is None and (not secret.reason or secret.outcome in _WRITTEN):
        return None
    error = secret.error or {}
    return secret.outcome, secret.reason, error.get("kind"), error.get("hint")


def _keys(group: Sequence[SecretStatus], account: AccountStatus) -> str:
    if len(group) == len(account.secrets):
        return ""
    return ", ".join(f"{secret.vault}/{secret.secret}" for secret in group)


def problem_of(mark: str, reason: str | None, error: Mapping[str, Any] | None, keys: str = "") -> Problem:
    """The problem for a `reason` and the contract's `error` object. `mark` identifies it on the page."""
    error = error or {}
    cloud = _cloud_error(error)
    text = reason or cloud.get("message") or str(error.get("kind", "")).replace("_", " ")
    return Problem(
        mark, keys, _name(error) or shorten(text, 72, placeholder=" …"), text, error.get("hint"), _facts(error)
    )


def _name(error: Mapping[str, Any]) -> str:
    """The HTTP status and code of an error, to recognise it and to search for it; empty for no error."""
    cloud, kind, status = _cloud_error(error), error.get("kind"), error.get("http_status")
    plain = "" if kind in {None, "cloud_error", "http_error"} else str(kind).replace("_", " ")
    return " ".join(part for part in (f"HTTP {status}" if status else "", cloud.get("code") or plain) if part)


def _facts(error: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    cloud = _cloud_error(error)
    details: Sequence[Mapping[str, Any]] = cloud.get("details") or ()
    facts = {
        "kind": error.get("kind"),
        "HTTP status": error.get("http_status"),
        "code": cloud.get("code"),
        "message": cloud.get("message"),
        "target": cloud.get("target"),
        "details": "; ".join(f"{detail.get('code')}: {detail.get('message')}" for detail in details),
        "request id": error.get("request_id"),
        "correlation id": error.get("correlation_id"),
        "client request id": error.get("client_request_id"),
    }
    return tuple((name, str(value)) for name, value in facts.items() if value)


def _cloud_error(error: Mapping[str, Any]) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", error.get("cloud_error") or {})
