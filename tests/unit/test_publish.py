"""The refusals of .ci/publish.py and its commands, in a temporary repository; nothing is built or sent."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSION = "1.2.3"
CHANGELOG = f"# Changelog\n\n## [{VERSION}] - 2026-11-24\n"
IDENTITY = ["-c", "user.name=t", "-c", "user.email=t@invalid", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false"]

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not here")


class Tree:
    """A repository with everything that a release needs, at a tag."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / ".ci").mkdir()
        shutil.copy(ROOT / ".ci" / "publish.py", folder / ".ci")
        (folder / "keysync").mkdir()
        (folder / "keysync" / "__init__.py").write_text(f'__version__ = "{VERSION}"\n', encoding="utf-8")
        (folder / "CHANGELOG.md").write_text(CHANGELOG, encoding="utf-8")
        self.git("init", "--quiet")
        self.commit()
        self.git("tag", f"v{VERSION}")

    def git(self, *arguments: str) -> None:
        """Runs git here, without the user's settings."""
        subprocess.run(["git", *IDENTITY, *arguments], cwd=self.folder, check=True, capture_output=True)

    def commit(self) -> None:
        """Commits everything."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "x")

    def publish(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs the script without access to cosign, podman or an index."""
        command = [sys.executable, ".ci/publish.py", *arguments]
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "TMPDIR": str(self.folder.parent)}
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A repository that can be published."""
    (tmp_path / "tree").mkdir()
    return Tree(tmp_path / "tree")


def test_a_dry_run_shows_everything_and_does_nothing(tree: Tree) -> None:
    """It prints each command, from the build to the signature, and creates no file."""
    shown = tree.publish("--dry-run")
    assert (shown.returncode, shown.stderr) == (0, "")
    for part in (
        "-m build",
        "twine check",
        ".ci/sbom",
        "cosign sign-blob",
        "twine upload",
        "podman push",
        "cosign attest",
    ):
        assert part in shown.stdout
    assert not (tree.folder / "dist").exists()


def test_one_stage_runs_only_that_stage(tree: Tree) -> None:
    """Each job of the workflow runs one stage."""
    shown = tree.publish("--dry-run", "sign").stdout
    assert shown.count("cosign sign-blob") == 3
    assert "twine" not in shown
    assert "podman" not in shown


def test_a_check_alone_runs_nothing(tree: Tree) -> None:
    """Every run begins with `check`; alone it ends there."""
    assert tree.publish("check").stdout == f"keysync {VERSION}: committed, tagged, and in the changelog\n"


def uncommitted(tree: Tree) -> None:
    """A file that is not committed."""
    (tree.folder / "new.txt").write_text("x", encoding="utf-8")


def untagged(tree: Tree) -> None:
    """A commit after the tag."""
    tree.commit()


def tag_of_another_version(tree: Tree) -> None:
    """The version is newer than the tag."""
    (tree.folder / "keysync" / "__init__.py").write_text('__version__ = "1.2.4"\n', encoding="utf-8")
    tree.commit()
    tree.git("tag", "--force", f"v{VERSION}")


def not_in_the_changelog(tree: Tree) -> None:
    """The changelog still says Unreleased."""
    (tree.folder / "CHANGELOG.md").write_text(
        CHANGELOG.replace(f"[{VERSION}] - 2026-11-24", "[Unreleased]"), encoding="utf-8"
    )
    tree.commit()
    tree.git("tag", "--force", f"v{VERSION}")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (uncommitted, "not committed"),
        (untagged, f"not tagged v{VERSION}"),
        (tag_of_another_version, "not tagged v1.2.4"),
        (not_in_the_changelog, "CHANGELOG.md has no line"),
    ],
)
@pytest.mark.parametrize("arguments", [(), ("--dry-run",), ("sign",)])
def test_an_invalid_release_is_refused(
    tree: Tree, spoil: Callable[[Tree], None], message: str, arguments: tuple[str, ...]
) -> None:
    """Nothing starts unless tree, tag and changelog agree."""
    spoil(tree)
    refused = tree.publish(*arguments)
    assert refused.returncode == 1
    assert message in refused.stderr
    assert refused.stdout == ""


def test_an_unknown_stage_is_refused(tree: Tree) -> None:
    """A typing error publishes nothing, and the message lists the stages."""
    refused = tree.publish("--dryrun")
    assert refused.returncode == 2
    assert "--dry-run" in refused.stderr
