"""Errors in the input are reported before the first request: the position, the value and what is expected."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keysync.config.load import load_config
from keysync.errors import ConfigError
from tests.system.conftest import Ran, World, run_keysync

MakeWorld = Callable[..., World]

GUID = "00000000-0000-0000-0000-000000000000"
RIGHT = f"""\
vaults:
  main: {{url: https://kv-render.vault.azure.net}}
accounts:
  - subscription_id: {GUID}
    resource_group: default-azurebatch-japaneast
    name: sampleacct
    vaults: [main]
"""
AGAIN = f"""\
  - subscription_id: {GUID}
    resource_group: another
    name: SAMPLEACCT
    vaults: [main]
"""
SECRET = "hunter2-hunter2"

# The text to replace, its replacement, the line, the key, and other parts of the message.
WRONG: dict[str, tuple[str, str, int, str, tuple[str, ...]]] = {
    "unknown-key": ("name: s", "nmae: s", 6, "accounts[0].nmae", ("unknown key", "'name'")),
    "guid": (GUID, "not-a-guid", 4, "accounts[0].subscription_id", ("found 'not-a-guid'", "expected a GUID")),
    "account-name": ("sampleacct", "sample_acct", 6, "accounts[0].name", ("found 'sample_acct'", "letters and digits")),
    "http-url": ("https:", "http:", 2, "vaults.main.url", ("found 'http://kv-render.vault.azure.net'", "https")),
    "unknown-vault": ("[main]", "[mani]", 7, "accounts[0].vaults[0]", ("found 'mani'", "'main'")),
}

# The text added as line 8, its key, and other parts of the message.
ADDED: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "unknown-key": ("schedul: {every: 5m}", "schedul", ("unknown key", "'schedule'")),
    "secret-name": (
        "    secrets: {primary: 'a key'}",
        "accounts[0].secrets.primary",
        ("found 'a key'", "letters, digits and dashes"),
    ),
    "duration": ("timeouts: {request: soon}", "timeouts.request", ("found 'soon'", "expected a duration such as")),
    "cron": ("schedule: {cron: '* * 32 * *'}", "schedule.cron", ("found '* * 32 * *'", "in the field day")),
    "cron that never fires": ("schedule: {cron: '0 0 30 2 *'}", "schedule.cron", ("never fires", "its month")),
    "variable": ("owner: ${KEYSYNC_NOWHERE}", "owner", ("KEYSYNC_NOWHERE is not set",)),
    "literal-secret": (
        f"credential: {{type: client_secret, tenant_id: t, client_id: c, client_secret: {SECRET}}}",
        "credential.client_secret",
        ("must not contain a secret", "client_secret_file"),
    ),
    "yaml": ("limits: {creates: 1", "", ("not YAML", "expected")),
    "twice": (AGAIN.rstrip(), "accounts[1]", ("SAMPLEACCT-primary-key", "accounts[0]", "accounts[1]", "both write")),
}


def message_of(text: str | None, tmp_path: Path) -> str:
    """The message about a configuration with this text; None stands for a missing file."""
    file = tmp_path / "keysync.yaml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(file, {})
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_is_reported_with_its_position(tmp_path: Path, case: str) -> None:
    """The message has file, line, key, value and what is expected."""
    old, new, line, key, parts = WRONG[case]
    message = message_of(RIGHT.replace(old, new, 1), tmp_path)
    assert message.startswith(f"{tmp_path}/keysync.yaml:{line}:")
    assert all(part in message for part in (f" {key}: ", *parts)), message


@pytest.mark.parametrize("case", ADDED)
def test_a_wrong_setting_is_reported_with_its_position(tmp_path: Path, case: str) -> None:
    """The message has file, line, key, value and what is expected, but does not repeat a secret."""
    added, key, parts = ADDED[case]
    message = message_of(RIGHT + added + "\n", tmp_path)
    assert message.startswith(f"{tmp_path}/keysync.yaml:{9 if case == 'yaml' else 8}:")
    assert all(part in message for part in (f" {key}: " if key else "", *parts)), message
    assert SECRET not in message


@pytest.mark.parametrize(
    ("text", "part"), [(None, "no such file"), ("", "the file is empty"), ("# nothing\n", "the file is empty")]
)
def test_a_file_without_content_is_reported_by_its_name(tmp_path: Path, text: str | None, part: str) -> None:
    """A missing or empty file is named, and the message says what it must contain."""
    message = message_of(text, tmp_path)
    assert message.startswith(f"{tmp_path}/keysync.yaml: ")
    assert part in message


def refused(world: World, ran: Ran) -> str:
    """The message of a command that ends before its first request."""
    assert ran.code == 2, ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""
    assert world.running.do(lambda azure: dict(azure.counts)) == {}
    return ran.err


def test_a_command_with_a_wrong_file_makes_no_request(make_world: MakeWorld) -> None:
    """Exit code 2, all findings at once, no traceback, nothing on stdout and no request to Azure."""
    world = make_world("alpha")
    world.configure(["alpha", "al-pha"], recuver="owned", timeouts={"request": "soon"})
    message = refused(world, world.sync())
    assert message.count(str(world.path)) == 3
    assert all(key in message for key in ("accounts[1].name", "recuver", "timeouts.request"))
    world.path.write_text("accounts: [\n")
    assert "not YAML" in refused(world, world.run("check"))
    world.path.unlink()
    assert f"{world.path}: there is no such file" in refused(world, world.run("plan"))


def test_a_wrong_command_line_makes_no_request(make_world: MakeWorld) -> None:
    """For an unknown account or log level the message lists the known ones."""
    world = make_world("alpha", "beta")
    world.configure(["alpha", "beta"])
    message = refused(world, world.sync("--account", "gamma"))
    assert "gamma" in message
    assert "alpha, beta" in message
    message = refused(world, world.run("plan", "--log-level", "loud"))
    assert "Invalid value for '--log-level': 'loud' is not one of 'debug', 'info', 'warning', 'error'" in message
    message = refused(world, world.sync("--output", "yaml"))
    assert "'yaml' is not one of 'text', 'json'" in message
    assert "alue error" not in message
    message = refused(world, world.sync(env={"KEYSYNC_LOG_FORMAT": "xml"}))
    assert "(env var: 'KEYSYNC_LOG_FORMAT'): 'xml' is not one of 'json', 'console'" in message
    message = refused(world, world.sync("--acount", "alpha"))
    assert "--acount" in message


@pytest.mark.parametrize("mode", ["disable", "delete"])
def test_orphans_are_not_removed_without_an_owner(make_world: MakeWorld, mode: str) -> None:
    """Orphans are removed only if the configuration names the owner of the secrets."""
    world = make_world("alpha")
    world.configure(["alpha"], orphans=mode)
    message = refused(world, world.sync())
    assert f"orphans: {mode}" in message
    assert "`owner`" in message


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SSL_CERT_FILE", "/nowhere/ca.pem", "SSL_CERT_FILE=/nowhere/ca.pem: this is not a readable PEM file"),
        (
            "HTTPS_PROXY",
            "http://robot:12#hunter2@proxy:3128",
            "HTTPS_PROXY: the value is not the address of an HTTP proxy",
        ),
    ],
)
def test_an_unusable_environment_makes_no_request(make_world: MakeWorld, name: str, value: str, expected: str) -> None:
    """The message names the variable and does not repeat a password in it."""
    world = make_world("alpha")
    world.configure(["alpha"])
    message = refused(world, world.sync(env={name: value}))
    assert expected in message
    assert "hunter2" not in message


@pytest.mark.parametrize("discovered", [False, True])
def test_a_missing_token_file_makes_no_request(make_world: MakeWorld, discovered: bool) -> None:
    """The message names the variable and its value, for listed and for discovered accounts."""
    world = make_world("alpha")
    discovery: dict[str, Any] = {"discover": [{"subscription_id": GUID, "vaults": ["main"]}]} if discovered else {}
    world.configure([] if discovered else ["alpha"], credential={"type": "workload_identity"}, **discovery)
    message = refused(world, world.sync(env={"AZURE_FEDERATED_TOKEN_FILE": "/nowhere/token"}))
    assert "workload_identity: AZURE_FEDERATED_TOKEN_FILE=/nowhere/token: there is no such file; " in message


def test_without_a_time_zone_database_utc_works_and_another_zone_is_an_error(make_world: MakeWorld) -> None:
    """The message says that the database is missing and how to install it, not that the name is wrong."""
    world = make_world("alpha")
    (world.folder / "tzdata").mkdir()
    (world.folder / "tzdata" / "__init__.py").touch()  # hides the package
    env = {**world.running.environ, "PYTHONTZPATH": "", "PYTHONPATH": f"{world.folder}{os.pathsep}{Path.cwd()}"}
    world.configure(["alpha"], schedule={"cron": "0 9 * * 1-5", "timezone": "Asia/Tokyo"})
    ran = run_keysync("sync", "-c", str(world.path), env=env)
    message = refused(world, ran)
    assert f"{world.path}:" in message
    assert "schedule.timezone: this machine has no time zone database, so only UTC can be used" in message
    assert "pip install tzdata" in message
    for timezone in ({}, {"timezone": "UTC"}):
        world.configure(["alpha"], schedule={"cron": "0 9 * * 1-5", **timezone})
        ran = run_keysync("sync", "-c", str(world.path), "--metrics-file", str(world.folder / "keysync.prom"), env=env)
        assert ran.code == 0, ran.err
        # The metric for the next run's due time needs the crontab.
        assert "keysync_run_overdue_timestamp_seconds" in (world.folder / "keysync.prom").read_text()
