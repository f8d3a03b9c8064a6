"""docs/architecture.md shows the import contracts of pyproject.toml, and names modules that exist."""

from __future__ import annotations

import re
from typing import Final

from tests.support import architecture

TEXT: Final = architecture.PAGE.read_text(encoding="utf-8")


def test_the_picture_and_the_rules_are_those_of_pyproject() -> None:
    """`python -m tests.support.architecture` writes them again."""
    assert architecture.written(TEXT) == TEXT


def test_the_stages_are_modules_of_sync() -> None:
    """A renamed stage must be renamed in the picture."""
    folder = architecture.ROOT / "keysync" / "sync"
    assert [stage for stage in architecture.STAGES if not (folder / f"{stage}.py").exists()] == []


def test_every_path_on_the_page_exists() -> None:
    """Paths in backticks, such as `sync/run.py` (below keysync/) or `tests/contract/`."""
    named = re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.py)?)`", TEXT)
    roots = (architecture.ROOT, architecture.ROOT / "keysync")
    assert len(named) > 30
    assert [path for path in named if not any((root / path).exists() for root in roots)] == []


def test_an_added_layer_changes_the_picture() -> None:
    """The comparison is not vacuous."""
    rows = [["cli"], ["sync"], ["errors"]]
    assert architecture.picture(rows) != architecture.picture([["cli"], ["report"], ["sync"], ["errors"]])


def test_every_class_on_the_page_exists() -> None:
    """Names in backticks such as `SecretValue` are classes of keysync."""
    named = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)+)(?:\.\w+)?`", TEXT))
    sources = (path.read_text(encoding="utf-8") for path in (architecture.ROOT / "keysync").rglob("*.py"))
    defined = {name for text in sources for name in re.findall(r"^class (\w+)", text, re.MULTILINE)}
    assert len(named) > 10
    assert named - defined == set()
