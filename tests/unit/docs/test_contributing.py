"""CONTRIBUTING.md names paths, sessions and set-up commands that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
TEXT: Final = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_every_path_exists() -> None:
    """Paths in backticks with a folder, relative to the repository."""
    named = re.findall(r"`(\.?[a-z_]+/[\w./]*)`", TEXT)
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists() and not path.startswith(".venv/")] == []


def test_every_nox_session_exists() -> None:
    """`nox -s NAME` calls a function of noxfile.py."""
    sessions = set(re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"nox -s (\w+)", TEXT))
    assert named
    assert named - sessions == set()


def test_the_set_up_is_that_of_the_readme() -> None:
    """README's test command, without the tests."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- test-command -->\n```sh\n(.*?)```", readme, re.DOTALL)
    set_up = " ".join(block.replace("\\\n", " ").split()).rpartition(" && ")[0]
    assert set_up in TEXT
