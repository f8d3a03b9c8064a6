"""The page as HTML. The templates escape every text; their filters are in `keysync.web.format`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from keysync.report.status import Status
from keysync.web.format import FILTERS, Tone, summary_line
from keysync.web.problems import facts, problem_name, problem_text, problems, shared_causes
from keysync.web.query import PER_PAGE, SEVERITY, Query

if TYPE_CHECKING:
    from jinja2 import Template

REFRESH_SECONDS: Final = 10
MAX_WRITES: Final = 50
MAX_UNSERVED: Final = 20
MAX_SECRETS: Final = 6
"""A row lists up to this many secrets; more are collapsed."""

_ACCEPT: Final = "keysync sync --accept "
_BREAKERS: Final = {"closed": "calls allowed", "open": "calls paused", "half_open": "trying again"}


def render_page(status: Status, query: Query) -> str:
    """The HTML document for `status` and `query`. It may run in any thread."""
    return _template().render(page_data(status, query))


def page_data(status: Status, query: Query) -> dict[str, Any]:
    """The variables of the templates. A page number beyond the last page shows the last page."""
    counts, matching = status.counts(), query.select(status.accounts)
    pages = max(1, -(-len(matching) // PER_PAGE))
    query = replace(query, page=min(query.page, pages))
    first = (query.page - 1) * PER_PAGE
    shown = matching[first : first + PER_PAGE]
    subscriptions = {account.account.subscription_id for account in status.accounts}
    return {
        "status": status,
        "query": query,
        "seconds": REFRESH_SECONDS,
        "counts": counts,
        "summary_line": summary_line(status, counts),
        "stopped": _split_command(status.stopped or ""),
        # If all accounts are in the same one. Else each row shows its own.
        "subscription": subscriptions.pop() if len(subscriptions) == 1 else None,
        "max_unserved": MAX_UNSERVED,
        "bar": tuple(_bar(counts)),
        "causes": shared_causes(status.accounts),
        "state_counts": _state_counts(status),
        "filters": ("attention", *SEVERITY, "stale"),
        "sorts": query.sorts(),
        "matching": len(matching),
        "first": first + 1 if shown else 0,
        "last": first + len(shown),
        "pages": pages,
        "accounts": shown,
        "max_secrets": MAX_SECRETS,
        "breakers": _BREAKERS,
        "writes": status.writes[:MAX_WRITES],
    }


@cache
def _template() -> Template:
    # Most daemons serve only probes and metrics, and need no jinja2.
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415  # imported for the first page view

    environment = Environment(
        loader=PackageLoader("keysync.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    filters: tuple[Any, ...] = (*FILTERS, problems, problem_name, problem_text, facts)
    environment.filters.update({each.__name__: each for each in filters})
    return environment.get_template("page.html")


def _split_command(message: str) -> tuple[str, str]:
    """The message of a safety limit, and the command at its end that accepts the plan."""
    before, command, checksum = message.rpartition(_ACCEPT)
    return (before, command + checksum) if command else (message, "")


def _bar(counts: Mapping[str, int]) -> Iterator[tuple[Tone, float, float]]:
    """Tone, start and width of each part in percent. Each part is at least 1 % wide, so that it is visible."""
    parts: dict[Tone, int] = {
        "bad": counts["out_of_sync"] + counts["unread"],
        "wait": counts["pending"],
        "good": counts["in_sync"],
    }
    shares: dict[Tone, float] = {
        tone: max(1.0, 100 * number / counts["secrets"]) for tone, number in parts.items() if number
    }
    start = 0.0
    for tone, share in shares.items():
        width = round(100 * share / sum(shares.values()), 2)
        yield tone, round(start, 2), width
        start += width


def _state_counts(status: Status) -> dict[str, int]:
    """The number of accounts in each state that occurs, most urgent first."""
    numbers = Counter[str](account.state for account in status.accounts)
    numbers["stale"] = sum(account.stale for account in status.accounts)
    return {state: numbers[state] for state in (*SEVERITY, "stale") if numbers[state]}
