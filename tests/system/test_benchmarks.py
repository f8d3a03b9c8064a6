"""The programs in tests/benchmarks do the work that they measure. No test asserts how long it takes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.benchmarks.programs import environment, open_steps, script
from tests.benchmarks.scripts.stages import KEYS, Account, Work
from tests.benchmarks.tables import insert_table
from tests.support.azure import GROUP, SUBSCRIPTION, RunningAzure, data, running_azure

ROOT = Path(__file__).parents[2]
NAMES = ("acct1", "acct2", "acct3")
TABLES = {"performance.md": ("compare", "start", "memory"), "scaling.md": ("bounds", "throttled", "fleet", "shares")}


def work_of(azure: RunningAzure) -> Work:
    endpoints = azure.azure.endpoints
    accounts = [Account(SUBSCRIPTION, GROUP, name, endpoints.vaults["main"]) for name in NAMES]
    return Work(endpoints.authority, endpoints.resource_manager, accounts)


def keys(azure: RunningAzure) -> dict[str, str]:
    """The value that each secret must have."""
    keys_by_account = azure.do(lambda azure: {name: azure.state.keys(name) for name in NAMES})
    return {
        f"{name}-{key}-key": value for name in NAMES for key, value in zip(KEYS, keys_by_account[name], strict=True)
    }


def stored(azure: RunningAzure) -> dict[str, str]:
    """The value that each secret has."""
    secrets = azure.do(lambda azure: dict(azure.state.vault("main").secrets))
    return {name: versions[-1].value for name, versions in secrets.items()}


@pytest.mark.parametrize("module", ["sequential", "threads", "asyncio_"])
def test_a_script_writes_only_secrets_that_differ(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First a missing secret and one with another value are written; later only the secret of the regenerated key."""
    old = {"name": "acct1-primary-key", "value": "old", "tags": {"team": "render"}}
    with running_azure(data(*NAMES, vaults=({"name": "main", "secrets": [old]},))) as azure:
        for name, value in azure.environ.items():
            monkeypatch.setenv(name, value)
        work = tmp_path / "work.json"
        work_of(azure).write(work)
        with open_steps(script(module, module, work).steps, environment(azure.azure.endpoints.ca_bundle)) as steps:
            steps.ready()
            assert stored(azure) == keys(azure)
            azure.do(lambda azure: azure.state.regenerate("acct2", "Secondary"))
            assert steps.one_run().written == 1
            assert stored(azure) == keys(azure)
            assert steps.one_run().written == 0
        versions = azure.do(lambda azure: dict(azure.state.vault("main").secrets))
        assert {
            name: len(keys_by_account) for name, keys_by_account in versions.items() if len(keys_by_account) > 1
        } == {
            "acct1-primary-key": 2,
            "acct2-secondary-key": 2,
        }
        assert versions["acct1-primary-key"][-1].tags == {"team": "render"}


@pytest.mark.parametrize(("page", "name"), [(page, name) for page in TABLES for name in TABLES[page]])
def test_each_table_has_its_place(page: str, name: str) -> None:
    """Each command with --write finds its table and changes no other text."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    changed = insert_table(text, name, "new")
    assert f"<!-- table: {name} -->\nnew\n<!-- /table -->" in changed
    assert insert_table(changed, name, "") != changed
    with pytest.raises(ValueError, match="no place"):
        insert_table(text, f"{name}-more", "new")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "command", "rows"),
    [
        (
            "performance.md",
            ["compare", "--accounts", "3", "--vaults", "2", "--latency", "1ms", "--repeat", "1"],
            ["| keysync |", "| asyncio, 64 in flight |", "| 16 threads |", "| sequential |"],
        ),
        ("performance.md", ["start", "--repeat", "1"], ["| `keysync --help` |"]),
        ("performance.md", ["memory", "--accounts", "2", "--idle", "50ms"], ["| 2 listed |", "| 2 discovered |"]),
        (
            "scaling.md",
            ["fleet", "--accounts", "30", "--vaults", "2", "--subscriptions", "2", "--shards", "2", "--shares", "2"],
            ["| 2 | first |", "| 2 | steady |"],
        ),
        (
            "scaling.md",
            ["throttled", "--accounts", "4", "--vaults", "2", "--subscriptions", "2"],
            ["| first", "| steady"],
        ),
    ],
)
def test_a_measurement_writes_its_tables(
    page: str, command: Sequence[str], rows: Sequence[str], tmp_path: Path
) -> None:
    """Measures a fleet of a few accounts and writes into a copy of the document."""
    before = (ROOT / "docs" / page).read_text(encoding="utf-8")
    copy = tmp_path / page
    copy.write_text(before, encoding="utf-8")
    arguments = [f"tests.benchmarks.{command[0]}", *command[1:], "--write", str(copy)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", *arguments], cwd=tmp_path, env=environ, check=True, capture_output=True)
    after = copy.read_text(encoding="utf-8")
    assert after != before
    for row in rows:
        assert row in after
