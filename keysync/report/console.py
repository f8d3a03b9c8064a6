"""Console output for people: lines and tables of styled spans, without control characters."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from rich.console import Console as RichConsole


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of text. `style` is a style of rich, such as ``bold red``; only a terminal shows it."""

    text: str
    style: str = ""


class Console:
    """Prints lines and tables. Control codes in the text are replaced, so that no text controls the terminal.

    On a terminal, rich wraps and styles them. In a file or a pipe, lines are not wrapped, for grep.
    """

    def __init__(self, stream: TextIO, *, is_terminal: bool = False) -> None:
        self._stream = stream
        self._rich: RichConsole | None = None
        if is_terminal:
            from rich.console import Console as RichConsole  # noqa: PLC0415  # slow, and cron jobs do not need it

            self._rich = RichConsole(file=stream, highlight=False)

    @property
    def is_terminal(self) -> bool:
        """Whether lines are wrapped and styles shown."""
        return self._rich is not None

    def line(self, *parts: Span, no_wrap: bool = False) -> None:
        """Prints a line, or several if a part has line breaks. A terminal wraps it at words unless `no_wrap`."""
        if self._rich is None:
            self._stream.write("".join(strip_control_codes(part.text) for part in parts) + "\n")
            return
        from rich.text import Text  # noqa: PLC0415  # as above

        text = Text.assemble(*((strip_control_codes(part.text), part.style) for part in parts))
        self._rich.print(text, soft_wrap=no_wrap)

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[Span]]) -> None:
        """Prints a table with headings, and an empty line after it. A terminal folds long cells."""
        if self._rich is None:
            cells = [list(headings), *([strip_control_codes(part.text) for part in row] for row in rows)]
            widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
            for row in cells:
                padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
                self._stream.write("  ".join(padded).rstrip() + "\n")
            self._stream.write("\n")
            return
        from rich import box  # noqa: PLC0415  # as above
        from rich.table import Table  # noqa: PLC0415  # as above
        from rich.text import Text  # noqa: PLC0415  # as above

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for heading in headings:
            table.add_column(heading, overflow="fold")
        for spans in rows:
            table.add_row(*(Text(strip_control_codes(span.text), style=span.style) for span in spans))
        self._rich.print(table)
        self._rich.print()


# All control characters except newline and tab. U+009B alone starts a command on many terminals.
_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def strip_control_codes(text: str) -> str:
    """`text` with U+FFFD in place of each control character."""
    return _CONTROLS.sub("\ufffd", text)


def to_json(value: object) -> str:
    """`value` as an indented JSON document. Only control characters are escaped, so other text stays readable."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return _CONTROLS.sub(lambda match: f"\\u{ord(match.group()):04x}", text)
