"""A vault and an account that live in memory: small real implementations of the two interfaces that the sync knows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.reveal import reveal
from keysync.secret.value import SecretValue
from keysync.sources.interface import AccountKeys, KeyName
from keysync.targets.interface import Absent, Disabled, Existing, Metadata, Observation, SoftDeleted

T = TypeVar("T")


@dataclass(frozen=True)
class Version:
    """One version of a stored secret."""

    id: str
    value: SecretValue
    tags: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None
    enabled: bool = True
    managed: bool = False


class MemoryVault:
    """A `SecretTarget` that keeps every version.

    `failures` makes reads and writes of a name raise, `write_failures` its writes only; `hanging` holds the names whose
    writes never end; `on_write` is called as each write begins. `log` receives ``write NAME`` and ``tag NAME``.
    """

    def __init__(self, fingerprinter: Fingerprinter, *, log: list[str] | None = None) -> None:
        self._fingerprinter = fingerprinter
        self._made = 0
        self.history: dict[str, list[Version]] = {}
        self.deleted: set[str] = set()
        self.failures: dict[str, Exception] = {}
        self.write_failures: dict[str, Exception] = {}
        self.hanging: set[str] = set()
        self.on_write: Callable[[], None] = lambda: None
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
    ) -> Version:
        """What somebody else does: a new version, not logged as a write."""
        return self._add(name, Version("", SecretValue(value), dict(tags or {}), content_type, enabled, managed))

    def text(self, name: str) -> str:
        """The plain text of the latest version."""
        return reveal(self.history[name][-1].value)

    def latest(self, name: str) -> Version:
        """The latest version."""
        return self.history[name][-1]

    async def warm(self) -> None:
        """Needs nothing."""

    async def read(self, name: str) -> Observation:
        """What stands under `name`."""
        await asyncio.sleep(0)
        if name in self.failures:
            raise self.failures[name]
        if name in self.deleted:
            return SoftDeleted()
        if name not in self.history:
            return Absent()
        found = self.latest(name)
        if not found.enabled:
            return Disabled()
        fingerprint = self._fingerprinter.of(found.value)
        return Existing(found.id, fingerprint, found.tags, found.content_type, found.managed)

    async def write(self, name: str, value: SecretValue, metadata: Metadata, *, before: str | None) -> str:
        """Adds a version; `before` has to be what is there."""
        self.log.append(f"write {name}")
        self.on_write()
        await asyncio.sleep(0)
        if name in self.hanging:
            await asyncio.Event().wait()
        for failures in (self.failures, self.write_failures):
            if name in failures:
                raise failures[name]
        there = self.latest(name).id if name in self.history else None
        assert before == there, f"{name}: planned for version {before}, found {there}"
        return self._add(name, Version("", value, dict(metadata.tags), metadata.content_type)).id

    async def tag(self, name: str, version: str, metadata: Metadata) -> None:
        """Sets tags and content type of the latest version in its place."""
        self.log.append(f"tag {name}")
        await asyncio.sleep(0)
        if name in self.write_failures:
            raise self.write_failures[name]
        found = self.latest(name)
        assert found.id == version
        self.history[name][-1] = replace(found, tags=dict(metadata.tags), content_type=metadata.content_type)

    def _add(self, name: str, version: Version) -> Version:
        self._made += 1
        made = replace(version, id=f"v{self._made}")
        self.history.setdefault(name, []).append(made)
        return made


class MemorySource:
    """A `KeySource` with keys that a test sets; `failure` makes it raise, an unset `gate` holds it up."""

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
        """Never answers from now on."""
        self.gate = asyncio.Event()

    async def get_keys(self) -> AccountKeys:
        """The keys as they are now."""
        self.calls += 1
        await self.probe()
        return AccountKeys({name: SecretValue(text) for name, text in self.values.items()}, dict(self.refused))

    async def probe(self) -> None:
        """Hangs or fails as the source is set."""
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
