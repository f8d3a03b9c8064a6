"""The page as HTML; the templates escape whatever they are given."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from keysync.report.status import Status
from keysync.web.query import Query
from keysync.web.view import MOST_SECRETS, make_view

REFRESH_SECONDS = 10


class Page:
    """Renders the page, from any thread."""

    def __init__(self) -> None:
        environment = Environment(
            loader=PackageLoader("keysync.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._template = environment.get_template("page.html")

    def render(self, status: Status, query: Query) -> str:
        """The whole document."""
        view = make_view(status, query)
        return self._template.render(view=view, seconds=REFRESH_SECONDS, most_secrets=MOST_SECRETS)
