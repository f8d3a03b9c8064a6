"""What is wrong, by cause: what several accounts share once, the rest in the row of its account."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import Any, Final, TypeAlias

from keysync.names import natural
from keysync.report.causes import affected_accounts
from keysync.report.status import AccountStatus, SecretStatus
from keysync.web.summary import Tone

MOST_CAUSES: Final = 20
CauseKey: TypeAlias = tuple[str | None, ...]

_WRITTEN: Final = frozenset({"created", "updated", "adopted"})
_MILD: Final = frozenset({"refused", "skipped"})


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something is not as it should be, once for all `keys` that it holds for. `facts` are names and values."""

    mark: str
    keys: str
    summary: str
    text: str
    hint: str | None
    facts: tuple[tuple[str, str], ...]
    shared: int = 0
    """The number of the shared cause that the page shows above the table, 0 for none."""


@dataclass(frozen=True, slots=True)
class SharedCause:
    """One cause of several accounts. `number` is its place on the page, from 1; `first` is an account that `hint` is about."""

    number: int
    tone: Tone
    affected: str
    summary: str
    text: str
    hint: str | None
    first: str | None


def shared_causes(accounts: Sequence[AccountStatus]) -> dict[CauseKey, SharedCause]:
    """The causes that affect more than one account, most accounts first, no more than `MOST_CAUSES`."""
    found: dict[CauseKey, dict[str, SecretStatus]] = {}
    hints: dict[CauseKey, set[str | None]] = {}
    for account in accounts:
        for secret in account.secrets:
            key = _key(secret)
            if key is not None:
                found.setdefault(key, {}).setdefault(account.account, secret)
                hints.setdefault(key, set()).add((secret.error or {}).get("hint"))
    several = sorted((key for key in found if len(found[key]) > 1), key=lambda key: -len(found[key]))
    return {
        key: _shared(number, found[key], len(hints[key]) > 1) for number, key in enumerate(several[:MOST_CAUSES], 1)
    }


def _shared(number: int, secrets: Mapping[str, SecretStatus], hints_differ: bool) -> SharedCause:
    account = min(secrets, key=natural)
    secret = secrets[account]
    trouble = trouble_of("", secret.reason, secret.error)
    return SharedCause(
        number=number,
        tone="warn" if secret.outcome in _MILD else "bad",
        affected=affected_accounts(secrets.keys()),
        summary=trouble.summary,
        text=trouble.text,
        hint=trouble.hint,
        first=account.rsplit("/", 1)[-1] if hints_differ else None,
    )


def troubles_of(account: AccountStatus, shared: Mapping[CauseKey, SharedCause]) -> Iterator[Problem]:
    """One for each cause; of a shared one only what is the account's own."""
    causes: dict[CauseKey, list[SecretStatus]] = {}
    for secret in account.secrets:
        key = _key(secret)
        if key is not None:
            causes.setdefault(key, []).append(secret)
    for number, (key, group) in enumerate(causes.items()):
        trouble = trouble_of(f"{account.account} {number}", group[0].reason, group[0].error, _keys(group, account))
        yield _own(trouble, shared[key]) if key in shared else trouble


def _own(trouble: Problem, cause: SharedCause) -> Problem:
    """The trouble without what the shared cause already says."""
    ids = tuple(fact for fact in trouble.facts if fact[0].endswith(" id"))
    return replace(
        trouble,
        text=trouble.summary if trouble.text == cause.text else trouble.text,
        hint=None if trouble.hint == cause.hint else trouble.hint,
        facts=ids,
        shared=cause.number,
    )


def _key(secret: SecretStatus) -> CauseKey | None:
    """What makes the troubles of two secrets one; None where nothing is wrong."""
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


def trouble_of(mark: str, reason: str | None, error: Mapping[str, Any] | None, keys: str = "") -> Problem:
    error = error or {}
    cloud = error.get("cloud_error") or {}
    text = reason or cloud.get("message") or str(error.get("kind", "")).replace("_", " ")
    return Problem(
        mark, keys, _named(error) or shorten(text, 72, placeholder=" …"), text, error.get("hint"), _facts(error)
    )


def _named(error: Mapping[str, Any]) -> str:
    """An error in two words, by which it is known and searched for; nothing where there is no error."""
    cloud, kind, status = error.get("cloud_error") or {}, error.get("kind"), error.get("http_status")
    plain = "" if kind in {None, "cloud_error", "http_error"} else str(kind).replace("_", " ")
    return " ".join(part for part in (f"HTTP {status}" if status else "", cloud.get("code") or plain) if part)


def _facts(error: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    cloud = error.get("cloud_error") or {}
    told = {
        "kind": error.get("kind"),
        "HTTP status": error.get("http_status"),
        "code": cloud.get("code"),
        "message": cloud.get("message"),
        "target": cloud.get("target"),
        "details": "; ".join(f"{one.get('code')}: {one.get('message')}" for one in cloud.get("details") or ()),
        "request id": error.get("request_id"),
        "correlation id": error.get("correlation_id"),
        "client request id": error.get("client_request_id"),
    }
    return tuple((name, str(value)) for name, value in told.items() if value)
