"""Mistakes of first-time users: each message says what to do, and nothing is changed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from keysync.config.load import load_config
from keysync.errors import ConfigError
from tests.system.conftest import World, clean_environment

MakeWorld = Callable[..., World]

LEFT_OUT: dict[str, tuple[dict[str, str], str]] = {
    "all": (
        {},
        "AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET (or AZURE_CLIENT_CERTIFICATE_PATH) are not set",
    ),
    "one": ({"AZURE_TENANT_ID": "t", "AZURE_CLIENT_SECRET": "s"}, "AZURE_CLIENT_ID is not set"),
    "empty": (
        {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_CLIENT_SECRET": ""},
        "AZURE_CLIENT_SECRET (or AZURE_CLIENT_CERTIFICATE_PATH) is not set",
    ),
}


@pytest.mark.parametrize(("vaults", "found"), [("{}", "a mapping"), ("", "nothing")])
def test_a_missing_vault_is_reported_with_an_example(tmp_path: Path, vaults: str, found: str) -> None:
    """An empty `vaults` is reported with an example."""
    file = tmp_path / "keysync.yaml"
    file.write_text(f"vaults: {vaults}\naccounts: []\n")
    with pytest.raises(ConfigError) as caught:
        load_config(file, {})
    (first_line, *_) = str(caught.value).splitlines()
    assert first_line == (
        f"{file}:1:1: vaults: found {found}, expected one vault or more "
        "(for example main: {url: https://kv-render.vault.azure.net})"
    )


@pytest.mark.parametrize("case", LEFT_OUT)
@pytest.mark.parametrize("command", ["sync", "check", "run"])
def test_a_variable_that_is_missing_is_named_before_the_first_request(
    make_world: MakeWorld, command: str, case: str
) -> None:
    """Exit code 2; the message names Azure's variable."""
    world = make_world("alpha")
    world.configure(["alpha"])
    given, part = LEFT_OUT[case]
    world.running.do(lambda azure: azure.counts.clear())
    ran = world.run(command, env={**dict.fromkeys(world.running.environ, ""), **given})
    assert ran.code == 2
    assert f"credential: environment: {part}" in ran.err
    assert world.running.do(lambda azure: dict(azure.counts)) == {}


IDENTITY = {"AZURE_TENANT_ID": "7e000000-0000-4000-8000-00000000007e", "AZURE_CLIENT_ID": "c"}
UNFIT: dict[str, tuple[dict[str, str], str]] = {
    "tenant": ({**IDENTITY, "AZURE_TENANT_ID": "no tenant", "AZURE_CLIENT_SECRET": "s"}, "tenant"),
    "certificate": (
        {**IDENTITY, "AZURE_CLIENT_SECRET": "", "AZURE_CLIENT_CERTIFICATE_PATH": "/x"},
        "AZURE_CLIENT_SECRET is set and empty",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
@pytest.mark.parametrize("command", ["plan", "check", "run"])
def test_a_value_that_the_sdk_refuses_is_reported_as_such(make_world: MakeWorld, command: str, case: str) -> None:
    """Exit code 2; it is not called a bug of keysync."""
    world = make_world("alpha")
    world.configure(["alpha"])
    given, part = UNFIT[case]
    ran = world.run(command, env={**dict.fromkeys(world.running.environ, ""), **given})
    assert (ran.code, ran.out) == (2, "")
    # Python's development mode may log a slow callback before it, on a busy machine.
    assert "\nkeysync: credential: environment: " in f"\n{ran.err}"
    assert part in ran.err


def test_an_empty_secret_file_is_reported(make_world: MakeWorld, tmp_path: Path) -> None:
    """As before Kubernetes has mounted the Secret."""
    empty = tmp_path / "empty"
    empty.touch()
    world = make_world("alpha")
    credential = {
        "type": "client_secret",
        "tenant_id": IDENTITY["AZURE_TENANT_ID"],
        "client_id": "c",
        "client_secret_file": str(empty),
    }
    world.configure(["alpha"], credential=credential)
    ran = world.run("plan")
    assert ran.code == 2
    assert f"credential: client_secret_file: {empty}: the file is empty" in ran.err


def test_a_variable_that_a_vault_needs_is_named_before_accounts_are_listed(make_world: MakeWorld) -> None:
    """Discovery may use another credential, and would finish before the vault is opened."""
    world = make_world("alpha")
    secret = {"type": "client_secret", "tenant_id": "t", "client_id": "c", "client_secret": "${PROOF}"}
    entry = {"subscription_id": "11111111-2222-3333-4444-555555555555", "vaults": ["main"], "credential": secret}
    world.configure([], discover=[entry])
    ran = world.run("sync", env={**dict.fromkeys(world.running.environ, ""), "PROOF": "x"})
    assert ran.code == 2
    assert "AZURE_TENANT_ID" in ran.err
    assert world.running.do(lambda azure: dict(azure.counts)) == {}


def test_an_account_that_times_out_names_the_setting(make_world: MakeWorld) -> None:
    """The hint names the setting to raise, as for a single request that times out."""
    world = make_world({"name": "stuck", "fault": "hang"})
    world.configure(["stuck"], timeouts={"request": "30s", "account": "300ms", "collect": "100ms"})
    ran = world.sync()
    assert ran.code == 1
    for item in ran.report["items"]:
        assert item["error"]["kind"] == "timeout"
        assert "raise timeouts.account" in item["error"]["hint"]


def test_a_run_finishes_without_a_reader_of_stdout(make_world: MakeWorld) -> None:
    """`keysync sync | head -1` writes every secret and exits with the run's code."""
    world = make_world("alpha")
    world.configure(["alpha"])
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "keysync", "sync", "-c", str(world.path), "--log-level", "error"],
            env={**clean_environment(), **world.running.environ},
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(world.versions("main", "alpha-secondary-key")) == 1
