"""Secrets of one Key Vault through the SDK."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

from azure.core.rest import HttpRequest
from azure.keyvault.secrets.aio import SecretClient

from keysync.azure.policies import reply_date
from keysync.azure.rate_limit import SlidingWindow
from keysync.azure.retry import Caller
from keysync.calls import Operation
from keysync.failures import CallFailed, FailureRecord, StaleRead
from keysync.names import fold
from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.redact import Redactor
from keysync.secret.reveal import reveal
from keysync.secret.value import SecretValue
from keysync.targets.cache import PAGE, SecretCache, interned_time
from keysync.targets.errors import NotKept, ReadFromBefore, WriteConflict, WriteUnknown
from keysync.targets.interface import (
    Absent,
    Disabled,
    History,
    Metadata,
    Observation,
    SecretProperties,
    SoftDeleted,
    StoredSecret,
)
from keysync.targets.list_validation import ListingValidation, Pages
from keysync.targets.replies import SecretIds, checked_tags, checked_text, is_absent, is_bad_value, is_denied, listed_of
from keysync.targets.tags import Tags
from keysync.targets.versions import Versions
from keysync.targets.writes import SETTLED_SECONDS, Place, Writes

T = TypeVar("T")

GET_SECRET: Final = Operation("key_vault", "getSecret")
SET_SECRET: Final = Operation("key_vault", "setSecret", repeatable=False, changes=True)
UPDATE_SECRET: Final = Operation("key_vault", "updateSecret", changes=True)
GET_DELETED_SECRET: Final = Operation("key_vault", "getDeletedSecret")
LIST_SECRETS: Final = Operation("key_vault", "listSecrets")
LIST_VERSIONS: Final = Operation("key_vault", "listVersions")
RECOVER_SECRET: Final = Operation("key_vault", "recoverSecret", repeatable=False, changes=True)
DELETE_SECRET: Final = Operation("key_vault", "deleteSecret", repeatable=False, changes=True)

# What a vault grants in 10 seconds: new versions of secrets, and everything else
# (learn.microsoft.com/azure/key-vault/general/service-limits).
_WINDOWS: Final = {"creates": 300, "others": 4000}
_WINDOW_SECONDS: Final = 10.0
_TOO_MANY: Final = 429
# How a vault says that its own limit is reached, not that of one secret or of something in between.
_OF_THE_VAULT: Final = "Throttled"
_LONGEST_HOLD: Final = _WINDOW_SECONDS
# Recovery and deletion go on after the reply; this is how long, and how often, one run looks whether they are done.
_SETTLE_SECONDS: Final = 60.0
_SETTLE_PAUSE: Final = 2.0
# A read right after a write may still be answered from before it.
_READ_BACKS: Final = 3
_READ_BACK_PAUSE: Final = 0.5
# For how long a listing of versions is worth as much as one made now.
_LISTED_SECONDS: Final = 10.0
# A name that need not exist.
_PROBE: Final = "keysync-first-call"
# The SDK sends a set of None as an empty object; it checks nothing itself.
_NO_VALUE: Final[Any] = None
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


class KeyVault:
    """One configured vault, as a `SecretTarget`."""

    def __init__(
        self,
        url: str,
        client: SecretClient,
        caller: Caller,
        *,
        fingerprinter: Fingerprinter,
        redactor: Redactor,
        verify_seconds: float = 3600.0,
        writes: Writes | None = None,
    ) -> None:
        self._url = url
        self._ids = SecretIds(url)
        self._client = client
        self._caller = caller
        self._fingerprinter = fingerprinter
        self._redactor = redactor
        self._versions = Versions()
        self._writes = writes or Writes()
        self._memory = SecretCache(verify_seconds, time.monotonic)
        self._pages = Pages()
        self._windows = {kind: SlidingWindow(count, _WINDOW_SECONDS) for kind, count in _WINDOWS.items()}
        self._checked: dict[Place, tuple[str | None, float]] = {}
        self._warmth: asyncio.Task[None] | None = None

    async def prime(self) -> None:
        """Lets one call learn the vault's challenge and fetch the token; all others wait for it.

        Each call that starts before the challenge is cached costs a second request and maybe a token request. The
        first name asked for need not exist: a 404 has gone all the way. Raises CallFailed if the call fails.
        """
        if self._warmth is None or (self._warmth.done() and self._failed(self._warmth)):
            self._warmth = asyncio.create_task(self._first_call(), name=f"warm {self._url}")
        await asyncio.shield(self._warmth)

    @staticmethod
    def _failed(warmth: asyncio.Task[None]) -> bool:
        return warmth.cancelled() or warmth.exception() is not None

    async def _first_call(self) -> None:
        try:
            await self._call(GET_SECRET, lambda: self._get(_PROBE))
        except CallFailed as failure:
            # Refused for this name is still answered by the vault: each secret tells its own story later.
            if not is_absent(failure.record) and not is_denied(failure.record):
                raise

    async def close(self) -> None:
        """Ends the first call if it still runs."""
        if self._warmth is not None:
            self._warmth.cancel()
            await asyncio.gather(self._warmth, return_exceptions=True)

    async def read(self, name: str, *, deleted: bool = True) -> Observation:
        """What stands under `name` now: a secret, nothing, a disabled or a deleted one. Raises CallFailed.

        If the vault still answers from before a write of this process, that is what the process wrote.
        """
        place = self._place(name)
        for attempt in range(1, _READ_BACKS + 1):
            now = await self._read(name, deleted=deleted)
            if not self._writes.saw(place, now):
                return now
            self._memory.forget(name)
            if attempt < _READ_BACKS:
                await asyncio.sleep(_READ_BACK_PAUSE)
        made = self._writes.last(place)
        if made is None or (self._writes.was_shown(place) and not await self._lists(name, made.version)):
            # Purged, or restored from a backup: what was written is gone.
            self._writes.forget(place)
            return now
        return made

    async def _lists(self, name: str, version: str) -> bool:
        try:
            listed, _ = await self._call(LIST_VERSIONS, lambda: self._list_versions(name))
        except CallFailed as failure:
            return not is_absent(failure.record)
        return any(each.version == version for each in listed)

    def _place(self, name: str) -> Place:
        return fold(self._url), fold(name)

    async def _read(self, name: str, *, deleted: bool = True) -> Observation:
        await self.prime()
        self._memory.forget(name)
        try:
            return await self._call(GET_SECRET, lambda: self._get(name))
        except CallFailed as failure:
            record = failure.record
            if is_absent(record):
                return await self._absent(name) if deleted else Absent()
            if record.has_code("SecretDisabled"):
                return await self._disabled(name)
            raise

    async def probe_write(self) -> None:
        """Whether this identity may set secrets, without setting one. Raises CallFailed where it may not.

        A set without a value is turned down by every vault: with `BadParameter` once the identity is let through, and with
        403 if it is not; nothing can be written by it. Any other refusal proves nothing.
        """
        try:
            await self._call(SET_SECRET, lambda: self._client.set_secret(_PROBE, _NO_VALUE))
        except CallFailed as failure:
            if not is_bad_value(failure.record):
                raise

    async def _get(self, name: str) -> StoredSecret:
        with reply_date() as answered:
            secret = await self._client.get_secret(name)
        properties = secret.properties
        version = self._ids.version(properties.id, name)
        stored = StoredSecret(
            version=version,
            fingerprint=self._fingerprinter.of(self._redactor.remember(SecretValue(checked_text(secret.value)))),
            tags=Tags(checked_tags(properties.tags)),
            content_type=properties.content_type,
            managed=bool(properties.managed),
            expires=properties.expires_on,
            created=properties.created_on and interned_time(properties.created_on),
        )
        self._memory.keep(name, stored, properties.updated_on, answered())
        return replace(stored, age=_between(properties.created_on, answered()))

    async def _absent(self, name: str) -> Observation:
        """Tells a free name from one that a deleted secret holds; an identity that may not look learns it when it writes."""
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
        """A disabled secret with its tags, which only a listing shows; without them where the identity may not list."""
        try:
            listed, _ = await self._call(LIST_VERSIONS, lambda: self._list_versions(name, exists=True))
        except CallFailed as failure:
            if is_absent(failure.record) or is_denied(failure.record):
                return Disabled()
            raise
        # The order of a listing means nothing and times have whole seconds: a tie could be any of them.
        newest = max((_time(each.created_on) for each in listed), default=None)
        latest = [each for each in listed if _time(each.created_on) == newest and not each.enabled]
        if len(latest) != 1:
            return Disabled()
        (found,) = latest
        return Disabled(str(found.version), checked_tags(found.tags), bool(found.managed))

    async def history(self, name: str, latest: str) -> History:
        """How often a secret has changed, from this process's own knowledge where `latest` is what it wrote itself."""
        known = self._versions.of(name, latest)
        if known is None:
            listed, answered = await self._call(LIST_VERSIONS, lambda: self._list_versions(name, exists=True))
            created = [_time(each.created_on) for each in listed]
            proven = not _after(listed, latest, answered)
            known = self._versions.learn(name, latest, created, answered, proven=proven)
        return known

    async def _list_versions(self, name: str, *, exists: bool = False) -> tuple[list[Any], datetime]:
        """All versions, at least one if the secret `exists`, and the service's time at the reply (the latest that it mentions, if it does not say)."""
        with reply_date() as answered:
            listed = [each async for each in self._client.list_properties_of_secret_versions(name)]
        if exists and not listed:
            raise TypeError("a secret without a version")
        for each in listed:
            self._ids.version(each.id, name)
        return listed, answered() or max((_time(each.created_on) for each in listed), default=_LONG_AGO)

    def _is_checked(self, place: Place, before: str | None) -> bool:
        """Whether a listing has just shown that `before` is the latest version, or that there is none."""
        since = time.monotonic() - _LISTED_SECONDS
        checked, at = self._checked.pop(place, (None, -math.inf))
        return (checked == before and at >= since) or self._versions.listed_since(place[1], before, since)

    async def _check_latest(self, name: str, value: SecretValue, before: str | None) -> None:
        """Raises ReadFromBefore if the vault lists a version after `before`: then the look was answered from before it."""
        try:
            listed, answered = await self._call(LIST_VERSIONS, lambda: self._list_versions(name))
        except CallFailed as failure:
            if is_absent(failure.record) or is_denied(failure.record):
                return  # nothing is there, or this identity may not list
            raise
        tags = next((each.tags for each in listed if each.version == before), None)
        for version, later in _after(listed, before, answered):
            # Times have whole seconds and may be set back: what shows a stale look is the value to be made, or another owner.
            other_owner = before is None or (later and version.tags != tags)
            if other_owner or await self._holds(name, str(version.version), value):
                raise ReadFromBefore(_from_before(name))

    async def _holds(self, name: str, version: str, value: SecretValue) -> bool:
        try:
            secret = await self._call(GET_SECRET, lambda: self._client.get_secret(name, version))
        except CallFailed as failure:
            if failure.record.has_code("SecretDisabled"):
                return False
            raise
        self._ids.version(secret.id, name)
        found = self._redactor.remember(SecretValue(secret.value or ""))
        return self._fingerprinter.of(found) == self._fingerprinter.of(value)

    def survey(self, names: Collection[str]) -> ListingValidation:
        """Begins a listing, where it is worth more than reading `names` one by one."""
        return ListingValidation(names, self._memory, self._pages, self._listed_pages)

    async def listing(self) -> tuple[SecretProperties, ...]:
        """Every secret of the vault; a page that fails fails the whole."""
        return tuple([listed async for page in self._listed_pages() for listed in page])

    async def _listed_pages(self) -> AsyncIterator[Sequence[SecretProperties]]:
        await self.prime()
        url: str | None = f"/secrets?maxresults={PAGE}"
        while url is not None:
            page, url = await self._call(LIST_SECRETS, partial(self._page, url))
            yield page

    async def _page(self, url: str) -> tuple[Sequence[SecretProperties], str | None]:
        """One page and the link to the next, from plain data: the SDK's models of a page cost many times what they hold."""
        response = await self._client.send_request(HttpRequest("GET", url))
        response.raise_for_status()
        body = response.json()
        if not isinstance(body["value"], list):
            raise TypeError("a listing without secrets")
        page = [listed_of(item, self._ids.parse(item["id"])[0]) for item in body["value"]]
        return page, body.get("nextLink") or None  # where it may lead is the client's to know

    async def write(self, name: str, value: SecretValue, metadata: Metadata, *, before: str | None) -> str:
        """Makes one version; see `SecretTarget.write`."""
        place = self._place(name)
        pending = self._writes.pending(place)
        if pending is not None:
            raise WriteUnknown(pending)
        if not self._is_checked(place, before):
            await self._check_latest(name, value, before)
            # Another writer may have come meanwhile: only a look right before the request keeps that time short.
            self._checked[place] = before, time.monotonic()
            raise StaleRead(_look_again(name))
        try:
            made = await self._call(SET_SECRET, lambda: self._put(name, value, metadata))
        except CallFailed as failure:
            if not failure.record.ambiguous:
                self._writes.refused(place)
                raise
            return await self._landed(name, value, before, failure.record)
        stored = StoredSecret(
            made, self._fingerprinter.of(value), Tags(metadata.tags), metadata.content_type, expires=metadata.expires
        )
        self._writes.made(place, before, stored)
        self._versions.add(name, before, made)
        return await self._read_back(name, value, made, before)

    async def _put(self, name: str, value: SecretValue, metadata: Metadata) -> str:
        self._writes.sent(self._place(name), _on_its_way(name))
        written = await self._client.set_secret(
            name,
            reveal(value),
            tags=dict(metadata.tags),
            content_type=metadata.content_type,
            expires_on=metadata.expires,
        )
        return self._ids.version(written.properties.id, name, changed=True)

    async def _read_back(self, name: str, value: SecretValue, made: str, before: str | None) -> str:
        """Makes sure that the version just made is the latest, since no write of Key Vault is conditional.

        Raises WriteConflict where another is. A look that fails changes nothing: the reply said that the write was done.
        """
        for attempt in range(1, _READ_BACKS + 1):
            try:
                now = await self._read(name)
            except CallFailed:
                return made
            if self._writes.saw(self._place(name), now):
                self._memory.forget(name)
            # Another version of the same value is another keysync's, and what this one was to bring about.
            if isinstance(now, StoredSecret) and (
                now.version == made or now.fingerprint == self._fingerprinter.of(value)
            ):
                return made
            old = now.version == before if isinstance(now, StoredSecret) else isinstance(now, Absent) and before is None
            if not old:
                raise WriteConflict(_overtaken(name, self._url))
            if attempt < _READ_BACKS:
                await asyncio.sleep(_READ_BACK_PAUSE)
        return made

    async def _landed(self, name: str, value: SecretValue, before: str | None, record: FailureRecord) -> str:
        """The version that a write of uncertain end has made.

        Raises WriteUnknown where none shows: the write may take effect later, or the reads are from before it.
        """
        for attempt in range(1, _READ_BACKS + 1):
            try:
                now = await self._read(name)
            except CallFailed as second:
                raise WriteUnknown(record) from second
            if (
                isinstance(now, StoredSecret)
                and now.version != before
                and now.fingerprint == self._fingerprinter.of(value)
            ):
                self._writes.made(self._place(name), before, now)
                return now.version
            old = now.version == before if isinstance(now, StoredSecret) else isinstance(now, Absent) and before is None
            if not old:
                raise WriteConflict(_changed(record))
            self._memory.forget(name)
            if attempt < _READ_BACKS:
                await asyncio.sleep(_READ_BACK_PAUSE)
        raise WriteUnknown(record)

    async def patch(self, name: str, version: str, metadata: Metadata) -> None:
        """Sets tags, content type and expiry of one version by PATCH, which makes no other; see `SecretTarget.patch`."""
        # Without the expiry, which is another at each time.
        attempt = (version, dict(metadata.tags), metadata.content_type, metadata.expires is None)
        self._check_kept(name, self._writes.ignored(self._place(name), attempt))
        await self._call(
            UPDATE_SECRET,
            lambda: self._update(
                name,
                version,
                tags=dict(metadata.tags),
                content_type=metadata.content_type,
                expires_on=metadata.expires,
            ),
        )
        await self._verify(name, version, attempt, partial(_differing, metadata))

    async def enable(self, name: str, version: str, *, enabled: bool) -> None:
        """Enables or disables one version by PATCH; see `SecretTarget.enable`."""
        attempt = (version, enabled)
        self._check_kept(name, self._writes.ignored(self._place(name), attempt))
        await self._call(UPDATE_SECRET, lambda: self._update(name, version, enabled=enabled))
        await self._verify(name, version, attempt, partial(_not_switched, enabled))

    async def _update(self, name: str, version: str, **wanted: Any) -> None:  # noqa: ANN401  # the SDK's keywords
        updated = await self._client.update_secret_properties(name, version, **wanted)
        self._ids.version(updated.id, name, changed=True)

    async def _verify(
        self, name: str, version: str, attempt: object, differing: Callable[[Observation], frozenset[str]]
    ) -> None:
        """Reads back what a PATCH has changed. Raises NotKept where the vault accepted it and did not keep it."""
        left: frozenset[str] = frozenset()
        for number in range(1, _READ_BACKS + 1):
            try:
                now = await self._read(name)
            except CallFailed:
                return  # the reply said that it was done
            if isinstance(now, (StoredSecret, Disabled)) and now.version not in {version, None}:
                return  # another version is the latest: another writer's
            left = differing(now)
            if not left:
                return
            self._memory.forget(name)
            if number < _READ_BACKS:
                await asyncio.sleep(_READ_BACK_PAUSE)
        self._writes.ignore(self._place(name), attempt, left)
        self._check_kept(name, left)

    def _check_kept(self, name: str, left: frozenset[str]) -> None:
        if left:
            fields = ", ".join(sorted(left))
            raise NotKept(
                FailureRecord(
                    kind="conflict",
                    summary=f"the vault accepted a change of {name} and did not keep it ({fields}): not tried again for a day",
                    hint=f"find what undoes it, such as a policy or another tool (az keyvault secret show --id {self._url}/secrets/{name})",
                )
            )

    async def recover(self, name: str) -> None:
        """Recovers and waits, at most a minute, until the name can be read again. Raises CallFailed."""
        await self._settled(
            name,
            RECOVER_SECRET,
            lambda: self._recover(name),
            done=lambda now: isinstance(now, (StoredSecret, Disabled)),
        )

    async def delete(self, name: str) -> None:
        """Deletes and waits, at most a minute, until the name is gone. Raises CallFailed."""
        await self._settled(
            name,
            DELETE_SECRET,
            lambda: self._delete(name),
            done=lambda now: isinstance(now, (Absent, SoftDeleted)),
        )

    async def _recover(self, name: str) -> None:
        self._ids.version((await self._client.recover_deleted_secret(name)).id, name, changed=True)

    async def _delete(self, name: str) -> None:
        self._ids.version((await self._client.delete_secret(name)).id, name, changed=True)

    async def _settled(
        self,
        name: str,
        operation: Operation,
        send: Callable[[], Awaitable[object]],
        *,
        done: Callable[[Observation], bool],
    ) -> None:
        try:
            # The SDK polls, for ever if need be: the deadline of a call ends it.
            await self._call(operation, send)
        except CallFailed as failure:
            # 404 to a recovery: one that began earlier has just come to its end.
            over = operation is RECOVER_SECRET and is_absent(failure.record)
            if not failure.record.ambiguous and not over:
                raise
            await self._wait_until(name, done, failure)

    async def _wait_until(self, name: str, done: Callable[[Observation], bool], failure: CallFailed) -> None:
        try:
            async with asyncio.timeout(_SETTLE_SECONDS):
                while not done(await self.read(name)):  # noqa: ASYNC110  # the event is a vault's
                    await asyncio.sleep(_SETTLE_PAUSE)
        except TimeoutError:
            raise failure from None

    async def _call(self, operation: Operation, send: Callable[[], Awaitable[T]]) -> T:
        window = self._windows["creates" if operation is SET_SECRET else "others"]
        await window.take()
        try:
            return await self._caller.call(operation, self._url, send)
        except CallFailed as failure:
            if failure.record.http_status == _TOO_MANY and failure.record.has_code(_OF_THE_VAULT):
                window.hold(min(failure.record.retry_after or 1.0, _LONGEST_HOLD))
            raise


def _changed(record: FailureRecord) -> FailureRecord:
    return replace(record, summary=f"somebody else changed the secret during the write ({record.summary})")


def _overtaken(name: str, url: str) -> FailureRecord:
    return FailureRecord(
        kind="conflict",
        summary=f"somebody else wrote {name} right after keysync did: two writers share this secret",
        hint=f"find who else writes it (az keyvault secret list-versions --id {url}/secrets/{name}) and stop one of the two",
    )


def _from_before(name: str) -> FailureRecord:
    return FailureRecord(
        kind="conflict",
        summary=f"the vault lists a later version of {name} than the one that it shows: not written, the next run looks",
    )


def _look_again(name: str) -> FailureRecord:
    return FailureRecord(
        kind="conflict", summary=f"{name} changed again and again while its versions were listed: not written"
    )


def _on_its_way(name: str) -> FailureRecord:
    return FailureRecord(
        kind="timeout",
        summary=f"an earlier write of {name} may still take effect: not written again before it is certain, the next run looks",
    )


def _between(created: datetime | None, answered: datetime | None) -> timedelta | None:
    return answered - created if created is not None and answered is not None else None


def _recent(listed: Sequence[Any], before: str | None, answered: datetime) -> list[Any]:
    """The versions beside `before` that a read may not show yet."""
    since = answered - timedelta(seconds=SETTLED_SECONDS)
    return [each for each in listed if each.version != before and _time(each.created_on) > since]


def _made_at(listed: Sequence[Any], version: str | None) -> datetime:
    return next((_time(each.created_on) for each in listed if each.version == version), _LONG_AGO)


def _after(listed: Sequence[Any], before: str | None, answered: datetime) -> list[tuple[Any, bool]]:
    """Versions that were not made before `before`, and whether each is later; where nothing was read, any version is one."""
    if before is None:
        return [(each, True) for each in listed]
    at = _made_at(listed, before)
    recent = _recent(listed, before, answered)
    return [(each, _time(each.created_on) > at) for each in recent if _time(each.created_on) >= at]


def _differing(wanted: Metadata, found: Observation) -> frozenset[str]:
    if not isinstance(found, StoredSecret):
        return frozenset()  # it was disabled or deleted since, which the next run sees
    pairs = {
        "tags": wanted.tags.items() <= dict(found.tags).items(),
        "content type": wanted.content_type is None or found.content_type == wanted.content_type,
        "expiry": wanted.expires is None or found.expires == wanted.expires,
    }
    return frozenset(name for name, same in pairs.items() if not same)


def _not_switched(enabled: bool, found: Observation) -> frozenset[str]:
    wrong = isinstance(found, Disabled if enabled else StoredSecret)
    return frozenset({"enabled"} if wrong else ())


def _time(moment: datetime | None) -> datetime:
    return moment or _LONG_AGO
