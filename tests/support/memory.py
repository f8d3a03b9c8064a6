"""A vault and an account in memory: small real implementations of two interfaces of the sync."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.reveal import reveal
from keysync.secret.value import SecretValue
from keysync.sources.interface import AccountKeys, KeyName
from keysync.sync.orphans import Presence
from keysync.targets.interface import (
    Absent,
    CacheValidation,
    Disabled,
    History,
    Metadata,
    Observation,
    SecretProperties,
    SoftDeleted,
    StoredSecret,
)

T = TypeVar("T")


class NoCacheValidation:
    """A `CacheValidation` that confirms nothing: every secret is read."""

    async def confirmed(self, name: str) -> tuple[StoredSecret, float] | None:
        """Always None."""

    async def close(self) -> None:
        """No-op."""


@dataclass(frozen=True)
class Version:
    """One version of a stored secret."""

    id: str
    value: SecretValue
    tags: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None
    enabled: bool = True
    managed: bool = False
    expires: datetime | None = None
    created: datetime | None = None


class MemoryVault:
    """A `SecretTarget` that keeps every version.

    `failing_once` makes the next write of a name raise, after another writer's action. `failures` makes reads and
    writes of a name raise, `write_failures` only its writes. Writes of the names in `hanging` never end. `on_write` is
    called at the beginning of each write, `on_recover` with the name of a recovered secret. `clock` gives the creation
    time of a version. `log` receives ``write NAME``, ``patch NAME``, ``enable NAME``, ``disable NAME``, ``recover
    NAME`` and ``delete NAME``. Deleted secrets stay in `deleted`.
    """

    def __init__(
        self,
        fingerprinter: Fingerprinter,
        *,
        log: list[str] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._fingerprinter = fingerprinter
        self._clock = clock
        self._made = 0
        self.reads = 0
        self.history_of: dict[str, list[Version]] = {}
        self.deleted: dict[str, list[Version]] = {}
        self.failures: dict[str, Exception] = {}
        self.listing_failure: Exception | None = None
        self.write_failures: dict[str, Exception] = {}
        self.failing_once: dict[str, tuple[Exception, Callable[[], None]]] = {}
        self.hanging: set[str] = set()
        self.on_write: Callable[[], None] = lambda: None
        self.on_recover: Callable[[str], None] = lambda _name: None
        self.log: list[str] = [] if log is None else log

    def put(
        self,
        name: str,
        value: str,
        tags: Mapping[str, str] | None = None,
        *,
        content_type: str | None = None,
        enabled: bool = True,
        managed: bool = False,
        expires: datetime | None = None,
        created: datetime | None = None,
    ) -> Version:
        """Another writer's new version, which is not logged as a write."""
        version = Version("", SecretValue(value), dict(tags or {}), content_type, enabled, managed, expires, created)
        return self._add(name, version)

    def retag(self, name: str, tags: Mapping[str, str]) -> None:
        """Another writer's tags on the latest version."""
        self.history_of[name][-1] = replace(self.latest(name), tags=dict(tags))

    def remove(self, name: str) -> None:
        """Another writer deletes the secret."""
        self.deleted[name] = self.history_of.pop(name)

    def text(self, name: str) -> str:
        """The plain text of the latest version."""
        return reveal(self.history_of[name][-1].value)

    def latest(self, name: str) -> Version:
        """The latest version."""
        return self.history_of[name][-1]

    async def prime(self) -> None:
        """No-op."""

    async def probe_write(self) -> None:
        """No-op: this identity may write."""

    def validate_by_listing(self, names: Collection[str], *, since: float | None = None) -> CacheValidation:
        """Confirms nothing."""
        return NoCacheValidation()

    async def read(self, name: str, *, deleted: bool = True) -> Observation:
        """The secret under `name`; counted in `reads`."""
        self.reads += 1
        await asyncio.sleep(0)
        if name in self.failures:
            raise self.failures[name]
        if name in self.deleted:
            return SoftDeleted(dict(self.deleted[name][-1].tags))
        if name not in self.history_of:
            return Absent()
        current = self.latest(name)
        if not current.enabled:
            return Disabled(current.id, dict(current.tags), current.managed)
        fingerprint = self._fingerprinter.of(current.value)
        return StoredSecret(
            current.id, fingerprint, current.tags, current.content_type, current.managed, current.expires
        )

    async def history(self, name: str, stored: StoredSecret, *, at_most: History) -> History:
        """All versions with their times."""
        await asyncio.sleep(0)
        assert self.latest(name).id == stored.version
        versions = self.history_of[name]
        since = self._clock() - timedelta(days=1)
        return History(len(versions), sum(1 for version in versions if version.created and version.created > since))

    async def listing(self) -> tuple[SecretProperties, ...]:
        """Every secret that is not deleted; `listing_failure` makes it raise."""
        await asyncio.sleep(0)
        if self.listing_failure is not None:
            raise self.listing_failure
        names = sorted(self.history_of)
        return tuple(SecretProperties(n, v.tags, v.enabled, v.managed) for n, v in ((n, self.latest(n)) for n in names))

    async def write(self, name: str, value: SecretValue, metadata: Metadata, *, before: str | None) -> str:
        """Adds a version; `before` must be the current state."""
        self.log.append(f"write {name}")
        self.on_write()
        await asyncio.sleep(0)
        if name in self.failing_once:
            failure, meanwhile = self.failing_once.pop(name)
            meanwhile()
            raise failure
        if name in self.hanging:
            await asyncio.Event().wait()
        for failures in (self.failures, self.write_failures):
            if name in failures:
                raise failures[name]
        there = self.latest(name).id if name in self.history_of else None
        assert before == there, f"{name}: planned for version {before}, found {there}"
        return self._add(
            name, Version("", value, dict(metadata.tags), metadata.content_type, expires=metadata.expires)
        ).id

    async def patch(self, name: str, version: str, metadata: Metadata) -> None:
        """Sets everything except the value of the latest version, in place."""
        current = await self._in_place("patch", name, version)
        self.history_of[name][-1] = replace(
            current, tags=dict(metadata.tags), content_type=metadata.content_type, expires=metadata.expires
        )

    async def enable(self, name: str, version: str, *, enabled: bool) -> None:
        """Enables or disables the latest version, in place."""
        current = await self._in_place("enable" if enabled else "disable", name, version)
        self.history_of[name][-1] = replace(current, enabled=enabled)

    async def recover(self, name: str) -> None:
        """Recovers a deleted secret."""
        self.log.append(f"recover {name}")
        await asyncio.sleep(0)
        self.history_of[name] = self.deleted.pop(name)
        self.on_recover(name)

    async def delete(self, name: str) -> None:
        """Deletes the secret recoverably."""
        self.log.append(f"delete {name}")
        await asyncio.sleep(0)
        self.remove(name)

    async def _in_place(self, operation: str, name: str, version: str) -> Version:
        self.log.append(f"{operation} {name}")
        await asyncio.sleep(0)
        if name in self.write_failures:
            raise self.write_failures[name]
        current = self.latest(name)
        assert current.id == version
        return current

    def _add(self, name: str, version: Version) -> Version:
        self._made += 1
        added = replace(version, id=f"v{self._made}", created=version.created or self._clock())
        self.history_of.setdefault(name, []).append(added)
        return added


class MemorySource:
    """A `KeySource` with keys that a test sets; `failure` makes it raise, and an unset `gate` makes it wait."""

    def __init__(self, primary: str | None = None, secondary: str | None = None) -> None:
        self.values: dict[KeyName, str] = {}
        if primary is not None:
            self.values["primary"] = primary
        if secondary is not None:
            self.values["secondary"] = secondary
        self.refused: dict[KeyName, str] = {}
        self.failure: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.calls = 0

    def hang(self) -> None:
        """Never answers again."""
        self.gate = asyncio.Event()

    async def get_keys(self) -> AccountKeys:
        """The current keys."""
        self.calls += 1
        await self.probe()
        return AccountKeys({name: SecretValue(text) for name, text in self.values.items()}, dict(self.refused))

    async def probe(self) -> None:
        """Hangs or fails like the source."""
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure


class MemoryDirectory:
    """An `AccountExistence`: an account exists unless it is in `gone`; `failures` makes it raise, `hang` makes it wait
    forever.
    """

    def __init__(self, *gone: str) -> None:
        self.gone = set(gone)
        self.failures: dict[str, Exception] = {}
        self.hang = False
        self.asked: list[str] = []

    async def presence(self, account: str) -> Presence:
        """The answer for an account."""
        self.asked.append(account)
        await asyncio.sleep(0)
        if self.hang:
            await asyncio.Event().wait()
        if account in self.failures:
            raise self.failures[account]
        return "gone" if account in self.gone else "there"
