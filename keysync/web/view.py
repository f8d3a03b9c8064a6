"""The data of the template: every label, link and time for one page of accounts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from keysync.names import natural
from keysync.report.status import AccountStatus, SecretStatus, Status, Tally, VaultStatus
from keysync.web.format import clock, machine, relative
from keysync.web.problems import CauseKey, Problem, SharedCause, problem_of, problems_of, shared_causes
from keysync.web.query import NEED_ATTENTION, PER_PAGE, SEVERITY, SORTS, Query
from keysync.web.summary import SummaryLine, Tone, summary_line

MAX_WRITES: Final = 50
MAX_UNSERVED: Final = 20
MAX_SECRETS: Final = 6
"""A row lists up to this many secrets; more are collapsed."""

STATES: Final[Mapping[str, tuple[str, Tone]]] = {
    "in_sync": ("in sync", "good"),
    "changed": ("just written", "good"),
    "drift": ("drift", "warn"),
    "refused": ("refused", "warn"),
    "failing": ("failing", "bad"),
    "needs_accept": ("needs --accept", "bad"),
    "pending": ("not checked yet", "wait"),
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
    """One secret and its state."""

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
    secrets_summary: str
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class VaultRow:
    """One vault's row."""

    vault: VaultStatus
    label: str
    tone: Tone
    breaker: str
    retry: When | None
    problem: Problem | None


@dataclass(frozen=True, slots=True)
class WriteRow:
    """The row of one write."""

    time: When
    name: str
    key: str
    vault: str
    secret: str
    outcome: str
    version: str


@dataclass(frozen=True, slots=True)
class Column:
    """A column heading. `href` sorts by it or reverses the order; `direction` is the attribute `aria-sort`, None if not sorted by it."""

    title: str
    href: str | None = None
    direction: str | None = None
    number: bool = False


@dataclass(frozen=True, slots=True)
class FilterLink:
    """The number of accounts in a state, with a link that filters by it."""

    label: str
    tone: Tone
    number: int
    href: str
    current: bool


@dataclass(frozen=True, slots=True)
class View:
    """All data of the template."""

    status: Status
    tally: Tally
    summary_line: SummaryLine
    query: Query
    stopped: tuple[str, str]
    """The message of a safety limit, and the command at its end that accepts the plan."""
    subscription: str | None
    """The subscription if all accounts are in the same one, else None: then each row shows its own."""
    now: When
    started: When
    next_run: When | None
    last_run: When | None
    last_summary: str
    bar: tuple[tuple[str, float, float], ...]
    causes: tuple[SharedCause, ...]
    filter_links: tuple[FilterLink, ...]
    columns: tuple[Column, ...]
    states: Mapping[str, str]
    sorts: Mapping[str, str]
    matching: int
    first: int
    last: int
    pages: int
    accounts: tuple[AccountRow, ...]
    vaults: tuple[VaultRow, ...]
    writes: tuple[WriteRow, ...]


def make_view(status: Status, query: Query) -> View:
    """The view of `status` for `query`. A page number beyond the last page shows the last page."""
    now, tally, matching = status.now, status.tally(), query.select(status.accounts)
    pages = max(1, -(-len(matching) // PER_PAGE))
    query = replace(query, page=min(query.page, pages))
    first = (query.page - 1) * PER_PAGE
    shown = matching[first : first + PER_PAGE]
    last_run, causes = status.last_run, shared_causes(status.accounts)
    return View(
        status=status,
        tally=tally,
        summary_line=summary_line(status, tally),
        query=query,
        stopped=_split_command(status.stopped or ""),
        subscription=_only(account.subscription_id for account in status.accounts),
        now=_required_when(now, now),
        started=_required_when(status.started, now),
        next_run=_when(status.next_run, now),
        last_run=_when(last_run.started if last_run else None, now),
        last_summary=_summary(last_run.summary) if last_run else "",
        bar=_bar(tally),
        causes=tuple(causes.values()),
        filter_links=tuple(_filter_links(status, query)),
        columns=_columns(query),
        states={state: STATES[state][0] for state in _FILTERS},
        sorts=_orders(query),
        matching=len(matching),
        first=first + 1 if shown else 0,
        last=first + len(shown),
        pages=pages,
        accounts=tuple(_account(account, now, causes) for account in shown),
        vaults=tuple(_vault(vault, now) for vault in status.vaults),
        writes=_writes(status),
    )


def _required_when(when: datetime, now: datetime) -> When:
    return When(machine(when), clock(when, now), relative(when, now))


def _when(when: datetime | None, now: datetime) -> When | None:
    return None if when is None else _required_when(when, now)


def _summary(summary: Mapping[str, int]) -> str:
    parts = [f"{number:,} {name}" for name, number in summary.items() if number and name != "accounts"]
    return ", ".join(parts) or "nothing to do"


def _split_command(message: str) -> tuple[str, str]:
    before, command, checksum = message.rpartition(_ACCEPT)
    return (before, command + checksum) if command else (message, "")


def _only(values: Iterable[str]) -> str | None:
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def _bar(tally: Tally) -> tuple[tuple[str, float, float], ...]:
    """Tone, start and width of each part in percent. Each part is at least 1 % wide, so that it is visible."""
    counts = {"bad": tally.out_of_sync + tally.unread, "wait": tally.pending, "good": tally.in_sync}
    present = {tone: max(1.0, 100 * number / tally.secrets) for tone, number in counts.items() if number}
    total, start = sum(present.values()), 0.0
    parts: list[tuple[str, float, float]] = []
    for tone, share in present.items():
        width = round(100 * share / total, 2)
        parts.append((tone, round(start, 2), width))
        start += width
    return tuple(parts)


def _filter_links(status: Status, query: Query) -> Iterable[FilterLink]:
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
    is_reversed = query.sort.startswith("-")
    # `failures` sorts the most failures first, so its default direction is descending.
    descending = is_reversed != (sort == "failures")
    href = query.href(sort=sort if is_reversed else f"-{sort}", page=1)
    return Column(title, href, "descending" if descending else "ascending", number)


def _orders(query: Query) -> Mapping[str, str]:
    """The orders to choose from. A reversed order is among them only while it is selected."""
    orders = {sort: _SORT_NAMES[sort] for sort in SORTS}
    if query.sort.startswith("-"):
        orders[query.sort] = f"{_SORT_NAMES[query.sort[1:]]}, reversed"
    return orders


def _account(account: AccountStatus, now: datetime, causes: Mapping[CauseKey, SharedCause]) -> AccountRow:
    label, tone = STATES[account.state]
    if account.stale and account.state not in NEED_ATTENTION:
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
        secrets_summary=_secrets_summary(account.secrets),
        problems=tuple(problems_of(account, causes)),
    )


def _secrets_summary(secrets: Sequence[SecretStatus]) -> str:
    in_sync = sum(secret.state == "in_sync" for secret in secrets)
    return f"{in_sync} of {len(secrets)} in sync"


def _secret(secret: SecretStatus, now: datetime) -> SecretRow:
    label, tone = _label(secret)
    return SecretRow(secret.vault, secret.secret, secret.key, label, tone, _when(secret.changed_at, now))


def _label(secret: SecretStatus) -> tuple[str, Tone]:
    """The state of a secret in a word or two: its verdict, and the outcome of the last run."""
    verdict = (secret.verdict or "").replace("_", " ")
    outcome = secret.outcome or ""
    match secret.state:
        case "in_sync":
            return (verdict or "in sync") if outcome in {"", "unchanged"} else outcome, "good"
        case "pending":
            return "not checked yet", "wait"
        case "unread":
            return "may have been written" if outcome == "unknown" else "could not be read", "bad"
        case "out_of_sync":
            # The verdict `unknown` says less than the outcome.
            difference = verdict if verdict not in {"unknown", "in sync"} else ""
            parts = [part for part in (difference, _PLANNED.get(outcome, outcome)) if part]
            mild = outcome in {"refused", "skipped", "", *_PLANNED}
            return ", ".join(parts) or "out of sync", "warn" if mild else "bad"


def _vault(vault: VaultStatus, now: datetime) -> VaultRow:
    label, tone = STATES[vault.state]
    breaker = {"closed": "calls allowed", "open": "calls paused", "half_open": "trying again"}[vault.breaker]
    problem = problem_of(f"vault {vault.name}", None, vault.error) if vault.error else None
    return VaultRow(vault, label, tone, breaker, _when(vault.retry_at, now), problem)


def _writes(status: Status) -> tuple[WriteRow, ...]:
    return tuple(
        WriteRow(
            time=_required_when(write.time, status.now),
            name=write.account.rsplit("/", 1)[-1],
            key=write.key,
            vault=write.vault,
            secret=write.secret,
            outcome=write.outcome,
            version=write.version or "",
        )
        for write in status.writes[:MAX_WRITES]
    )
