"""Tables of measurements. A document has them between ``<!-- table: NAME -->`` and ``<!-- /table -->``."""

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
    """The description of this machine."""
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()} on {platform.machine()}"


def publish(name: str, content: str, page: Path | None) -> None:
    """Print a table with its caption, and replace the table `name` on `page`. Raises ValueError if `page` has no such table."""
    print(content)
    if page is not None:
        page.write_text(insert_table(page.read_text(encoding="utf-8"), name, content), encoding="utf-8")


def insert_table(text: str, name: str, content: str) -> str:
    """`text` with `content` between the comments of the table `name`. Raises ValueError if they are missing."""
    comments = re.compile(rf"(<!-- table: {re.escape(name)} -->\n).*?(<!-- /table -->)", re.DOTALL)
    if len(comments.findall(text)) != 1:
        raise ValueError(f"there is no place for the table {name}")
    return comments.sub(lambda match: f"{match[1]}{content}\n{match[2]}", text)
