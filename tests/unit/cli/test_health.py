"""`keysync health`: where it asks, and what it makes of a configuration that cannot be read."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from keysync.cli import health

ACCOUNTS = """
vaults:
  main: {url: https://kv-render.vault.azure.net}
accounts:
  - {subscription_id: 00000000-0000-0000-0000-000000000000, resource_group: g, name: a, vaults: [main]}
"""


@pytest.fixture
def closed() -> str:
    """An address that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """What the command prints for a configuration and KEYSYNC_LISTEN, and its exit code."""

    def tell(text: str | None, listen: str | None = None) -> tuple[int, str]:
        file = tmp_path / "keysync.yaml"
        if text is not None:
            file.write_text(text, encoding="utf-8")
        monkeypatch.delenv("KEYSYNC_LISTEN", raising=False)
        if listen is not None:
            monkeypatch.setenv("KEYSYNC_LISTEN", listen)
        return health.run(file), capsys.readouterr().out

    return tell


def test_the_configuration_says_where(told, closed):
    """Its `listen` wins over KEYSYNC_LISTEN, as it does for the daemon."""
    assert told(ACCOUNTS + f"listen: {closed}\n", "127.0.0.1:1") == (
        1,
        f"unhealthy: {closed}: no answer: Connection refused\n",
    )


def test_a_variable_in_it_counts(told, closed, monkeypatch):
    """As everywhere in the file."""
    monkeypatch.setenv("WHERE", closed)
    assert told(ACCOUNTS + "listen: ${WHERE}\n")[1].startswith(f"unhealthy: {closed}: ")


@pytest.mark.parametrize("text", [ACCOUNTS, "accounts: [listen", None, "- listen\n"])
def test_else_the_environment_does(told, closed, text):
    """Also where the file is gone or broken: the daemon may well go on with the one before."""
    assert told(text, closed)[1].startswith(f"unhealthy: {closed}: ")


def test_else_it_is_where_keysync_listens_unless_told(told):
    """Whatever answers there, the address is told."""
    assert "healthy: 127.0.0.1:8080" in told(ACCOUNTS)[1]


@pytest.mark.parametrize(
    ("listen", "why"), [("nowhere", "this is no address and port"), ("127.0.0.1:0", "with port 0 the system chose one")]
)
def test_an_address_that_cannot_be_asked_is_not_well(told, listen, why):
    """And says so, rather than that the daemon is ill."""
    code, text = told(ACCOUNTS + f'listen: "{listen}"\n')
    assert code == 1
    assert text.startswith(f"unhealthy: {listen}: {why}")
