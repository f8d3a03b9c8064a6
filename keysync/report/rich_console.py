"""Lines and tables on a terminal, printed with rich."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TextIO

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from keysync.report.console import Span, strip_control_codes


class _StrippingConsole(Console):
    """A console that replaces control codes in text: tags of secrets and messages of services are not trusted."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments to print; U+FFFD replaces each control character in a text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=strip_control_codes(segment.text))


class RichConsole:
    """A `Console` for a terminal."""

    is_terminal = True

    def __init__(self, stream: TextIO) -> None:
        self._console = _StrippingConsole(file=stream, highlight=False)

    def line(self, *parts: Span, no_wrap: bool = False) -> None:
        """Prints the line with its styles."""
        text = Text.assemble(*((part.text, part.style) for part in parts))
        self._console.print(text, soft_wrap=no_wrap)

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[Span]]) -> None:
        """Prints the table with a line below the headings; long cells are folded."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for heading in headings:
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(*(Text(part.text, style=part.style) for part in row))
        self._console.print(table)
        self._console.print()
