"""The proxy: unmodified clients reach the emulator by Azure's own names, and nothing else through it."""

import asyncio
import ssl

import aiohttp
import pytest
from azure.identity import ClientSecretCredential
from azure.keyvault.secrets import SecretClient
from azure.mgmt.batch import BatchManagementClient

from tests.unit.emulator.conftest import SUB


async def test_clients_need_no_option(through_proxy):
    """Only Azure's usual variables: no authority, no address, no instance discovery, no challenge check turned off."""
    ends = through_proxy

    def use():
        with ClientSecretCredential(ends.tenant_id, ends.client_id, ends.client_secret) as credential:
            with SecretClient("https://kv-a.vault.azure.net", credential) as secrets:
                value = secrets.get_secret("many00").value
            with BatchManagementClient(credential, SUB) as batch:
                keys = batch.batch_account.get_keys("rg", "acct0")
            return value, keys.primary

    assert await asyncio.to_thread(use) == ("v0", "p0")


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("https://login.microsoftonline.com/common/discovery/instance?api-version=1.1", 200),
        ("https://graph.microsoft.com/v1.0/me", 401),
        ("https://kv-b.vault.azure.net/secrets?api-version=7.4", 401),
        ("https://acct1.westeurope.batch.azure.com/jobs?api-version=2025-06-01", 401),
        ("https://localhost:{main}/tenants?api-version=2022-12-01", 401),
    ],
)
async def test_it_leads_to_each_service(azure, url, status):
    """The certificate has the names."""
    ends = azure.endpoints
    url = url.format(main=ends.authority.rpartition(":")[2])
    context = ssl.create_default_context(cafile=ends.ca_bundle)
    async with aiohttp.ClientSession() as session, session.get(url, proxy=ends.proxy, ssl=context) as reply:
        assert reply.status == status


@pytest.mark.parametrize(
    "target",
    [
        "example.org:443",
        "management.azure.com:8443",
        "other.vault.azure.net:443",
        "acct1.northeurope.batch.azure.com:443",
        "localhost:1",
        "169.254.169.254:80",
    ],
)
async def test_it_connects_to_nothing_else(azure, target):
    """So that a client cannot reach Azure itself through it."""
    assert await answer(azure, f"CONNECT {target} HTTP/1.1") == "HTTP/1.1 403 Forbidden"


async def test_it_serves_nothing_but_connect(azure):
    """It is no web server."""
    assert await answer(azure, "GET http://localhost/ HTTP/1.1") == "HTTP/1.1 405 Method Not Allowed"


async def answer(azure, line):
    """The first line of the reply to a request."""
    host, port = azure.endpoints.proxy.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{line}\r\nHost: x\r\n\r\n".encode())
    first = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return first.decode().strip()
