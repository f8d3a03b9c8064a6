"""The page as HTML. The templates escape every text."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from keysync.report.status import Status
from keysync.web.query import Query
from keysync.web.view import MAX_SECRETS, MAX_UNSERVED, make_view

if TYPE_CHECKING:
    from jinja2 import Template

REFRESH_SECONDS = 10


class Page:
    """Renders the page. It is thread-safe."""

    def render(self, status: Status, query: Query) -> str:
        """The HTML document for `status` and `query`."""
        view = make_view(status, query)
        return _template().render(
            view=view, seconds=REFRESH_SECONDS, max_secrets=MAX_SECRETS, max_unserved=MAX_UNSERVED
        )


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
    return environment.get_template("page.html")
