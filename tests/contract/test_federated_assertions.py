"""A federated assertion that Entra refuses is read again before the next attempt; a missing one is named."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest

from keysync.emulator import Emulator
from keysync.failures import CallFailed
from keysync.sync.runtime import Runtime
from keysync.targets.interface import Absent
from tests.support.azure import GROUP, SUBSCRIPTION, data
from tests.support.runtimes import opened
from tests.support.settings import config_of

NAME = "alpha-primary-key"
START = 1_800_000_000.0
SHORT, LONG = START + 600, START + 7200
"""The expiry time of assertions, in seconds since 1970 by the embedded Azure's clock."""


def assertion(expires: float) -> str:
    """An assertion as Kubernetes mounts it."""
    return jwt.encode({"exp": int(expires)}, "of-no-importance-to-the-embedded-azure", algorithm="HS256")


class World:
    """The embedded Azure, its clock, and the token file for sign-in."""

    def __init__(self, azure: Emulator, runtime: Runtime, clock: list[float], file: Path) -> None:
        self.azure = azure
        self.runtime = runtime
        self.clock = clock
        self.file = file

    async def read_secret(self) -> object:
        """Reads from the vault, which needs its own token."""
        return await self.runtime.targets["main"].read(NAME)

    async def list_keys(self) -> object:
        """Lists the keys of the account, which needs its own token."""
        return await self.runtime.sources.source_of(self.runtime.accounts[0]).get_keys()


@asynccontextmanager
async def signed_in_by(kind: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A credential of `kind` that gets the token file from the environment."""
    clock = [START]
    async with Emulator(data("alpha"), clock=lambda: clock[0]) as azure:
        ends = azure.endpoints
        for name in ("AZURE_CLIENT_SECRET", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        # Kubernetes' webhook also sets the authority. DefaultAzureCredential does not pass its own to the others.
        given = {
            "AZURE_AUTHORITY_HOST": ends.authority,
            "AZURE_TENANT_ID": ends.tenant_id,
            "AZURE_CLIENT_ID": ends.client_id,
        }
        for name, value in {**given, "AZURE_FEDERATED_TOKEN_FILE": str(file)}.items():
            monkeypatch.setenv(name, value)
        cloud = {"authority": ends.authority, "resource_manager": ends.resource_manager, "ca_bundle": ends.ca_bundle}
        account = {"subscription_id": SUBSCRIPTION, "resource_group": GROUP, "name": "alpha", "vaults": ["main"]}
        document: dict[str, Any] = {
            "cloud": cloud,
            "credential": {"type": kind},
            "vaults": {"main": {"url": ends.vaults["main"], "verify_challenge_resource": False}},
            "accounts": [account],
        }
        config = config_of(document)
        async with opened(config) as (_, runtime):
            yield World(azure, runtime, clock, file)


@pytest.fixture(params=["workload_identity", "default"])
async def world(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    """Each credential that signs in with a token file."""
    file = tmp_path / "token"
    file.write_text(assertion(SHORT))
    async with signed_in_by(request.param, file, monkeypatch) as entered:
        yield entered


async def test_a_new_assertion_is_used_at_once(world: World) -> None:
    """The SDK caches the file's content for ten minutes; a refused assertion is replaced within the same call."""
    await world.list_keys()
    world.clock[0] = SHORT + 1
    world.file.write_text(assertion(LONG))
    assert await world.read_secret() == Absent()


async def test_a_rejected_assertion_is_not_kept_for_the_next_call(world: World) -> None:
    """The call fails while the file has expired, and the first call after the file is replaced succeeds."""
    world.clock[0] = SHORT + 1
    with pytest.raises(CallFailed) as refused:
        await world.read_secret()
    assert "AADSTS700024" in refused.value.record.summary
    assert world.azure.counts["token"] == 2
    world.file.write_text(assertion(LONG))
    assert await world.read_secret() == Absent()
    assert world.azure.counts["token"] == 3


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "the file cannot be read (No such file or directory)"), (" \n", "the file is empty")],
    ids=["vanished", "empty"],
)
async def test_a_missing_assertion_names_its_file(
    content: str | None, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request is sent, and the failure names the variable and the file."""
    file = tmp_path / "token"
    file.write_text(assertion(LONG))
    async with signed_in_by("workload_identity", file, monkeypatch) as world:
        file.unlink() if content is None else file.write_text(content)
        with pytest.raises(CallFailed) as failed:
            await world.read_secret()
        assert failed.value.record.kind == "credential_unavailable"
        assert f"AZURE_FEDERATED_TOKEN_FILE: {file}: {why}" in failed.value.record.summary
        assert world.azure.counts["token"] == 0
