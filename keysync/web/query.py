"""What the page's address asks for: a filter, an order, a page. Whatever makes no sense counts as not asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Self
from urllib.parse import urlencode

from keysync.names import natural
from keysync.report.status import AccountState, AccountStatus

PER_PAGE: Final = 200
SEVERITY: Final[tuple[AccountState, ...]] = (
    "failing",
    "refused",
    "needs_accept",
    "drift",
    "pending",
    "changed",
    "in_sync",
)
"""The states, the one that most needs a person first."""
NOT_RIGHT: Final[frozenset[AccountState]] = frozenset({"failing", "refused", "needs_accept", "drift"})

_LONGEST: Final = 200
_EVER: Final = datetime.min.replace(tzinfo=UTC)
_NEVER: Final = datetime.max.replace(tzinfo=UTC)

_KEYS: Final[Mapping[str, Callable[[AccountStatus], Any]]] = {
    "state": lambda account: (not account.stale and account.state not in NOT_RIGHT, SEVERITY.index(account.state)),
    "name": lambda account: natural(account.name),
    "success": lambda account: account.last_success or _EVER,
    "next": lambda account: account.next_try or _NEVER,
    "failures": lambda account: -account.failures,
}
SORTS: Final = tuple(_KEYS)


@dataclass(frozen=True, slots=True)
class Query:
    """`state` is a state, ``attention``, ``stale`` or nothing; `sort` one of SORTS, turned around by a leading dash."""

    text: str = ""
    state: str = ""
    vault: str = ""
    sort: str = "state"
    page: int = 1
    refresh: bool = True

    @classmethod
    def parse(cls, parameters: Mapping[str, str]) -> Self:
        """Reads `q`, `state`, `vault`, `sort`, `page` and `refresh`."""
        state, sort, page = (parameters.get(name, "") for name in ("state", "sort", "page"))
        return cls(
            text=parameters.get("q", "").strip()[:_LONGEST],
            state=state if state in {*SEVERITY, "attention", "stale"} else "",
            vault=parameters.get("vault", "")[:_LONGEST],
            sort=sort if sort.removeprefix("-") in SORTS else "state",
            page=max(1, int(page)) if page.isascii() and page.isdigit() and len(page) < 7 else 1,
            refresh=parameters.get("refresh") != "off",
        )

    @property
    def filtered(self) -> bool:
        """Whether some accounts may be left out."""
        return bool(self.text or self.state or self.vault)

    def href(self, **changes: Any) -> str:  # noqa: ANN401  # the fields' own types
        """A link to the same page with `changes`; what is as usual is left out of it."""
        asked = replace(self, **changes)
        parts = {
            "q": asked.text,
            "state": asked.state,
            "vault": asked.vault,
            "sort": "" if asked.sort == "state" else asked.sort,
            "page": "" if asked.page == 1 else asked.page,
            "refresh": "" if asked.refresh else "off",
        }
        return "?" + urlencode({name: value for name, value in parts.items() if value})

    def select(self, accounts: tuple[AccountStatus, ...]) -> list[AccountStatus]:
        """Those that are asked for, in the order that is asked for; equal ones by name, then by ARM id."""
        found = [account for account in accounts if self._wants(account)]
        found.sort(key=lambda account: (natural(account.name), account.account))
        found.sort(key=_KEYS[self.sort.removeprefix("-")], reverse=self.sort.startswith("-"))
        return found

    def _wants(self, account: AccountStatus) -> bool:
        return (
            _in_state(account, self.state)
            and (not self.vault or any(secret.vault == self.vault for secret in account.secrets))
            and (not self.text or self.text.casefold() in _searched(account))
        )


def _in_state(account: AccountStatus, state: str) -> bool:
    match state:
        case "":
            return True
        case "stale":
            return account.stale
        case "attention":
            return account.stale or account.state in NOT_RIGHT
    return account.state == state


def _searched(account: AccountStatus) -> str:
    words = [account.account, account.name]
    for secret in account.secrets:
        words += [secret.vault, secret.secret, secret.reason or ""]
    return "\n".join(words).casefold()
