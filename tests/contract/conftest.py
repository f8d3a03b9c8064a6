"""A vault and an account, in memory and behind the real SDKs, with one interface for both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Protocol

import pytest

from keysync.azure.retry import RetryPolicy
from keysync.emulator import Emulator
from keysync.failures import StaleRead
from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.reveal import reveal
from keysync.secret.value import SecretValue
from keysync.sources.interface import KeySource
from keysync.targets.interface import SecretTarget, StoredSecret
from tests.support.azure import GROUP, SUBSCRIPTION, data
from tests.support.memory import MemorySource, MemoryVault
from tests.support.other_writers import without_count
from tests.support.runtimes import opened
from tests.support.settings import config_of

PRIMARY = "cHJpbWFyeS1rZXktb2YtdGhlLWFjY291bnQtYWxwaGE="
SECONDARY = "c2Vjb25kYXJ5LWtleS1vZi10aGUtYWNjb3VudC1hbHBoYQ=="


def untagged(version: str) -> StoredSecret:
    """A secret whose tags do not count its versions."""
    return StoredSecret(version, Fingerprinter().of(SecretValue(PRIMARY)), {})


def uncounted(
    versions: Sequence[tuple[str, Mapping[str, str], str | None]],
) -> Sequence[tuple[str, Mapping[str, str], str | None]]:
    """Versions as in `Side.versions`, without the count in their tags."""
    return [(value, without_count(tags), content_type) for value, tags, content_type in versions]


class Side(Protocol):
    """One implementation, and what other writers do to its vault."""

    target: SecretTarget
    source: KeySource
    fingerprinter: Fingerprinter

    def put(self, name: str, value: str, tags: Mapping[str, str] | None = None, *, enabled: bool = True) -> str:
        """Stores a version and returns its id."""
        ...

    def soft_delete(self, name: str) -> None:
        """Deletes a secret recoverably."""
        ...

    def versions(self, name: str) -> Sequence[tuple[str, Mapping[str, str], str | None]]:
        """Value, tags and content type of each version, oldest first."""
        ...


class InMemory:
    """The fakes that unit tests of the sync use."""

    def __init__(self) -> None:
        self.fingerprinter = Fingerprinter()
        self.vault = MemoryVault(self.fingerprinter)
        self.target: SecretTarget = self.vault
        self.source: KeySource = MemorySource(PRIMARY, SECONDARY)

    def put(self, name: str, value: str, tags: Mapping[str, str] | None = None, *, enabled: bool = True) -> str:
        return self.vault.put(name, value, tags, enabled=enabled).id

    def soft_delete(self, name: str) -> None:
        self.vault.remove(name)

    def versions(self, name: str) -> Sequence[tuple[str, Mapping[str, str], str | None]]:
        found = self.vault.history_of.get(name, [])
        return [(reveal(version.value), version.tags, version.content_type) for version in found]


class LookingAgain:
    """A target that repeats a `write` after a second read if one is due, as `sync.apply` does."""

    def __init__(self, target: SecretTarget) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    async def write(self, *arguments: Any, **more: Any) -> str:
        """One version."""
        try:
            return await self._target.write(*arguments, **more)
        except StaleRead:
            return await self._target.write(*arguments, **more)


class BehindTheSdks:
    """The real implementation against the embedded Azure."""

    def __init__(self, azure: Emulator, target: SecretTarget, source: KeySource, fingerprinter: Fingerprinter) -> None:
        self.azure = azure
        self.target = target
        self.source = source
        self.fingerprinter = fingerprinter

    def put(self, name: str, value: str, tags: Mapping[str, str] | None = None, *, enabled: bool = True) -> str:
        _, made = self.azure.state.vault("main").add_version(name, value, tags=tags, enabled=enabled)
        return made.version

    def soft_delete(self, name: str) -> None:
        self.azure.state.vault("main").delete(name)

    def versions(self, name: str) -> Sequence[tuple[str, Mapping[str, str], str | None]]:
        found = self.azure.state.vault("main").versions(name)
        return [(version.value, version.tags, version.content_type) for version in found]


async def _no_time(_seconds: float) -> None:
    await asyncio.sleep(0)


@asynccontextmanager
async def _in_memory() -> AsyncIterator[InMemory]:
    yield InMemory()


@asynccontextmanager
async def behind_the_sdks(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[BehindTheSdks]:
    """Composed as in the command line."""
    account = {"name": "alpha", "primary": PRIMARY, "secondary": SECONDARY}
    async with Emulator(data(account)) as azure:
        ends = azure.endpoints
        monkeypatch.setenv("AZURE_TENANT_ID", ends.tenant_id)
        monkeypatch.setenv("AZURE_CLIENT_ID", ends.client_id)
        monkeypatch.setenv("AZURE_CLIENT_SECRET", ends.client_secret)
        for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        document: dict[str, Any] = {
            "cloud": {
                "authority": ends.authority,
                "resource_manager": ends.resource_manager,
                "ca_bundle": ends.ca_bundle,
            },
            "credential": {"type": "environment"},
            "vaults": {"main": {"url": ends.vaults["main"], "verify_challenge_resource": False}},
            "accounts": [
                {"subscription_id": SUBSCRIPTION, "resource_group": GROUP, "name": "alpha", "vaults": ["main"]}
            ],
            "timeouts": {"request": "5s"},
        }
        config = config_of(document)
        # Retries do not wait.
        monkeypatch.setattr("keysync.cli.compose.RetryPolicy", partial(RetryPolicy, sleep=_no_time))
        async with opened(config) as (_, runtime):
            (account,) = runtime.accounts
            source = runtime.sources.source_of(account)
            target: Any = LookingAgain(runtime.targets["main"])
            yield BehindTheSdks(azure, target, source, runtime.shared.fingerprinter)


def _enter(kind: str, monkeypatch: pytest.MonkeyPatch) -> AbstractAsyncContextManager[Side]:
    return _in_memory() if kind == "memory" else behind_the_sdks(monkeypatch)


@pytest.fixture(params=["memory", "azure"])
async def side(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Side]:
    """Each implementation in turn."""
    async with _enter(request.param, monkeypatch) as entered:
        yield entered


@pytest.fixture
async def azure_side(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[BehindTheSdks]:
    """The real implementation only, for network behaviour."""
    async with behind_the_sdks(monkeypatch) as entered:
        yield entered
