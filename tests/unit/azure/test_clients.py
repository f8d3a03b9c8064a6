"""A host that only pretends to be a vault gets neither a token nor a key."""

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

from keysync.azure.clients import vault_client
from keysync.azure.transport import open_transport
from keysync.secret.redact import Redactor
from tests.support.receiver import Receiver, loopback_tls, receiving

TOKEN = "token-of-the-test"
VALUE = "value-of-the-test"
TENANT = "7e000000-0000-4000-8000-00000000007e"


class Identity:
    """A credential that returns a token for any scope, and records the scopes."""

    def __init__(self) -> None:
        self.scopes: list[str] = []

    async def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo:
        """Always the same token."""
        self.scopes += scopes
        return AccessTokenInfo(TOKEN, int(time.time()) + 3600)

    def reject(self, token: str) -> None:
        """Does nothing: there is no other token."""


def challenge(resource: str) -> tuple[int, dict[str, str]]:
    """A vault's reply to a request without a token."""
    authority = f"https://login.microsoftonline.com/{TENANT}"
    return 401, {"WWW-Authenticate": f'Bearer authorization="{authority}", resource="{resource}"'}


@asynccontextmanager
async def client_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, verify: bool = True
) -> AsyncIterator[tuple[SecretClient, Receiver, Identity]]:
    """keysync's client of a vault, played by the receiver. `verify` is the setting `verify_challenge_resource`."""
    for name in ("HTTPS_PROXY", "ALL_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    tls, bundle = loopback_tls(folder)
    async with receiving(tls) as receiver, AsyncExitStack() as stack:
        transport = await open_transport(stack, ca_bundle=bundle, connect_seconds=5, redactor=Redactor())
        identity: Any = Identity()
        client = vault_client(identity, receiver.base, transport, verify_challenge=verify, api_version=None)
        yield client, receiver, identity


def sent(receiver: Receiver) -> str:
    """Everything that was sent to the host."""
    return " ".join(f"{request.path} {request.headers} {request.body!r}" for request in receiver.received)


@pytest.mark.parametrize("resource", ["https://vault.azure.net", "https://management.azure.com", "https://example.com"])
async def test_a_challenge_for_another_domain_gets_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resource: str
) -> None:
    """No token is requested, and the key is not sent."""
    async with client_of(tmp_path, monkeypatch) as (client, receiver, identity):
        for _ in range(2):  # a refused challenge is not cached
            receiver.answers = [challenge(resource)] * 3
            with pytest.raises(ValueError, match="challenge"):
                await client.set_secret("name", VALUE)
        assert identity.scopes == []
        assert receiver.received
        assert TOKEN not in sent(receiver)
        assert VALUE not in sent(receiver)


async def test_without_verification_the_host_gets_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The effect of `verify_challenge_resource: false`. Also proves that the test above would notice a token."""
    async with client_of(tmp_path, monkeypatch, verify=False) as (client, receiver, identity):
        receiver.answers = [challenge("https://vault.azure.net"), 403]
        with pytest.raises(HttpResponseError):
            await client.set_secret("name", VALUE)
        assert identity.scopes == ["https://vault.azure.net/.default"]
        assert TOKEN in sent(receiver)
        assert VALUE in sent(receiver)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """A redirect is a failure: token and key would be sent to another host."""
    async with client_of(tmp_path, monkeypatch, verify=False) as (client, receiver, _):
        receiver.answers = [challenge("https://vault.azure.net"), (status, {"Location": f"{receiver.base}/elsewhere"})]
        with pytest.raises(HttpResponseError):
            await client.set_secret("name", VALUE)
        assert "/elsewhere" not in sent(receiver)
