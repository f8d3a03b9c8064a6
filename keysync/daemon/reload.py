"""Notices that the configuration has changed, by looking at its content every few seconds.

Looking, since a mounted volume tells of changes in no way that could be relied on: Kubernetes swaps the symbolic link
``..data`` above the file (kubernetes.io/docs/concepts/configuration/configmap, "Mounted ConfigMaps are updated
automatically"), editors write another file and rename it, and network file systems tell nothing.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any, Final

from keysync.config.settings import Config
from keysync.errors import ConfigError, Finding
from keysync.files import open_regular

_RETRY_LOOKS: Final = (
    6  # how many looks later what was refused is tried again, although no file that is known has changed
)


@dataclass(frozen=True, slots=True)
class Changed:
    """There is another configuration, and it is good."""

    config: Config


@dataclass(frozen=True, slots=True)
class Refused:
    """There is another file, and it is wrong; the configuration before stays in force."""

    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Lost:
    """The file cannot be read any more; the configuration before stays in force."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Restored:
    """What was refused or lost has been taken back: the file holds the configuration in force again."""


ConfigChange = Changed | Refused | Lost | Restored

_Snapshot = dict[Path, bytes]


def named_files(config: Config) -> Iterator[Path]:
    """The mounted files that keysync itself reads once, as named in `config`.

    Without `token_file`: azure-identity reads it anew for each token, and Kubernetes renews it all the time.
    """
    parts: list[Any] = [config]
    while parts:
        part = parts.pop()
        for name, value in ((one.name, getattr(part, one.name)) for one in fields(part)):
            if isinstance(value, Path) and name != "token_file":
                yield value
            inner = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
            parts.extend(one for one in inner if is_dataclass(one))


def regular(path: Path) -> Path:
    """`path`, unless what stands there could keep a reader waiting for ever. Raises ConfigError."""
    if path.exists() and not path.is_file() and not path.is_dir():
        told = "found something that is no regular file, such as a pipe: the daemon reads its configuration again and again"
        raise ConfigError([Finding(str(path), None, None, "", told)])
    return path


class ConfigWatch:
    """Hands over what becomes of the configuration at `path`, each change once.

    A content counts when two looks in a row, `interval` seconds apart, have found the same: a file that is half
    written, or that vanishes for a moment, is not taken at its word. `load` raises ConfigError where the file is wrong;
    `files` gives what else is to be watched. Only digests are remembered, under a key that dies with the process.
    """

    def __init__(
        self,
        path: Path,
        load: Callable[[Path], Config],
        *,
        files: Callable[[Config], Iterable[Path]] = named_files,
        interval: float = 5.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._path = path
        self._load = load
        self._files = files
        self._interval = interval
        self._sleep = sleep
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._also: tuple[Path, ...] = ()
        self._in_force: _Snapshot | None = None
        self._candidate: _Snapshot | None = None
        self._told: _Snapshot | None = None  # what the last Refused or Lost was about
        self._refused: tuple[Finding, ...] = ()
        self._looks = 0
        self._faulty = False  # whether the last word of it was that the file is no good

    def read(self) -> Config:
        """The configuration as it is now, which is in force from here on. Raises ConfigError; then nothing changes.

        For the start, and for SIGHUP, which waits for no second look. Reads files, so it may block.
        """
        with self._lock:
            found = self._snapshot(self._also)
            self._faulty = True
            config = self._load(self._path)
            if self._snapshot(self._also) != found:
                found, config = self._snapshot(self._also), self._load(self._path)
            self._in_force_now(config, found)
            return config

    def look(self) -> ConfigChange | None:
        """What there is to tell since the last look. Reads files, so it may block."""
        with self._lock:
            return self._look(self._snapshot(self._also))

    async def changes(self) -> AsyncIterator[ConfigChange]:
        """Every change, for as long as it is asked; files are read in a thread."""
        while True:
            await self._sleep(self._interval)
            change = await asyncio.to_thread(self.look)
            if change is not None:
                yield change

    def _look(self, found: _Snapshot) -> ConfigChange | None:
        if found == self._in_force:
            self._candidate, self._told = None, None
            restored, self._faulty = self._faulty, False
            return Restored() if restored else None
        if found != self._candidate:
            self._candidate, self._looks = found, 0
            return None
        self._looks += 1
        lost = self._lost()
        if found == self._told and (lost is not None or self._looks % _RETRY_LOOKS):
            return None
        known = self._refused if found == self._told else ()
        self._told = found
        if lost is not None:
            self._faulty = True
            return lost
        return self._take(found, known)

    def _take(self, found: _Snapshot, known: tuple[Finding, ...]) -> ConfigChange | None:
        try:
            loaded: Config | ConfigError = self._load(self._path)
        except ConfigError as error:
            loaded = error
        if self._snapshot(self._also) != found:
            # It changed while it was read, so the next look begins from nothing.
            self._candidate = self._told = None
            return None
        if isinstance(loaded, ConfigError):
            self._refused, self._faulty = loaded.findings, True
            return Refused(loaded.findings) if loaded.findings != known else None
        self._in_force_now(loaded, found)
        return Changed(loaded)

    def _in_force_now(self, config: Config, found: _Snapshot) -> None:
        # What `config` was read from keeps the digest from before; only the other files' are new.
        self._also = tuple(self._files(config))
        self._in_force = {**self._snapshot(self._also), self._path: found[self._path]}
        self._candidate = self._told = None
        self._faulty = False

    def _lost(self) -> Lost | None:
        try:
            with open_regular(self._path) as file:
                file.read(1)
        except OSError as error:
            return Lost(self._path, error.strerror or type(error).__name__)
        return None

    def _snapshot(self, also: Iterable[Path]) -> _Snapshot:
        return {path: self._digest(path) for path in (self._path, *also)}

    def _digest(self, path: Path) -> bytes:
        try:
            if not path.is_file():
                path.stat()  # raises where there is nothing at all
                return b"no regular file"
            with open_regular(path) as file:
                # Piece by piece: what was once taken whole the C library would keep.
                return file_digest(file, lambda: blake2b(key=self._key)).digest()
        except OSError as error:
            return f"errno {error.errno}".encode()
