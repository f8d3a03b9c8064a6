"""The page as HTML; the templates escape whatever they are given."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from keysync.report.status import Status
from keysync.web.query import Query
from keysync.web.view import MOST_SECRETS, MOST_UNSERVED, make_view

if TYPE_CHECKING:
    from jinja2 import Template

REFRESH_SECONDS = 10


class Page:
    """Renders the page, from any thread."""

    def render(self, status: Status, query: Query) -> str:
        """The whole document."""
        view = make_view(status, query)
        return _template().render(
            view=view, seconds=REFRESH_SECONDS, most_secrets=MOST_SECRETS, most_unserved=MOST_UNSERVED
        )


@cache
def _template() -> Template:
    # Imported when somebody looks for the first time: nobody does at most daemons, which probes and Prometheus ask only.
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415

    environment = Environment(
        loader=PackageLoader("keysync.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    return environment.get_template("page.html")
