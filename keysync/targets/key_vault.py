"""Secrets of one Key Vault through the SDK."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final, TypeVar

from azure.keyvault.secrets.aio import SecretClient

from keysync.azure.errors import AzureFailure, FailureRecord
from keysync.azure.retry import Caller, Operation
from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.reveal import reveal
from keysync.secret.scrub import Scrubber
from keysync.secret.value import SecretValue
from keysync.targets.errors import WriteConflict, WriteUnknown
from keysync.targets.interface import Absent, Disabled, Existing, Metadata, Observation, SoftDeleted

T = TypeVar("T")

GET_SECRET: Final = Operation("key_vault", "getSecret")
SET_SECRET: Final = Operation("key_vault", "setSecret", repeatable=False)
UPDATE_SECRET: Final = Operation("key_vault", "updateSecret")
GET_DELETED_SECRET: Final = Operation("key_vault", "getDeletedSecret")

_WRITE_ATTEMPTS: Final = 3
# A name that need not exist.
_PROBE: Final = "keysync-first-call"
# The SDK sends a set of None as an empty object; it checks nothing itself.
_NO_VALUE: Final[Any] = None


class KeyVault:
    """One configured vault, as a `SecretTarget`."""

    def __init__(
        self,
        url: str,
        client: SecretClient,
        caller: Caller,
        *,
        fingerprinter: Fingerprinter,
        scrubber: Scrubber,
    ) -> None:
        self._url = url
        self._client = client
        self._caller = caller
        self._fingerprinter = fingerprinter
        self._scrubber = scrubber
        self._warmth: asyncio.Task[None] | None = None

    async def warm(self) -> None:
        """Lets one call learn the vault's challenge and fetch the token; all others wait for it.

        Each call that starts before the challenge is cached costs a second request and maybe a token request. The
        first name asked for need not exist: a 404 has gone all the way. Raises AzureFailure if the call fails.
        """
        if self._warmth is None or (self._warmth.done() and self._failed(self._warmth)):
            self._warmth = asyncio.create_task(self._first_call(), name=f"warm {self._url}")
        await asyncio.shield(self._warmth)

    @staticmethod
    def _failed(warmth: asyncio.Task[None]) -> bool:
        return warmth.cancelled() or warmth.exception() is not None

    async def _first_call(self) -> None:
        try:
            await self._call(GET_SECRET, lambda: self._client.get_secret(_PROBE))
        except AzureFailure as failure:
            # Refused for this name is still answered by the vault: each secret tells its own story later.
            if failure.record.http_status not in {403, 404} or failure.record.cloud_error is None:
                raise

    async def close(self) -> None:
        """Ends the first call if it still runs."""
        if self._warmth is not None:
            self._warmth.cancel()
            await asyncio.gather(self._warmth, return_exceptions=True)

    async def read(self, name: str) -> Observation:
        """What stands under `name` now: a secret, nothing, a disabled or a deleted one. Raises AzureFailure."""
        await self.warm()
        try:
            return await self._call(GET_SECRET, lambda: self._get(name))
        except AzureFailure as failure:
            record = failure.record
            if record.http_status == 404:
                return await self._absent(name)
            if record.has_code("SecretDisabled"):
                return Disabled()
            raise

    async def probe_write(self) -> None:
        """Whether this identity may set secrets, without setting one. Raises AzureFailure where it may not.

        A set without a value is turned down by every vault, but with 400 only once the identity is let through, and with
        403 if it is not; nothing can be written by it.
        """
        try:
            await self._call(SET_SECRET, lambda: self._client.set_secret(_PROBE, _NO_VALUE))
        except AzureFailure as failure:
            if failure.record.http_status != 400:
                raise

    async def _get(self, name: str) -> Existing:
        secret = await self._client.get_secret(name)
        properties = secret.properties
        return Existing(
            version=str(properties.version),
            fingerprint=self._fingerprinter.of(self._scrubber.remember(SecretValue(secret.value or ""))),
            tags=dict(properties.tags or {}),
            content_type=properties.content_type,
            managed=bool(properties.managed),
        )

    async def _absent(self, name: str) -> Observation:
        """Tells a free name from one that a deleted secret holds; an identity that may not look learns it when it writes."""
        try:
            await self._call(GET_DELETED_SECRET, lambda: self._client.get_deleted_secret(name))
        except AzureFailure as failure:
            if failure.record.http_status in {403, 404}:
                return Absent()
            raise
        return SoftDeleted()

    async def write(self, name: str, value: SecretValue, metadata: Metadata, *, before: str | None) -> str:
        """Makes one version; see `SecretTarget.write`."""
        for attempt in range(1, _WRITE_ATTEMPTS + 1):
            try:
                return await self._call(SET_SECRET, lambda: self._put(name, value, metadata))
            except AzureFailure as failure:
                if not failure.record.ambiguous:
                    raise
                landed = await self._landed(name, value, before, failure.record)
                if landed is not None:
                    return landed
                if attempt == _WRITE_ATTEMPTS:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _put(self, name: str, value: SecretValue, metadata: Metadata) -> str:
        written = await self._client.set_secret(
            name, reveal(value), tags=dict(metadata.tags), content_type=metadata.content_type
        )
        return str(written.properties.version)

    async def _landed(self, name: str, value: SecretValue, before: str | None, record: FailureRecord) -> str | None:
        """The version that a write of uncertain end has made, or None where it made none."""
        try:
            now = await self.read(name)
        except AzureFailure as second:
            raise WriteUnknown(record) from second
        if not isinstance(now, Existing):
            if before is None and isinstance(now, Absent):
                return None
            raise WriteConflict(_changed(record))
        if now.version == before:
            return None
        if now.fingerprint == self._fingerprinter.of(value):
            return now.version
        raise WriteConflict(_changed(record))

    async def tag(self, name: str, version: str, metadata: Metadata) -> None:
        """Sets tags and content type of one version by PATCH, which makes no other."""
        await self._call(
            UPDATE_SECRET,
            lambda: self._client.update_secret_properties(
                name, version, tags=dict(metadata.tags), content_type=metadata.content_type
            ),
        )

    async def _call(self, operation: Operation, send: Callable[[], Awaitable[T]]) -> T:
        return await self._caller.call(operation, self._url, send)


def _changed(record: FailureRecord) -> FailureRecord:
    return replace(record, summary=f"somebody else changed the secret during the write ({record.summary})")
