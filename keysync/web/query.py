"""The query parameters of the page: filter, order, page number. Invalid values are ignored."""

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
    "failing", "refused", "needs_accept", "drift", "pending", "changed", "in_sync"
)  # fmt: skip
"""The states, most urgent first."""
NEED_ATTENTION: Final[frozenset[AccountState]] = frozenset({"failing", "refused", "needs_accept", "drift"})

_MAX_TEXT: Final = 200
_FIRST_TIME: Final = datetime.min.replace(tzinfo=UTC)
_LAST_TIME: Final = datetime.max.replace(tzinfo=UTC)

SORTS: Final[Mapping[str, tuple[str, Callable[[AccountStatus], Any]]]] = {
    "state": ("state", lambda account: (not _in_state(account, "attention"), SEVERITY.index(account.state))),
    "name": ("name", lambda account: natural(account.account.name)),
    "success": ("last success", lambda account: account.last_success or _FIRST_TIME),
    "next": ("next try", lambda account: account.next_try or _LAST_TIME),
    "failures": ("failures", lambda account: -account.failures),
}
"""The orders: title and key."""


@dataclass(frozen=True, slots=True)
class Query:
    """`state` is a state, ``attention``, ``stale`` or empty. `sort` is one of SORTS, with a leading dash for the reverse order."""

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
            text=parameters.get("q", "").strip()[:_MAX_TEXT],
            state=state if state in {*SEVERITY, "attention", "stale"} else "",
            vault=parameters.get("vault", "")[:_MAX_TEXT],
            sort=sort if sort.removeprefix("-") in SORTS else "state",
            page=max(1, int(page)) if page.isascii() and page.isdigit() and len(page) < 7 else 1,
            refresh=parameters.get("refresh") != "off",
        )

    @property
    def filtered(self) -> bool:
        """Whether a filter is set."""
        return bool(self.text or self.state or self.vault)

    def href(self, **changes: Any) -> str:  # noqa: ANN401  # the fields' own types
        """A link to this page with `changes`. Parameters with default values are omitted."""
        changed = replace(self, **changes)
        parts = {
            "q": changed.text,
            "state": changed.state,
            "vault": changed.vault,
            "sort": "" if changed.sort == "state" else changed.sort,
            "page": "" if changed.page == 1 else changed.page,
            "refresh": "" if changed.refresh else "off",
        }
        return "?" + urlencode({name: value for name, value in parts.items() if value})

    def direction(self, sort: str) -> str | None:
        """The attribute `aria-sort` of a column with the order `sort`; None if the page has another order."""
        if self.sort.removeprefix("-") != sort:
            return None
        # `failures` sorts the most failures first, so its default direction is descending.
        descending = self.sort.startswith("-") != (sort == "failures")
        return "descending" if descending else "ascending"

    def sorted_href(self, sort: str) -> str:
        """A link that sorts by `sort`, or reverses the order if the page has it already."""
        return self.href(sort=f"-{sort}" if self.sort == sort else sort, page=1)

    def sorts(self) -> dict[str, str]:
        """The orders to choose from. A reversed order is among them only while it is selected."""
        sorts = {sort: title for sort, (title, _) in SORTS.items()}
        if self.sort.startswith("-"):
            sorts[self.sort] = f"{sorts[self.sort[1:]]}, reversed"
        return sorts

    def select(self, accounts: tuple[AccountStatus, ...]) -> list[AccountStatus]:
        """The accounts that match, in the requested order; equal ones by name, then by ARM id."""
        selected = [account for account in accounts if self._matches(account)]
        selected.sort(key=lambda account: (natural(account.account.name), account.account.resource_id))
        selected.sort(key=SORTS[self.sort.removeprefix("-")][1], reverse=self.sort.startswith("-"))
        return selected

    def _matches(self, account: AccountStatus) -> bool:
        return (
            _in_state(account, self.state)
            and (not self.vault or any(result.ref.vault == self.vault for result in account.results))
            and (not self.text or self.text.casefold() in _searchable_text(account))
        )


def _in_state(account: AccountStatus, state: str) -> bool:
    match state:
        case "":
            return True
        case "stale":
            return account.stale
        case "attention":
            return account.stale or account.state in NEED_ATTENTION
        case _:
            return account.state == state


def _searchable_text(account: AccountStatus) -> str:
    texts = [account.account.resource_id]
    for result in account.results:
        texts += [result.ref.vault, result.ref.secret, result.reason or ""]
    return "\n".join(texts).casefold()
