"""Tables of measurements, and where they stand in the documents: between ``<!-- table: NAME -->`` and its end."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> str:
    """What it was measured on."""
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()} on {platform.machine()}"


def told(name: str, content: str, page: Path | None) -> None:
    """Prints a table with its caption, and puts it in its place on `page`. Raises ValueError where that has none."""
    print(content)
    if page is not None:
        page.write_text(placed(page.read_text(encoding="utf-8"), name, content), encoding="utf-8")


def placed(text: str, name: str, content: str) -> str:
    """`text` with `content` between the marks of `name`. Raises ValueError where they are missing."""
    marks = re.compile(rf"(<!-- table: {re.escape(name)} -->\n).*?(<!-- /table -->)", re.DOTALL)
    if len(marks.findall(text)) != 1:
        raise ValueError(f"there is no place for the table {name}")
    return marks.sub(lambda found: f"{found[1]}{content}\n{found[2]}", text)
