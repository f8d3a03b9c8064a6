"""A Key Vault as a `SecretTarget`: writes, and the checks around them. Reads are in `vault_reader`."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from keysync.calls import Operation
from keysync.failures import CallFailed, FailureRecord, StaleRead
from keysync.secret.reveal import reveal
from keysync.secret.value import SecretValue
from keysync.targets.errors import LaterVersionListed, NotKept, WriteConflict, WriteUnknown
from keysync.targets.interface import (
    Absent,
    Disabled,
    Metadata,
    Observation,
    SoftDeleted,
    StoredSecret,
)
from keysync.targets.messages import changed, kept_changing, later_version, other_writer, pending_write
from keysync.targets.operations import (
    DELETE_SECRET,
    GET_SECRET,
    LIST_VERSIONS,
    RECOVER_SECRET,
    SET_SECRET,
    UPDATE_SECRET,
)
from keysync.targets.recent_writes import SecretPath
from keysync.targets.reply_checks import (
    checked_text,
    is_absent,
    is_bad_value,
    is_denied,
)
from keysync.targets.tags import Tags
from keysync.targets.vault_reader import PROBE, READ_BACK_PAUSE, READ_BACKS, VaultReader
from keysync.targets.versions import versions_after

# Recovery and deletion continue after the reply. A run waits this long for their end, and checks this often.
_SETTLE_SECONDS: Final = 60.0
_SETTLE_PAUSE: Final = 2.0
# For how long a listing of versions counts as current.
_LISTED_SECONDS: Final = 10.0


class KeyVault(VaultReader):
    """One configured vault, as a `SecretTarget`."""

    async def probe_write(self) -> None:
        """Checks that this identity may set secrets, without setting one. Raises CallFailed if it may not.

        Every vault refuses a set without a value: with `BadParameter` if the identity may set secrets, with 403 if it may not.
        It cannot write anything. Other refusals prove nothing.
        """
        try:
            await self._call(SET_SECRET, lambda: self._request("PUT", f"/secrets/{PROBE}", {}))
        except CallFailed as failure:
            if not is_bad_value(failure.record):
                raise

    def _is_checked(self, path: SecretPath, before: str | None) -> bool:
        """Whether a recent listing showed that `before` is the latest version (None: that there is no version)."""
        since = time.monotonic() - _LISTED_SECONDS
        checked, at = self._checked.pop(path, (None, -math.inf))
        return (checked == before and at >= since) or self._versions.listed_since(path[1], before, since)

    async def _check_latest(self, name: str, value: SecretValue, before: str | None) -> None:
        """Raises LaterVersionListed if the vault lists a version after `before`: then the earlier read was stale."""
        try:
            listed, answered = await self._call(LIST_VERSIONS, lambda: self._list_versions(name))
        except CallFailed as failure:
            if is_absent(failure.record) or is_denied(failure.record):
                return  # the secret does not exist, or this identity may not list
            raise
        tags = next((item.tags for item in listed if item.version == before), None)
        for version, later in versions_after(listed, before, answered):
            # Times have whole seconds and may be set back. A stale read shows by the value to write, or by another owner.
            other_owner = before is None or (later and version.tags != tags)
            if other_owner or await self._has_value(name, str(version.version), value):
                raise LaterVersionListed(later_version(name))

    async def _has_value(self, name: str, version: str, value: SecretValue) -> bool:
        try:
            secret = await self._call(GET_SECRET, lambda: self._request("GET", f"/secrets/{name}/{version}"))
        except CallFailed as failure:
            if failure.record.has_code("SecretDisabled"):
                return False
            raise
        self._ids.version(secret.get("id"), name)
        stored = self._redactor.remember(SecretValue(checked_text(secret.get("value"))))
        return self._fingerprinter.of(stored) == self._fingerprinter.of(value)

    async def write(self, name: str, value: SecretValue, metadata: Metadata, *, before: str | None) -> str:
        """Makes one version; see `SecretTarget.write`."""
        path = self._path_of(name)
        pending = self._writes.pending(path)
        if pending is not None:
            raise WriteUnknown(pending)
        if not self._is_checked(path, before):
            await self._check_latest(name, value, before)
            # Another writer may have written meanwhile. A new read right before the request keeps that time short.
            self._checked[path] = before, time.monotonic()
            raise StaleRead(kept_changing(name))
        try:
            version = await self._call(SET_SECRET, lambda: self._put(name, value, metadata))
        except CallFailed as failure:
            if not failure.record.ambiguous:
                self._writes.refused(path)
                raise
            return await self._resolve_ambiguous(name, value, before, failure.record)
        stored = StoredSecret(
            version, self._fingerprinter.of(value), Tags(metadata.tags), metadata.content_type, expires=metadata.expires
        )
        self._writes.written(path, before, stored)
        self._versions.add(name, before, version)
        return await self._read_back(name, value, version, before)

    async def _put(self, name: str, value: SecretValue, metadata: Metadata) -> str:
        self._writes.sent(self._path_of(name), pending_write(name))
        body: dict[str, Any] = {"value": reveal(value), "tags": dict(metadata.tags)}
        if metadata.content_type is not None:
            body["contentType"] = metadata.content_type
        if metadata.expires is not None:
            body["attributes"] = {"exp": int(metadata.expires.timestamp())}
        written = await self._request("PUT", f"/secrets/{name}", body)
        return self._ids.version(written.get("id"), name, changed=True)

    async def _read_back(self, name: str, value: SecretValue, version: str, before: str | None) -> str:
        """Checks that the new version is the latest, because writes of Key Vault are not conditional.

        Raises WriteConflict if another version is. A failed read changes nothing: the reply confirmed the write.
        """
        for attempt in range(1, READ_BACKS + 1):
            try:
                observed = await self._read(name)
            except CallFailed:
                return version
            if self._writes.is_stale_read(self._path_of(name), observed):
                self._cache.forget(name)
            # Another version with the same value comes from another keysync, and is as desired.
            if isinstance(observed, StoredSecret) and (
                observed.version == version or observed.fingerprint == self._fingerprinter.of(value)
            ):
                return version
            old = (
                observed.version == before
                if isinstance(observed, StoredSecret)
                else isinstance(observed, Absent) and before is None
            )
            if not old:
                raise WriteConflict(other_writer(name, self._url))
            if attempt < READ_BACKS:
                await asyncio.sleep(READ_BACK_PAUSE)
        return version

    async def _resolve_ambiguous(self, name: str, value: SecretValue, before: str | None, record: FailureRecord) -> str:
        """The version that an ambiguous write created.

        Raises WriteUnknown if no read shows it: the write may take effect later, or the reads are stale.
        """
        for attempt in range(1, READ_BACKS + 1):
            try:
                observed = await self._read(name)
            except CallFailed as second:
                raise WriteUnknown(record) from second
            if (
                isinstance(observed, StoredSecret)
                and observed.version != before
                and observed.fingerprint == self._fingerprinter.of(value)
            ):
                self._writes.written(self._path_of(name), before, observed)
                return observed.version
            old = (
                observed.version == before
                if isinstance(observed, StoredSecret)
                else isinstance(observed, Absent) and before is None
            )
            if not old:
                raise WriteConflict(changed(record))
            self._cache.forget(name)
            if attempt < READ_BACKS:
                await asyncio.sleep(READ_BACK_PAUSE)
        raise WriteUnknown(record)

    async def patch(self, name: str, version: str, metadata: Metadata) -> None:
        """Sets tags, content type and expiry of one version by PATCH, which creates no version; see `SecretTarget.patch`."""
        # Without the expiry, which differs each time.
        attempt = (version, dict(metadata.tags), metadata.content_type, metadata.expires is None)
        self._check_kept(name, self._writes.fields_not_kept(self._path_of(name), attempt))
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
        self._check_kept(name, self._writes.fields_not_kept(self._path_of(name), attempt))
        await self._call(UPDATE_SECRET, lambda: self._update(name, version, enabled=enabled))
        await self._verify(name, version, attempt, partial(_not_switched, enabled))

    async def _update(self, name: str, version: str, **changes: Any) -> None:  # noqa: ANN401  # the SDK's keywords
        updated = await self._client.update_secret_properties(name, version, **changes)
        self._ids.version(updated.id, name, changed=True)

    async def _verify(
        self, name: str, version: str, attempt: object, differing: Callable[[Observation], frozenset[str]]
    ) -> None:
        """Reads back the result of a PATCH. Raises NotKept if the vault accepted the change but did not keep it."""
        left: frozenset[str] = frozenset()
        for number in range(1, READ_BACKS + 1):
            try:
                observed = await self._read(name)
            except CallFailed:
                return  # the reply confirmed the change
            if isinstance(observed, (StoredSecret, Disabled)) and observed.version not in {version, None}:
                return  # another writer created a later version
            left = differing(observed)
            if not left:
                return
            self._cache.forget(name)
            if number < READ_BACKS:
                await asyncio.sleep(READ_BACK_PAUSE)
        self._writes.note_not_kept(self._path_of(name), attempt, left)
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
        """Recovers the secret, and waits at most a minute until it can be read. Raises CallFailed."""
        await self._wait_for_end(
            name,
            RECOVER_SECRET,
            lambda: self._recover(name),
            done=lambda observed: isinstance(observed, (StoredSecret, Disabled)),
        )

    async def delete(self, name: str) -> None:
        """Deletes the secret, and waits at most a minute until it is gone. Raises CallFailed."""
        await self._wait_for_end(
            name,
            DELETE_SECRET,
            lambda: self._delete(name),
            done=lambda observed: isinstance(observed, (Absent, SoftDeleted)),
        )

    async def _recover(self, name: str) -> None:
        self._ids.version((await self._client.recover_deleted_secret(name)).id, name, changed=True)

    async def _delete(self, name: str) -> None:
        self._ids.version((await self._client.delete_secret(name)).id, name, changed=True)

    async def _wait_for_end(
        self,
        name: str,
        operation: Operation,
        send: Callable[[], Awaitable[object]],
        *,
        done: Callable[[Observation], bool],
    ) -> None:
        try:
            # The SDK polls without a limit; the deadline of the call ends it.
            await self._call(operation, send)
        except CallFailed as failure:
            # A recovery is answered with 404 if an earlier recovery has just ended.
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


def _differing(metadata: Metadata, observed: Observation) -> frozenset[str]:
    if not isinstance(observed, StoredSecret):
        return frozenset()  # it was disabled or deleted since; the next run sees that
    pairs = {
        "tags": metadata.tags.items() <= dict(observed.tags).items(),
        "content type": metadata.content_type is None or observed.content_type == metadata.content_type,
        "expiry": metadata.expires is None or observed.expires == metadata.expires,
    }
    return frozenset(name for name, same in pairs.items() if not same)


def _not_switched(enabled: bool, observed: Observation) -> frozenset[str]:
    wrong = isinstance(observed, Disabled if enabled else StoredSecret)
    return frozenset({"enabled"} if wrong else ())
