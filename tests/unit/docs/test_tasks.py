"""The dev container is set up by README's own command, and nox has the sessions that .ci/run asks for."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_dev_container_is_set_up_as_in_readme() -> None:
    """All of README's test command but its last part, which runs the tests."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- test-command -->")[2].partition("<!-- /test-command -->")[0]
    command = " ".join(re.sub(r"```(sh)?|\\\n", " ", shown).split())
    set_up, _, run_tests = command.rpartition(" && ")
    assert "pytest" in run_tests
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    assert container["postCreateCommand"] == set_up


def sessions() -> dict[str, str]:
    """The sessions of noxfile.py, each with its docstring."""
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    return {
        each.name: ast.get_docstring(each) or ""
        for each in tree.body
        if isinstance(each, ast.FunctionDef) and any("nox.session" in ast.unparse(one) for one in each.decorator_list)
    }


def test_ci_runs_each_session() -> None:
    """README's command is `tests`, of which `docs` is a part; .ci/run names all others."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    named = [name for group in re.findall(r"^(?:quick|long)=\((.*)\)$", script, re.MULTILINE) for name in group.split()]
    assert sorted([*named, "tests", "docs"]) == sorted(sessions())


def test_each_session_says_what_it_does_in_a_line() -> None:
    """`nox --list` shows it."""
    assert [name for name, text in sessions().items() if not text or "\n" in text] == []
