"""A snapshot as the template shows it: every label, link and time, for the rows of one page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from keysync.names import natural
from keysync.report.status import AccountStatus, SecretStatus, Status, Tally, VaultStatus
from keysync.web.format import clock, machine, relative
from keysync.web.problems import CauseKey, Problem, SharedCause, shared_causes, trouble_of, troubles_of
from keysync.web.query import NOT_RIGHT, PER_PAGE, SEVERITY, SORTS, Query
from keysync.web.summary import SummaryLine, Tone, summary_line

MOST_WRITES: Final = 50
MOST_UNSERVED: Final = 20
MOST_SECRETS: Final = 6
"""How many secrets of an account stand in its row; more of them open on request."""

STATES: Final[Mapping[str, tuple[str, Tone]]] = {
    "in_sync": ("in sync", "good"),
    "changed": ("just written", "good"),
    "drift": ("drift", "warn"),
    "refused": ("refused", "warn"),
    "failing": ("failing", "bad"),
    "needs_accept": ("held back", "bad"),
    "pending": ("not tried yet", "wait"),
    "ok": ("ok", "good"),
    "read_only": ("read-only", "wait"),
    "stale": ("stale", "warn"),
    "attention": ("needs attention", "warn"),
}
_ACCEPT: Final = "keysync sync --accept "
_FILTERS: Final = ("attention", *SEVERITY, "stale")
_PLANNED: Final = {
    "create": "would be created",
    "update": "would be updated",
    "adopt": "would be adopted",
    "recover": "would be recovered",
    "disable": "would be disabled",
    "delete": "would be deleted",
}
_SORT_NAMES: Final = {
    "state": "state",
    "name": "name",
    "success": "last success",
    "next": "next try",
    "failures": "failures",
}


@dataclass(frozen=True, slots=True)
class When:
    """A time for the element `time`."""

    machine: str
    clock: str
    relative: str


@dataclass(frozen=True, slots=True)
class SecretRow:
    """One secret: what it is, and how it stands."""

    vault: str
    secret: str
    key: str
    label: str
    tone: Tone
    changed: When | None


@dataclass(frozen=True, slots=True)
class AccountRow:
    """One account's row."""

    account: AccountStatus
    label: str
    tone: Tone
    success: When | None
    attempt: When | None
    next_try: When | None
    secrets: tuple[SecretRow, ...]
    secrets_told: str
    troubles: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class VaultRow:
    """One vault's row."""

    vault: VaultStatus
    label: str
    tone: Tone
    breaker: str
    retry: When | None
    trouble: Problem | None


@dataclass(frozen=True, slots=True)
class WriteRow:
    """One write."""

    time: When
    name: str
    key: str
    vault: str
    secret: str
    outcome: str
    version: str


@dataclass(frozen=True, slots=True)
class Column:
    """A heading that sorts: `direction` is the attribute `aria-sort` or None, `href` turns it around or chooses it."""

    title: str
    href: str | None = None
    direction: str | None = None
    number: bool = False


@dataclass(frozen=True, slots=True)
class FilterLink:
    """How many accounts are in a state, with a link that shows them."""

    label: str
    tone: Tone
    number: int
    href: str
    current: bool


@dataclass(frozen=True, slots=True)
class View:
    """All that the template needs."""

    status: Status
    tally: Tally
    summary_line: SummaryLine
    query: Query
    stopped: tuple[str, str]
    """The message of a safety stop, and the command at its end that accepts the plan."""
    subscription: str | None
    """The only one that there is; None where each row has to tell its own."""
    now: When
    started: When
    next_run: When | None
    last_run: When | None
    last_summary: str
    bar: tuple[tuple[str, float, float], ...]
    causes: tuple[SharedCause, ...]
    chips: tuple[FilterLink, ...]
    columns: tuple[Column, ...]
    states: Mapping[str, str]
    sorts: Mapping[str, str]
    found: int
    first: int
    last: int
    pages: int
    accounts: tuple[AccountRow, ...]
    vaults: tuple[VaultRow, ...]
    writes: tuple[WriteRow, ...]


def make_view(status: Status, query: Query) -> View:
    """The view of `status` that `query` asks for. A page beyond the last is the last."""
    now, tally, found = status.now, status.tally(), query.select(status.accounts)
    pages = max(1, -(-len(found) // PER_PAGE))
    query = query if query.page <= pages else Query.parse({**_asked(query), "page": str(pages)})
    first = (query.page - 1) * PER_PAGE
    shown = found[first : first + PER_PAGE]
    last_run, causes = status.last_run, shared_causes(status.accounts)
    return View(
        status=status,
        tally=tally,
        summary_line=summary_line(status, tally),
        query=query,
        stopped=_stopped(status.stopped or ""),
        subscription=_only(account.subscription_id for account in status.accounts),
        now=_must(now, now),
        started=_must(status.started, now),
        next_run=_when(status.next_run, now),
        last_run=_when(last_run.started if last_run else None, now),
        last_summary=_summary(last_run.summary) if last_run else "",
        bar=_bar(tally),
        causes=tuple(causes.values()),
        chips=tuple(_chips(status, query)),
        columns=_columns(query),
        states={state: STATES[state][0] for state in _FILTERS},
        sorts=_orders(query),
        found=len(found),
        first=first + 1 if shown else 0,
        last=first + len(shown),
        pages=pages,
        accounts=tuple(_account(account, now, causes) for account in shown),
        vaults=tuple(_vault(vault, now) for vault in status.vaults),
        writes=_writes(status),
    )


def _asked(query: Query) -> dict[str, str]:
    asked = {"q": query.text, "state": query.state, "vault": query.vault, "sort": query.sort}
    return asked if query.refresh else {**asked, "refresh": "off"}


def _must(when: datetime, now: datetime) -> When:
    return When(machine(when), clock(when, now), relative(when, now))


def _when(when: datetime | None, now: datetime) -> When | None:
    return None if when is None else _must(when, now)


def _summary(summary: Mapping[str, int]) -> str:
    told = [f"{number:,} {name}" for name, number in summary.items() if number and name != "accounts"]
    return ", ".join(told) or "nothing to do"


def _stopped(message: str) -> tuple[str, str]:
    before, command, checksum = message.rpartition(_ACCEPT)
    return (before, command + checksum) if command else (message, "")


def _only(values: Iterable[str]) -> str | None:
    found = set(values)
    return found.pop() if len(found) == 1 else None


def _bar(tally: Tally) -> tuple[tuple[str, float, float], ...]:
    """Tone, start and width of each part, of a hundred. A part that is there at all can be seen."""
    counts = {"bad": tally.out_of_sync + tally.unread, "wait": tally.pending, "good": tally.in_sync}
    present = {tone: max(1.0, 100 * number / tally.secrets) for tone, number in counts.items() if number}
    whole, start, parts = sum(present.values()), 0.0, []
    for tone, share in present.items():
        width = round(100 * share / whole, 2)
        parts.append((tone, round(start, 2), width))
        start += width
    return tuple(parts)


def _chips(status: Status, query: Query) -> Iterable[FilterLink]:
    numbers = Counter[str](account.state for account in status.accounts)
    numbers["stale"] = sum(account.stale for account in status.accounts)
    for state in (*SEVERITY, "stale"):
        if numbers[state]:
            label, tone = STATES[state]
            current = query.state == state
            yield FilterLink(label, tone, numbers[state], query.href(state="" if current else state, page=1), current)


def _columns(query: Query) -> tuple[Column, ...]:
    return (
        _column(query, "State", "state"),
        _column(query, "Account", "name"),
        Column("Secrets"),
        _column(query, "Last success", "success"),
        _column(query, "Next try", "next"),
        _column(query, "Failures in a row", "failures", number=True),
    )


def _column(query: Query, title: str, sort: str, *, number: bool = False) -> Column:
    if query.sort.removeprefix("-") != sort:
        return Column(title, query.href(sort=sort, page=1), number=number)
    turned = query.sort.startswith("-")
    # The most failures come first: what is called ascending is how the rows read from the top.
    falls = turned != (sort == "failures")
    href = query.href(sort=sort if turned else f"-{sort}", page=1)
    return Column(title, href, "descending" if falls else "ascending", number)


def _orders(query: Query) -> Mapping[str, str]:
    """The orders to choose from; one that is turned around is among them only while it is in force."""
    orders = {sort: _SORT_NAMES[sort] for sort in SORTS}
    if query.sort.startswith("-"):
        orders[query.sort] = f"{_SORT_NAMES[query.sort[1:]]}, reversed"
    return orders


def _account(account: AccountStatus, now: datetime, causes: Mapping[CauseKey, SharedCause]) -> AccountRow:
    label, tone = STATES[account.state]
    if account.stale and account.state not in NOT_RIGHT:
        tone = "warn"
    ordered = sorted(account.secrets, key=lambda secret: (natural(secret.secret), natural(secret.vault)))
    secrets = tuple(_secret(secret, now) for secret in ordered)
    return AccountRow(
        account=account,
        label=label,
        tone=tone,
        success=_when(account.last_success, now),
        attempt=_when(account.last_attempt, now),
        next_try=_when(account.next_try, now),
        secrets=secrets,
        secrets_told=_told(account.secrets),
        troubles=tuple(troubles_of(account, causes)),
    )


def _told(secrets: Sequence[SecretStatus]) -> str:
    in_sync = sum(secret.state == "in_sync" for secret in secrets)
    return f"{in_sync} of {len(secrets)} in sync"


def _secret(secret: SecretStatus, now: datetime) -> SecretRow:
    label, tone = _label(secret)
    return SecretRow(secret.vault, secret.secret, secret.key, label, tone, _when(secret.changed_at, now))


def _label(secret: SecretStatus) -> tuple[str, Tone]:
    """What there is to say of a secret in a word or two: the verdict, and what was done where something was."""
    verdict = (secret.verdict or "").replace("_", " ").replace("in sync", "in sync")
    outcome = secret.outcome or ""
    match secret.state:
        case "in_sync":
            return (verdict or "in sync") if outcome in {"", "unchanged"} else outcome, "good"
        case "pending":
            return "not looked at yet", "wait"
        case "unread":
            return "may have been written" if outcome == "unknown" else "could not be read", "bad"
    # `unknown` tells less than what went wrong.
    named = verdict if verdict and verdict not in {"unknown", "in sync"} else ""
    words = [word for word in (named, _PLANNED.get(outcome, outcome)) if word]
    mild = outcome in {"refused", "skipped", "", *_PLANNED}
    return ", ".join(words) or "out of sync", "warn" if mild else "bad"


def _vault(vault: VaultStatus, now: datetime) -> VaultRow:
    label, tone = STATES[vault.state]
    breaker = {"closed": "calls go through", "open": "calls paused", "half_open": "trying again"}[vault.breaker]
    trouble = trouble_of(f"vault {vault.name}", None, vault.error) if vault.error else None
    return VaultRow(vault, label, tone, breaker, _when(vault.retry_at, now), trouble)


def _writes(status: Status) -> tuple[WriteRow, ...]:
    return tuple(
        WriteRow(
            time=_must(write.time, status.now),
            name=write.account.rsplit("/", 1)[-1],
            key=write.key,
            vault=write.vault,
            secret=write.secret,
            outcome=write.outcome,
            version=write.version or "",
        )
        for write in status.writes[:MOST_WRITES]
    )
