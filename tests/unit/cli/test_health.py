"""`keysync health`: which address it checks, also when the configuration cannot be read."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from keysync.cli import health

ACCOUNTS = """
vaults:
  main: {url: https://kv-render.vault.azure.net}
accounts:
  - {subscription_id: 00000000-0000-0000-0000-000000000000, resource_group: g, name: a, vaults: [main]}
"""

Check = Callable[..., tuple[int, str]]


@pytest.fixture
def closed() -> str:
    """An address without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """Runs the command with a configuration and KEYSYNC_LISTEN; returns its exit code and output."""

    def run(text: str | None, listen: str | None = None) -> tuple[int, str]:
        file = tmp_path / "keysync.yaml"
        if text is not None:
            file.write_text(text, encoding="utf-8")
        monkeypatch.delenv("KEYSYNC_LISTEN", raising=False)
        if listen is not None:
            monkeypatch.setenv("KEYSYNC_LISTEN", listen)
        return health.run(file), capsys.readouterr().out

    return run


def test_the_address_is_the_one_in_the_configuration(check: Check, closed: str) -> None:
    """`listen` wins over KEYSYNC_LISTEN, as it does for the daemon."""
    assert check(ACCOUNTS + f"listen: {closed}\n", "127.0.0.1:1") == (
        1,
        f"unhealthy: {closed}: no answer: Connection refused\n",
    )


def test_variables_in_the_configuration_are_replaced(
    check: Check, closed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in every other key of the file."""
    monkeypatch.setenv("WHERE", closed)
    assert check(ACCOUNTS + "listen: ${WHERE}\n")[1].startswith(f"unhealthy: {closed}: ")


@pytest.mark.parametrize("text", [ACCOUNTS, "accounts: [listen", None, "- listen\n"])
def test_without_listen_the_address_is_that_of_the_environment(check: Check, closed: str, text: str | None) -> None:
    """Also if the file is missing or invalid, since the daemon may still run with the previous one."""
    assert check(text, closed)[1].startswith(f"unhealthy: {closed}: ")


def test_the_default_address_is_checked_otherwise(check: Check) -> None:
    """The output names the address, healthy or not."""
    assert "healthy: 127.0.0.1:8080" in check(ACCOUNTS)[1]


@pytest.mark.parametrize(
    ("listen", "reason"),
    [("nowhere", "not an address and a port"), ("127.0.0.1:0", "the system chooses the port for 0")],
)
def test_an_unusable_address_is_unhealthy(check: Check, listen: str, reason: str) -> None:
    """The output blames the address, not the daemon."""
    code, text = check(ACCOUNTS + f'listen: "{listen}"\n')
    assert code == 1
    assert text.startswith(f"unhealthy: {listen}: {reason}")
