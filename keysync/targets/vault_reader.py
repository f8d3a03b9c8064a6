"""The reading half of a Key Vault target: secrets, versions and listings, as JSON through the SDK's pipeline.

Names of operations are those of the REST reference (learn.microsoft.com/rest/api/keyvault/secrets). The SDK's models are not
used: making and reading them takes as much CPU time as the rest of a call, and the models of a page many times its memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

from azure.core.rest import HttpRequest
from azure.keyvault.secrets.aio import SecretClient

from keysync.azure.clients import require_ok
from keysync.azure.rate_limit import SlidingWindow
from keysync.azure.retry import Caller
from keysync.calls import Operation
from keysync.failures import CallFailed, invalid_response
from keysync.http.retry_after import http_date
from keysync.json_values import as_list, as_mapping
from keysync.names import fold
from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.redact import Redactor
from keysync.secret.value import SecretValue
from keysync.targets.cache import PAGE, ListValidation, SecretCache
from keysync.targets.interface import (
    LONG_AGO,
    Absent,
    Disabled,
    History,
    Observation,
    SecretProperties,
    SoftDeleted,
    StoredSecret,
)
from keysync.targets.recent_writes import RecentWrites, SecretPath
from keysync.targets.reply_checks import SecretIds, checked_tags, is_absent, is_denied, listed_secret
from keysync.targets.versions import counted_history, history_of, versions_after

T = TypeVar("T")
D = TypeVar("D")

GET_SECRET: Final = Operation("key_vault", "getSecret")
SET_SECRET: Final = Operation("key_vault", "setSecret", repeatable=False, changes=True)
_GET_DELETED_SECRET: Final = Operation("key_vault", "getDeletedSecret")
_LIST_SECRETS: Final = Operation("key_vault", "listSecrets")
_LIST_VERSIONS: Final = Operation("key_vault", "listVersions")

# Key Vault's limits in 10 seconds: new versions of secrets, and all other calls
# (learn.microsoft.com/azure/key-vault/general/service-limits).
_CREATES: Final = 300
_OTHERS: Final = 4000
_WINDOW_SECONDS: Final = 10.0
# A read right after a write may still show the state before it.
_READS: Final = 3
_READ_PAUSE: Final = 0.5
# The secret of this name need not exist.
PROBE: Final = "keysync-first-call"


@dataclass(eq=False, repr=False)
class VaultReader:
    """Reads one vault. Every reply is checked: it must be about the secret that was requested.

    By name, `_listed` has the version that a listing showed as the latest one (None: no secret), and when (monotonic seconds);
    `_histories` has the history as of a version, for the count in the tags of the next one. `_service_start` is the time of the
    vault's own clock when the monotonic clock was zero; None until a reply had a Date header.
    """

    url: str
    client: SecretClient
    caller: Caller
    fingerprinter: Fingerprinter
    redactor: Redactor
    verify_seconds: float = 3600.0
    writes: RecentWrites = field(default_factory=RecentWrites)
    _listed: dict[str, tuple[str | None, float]] = field(default_factory=dict[str, Any])
    _histories: dict[str, tuple[str, History]] = field(default_factory=dict[str, Any])
    _service_start: datetime | None = None
    _first_call_task: asyncio.Task[StoredSecret | None] | None = None

    def __post_init__(self) -> None:
        """Makes what depends on the fields."""
        self._folded_url, self._ids, self._cache = fold(self.url), SecretIds(self.url), SecretCache(self.verify_seconds)
        self._creates, self._others = (SlidingWindow(count, _WINDOW_SECONDS) for count in (_CREATES, _OTHERS))

    async def prime(self) -> None:
        """Makes one call that caches the vault's challenge and the token. Concurrent callers wait for it.

        Each call that starts before the challenge is cached costs a second request, and maybe a token request. The secret of
        the first call need not exist: a 404 shows that the vault answers. Raises CallFailed if the call fails.
        """
        task = self._first_call_task
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            # A refusal for this name says nothing about other secrets.
            first_call = self._unless_refused(self._call(GET_SECRET, lambda: self._get(PROBE)), None)
            task = self._first_call_task = asyncio.create_task(first_call, name=f"warm {self.url}")
        if not task.done():
            await asyncio.shield(task)

    async def close(self) -> None:
        """Cancels the first call if it is still active."""
        if self._first_call_task is not None:
            self._first_call_task.cancel()
            await asyncio.gather(self._first_call_task, return_exceptions=True)

    # One secret

    async def read(self, name: str, *, deleted: bool = True) -> Observation:
        """The current state of `name`: a secret, absent, disabled or soft-deleted. Raises CallFailed.

        If the vault still shows the state before a write of this process, the result is what this process wrote.
        """
        path = self._path_of(name)
        observed, written = await self._read_past(name, partial(self.writes.written_since, path), deleted=deleted)
        if written is None:
            return observed
        if written.confirmed and not await self._lists(name, written.stored.version):
            # The secret was purged, or restored from a backup: the written version is gone.
            self.writes.forget(path)
            return observed
        return written.stored

    async def _read_past(
        self, name: str, is_old: Callable[[Observation], T], *, deleted: bool = True
    ) -> tuple[Observation, T]:
        """Reads until the result is not old, at most three times; returns the last result, and what `is_old` says of it.

        Raises CallFailed if a read fails.
        """
        reads = 1
        while old := is_old(observed := await self._read(name, deleted=deleted)):
            self._cache.forget(name)
            if reads == _READS:
                break
            reads += 1
            await asyncio.sleep(_READ_PAUSE)
        return observed, old

    async def _lists(self, name: str, version: str) -> bool:
        try:
            listed, _ = await self._list_versions(name)
        except CallFailed as failure:
            return not is_absent(failure.record)
        return any(item.version == version for item in listed)

    def _path_of(self, name: str) -> SecretPath:
        return self._folded_url, fold(name)

    async def _read(self, name: str, *, deleted: bool) -> Observation:
        await self.prime()
        self._cache.forget(name)
        try:
            return await self._call(GET_SECRET, lambda: self._get(name))
        except CallFailed as failure:
            if failure.record.has_code("SecretDisabled"):
                return await self._disabled(name)
            if not is_absent(failure.record):
                raise
        if not deleted:
            return Absent()
        # A soft-deleted secret is not a free name. An identity without that right learns it on the write.
        return await self._unless_refused(self._call(_GET_DELETED_SECRET, lambda: self._get_deleted(name)), Absent())

    async def _get(self, name: str, version: str = "") -> StoredSecret:
        """The latest version, which is cached; or the given one, which is not."""
        secret, at = await self._request("GET", f"/secrets/{name}/{version}".rstrip("/"))
        value, shown = secret.get("value"), listed_secret(secret, name, self._ids.version(secret.get("id"), name))
        if not isinstance(value, str):
            raise TypeError("the value of a secret is not a string")
        created = shown.created if shown.created != LONG_AGO else None
        stored = StoredSecret(
            version=shown.version,
            fingerprint=self.fingerprinter.of(self.redactor.remember(SecretValue(value))),
            tags=shown.tags,
            content_type=shown.content_type,
            managed=shown.managed,
            expires=shown.expires,
            created=created,
            age=at - created if at is not None and created is not None else None,
        )
        if not version:
            self._cache.keep(name, stored, shown.updated, at)
        return stored

    async def _get_deleted(self, name: str) -> SoftDeleted:
        deleted, _ = await self._request("GET", f"/deletedsecrets/{name}")
        self._ids.version(deleted.get("id"), name)
        attributes: dict[str, Any] = deleted.get("attributes") or {}
        level: str | None = attributes.get("recoveryLevel")
        purged_on: int | None = deleted.get("scheduledPurgeDate")
        return SoftDeleted(
            checked_tags(deleted.get("tags")),
            purgeable=not level or "purgeable" in fold(level),
            purged_on=None if purged_on is None else datetime.fromtimestamp(purged_on, UTC),
        )

    async def _disabled(self, name: str) -> Disabled:
        """A disabled secret with its tags, which only a listing shows. No tags if the identity may not list."""
        found = await self._unless_refused(self._list_versions(name, exists=True), None)
        listed = found[0] if found is not None else []
        # Listings have no order and times have whole seconds, so in a tie the latest version is unknown.
        newest = max((item.created for item in listed), default=LONG_AGO)
        latest = [item for item in listed if item.created == newest and not item.enabled]
        return Disabled(latest[0].version, latest[0].tags, latest[0].managed) if len(latest) == 1 else Disabled()

    # Versions and listings

    async def history(self, name: str, stored: StoredSecret, *, at_most: History) -> History:
        """The number of versions of a secret: from its tags, else by a listing. Raises CallFailed."""
        key, counted, began = fold(name), counted_history(stored, self._service_time()), time.monotonic()
        if counted is not None:
            self._histories[key] = stored.version, counted
            if counted.versions <= at_most.versions and counted.today <= at_most.today:
                return counted
        listed, answered = await self._list_versions(name, exists=True)
        history = history_of(listed, answered)
        self._histories[key] = stored.version, history
        if not versions_after(listed, stored.version, answered):
            self._listed[key] = stored.version, began
        return history

    async def _list_versions(self, name: str, *, exists: bool = False) -> tuple[list[SecretProperties], datetime]:
        """All versions (at least one if the secret `exists`), and the service's time of the reply.

        Without a Date header, that time is the latest time in the reply.
        """

        def parse(item: Mapping[str, Any]) -> SecretProperties:
            return listed_secret(item, name, self._ids.version(item.get("id"), name))

        pages = self._pages(_LIST_VERSIONS, f"/secrets/{name}/versions", parse)
        listed = [item async for page in pages for item in page]
        if exists and not listed:
            raise invalid_response("a secret without a version: not used")
        return listed, self._service_time() or max((item.created for item in listed), default=LONG_AGO)

    def validate_by_listing(self, names: Collection[str], *, since: float | None = None) -> ListValidation:
        """Starts a listing, if it costs less than reading `names` one by one."""

        def note(key: str, stored: StoredSecret, at: float) -> None:
            self._listed[key] = stored.version, at

        if since is not None:
            names = [name for name in names if self._listed.get(fold(name), (None, since))[1] <= since]
        return ListValidation(names, self._cache, self._listed_pages, note)

    async def listing(self) -> tuple[SecretProperties, ...]:
        """All secrets of the vault. Raises CallFailed if any page fails."""
        return tuple([listed async for page in self._listed_pages() for listed in page])

    def _listed_pages(self) -> AsyncIterator[Sequence[SecretProperties]]:
        return self._pages(_LIST_SECRETS, "/secrets", lambda item: listed_secret(item, self._ids.name(item["id"])))

    async def _pages(
        self, operation: Operation, path: str, parse: Callable[[Mapping[str, Any]], SecretProperties]
    ) -> AsyncIterator[Sequence[SecretProperties]]:
        async def fetch(url: str) -> tuple[Sequence[SecretProperties], str | None]:
            body, _ = await self._request("GET", url)
            items: Any = as_list(body["value"])
            if items is None:
                raise TypeError("a listing without items")
            # The client's policy checks that the link stays at this vault.
            return [parse(item) for item in items], body.get("nextLink") or None

        await self.prime()
        url: str | None = f"{path}?maxresults={PAGE}"
        while url is not None:
            page, url = await self._call(operation, partial(fetch, url))
            yield page

    # Requests

    async def _call(self, operation: Operation, send: Callable[[], Awaitable[T]]) -> T:
        window = self._creates if operation is SET_SECRET else self._others
        await window.take()
        try:
            return await self.caller.call(operation, self.url, send)
        except CallFailed as failure:
            # The code for the limit of the vault; a proxy, or the limit of one secret, has other codes.
            if failure.record.http_status == 429 and failure.record.has_code("Throttled"):
                window.block(min(failure.record.retry_after or 1.0, _WINDOW_SECONDS))
            raise

    async def _unless_refused(self, call: Coroutine[Any, Any, T], default: D) -> T | D:
        """The result of `call`, or `default` if the vault itself says that there is nothing, or that this identity may not see it."""
        try:
            return await call
        except CallFailed as failure:
            if is_absent(failure.record) or is_denied(failure.record):
                return default
            raise

    async def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[Mapping[str, Any], datetime | None]:
        """The JSON object of a reply, and the service's time of it; None without a Date header.

        Raises HttpResponseError for another status than 200, and TypeError for other JSON than an object.
        """
        response = await self.client.send_request(HttpRequest(method, path, json=body))
        at = http_date(response.headers.get("Date", ""))
        # Not of a gateway's error page.
        if at is not None and (response.status_code == 200 or "x-ms-keyvault-service-version" in response.headers):
            self._service_start = at - timedelta(seconds=time.monotonic())
        require_ok(response)
        result = as_mapping(response.json())
        if result is None:
            raise TypeError("the reply is not a JSON object")
        return result, at

    def _service_time(self) -> datetime | None:
        """The time of the vault's own clock; None until a reply had a Date header."""
        return None if self._service_start is None else self._service_start + timedelta(seconds=time.monotonic())
