"""A host that only says that it is a vault gets neither a token nor a key."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from azure.core.credentials import AccessTokenInfo, TokenRequestOptions
from azure.core.exceptions import HttpResponseError
from azure.keyvault.secrets.aio import SecretClient

from keysync.azure.clients import Clients
from keysync.azure.clouds import endpoints_of
from keysync.azure.transport import open_transport
from keysync.secret.redact import Redactor
from tests.support.receiver import Receiver, loopback_tls, receiving

TOKEN = "token-of-the-test"
VALUE = "value-of-the-test"
TENANT = "7e000000-0000-4000-8000-00000000007e"


class Identity:
    """Gives a token to whoever asks, and remembers for what."""

    def __init__(self) -> None:
        self.scopes: list[str] = []

    async def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo:
        """The one token there is."""
        self.scopes += scopes
        return AccessTokenInfo(TOKEN, int(time.time()) + 3600)

    def reject(self, token: str) -> None:
        """It has no other to give."""


def challenge(resource: str) -> tuple[int, dict[str, str]]:
    """What a vault answers to a request without a token."""
    authority = f"https://login.microsoftonline.com/{TENANT}"
    return 401, {"WWW-Authenticate": f'Bearer authorization="{authority}", resource="{resource}"'}


@asynccontextmanager
async def client_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, verify: bool = True
) -> AsyncIterator[tuple[SecretClient, Receiver, Identity]]:
    """keysync's client of a vault that the receiver plays, as the configuration `verify_challenge_resource` makes it."""
    for name in ("HTTPS_PROXY", "ALL_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    tls, bundle = loopback_tls(folder)
    async with receiving(tls) as receiver, AsyncExitStack() as stack:
        transport = await open_transport(stack, ca_bundle=bundle, connect_seconds=5, redactor=Redactor())
        identity: Any = Identity()
        clients = Clients(stack, endpoints_of("public"), transport)
        client = await clients.secrets(identity, receiver.base, verify_challenge=verify, api_version=None)
        yield client, receiver, identity


def sent(receiver: Receiver) -> str:
    """Everything that the host was told."""
    return " ".join(f"{each.path} {each.headers} {each.body!r}" for each in receiver.received)


@pytest.mark.parametrize("resource", ["https://vault.azure.net", "https://management.azure.com", "https://example.com"])
async def test_a_challenge_for_another_domain_gets_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resource: str
) -> None:
    """The host asks for a token of the real Key Vault: none is even requested, and the key is not sent."""
    async with client_of(tmp_path, monkeypatch) as (client, receiver, identity):
        for _ in range(2):  # a challenge that was turned down is not remembered either
            receiver.answers = [challenge(resource)] * 3
            with pytest.raises(ValueError, match="challenge"):
                await client.set_secret("name", VALUE)
        assert identity.scopes == []
        assert receiver.received
        assert TOKEN not in sent(receiver)
        assert VALUE not in sent(receiver)


async def test_without_that_look_the_host_gets_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `verify_challenge_resource: false` gives away, so that it is known: the tests above would notice a token."""
    async with client_of(tmp_path, monkeypatch, verify=False) as (client, receiver, identity):
        receiver.answers = [challenge("https://vault.azure.net"), 403]
        with pytest.raises(HttpResponseError):
            await client.set_secret("name", VALUE)
        assert identity.scopes == ["https://vault.azure.net/.default"]
        assert TOKEN in sent(receiver)
        assert VALUE in sent(receiver)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_vault_leads_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """A redirect is an answer that failed: token and key would go with it."""
    async with client_of(tmp_path, monkeypatch, verify=False) as (client, receiver, _):
        receiver.answers = [challenge("https://vault.azure.net"), (status, {"Location": f"{receiver.base}/elsewhere"})]
        with pytest.raises(HttpResponseError):
            await client.set_secret("name", VALUE)
        assert "/elsewhere" not in sent(receiver)
