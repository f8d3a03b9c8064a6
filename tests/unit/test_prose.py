"""Keeps the prose plain: docstrings, comments, messages and documents use the words of docs/glossary.md."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
)
CODE = sorted((ROOT / "keysync").rglob("*.py"))
TEMPLATES = sorted((ROOT / "keysync").rglob("*.html"))
TABLES = sorted((ROOT / "keysync").rglob("*.toml"))

INSTEAD = {
    r"\btold\b": "reported, shown, logged",
    r"\b(who|which|what)soever\b|\bwhoever\b": "the person or the thing",
    r"\b(nobody|somebody|everybody|anybody)\b": "the person or the thing: another writer, an operator, no account",
    r"\bstands\b(?! for\b)": "is",
    r"\banew\b": "again",
    r"\bthose (that|which|who)\b": "the name of the things",
    r"\bof (ours|theirs)\b": "managed; of another tool",
    r"\b[Ww]hat (is|was|it is|is not) [^.,;:()]{1,40} (is|are|was)\b": "the name of the thing",
    r"\bwhere (it|they|one|none|nothing|there) (is|are|was|were|has|have)\b": "if",
    r"\b(None|True|False|empty) where\b": "None if",
    r"\b(vault|account|secret|credential|server|proxy|process|request|file|run|reply|key|tag)s? who\b": "that",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bcure[sd]?\b": "fix",
    r"\bforeign\b": "unmanaged",
    r"\bin step\b": "in sync",
    r"\bleft out\b": "skipped, omitted",
    r"\bgives? way\b": "steps down",
    r"\bbeforehand\b": "before",
    r"\bwithheld\b|\bheld back\b": "skipped, needs --accept",
    r"\bovertak(e|es|en)\b|\bovertook\b": "changed by another writer",
    r"\bscrub(s|bed|bing|ber)?\b": "redact",
    r"\bcut short\b": "stopped at its deadline",
    r"\b(a|each|every|one|per|next|last|first) pass(es)?\b(?! (over|through|to)\b)": "run",
    r"\bsecrets? behind\b": "out of sync",
    r"\b(sieve|thrift|tenure|harvest|ledger|timetable)s?\b": "the standard term",
    r"\blook(s|ed|ing)? at\b": "check, read",
    r"\bof late\b": "recently",
}
"""Words of the old style as regular expressions, without regard to case, and what to write instead."""

FORBIDDEN = re.compile("told|sieve|thrift|paper|shop|tenure|harvest|beforehand|ledger|held", re.IGNORECASE)
"""Not in any identifier of keysync/ and tests/."""


class Finding(NamedTuple):
    """A mark of the old style: where it is, its text, and what to write instead."""

    place: str
    text: str
    instead: str


def marks(text: str) -> Iterator[tuple[str, str]]:
    """Each mark in `text`, with what to write instead. Text in backticks names code and does not count."""
    prose = re.sub(r"`[^`]*`", "`code`", " ".join(text.split()))
    for pattern, instead in INSTEAD.items():
        match = re.search(pattern, prose, re.IGNORECASE)
        if match is not None:
            yield match.group(), instead


def code_texts(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each comment, and of each string that has a space: docstrings and messages."""
    source = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def document_texts(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each paragraph that is not in a code block."""
    fenced, start, lines = False, 1, list[str]()
    for number, line in enumerate([*path.read_text(encoding="utf-8").splitlines(), ""], 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif line.strip() and not fenced:
            start = start if lines else number
            lines.append(line)
        if lines and (fenced or not line.strip()):
            yield start, "\n".join(lines)
            lines = []


def findings(path: Path) -> list[Finding]:
    """The marks in a file."""
    texts = code_texts(path) if path.suffix == ".py" else document_texts(path)
    name = path.relative_to(ROOT)
    return [Finding(f"{name}:{line}", mark, instead) for line, text in texts for mark, instead in marks(text)]


@pytest.mark.parametrize("path", [*CODE, *TEMPLATES, *TABLES, *DOCUMENTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_the_prose_is_plain(path: Path) -> None:
    """No docstring, comment, message or paragraph has a word of the old style."""
    assert findings(path) == []


@pytest.mark.parametrize("folder", ["keysync", "tests"])
def test_identifiers_are_plain(folder: str) -> None:
    """No identifier contains one of the words that newcomers could not guess."""
    found = {
        f"{path.relative_to(ROOT)}:{token.start[0]}: {token.string}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
        if token.type == tokenize.NAME and FORBIDDEN.search(token.string) and path != Path(__file__)
    }
    assert found == set()


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("The error is told once.", "told"),
        ("Nobody waits for it.", "Nobody"),
        ("What is listed is covered.", "What is listed is"),
        ("None where it was not set.", "where it was"),
        ("A vault who answers.", "vault who"),
        ("Each pass begins anew.", "anew"),
    ],
)
def test_a_mark_is_found(text: str, mark: str) -> None:
    """The check can fail."""
    assert mark in {found for found, _ in marks(text)}


def test_code_in_backticks_does_not_count() -> None:
    """A name of code may contain any word."""
    assert list(marks("Calls `foreign_pre_chain` of structlog.")) == []
