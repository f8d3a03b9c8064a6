"""Console output for people: lines and tables of styled spans, without control characters."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TextIO


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of text; `style` is words of rich's, such as ``bold red``, which only a terminal shows."""

    text: str
    style: str = ""


class Console(Protocol):
    """Where lines and tables are printed. What is printed commands no terminal, whoever wrote it."""

    @property
    def is_terminal(self) -> bool:
        """Whether lines are wrapped, and styles shown."""
        ...

    def line(self, *parts: Span, whole: bool = False) -> None:
        """One line, or more where a part has line breaks; on a terminal wrapped at words unless it is to stay `whole`."""
        ...

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[Span]]) -> None:
        """A table with a heading, and an empty line after it."""
        ...


class PlainConsole:
    """A `Console` for a file or a pipe: a line stays one line, for grep, and columns stand below one another."""

    is_terminal = False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def line(self, *parts: Span, whole: bool = False) -> None:  # noqa: ARG002  # nothing is ever wrapped
        """Writes it."""
        self._stream.write(strip_control_codes("".join(part.text for part in parts)) + "\n")

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[Span]]) -> None:
        """Writes each row on a line of its own."""
        cells = [list(headings), *([strip_control_codes(part.text) for part in row] for row in rows)]
        widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
        for row in cells:
            words = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self._stream.write("  ".join(words).rstrip() + "\n")
        self._stream.write("\n")


def console_for(stream: TextIO) -> Console:
    """A terminal's own where `stream` is one, or FORCE_COLOR says that it is to be taken for one; NO_COLOR is heeded there."""
    if not (stream.isatty() or os.environ.get("FORCE_COLOR")):
        return PlainConsole(stream)
    from keysync.report.rich_console import RichConsole  # noqa: PLC0415  # imports rich, which cron jobs do without

    return RichConsole(stream)


# All controls but newline and tab; U+009B alone begins a command to many terminals.
_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def strip_control_codes(text: str) -> str:
    """`text` with U+FFFD in place of each."""
    return _CONTROLS.sub("\ufffd", text)


def to_json(value: object) -> str:
    """`value` as an indented JSON document that reads as it stands: only such characters are escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return _CONTROLS.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
