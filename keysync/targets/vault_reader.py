"""The reading half of a Key Vault target: secrets, versions and listings, through the SDK."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, map_error
from azure.core.rest import HttpRequest
from azure.keyvault.secrets.aio import SecretClient

from keysync.azure.policies import reply_date
from keysync.azure.rate_limit import SlidingWindow
from keysync.azure.retry import Caller
from keysync.calls import Operation
from keysync.failures import CallFailed
from keysync.json_values import as_list, as_mapping
from keysync.names import fold
from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.redact import Redactor
from keysync.secret.value import SecretValue
from keysync.targets.cache import PAGE, SecretCache, interned_time
from keysync.targets.interface import (
    Absent,
    Disabled,
    History,
    Observation,
    SecretProperties,
    SoftDeleted,
    StoredSecret,
)
from keysync.targets.list_validation import ListingStats, ListValidation
from keysync.targets.operations import (
    GET_DELETED_SECRET,
    GET_SECRET,
    LIST_SECRETS,
    LIST_VERSIONS,
    SET_SECRET,
)
from keysync.targets.recent_writes import RecentWrites, SecretPath
from keysync.targets.reply_checks import (
    SecretIds,
    checked_tags,
    checked_text,
    is_absent,
    is_denied,
    listed_of,
    moment,
)
from keysync.targets.tags import Tags
from keysync.targets.versions import LONG_AGO, Versions, creation_time, versions_after

T = TypeVar("T")

# Key Vault's limits in 10 seconds: new versions of secrets, and all other calls
# (learn.microsoft.com/azure/key-vault/general/service-limits).
_WINDOWS: Final = {"creates": 300, "others": 4000}
_WINDOW_SECONDS: Final = 10.0
_OK: Final = 200
_UNAUTHORIZED: Final = 401
_TOO_MANY: Final = 429
# The code for the limit of the vault; a proxy, or the limit of one secret, has other codes.
_OF_THE_VAULT: Final = "Throttled"
_LONGEST_HOLD: Final = _WINDOW_SECONDS
# A read right after a write may still show the state before it.
READ_BACKS: Final = 3
READ_BACK_PAUSE: Final = 0.5
# The secret of this name need not exist.
PROBE: Final = "keysync-first-call"


class VaultReader:
    """Reads one vault. Every reply is checked: it must be about the secret that was requested."""

    def __init__(
        self,
        url: str,
        client: SecretClient,
        caller: Caller,
        *,
        fingerprinter: Fingerprinter,
        redactor: Redactor,
        verify_seconds: float = 3600.0,
        writes: RecentWrites | None = None,
    ) -> None:
        self._url = url
        self._ids = SecretIds(url)
        self._client = client
        self._caller = caller
        self._fingerprinter = fingerprinter
        self._redactor = redactor
        self._versions = Versions()
        self._writes = writes or RecentWrites()
        self._cache = SecretCache(verify_seconds, time.monotonic)
        self._listing_stats = ListingStats()
        self._windows = {kind: SlidingWindow(count, _WINDOW_SECONDS) for kind, count in _WINDOWS.items()}
        self._checked: dict[SecretPath, tuple[str | None, float]] = {}
        self._first_call_task: asyncio.Task[None] | None = None

    async def prime(self) -> None:
        """Makes one call that caches the vault's challenge and the token. Concurrent callers wait for it.

        Each call that starts before the challenge is cached costs a second request, and maybe a token request. The secret of
        the first call need not exist: a 404 shows that the vault answers. Raises CallFailed if the call fails.
        """
        if self._first_call_task is None or (self._first_call_task.done() and self._failed(self._first_call_task)):
            self._first_call_task = asyncio.create_task(self._first_call(), name=f"warm {self._url}")
        await asyncio.shield(self._first_call_task)

    @staticmethod
    def _failed(task: asyncio.Task[None]) -> bool:
        return task.cancelled() or task.exception() is not None

    async def _first_call(self) -> None:
        try:
            await self._call(GET_SECRET, lambda: self._get(PROBE))
        except CallFailed as failure:
            # The vault answered. A refusal for this name says nothing about other secrets.
            if not is_absent(failure.record) and not is_denied(failure.record):
                raise

    async def close(self) -> None:
        """Cancels the first call if it is still active."""
        if self._first_call_task is not None:
            self._first_call_task.cancel()
            await asyncio.gather(self._first_call_task, return_exceptions=True)

    async def read(self, name: str, *, deleted: bool = True) -> Observation:
        """The current state of `name`: a secret, absent, disabled or soft-deleted. Raises CallFailed.

        If the vault still shows the state before a write of this process, the result is what this process wrote.
        """
        path, reads = self._path_of(name), 1
        while self._writes.is_stale_read(path, observed := await self._read(name, deleted=deleted)):
            self._cache.forget(name)
            if reads == READ_BACKS:
                return await self._written_or(observed, name, path)
            reads += 1
            await asyncio.sleep(READ_BACK_PAUSE)
        return observed

    async def _written_or(self, observed: Observation, name: str, path: SecretPath) -> Observation:
        """What this process wrote, unless it is gone: then `observed`."""
        written = self._writes.last_written(path)
        if written is None or (self._writes.was_confirmed(path) and not await self._lists(name, written.version)):
            # The secret was purged, or restored from a backup: the written version is gone.
            self._writes.forget(path)
            return observed
        return written

    async def _lists(self, name: str, version: str) -> bool:
        try:
            listed, _ = await self._call(LIST_VERSIONS, lambda: self._list_versions(name))
        except CallFailed as failure:
            return not is_absent(failure.record)
        return any(item.version == version for item in listed)

    def _path_of(self, name: str) -> SecretPath:
        return fold(self._url), fold(name)

    async def _read(self, name: str, *, deleted: bool = True) -> Observation:
        await self.prime()
        self._cache.forget(name)
        try:
            return await self._call(GET_SECRET, lambda: self._get(name))
        except CallFailed as failure:
            record = failure.record
            if is_absent(record):
                return await self._absent(name) if deleted else Absent()
            if record.has_code("SecretDisabled"):
                return await self._disabled(name)
            raise

    async def _get(self, name: str) -> StoredSecret:
        with reply_date() as answered:
            secret = await self._request("GET", f"/secrets/{name}")
        shown = listed_of(secret, name)
        created = moment(secret, "created")
        stored = StoredSecret(
            version=self._ids.version(secret.get("id"), name),
            fingerprint=self._fingerprinter.of(self._redactor.remember(SecretValue(checked_text(secret.get("value"))))),
            tags=Tags(shown.tags),
            content_type=shown.content_type,
            managed=shown.managed,
            expires=shown.expires,
            created=created and interned_time(created),
        )
        self._cache.keep(name, stored, shown.updated, answered())
        return replace(stored, age=_between(created, answered()))

    async def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Mapping[str, Any]:
        """The JSON object of a reply. Raises HttpResponseError for other statuses than 200.

        The SDK's models are not used: making and reading them takes as much CPU time as the rest of the call, and the models of
        a page many times its memory.
        """
        response = await self._client.send_request(HttpRequest(method, path, json=body))
        if response.status_code != _OK:
            map_error(response.status_code, response, {_UNAUTHORIZED: ClientAuthenticationError})
            raise HttpResponseError(response=response)
        result = as_mapping(response.json())
        if result is None:
            raise TypeError("the reply is not a JSON object")
        return result

    async def _absent(self, name: str) -> Observation:
        """Distinguishes a free name from a soft-deleted secret. An identity without that right learns it on the write."""
        try:
            return await self._call(GET_DELETED_SECRET, lambda: self._get_deleted(name))
        except CallFailed as failure:
            if is_absent(failure.record) or is_denied(failure.record):
                return Absent()
            raise

    async def _get_deleted(self, name: str) -> SoftDeleted:
        gone = await self._client.get_deleted_secret(name)
        self._ids.version(gone.properties.id, name)
        level = gone.properties.recovery_level
        purgeable = not level or "purgeable" in fold(str(level))
        return SoftDeleted(checked_tags(gone.properties.tags), purgeable, gone.scheduled_purge_date)

    async def _disabled(self, name: str) -> Disabled:
        """A disabled secret with its tags, which only a listing shows. No tags if the identity may not list."""
        try:
            listed, _ = await self._call(LIST_VERSIONS, lambda: self._list_versions(name, exists=True))
        except CallFailed as failure:
            if is_absent(failure.record) or is_denied(failure.record):
                return Disabled()
            raise
        # Listings have no order and times have whole seconds, so in a tie the latest version is unknown.
        newest = max((creation_time(item.created_on) for item in listed), default=None)
        latest = [item for item in listed if creation_time(item.created_on) == newest and not item.enabled]
        if len(latest) != 1:
            return Disabled()
        (disabled,) = latest
        return Disabled(str(disabled.version), checked_tags(disabled.tags), bool(disabled.managed))

    async def history(self, name: str, latest: str) -> History:
        """The number of versions of a secret, without a request if this process wrote `latest`. Raises CallFailed."""
        known = self._versions.of(name, latest)
        if known is None:
            listed, answered = await self._call(LIST_VERSIONS, lambda: self._list_versions(name, exists=True))
            created = [creation_time(item.created_on) for item in listed]
            proven = not versions_after(listed, latest, answered)
            known = self._versions.learn(name, latest, created, answered, proven=proven)
        return known

    async def _list_versions(self, name: str, *, exists: bool = False) -> tuple[list[Any], datetime]:
        """All versions (at least one if the secret `exists`), and the service's time of the reply.

        Without a Date header, that time is the latest time in the reply.
        """
        with reply_date() as answered:
            listed = [item async for item in self._client.list_properties_of_secret_versions(name)]
        if exists and not listed:
            raise TypeError("a secret without a version")
        for item in listed:
            self._ids.version(item.id, name)
        return listed, answered() or max((creation_time(item.created_on) for item in listed), default=LONG_AGO)

    def validate_by_listing(self, names: Collection[str]) -> ListValidation:
        """Starts a listing, if it costs less than reading `names` one by one."""
        return ListValidation(names, self._cache, self._listing_stats, self._listed_pages)

    async def listing(self) -> tuple[SecretProperties, ...]:
        """All secrets of the vault. Raises CallFailed if any page fails."""
        return tuple([listed async for page in self._listed_pages() for listed in page])

    async def _listed_pages(self) -> AsyncIterator[Sequence[SecretProperties]]:
        await self.prime()
        url: str | None = f"/secrets?maxresults={PAGE}"
        while url is not None:
            page, url = await self._call(LIST_SECRETS, partial(self._page, url))
            yield page

    async def _page(self, url: str) -> tuple[Sequence[SecretProperties], str | None]:
        """One page and the link to the next."""
        body = await self._request("GET", url)
        items: Any = as_list(body["value"])
        if items is None:
            raise TypeError("a listing without secrets")
        page = [listed_of(item, self._ids.parse(item["id"])[0]) for item in items]
        return page, body.get("nextLink") or None  # the client's policy checks that the link stays at this vault

    async def _call(self, operation: Operation, send: Callable[[], Awaitable[T]]) -> T:
        window = self._windows["creates" if operation is SET_SECRET else "others"]
        await window.take()
        try:
            return await self._caller.call(operation, self._url, send)
        except CallFailed as failure:
            if failure.record.http_status == _TOO_MANY and failure.record.has_code(_OF_THE_VAULT):
                window.block(min(failure.record.retry_after or 1.0, _LONGEST_HOLD))
            raise


def _between(created: datetime | None, answered: datetime | None) -> timedelta | None:
    return answered - created if created is not None and answered is not None else None
