"""Every dependency has a reason and an allowed licence, and docs/dependencies.md lists both."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def load() -> ModuleType:
    """Loads the script, which is not in a package."""
    spec = importlib.util.spec_from_file_location("ci_dependencies", ROOT / ".ci" / "dependencies.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    return module


script = load()


def test_the_page_matches_the_dependencies() -> None:
    """Each dependency has a reason in its comment and a licence on the list, and the page equals the script's
    output."""
    page = script.Page()
    text = page.render()
    assert page.problems == []
    assert (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8") == text, (
        "run: .venv/bin/python .ci/dependencies.py >docs/dependencies.md"
    )


def test_a_dependency_without_a_reason_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page quotes the comment in pyproject.toml. Without a comment the script fails and names the package."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.strip().startswith('"click'))
    (tmp_path / "pyproject.toml").write_text(text.replace(line, line.partition("#")[0]), encoding="utf-8")
    (tmp_path / "requirements").symlink_to(ROOT / "requirements")
    monkeypatch.setattr(script, "ROOT", tmp_path)
    page = script.Page()
    page.render()
    assert page.problems == ["click: pyproject.toml does not say why it is there; put a comment beside it"]


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("MIT OR GPL-3.0-only", True),
        ("GPL-3.0-only OR GPL-2.0-only", False),
        ("MIT AND Apache-2.0", True),
        ("MIT AND GPL-3.0-only", False),
        ("(MIT OR Apache-2.0) AND GPL-3.0-only", False),
        ("BSD", False),
    ],
)
def test_a_licence_expression_is_evaluated_by_its_parts(expression: str, allowed: bool) -> None:
    """An OR needs one allowed side, an AND needs both."""
    assert script.is_allowed(expression, {"MIT", "Apache-2.0"}) is allowed
