"""What stays on disk, and where the server listens."""

import asyncio
import json
import ssl
import stat
import tempfile
from pathlib import Path

import aiohttp
import pytest

from keysync.emulator import AccountData, Emulator, EmulatorData, VaultData
from keysync.emulator.store import write_private

from .conftest import SUB, sample


def test_nothing_stays_behind():
    """The CA file is there while the emulator runs, and gone after."""

    async def run():
        async with Emulator() as azure:
            return azure.endpoints, _content(azure.endpoints.ca_bundle)

    endpoints, bundle = asyncio.run(run())
    assert bundle == endpoints.ca_pem
    assert not Path(endpoints.ca_bundle).parent.exists()


def _content(path):
    return Path(path).read_text()


async def test_no_place_to_write_is_needed(monkeypatch, tmp_path):
    """In a container whose root is read-only, and without a volume, the CA is a file in memory."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    async with Emulator() as azure:
        bundle = azure.endpoints.ca_bundle
        assert _content(bundle) == azure.endpoints.ca_pem
        context = ssl.create_default_context(cafile=bundle)
        async with aiohttp.ClientSession() as session, session.get(azure.endpoints.authority, ssl=context) as reply:
            assert reply.status == 401
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError):
        _content(bundle)


async def test_state_is_kept_when_asked(tmp_path):
    """Keys, versions and deletions come back, in a file for its owner only."""
    where = tmp_path / "state"
    async with Emulator(sample(), state_directory=where) as azure:
        azure.state.regenerate("acct1", "Primary")
        keys = azure.state.keys("acct1")
        azure.state.vault("kv-a").add_version("new", "value", tags={"a": "b"})
        azure.state.vault("kv-a").delete("many01")
    assert stat.S_IMODE((where / "state.json").stat().st_mode) == 0o600
    async with Emulator(sample(), state_directory=where) as azure:
        assert azure.state.keys("acct1") == keys
        vault = azure.state.vault("kv-a")
        assert [(found.value, found.tags) for found in vault.versions("new")] == [("value", {"a": "b"})]
        assert vault.find_deleted("many01")
        assert "many01" not in vault.secrets


def test_the_ready_file_is_private(tmp_path):
    """Written whole, mode 0600."""
    path = tmp_path / "ready.json"
    write_private(path, json.dumps({}).encode())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [found.name for found in tmp_path.iterdir()] == ["ready.json"]


async def test_a_port_that_is_taken(tmp_path):
    """A fixed port that someone holds is an OSError, and leaves nothing behind."""
    async with Emulator() as azure:
        port = int(azure.endpoints.authority.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            async with Emulator(port=port):
                pass


def test_an_account_twice():
    """The same account cannot be there twice, be it written in another case."""
    group = {"subscription_id": SUB, "resource_group": "rg"}
    with pytest.raises(ValueError, match="twice"):
        EmulatorData(accounts=[AccountData(**group, name="same"), AccountData(**group, name="SAME")])


async def test_a_vault_has_a_name_too():
    """A vault is also reached as NAME.localhost on the main port, as az makes its address."""
    async with Emulator(EmulatorData(vaults=[VaultData(name="kv-a")])) as azure:
        port = azure.endpoints.authority.rpartition(":")[2]
        context = ssl.create_default_context(cafile=azure.endpoints.ca_bundle)
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
            session.get(
                f"{azure.endpoints.authority}/secrets",
                headers={"Host": f"kv-a.localhost:{port}"},
                server_hostname="kv-a.localhost",
            ) as reply,
        ):
            assert f'resource="https://localhost:{port}"' in reply.headers["WWW-Authenticate"]
