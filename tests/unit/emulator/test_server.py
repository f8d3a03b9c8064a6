"""Files, ports and names of the server."""

import asyncio
import ssl
import stat
import tempfile
from pathlib import Path

import aiohttp
import pytest

from keysync.emulator import AccountData, Emulator, EmulatorData, VaultData
from keysync.errors import UsageError

from .conftest import SUB, sample


def test_the_ca_file_is_removed():
    """It exists while the emulator runs."""

    async def run():
        async with Emulator() as azure:
            return azure.endpoints, _content(azure.endpoints.ca_bundle)

    endpoints, bundle = asyncio.run(run())
    assert bundle == endpoints.ca_pem
    assert not Path(endpoints.ca_bundle).parent.exists()


def _content(path):
    return Path(path).read_text()


async def test_no_writable_folder_is_needed(monkeypatch, tmp_path):
    """The CA is a file in memory then, as in a container with a read-only root and no volume."""
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


async def test_the_state_is_saved_and_loaded(tmp_path):
    """Keys, versions and deletions, in a file that only its owner can read."""
    directory = tmp_path / "state"
    async with Emulator(sample(), state_directory=directory) as azure:
        azure.state.regenerate("acct1", "Primary")
        keys = azure.state.keys("acct1")
        azure.state.vault("kv-a").add_version("new", "value", tags={"a": "b"})
        azure.state.vault("kv-a").delete("many01")
    assert stat.S_IMODE((directory / "state.json").stat().st_mode) == 0o600
    async with Emulator(sample(), state_directory=directory) as azure:
        assert azure.state.keys("acct1") == keys
        vault = azure.state.vault("kv-a")
        assert [(version.value, version.tags) for version in vault.versions("new")] == [("value", {"a": "b"})]
        assert vault.find_deleted("many01")
        assert "many01" not in vault.secrets


def test_a_folder_that_cannot_be_created_is_refused(tmp_path):
    """At the start, since the state would be lost at the end."""
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"--state .*folder: Not a directory"):
        Emulator(state_directory=tmp_path / "file" / "folder")


@pytest.mark.parametrize("content", ["{", '{"keys": {}, "vaults": {"kv-a": {"secrets": [{"value": "hidden"}]}}}'])
def test_a_state_of_another_form_is_refused(tmp_path, content):
    """Without its values in the message."""
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(UsageError, match=r"--state .*state.json: .*; remove the file") as caught:
        Emulator(sample(), state_directory=tmp_path)
    assert "hidden" not in str(caught.value)


async def test_a_link_in_place_of_the_saved_state_is_refused(tmp_path):
    """Before anything is served."""
    (tmp_path / "state.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"--state .*state.json: it is a symbolic link"):
        Emulator(sample(), state_directory=tmp_path)


async def test_a_used_port_is_an_os_error():
    """No listener stays open."""
    async with Emulator() as azure:
        port = int(azure.endpoints.authority.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            async with Emulator(port=port):
                pass


def test_a_duplicate_account_is_refused():
    """Names are compared without regard to case."""
    group = {"subscription_id": SUB, "resource_group": "rg"}
    with pytest.raises(ValueError, match="twice"):
        EmulatorData(accounts=[AccountData(**group, name="same"), AccountData(**group, name="SAME")])


async def test_a_vault_is_served_by_name():
    """As NAME.localhost on the main port, which is the address that az uses."""
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


async def test_a_malformed_request_is_not_logged(client, azure, caplog):
    """The log of the web server would repeat the start of its longest header, which can be a token."""
    headers = {"Authorization": f"Bearer {'token-' * 2000}"}
    async with client.session.get(f"{azure.endpoints.control}/", headers=headers) as reply:
        assert reply.status == 400
    assert not [record for record in caplog.records if "Error handling request" in record.getMessage()]


async def test_json_with_too_many_levels_is_refused(client):
    """By every parser of bodies, as a broken body is."""
    body, headers = b"[" * 100_000, {"Content-Type": "application/json"}
    account = f"/subscriptions/{SUB}/resourceGroups/rg/providers/Microsoft.Batch/batchAccounts/acct1"
    for method, path in (
        ("POST", "/providers/Microsoft.ResourceGraph/resources?api-version=2022-10-01"),
        ("PATCH", f"{account}?api-version=2024-07-01"),
        ("POST", f"{account}/regenerateKeys?api-version=2024-07-01"),
    ):
        status, *_ = await client.arm(path, method, data=body, headers=headers)
        assert status == 400


@pytest.mark.parametrize("host", ["[", "localhost:x"])
async def test_an_invalid_host_is_refused(client, azure, host):
    """By Azure's services and the control address."""
    for base in (azure.endpoints.authority, azure.endpoints.vaults["kv-a"], azure.endpoints.control):
        async with client.session.get(f"{base}/", headers={"Host": host}) as reply:
            assert reply.status == 400
