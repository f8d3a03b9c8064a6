"""A parser for Markdown pages: headings with their anchors, links, code blocks, tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

_FENCE: Final = re.compile(r"^( *)(`{3,}|~{3,})([^\n`]*)$")
_UNCHECKED: Final = re.compile(r"<!-- not checked: (\S.*) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block: `info` is the text after its fence, `reason` says why it is not checked."""

    page: Path
    line: int
    info: str
    text: str
    reason: str | None

    @property
    def language(self) -> str:
        return self.info.split(maxsplit=1)[0] if self.info else ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Page:
    """A page of the tree; `prose` is its text with code blocks and comments blanked, line by line."""

    path: Path
    prose: str
    blocks: tuple[Block, ...]

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    def links(self) -> Iterator[tuple[int, str]]:
        """Line and target of each link and image."""
        shown = re.sub(r"`[^`\n]*`", lambda match: " " * len(match[0]), self.prose)
        patterns = (r"\]\(\s*<?([^)\s>]+)", r"^\[[^\]]+\]:\s*(\S+)", r"<(?:a|img)\b[^>]*\b(?:href|src)=\"([^\"]+)\"")
        for pattern in patterns:
            for match in re.finditer(pattern, shown, re.MULTILINE):
                yield shown.count("\n", 0, match.start()) + 1, match[1]

    def anchors(self) -> frozenset[str]:
        """The anchors of this page, as GitHub makes them from headings."""
        anchor_counts: dict[str, int] = {}
        for heading in re.findall(r"^#{1,6} +(.+?) *#*$", self.prose, re.MULTILINE):
            anchor = slug(heading)
            count = anchor_counts[anchor] = anchor_counts.get(anchor, -1) + 1
            anchor_counts.setdefault(f"{anchor}-{count}" if count else anchor, 0)
        return frozenset({*anchor_counts, *re.findall(r"<a (?:id|name)=\"([^\"]+)\"", self.prose)})

    def code(self) -> Iterator[tuple[int, str]]:
        """Line and text of each code span; one may continue on the next line."""
        for match in re.finditer(r"(?<!`)`([^`]+)`(?!`)", self.prose):
            if "\n\n" not in match[1]:
                yield self.prose.count("\n", 0, match.start()) + 1, " ".join(match[1].split())

    def tables(self) -> Iterator[list[list[str]]]:
        """Rows of cells, with the header first and without the rule."""
        for table in re.findall(r"(?:^\|.*\|[ ]*\n)+", self.prose, re.MULTILINE):
            rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()]
            yield [row for row in rows if not all(re.fullmatch(r":?-+:?", cell) for cell in row)]


def slug(heading: str) -> str:
    """The anchor of a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    text = re.sub(r"[`*]", "", text).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def read_page(path: Path) -> Page:
    """The page at `path`. Raises ValueError for an unclosed block."""
    prose: list[str] = []
    blocks: list[Block] = []
    fence: re.Match[str] | None = None
    inside: list[str] = []
    reason = None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = _FENCE.match(line)
        if fence is not None:
            prose.append("")
            if match and match[2].startswith(fence[2]) and not match[3].strip():
                blocks.append(_block(path, number, fence, inside, reason))
                fence, inside, reason = None, [], None
            else:
                inside.append(line.removeprefix(fence[1]))
        elif match:
            fence = match
            prose.append("")
        else:
            reason_line = _UNCHECKED.fullmatch(line.strip())
            # Only a comment directly before a block applies to it.
            reason = reason_line[1] if reason_line else (reason if not line.strip() else None)
            prose.append(re.sub(r"<!--.*?-->", "", line))
    if fence is not None:
        raise ValueError(f"{path}: a block of code is not closed")
    return Page(path, "\n".join(prose) + "\n", tuple(blocks))


def _block(page: Path, end: int, fence: re.Match[str], inside: list[str], reason: str | None) -> Block:
    return Block(page, end - len(inside), fence[3].strip(), "".join(f"{line}\n" for line in inside), reason)


def pages() -> list[Page]:
    """Every page of the tree, without the folders of tools."""
    paths = sorted(
        path
        for path in ROOT.rglob("*.md")
        if not any(
            part.startswith(".") or part in {"build", "dist", "node_modules"} for part in path.relative_to(ROOT).parts
        )
    )
    return [read_page(path) for path in paths]
