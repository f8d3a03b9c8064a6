"""The emulator, with the clients of the real SDKs and a plain HTTP client."""

import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest
from azure.core.pipeline.transport import AioHttpTransport
from azure.identity.aio import ClientSecretCredential
from azure.keyvault.secrets.aio import SecretClient
from azure.mgmt.batch.aio import BatchManagementClient

from keysync.emulator import AccountData, Emulator, EmulatorData, SecretData, VaultData

SUB = "5b000000-0000-4000-8000-000000000001"
OTHER_TENANT = "7e000000-0000-4000-8000-0000000000ff"


class Clock:
    """A clock that only the test advances."""

    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        return self.now


@dataclass
class Client:
    """The clients of the SDKs, and plain requests."""

    azure: Emulator
    session: aiohttp.ClientSession
    credential: ClientSecretCredential
    batch: BatchManagementClient
    secrets: SecretClient
    other: SecretClient

    async def token(self, audience):
        return (await self.credential.get_token(f"{audience}/.default")).token

    async def arm(self, path, method="GET", **kwargs):
        base = self.azure.endpoints.resource_manager
        return await self._send(base, method, f"{base}{path}", **kwargs)

    async def vault(self, path, method="GET", **kwargs):
        base = self.azure.endpoints.vaults["kv-a"]
        return await self._send(base, method, f"{base}{path}", **kwargs)

    async def _send(self, base, method, url, **kwargs):
        headers = {"Authorization": f"Bearer {await self.token(base)}"} | kwargs.pop("headers", {})
        async with self.session.request(method, url, headers=headers, **kwargs) as reply:
            body = await reply.json() if reply.content_type == "application/json" else await reply.text()
            return reply.status, body, reply.headers


def sample() -> EmulatorData:
    group = {"subscription_id": SUB, "resource_group": "rg"}
    return EmulatorData(
        page_size=2,
        accounts=[
            *(AccountData(**group, name=f"acct{n}", primary=f"p{n}", secondary=f"s{n}") for n in range(5)),
            AccountData(**group, name="nokeys", fault="shared_key_disabled"),
            AccountData(**group, name="usersub", pool_allocation_mode="UserSubscription"),
            AccountData(**group, name="denied", fault="role_missing"),
            AccountData(**group, name="locked", fault="locked"),
            AccountData(**group, name="busy", fault="throttled"),
            AccountData(**group, name="broken", fault={"status": 503, "code": "ServerBusy"}),
            AccountData(
                subscription_id=SUB.replace("1", "9"), resource_group="rg", name="unmanaged", tenant_id=OTHER_TENANT
            ),
        ],
        vaults=[
            VaultData(
                name="kv-a",
                secrets=[
                    *(SecretData(name=f"many{n:02}", value=f"v{n}") for n in range(60)),
                    SecretData(name="disabled", value="x", enabled=False),
                    SecretData(name="cert", value="x", managed=True),
                ],
                deleted=[SecretData(name="gone", value="old")],
                recover_delay=5,
                delete_delay=5,
            ),
            VaultData(name="kv-b", tenant_id=OTHER_TENANT),
            VaultData(name="kv-denied", denied=["getSecret", "setSecret"]),
        ],
    )


@asynccontextmanager
async def connect(azure: Emulator):
    """Clients for a running emulator. Retries are off, so that a test sees each reply."""
    ends = azure.endpoints
    context = ssl.create_default_context(cafile=ends.ca_bundle)
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        wire = {"transport": AioHttpTransport(session=session, session_owner=False), "retry_total": 0}
        credential = ClientSecretCredential(
            ends.tenant_id,
            ends.client_id,
            ends.client_secret,
            authority=ends.authority,
            disable_instance_discovery=True,
            **wire,
        )
        batch = BatchManagementClient(
            credential,
            SUB,
            base_url=ends.resource_manager,
            credential_scopes=[f"{ends.resource_manager}/.default"],
            **wire,
        )
        secrets = [
            SecretClient(ends.vaults[name], credential, verify_challenge_resource=False, **wire)
            for name in ("kv-a", "kv-denied")
        ]
        yield Client(azure, session, credential, batch, *secrets)


def credential_of(client, *, tenant_id=None, client_id=None, client_secret=None):
    """That of the default application, but for the arguments."""
    ends = client.azure.endpoints
    return ClientSecretCredential(
        tenant_id or ends.tenant_id,
        client_id or ends.client_id,
        client_secret or ends.client_secret,
        authority=ends.authority,
        disable_instance_discovery=True,
        transport=AioHttpTransport(session=client.session, session_owner=False),
    )


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def azure(clock):
    async with Emulator(sample(), clock=clock) as running:
        yield running


@pytest.fixture
async def client(azure):
    async with connect(azure) as connected:
        yield connected


@pytest.fixture
def through_proxy(azure, monkeypatch):
    """Leads Azure's own host names to the emulator, by Azure's usual variables; returns the endpoints."""
    names = (*("NO_PROXY", "no_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"), "AZURE_AUTHORITY_HOST")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", azure.endpoints.proxy)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", azure.endpoints.ca_bundle)
    return azure.endpoints
