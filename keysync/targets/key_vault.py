"""A Key Vault as a `SecretTarget`: writes, and the checks around them. Reads are in `vault_reader`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from keysync.calls import Operation
from keysync.failures import CallFailed, FailureRecord, StaleRead
from keysync.names import fold
from keysync.secret.reveal import reveal
from keysync.secret.value import SecretValue
from keysync.targets.interface import (
    LONG_AGO,
    Absent,
    Disabled,
    History,
    LaterVersionListed,
    Metadata,
    NotKept,
    Observation,
    SoftDeleted,
    StoredSecret,
    WriteConflict,
    WriteUnknown,
)
from keysync.targets.reply_checks import is_absent
from keysync.targets.vault_reader import GET_SECRET, PROBE, SET_SECRET, VaultReader
from keysync.targets.versions import versions_after, with_count

_UPDATE_SECRET: Final = Operation("key_vault", "updateSecret", changes=True)
_RECOVER_SECRET: Final = Operation("key_vault", "recoverSecret", repeatable=False, changes=True)
_DELETE_SECRET: Final = Operation("key_vault", "deleteSecret", repeatable=False, changes=True)
# Recovery and deletion continue after the reply. A run waits this long for their end, and checks this often.
_SETTLE_SECONDS: Final = 60.0
_SETTLE_PAUSE: Final = 2.0
# For how long a listing counts as current.
_LISTED_SECONDS: Final = 10.0


def _conflict(summary: str, hint: str | None = None) -> FailureRecord:
    """Another writer, or the vault's own delay, came between a read and a write."""
    return FailureRecord(kind="conflict", summary=summary, hint=hint)


class KeyVault(VaultReader):
    """One configured vault, as a `SecretTarget`."""

    async def probe_write(self) -> None:
        """Checks that this identity may set secrets, without setting one. Raises CallFailed if it may not.

        Every vault refuses a set without a value: with `BadParameter` if the identity may set secrets, with 403 if it may not.
        It cannot write anything. Other refusals prove nothing, nor does that of an unknown api-version, with the same code.
        """
        try:
            await self._call(SET_SECRET, lambda: self._request("PUT", f"/secrets/{PROBE}", {}))
        except CallFailed as failure:
            record = failure.record
            message = (record.cloud_error.message if record.cloud_error else None) or ""
            if record.http_status != 400 or record.code != "BadParameter" or "version" in message:
                raise

    async def write(self, name: str, value: SecretValue, metadata: Metadata, *, before: str | None) -> str:
        """Makes one version; see `SecretTarget.write`."""
        path, key = self._path_of(name), fold(name)
        pending = self.writes.pending(path)
        if pending is not None:
            raise WriteUnknown(pending)
        listed, at = self._listed.get(key, (None, 0.0))
        if listed != before or at < time.monotonic() - _LISTED_SECONDS:
            await self._check_latest(name, value, before)
            # Another writer may have written meanwhile. A new read right before the request keeps that time short.
            self._listed[key] = before, time.monotonic()
            raise StaleRead(_conflict(f"{name} kept changing while its versions were listed: not written"))
        try:
            stored = await self._call(SET_SECRET, lambda: self._put(name, value, metadata, before))
        except CallFailed as failure:
            if not failure.record.ambiguous:
                self.writes.refused(path)
                raise
            return await self._resolve_ambiguous(name, value, before, failure.record)
        self.writes.written(path, before, stored)
        self._listed.pop(key, None)
        self._histories.pop(key, None)
        return await self._read_back(name, stored)

    async def _check_latest(self, name: str, value: SecretValue, before: str | None) -> None:
        """Raises LaterVersionListed if the vault lists a version after `before`: then the earlier read was stale."""
        # None if the secret does not exist, or this identity may not list.
        found = await self._unless_refused(self._list_versions(name), None)
        listed, answered = found or ([], LONG_AGO)
        tags = next((item.tags for item in listed if item.version == before), None)
        for version, later in versions_after(listed, before, answered):
            # Times have whole seconds and may be set back. A stale read shows by the value to write, or by another owner.
            other_owner = before is None or (later and version.tags != tags)
            if other_owner or await self._has_value(name, version.version, value):
                summary = f"the vault lists a later version of {name} than it returns"
                raise LaterVersionListed(_conflict(f"{summary}: not written; the next run checks again"))

    async def _has_value(self, name: str, version: str, value: SecretValue) -> bool:
        try:
            stored = await self._call(GET_SECRET, lambda: self._get(name, version))
        except CallFailed as failure:
            if failure.record.has_code("SecretDisabled"):
                return False
            raise
        return stored.fingerprint == self.fingerprinter.of(value)

    async def _put(self, name: str, value: SecretValue, metadata: Metadata, before: str | None) -> StoredSecret:
        pending = f"an earlier write of {name} may still take effect: not written again until its result is known"
        self.writes.sent(self._path_of(name), FailureRecord(kind="timeout", summary=pending))
        version, history = (None, History(0)) if before is None else self._histories.get(fold(name), (before, None))
        tags = with_count(metadata.tags, history if version == before else None, self._service_time())
        body = {"value": reveal(value), **_body_of(replace(metadata, tags=tags))}
        written, _ = await self._request("PUT", f"/secrets/{name}", body)
        return StoredSecret(
            version=self._ids.version(written.get("id"), name, changed=True),
            fingerprint=self.fingerprinter.of(value),
            tags=tags,
            content_type=metadata.content_type,
            expires=metadata.expires,
        )

    async def _read_back(self, name: str, stored: StoredSecret) -> str:
        """Checks that the new version is the latest, because writes of Key Vault are not conditional.

        Raises WriteConflict if another version is. A failed read changes nothing: the reply confirmed the write.
        """
        try:
            observed, newer = await self._read_past(name, partial(self.writes.written_since, self._path_of(name)))
        except CallFailed:
            return stored.version
        # Another version with the same value comes from another keysync, and is as desired.
        same = isinstance(observed, StoredSecret) and observed.fingerprint == stored.fingerprint
        if newer is None and not same:
            summary = f"another writer wrote {name} right after keysync: two writers share this secret"
            command = f"az keyvault secret list-versions --id {self.url}/secrets/{name}"
            raise WriteConflict(_conflict(summary, f"find the other writer ({command}) and stop one of the two"))
        return stored.version

    async def _resolve_ambiguous(self, name: str, value: SecretValue, before: str | None, record: FailureRecord) -> str:
        """The version that an ambiguous write created.

        Raises WriteUnknown if no read shows it: the write may take effect later, or the reads are stale.
        """

        def is_old(observed: Observation) -> bool:
            version = observed.version if isinstance(observed, StoredSecret) else None
            return isinstance(observed, StoredSecret | Absent) and version == before

        try:
            observed, old = await self._read_past(name, is_old)
        except CallFailed as second:
            raise WriteUnknown(record) from second
        if old:
            raise WriteUnknown(record)
        if isinstance(observed, StoredSecret) and observed.fingerprint == self.fingerprinter.of(value):
            self.writes.written(self._path_of(name), before, observed)
            return observed.version
        summary = f"another writer changed the secret during the write ({record.summary})"
        raise WriteConflict(replace(record, summary=summary))

    async def patch(self, name: str, version: str, metadata: Metadata) -> None:
        """Sets tags, content type and expiry of one version by PATCH, which creates no version; see `SecretTarget.patch`."""
        await self._update(name, version, metadata, _body_of(metadata))

    async def enable(self, name: str, version: str, *, enabled: bool) -> None:
        """Enables or disables one version by PATCH; see `SecretTarget.enable`."""
        await self._update(name, version, enabled, {"attributes": {"enabled": enabled}})

    async def _update(self, name: str, version: str, expected: Metadata | bool, body: dict[str, Any]) -> None:
        """Sends a PATCH and reads its result back. Raises NotKept if the vault accepted the change but did not keep it."""

        def is_old(observed: Observation) -> bool:
            if isinstance(observed, StoredSecret | Disabled) and observed.version not in {version, None}:
                return False  # another writer created a later version
            return bool(_differing(expected, observed))

        # Without the time of the expiry, which differs each time.
        fields = (
            expected if isinstance(expected, bool) else (body["tags"], body.get("contentType"), "attributes" in body)
        )
        path, attempt = self._path_of(name), (version, fields)
        left = self.writes.fields_not_kept(path, attempt)
        if not left:
            await self._change(name, _UPDATE_SECRET, "PATCH", f"/secrets/{name}/{version}", body)
            try:
                observed, old = await self._read_past(name, is_old)
            except CallFailed:
                return  # the reply confirmed the change
            if not old:
                return
            left = _differing(expected, observed)
            self.writes.note_not_kept(path, attempt, left)
        change = f"a change of {name} and did not keep it ({', '.join(sorted(left))})"
        hint = f"find what undoes it, such as a policy or another tool (az keyvault secret show --id {self.url}/secrets/{name})"
        raise NotKept(_conflict(f"the vault accepted {change}: not tried again for a day", hint))

    async def recover(self, name: str) -> None:
        """Recovers the secret, and waits at most a minute until it can be read. Raises CallFailed."""
        summary = f"the vault recovers {name}, but has not finished"
        failed = CallFailed(FailureRecord(kind="timeout", summary=summary))
        try:
            await self._change(name, _RECOVER_SECRET, "POST", f"/deletedsecrets/{name}/recover")
        except CallFailed as failure:
            # 404 if an earlier recovery has just ended.
            if not failure.record.ambiguous and not is_absent(failure.record):
                raise
            failed = failure
        await self._wait_until(name, (StoredSecret, Disabled), failed)

    async def delete(self, name: str) -> None:
        """Deletes the secret. The vault removes it before it replies. Raises CallFailed."""
        try:
            await self._change(name, _DELETE_SECRET, "DELETE", f"/secrets/{name}")
        except CallFailed as failure:
            if not failure.record.ambiguous:
                raise
            await self._wait_until(name, (Absent, SoftDeleted), failure)

    async def _change(
        self, name: str, operation: Operation, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> None:
        async def send() -> None:
            changed, _ = await self._request(method, path, body)
            self._ids.version(changed.get("id"), name, changed=True)

        await self._call(operation, send)

    async def _wait_until(self, name: str, done: tuple[type[Observation], ...], failure: CallFailed) -> None:
        try:
            async with asyncio.timeout(_SETTLE_SECONDS):
                while not isinstance(await self.read(name), done):  # noqa: ASYNC110  # the event is a vault's
                    await asyncio.sleep(_SETTLE_PAUSE)
        except TimeoutError:
            raise failure from None


def _body_of(metadata: Metadata) -> dict[str, Any]:
    body: dict[str, Any] = {"tags": dict(metadata.tags)}
    if metadata.content_type is not None:
        body["contentType"] = metadata.content_type
    if metadata.expires is not None:
        body["attributes"] = {"exp": int(metadata.expires.timestamp())}
    return body


def _differing(expected: Metadata | bool, observed: Observation) -> frozenset[str]:
    """The fields of a secret that differ from `expected`; a bool says whether it should be enabled."""
    if isinstance(expected, bool):
        return frozenset({"enabled"} if isinstance(observed, Disabled if expected else StoredSecret) else ())
    if not isinstance(observed, StoredSecret):
        return frozenset()  # it was disabled or deleted since; the next run sees that
    differences = {
        "tags": not expected.tags.items() <= observed.tags.items(),
        "content type": expected.content_type not in {None, observed.content_type},
        "expiry": expected.expires not in {None, observed.expires},
    }
    return frozenset(name for name, differs in differences.items() if differs)
