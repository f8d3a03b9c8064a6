"""Notices changes of the configuration by reading its files every few seconds.

Polling, because notifications of file systems are not reliable: Kubernetes swaps the symbolic link ``..data`` above the file
(kubernetes.io/docs/concepts/configuration/configmap, "Mounted ConfigMaps are updated automatically"), editors write another
file and rename it, and network file systems send no events.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any, Final, cast

from keysync.config.model import Config
from keysync.errors import ConfigError, Finding
from keysync.files import open_regular

_RETRY_CHECKS: Final = (
    6  # a refused configuration is loaded again after this number of checks, even if no known file has changed
)


@dataclass(frozen=True, slots=True)
class Changed:
    """The configuration has changed and is valid."""

    config: Config


@dataclass(frozen=True, slots=True)
class Refused:
    """The file has changed and is invalid. The previous configuration stays in force."""

    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Lost:
    """The file can no longer be read. The previous configuration stays in force."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Restored:
    """After Refused or Lost, the file again contains the configuration in force."""


ConfigChange = Changed | Refused | Lost | Restored

_Snapshot = dict[Path, bytes]


def named_files(config: Config) -> Iterator[Path]:
    """The mounted files named in `config` that keysync reads once.

    Not `token_file`: azure-identity reads it again for each token, and Kubernetes renews it regularly.
    """
    parts: list[Any] = [config]
    while parts:
        part = parts.pop()
        for name, value in ((item.name, getattr(part, item.name)) for item in fields(part)):
            if isinstance(value, Path) and name != "token_file":
                yield value
            inner = _elements(value)
            parts.extend(child for child in inner if is_dataclass(child))


def _elements(value: object) -> Iterable[object]:
    """The values of a mapping, the elements of a tuple, else `value` itself."""
    match value:
        case dict():
            return cast("dict[object, object]", value).values()
        case tuple():
            return cast("tuple[object, ...]", value)
        case _:
            return (value,)


def check_not_special(path: Path) -> Path:
    """Returns `path`. Raises ConfigError for a pipe, socket or device, which could block a reader forever."""
    if path.exists() and not path.is_file() and not path.is_dir():
        message = "found no regular file (a pipe?): the daemon reads its configuration repeatedly"
        raise ConfigError([Finding(str(path), None, None, "", message)])
    return path


class ConfigWatch:
    """Reports each change of the configuration at `path` once.

    A change counts when two checks in a row, `interval` seconds apart, read the same content: this ignores a file that is
    half written or missing for a moment. `load` raises ConfigError for an invalid file. `files` returns the other files to
    watch. Only digests are kept, with a key that exists only in this process.
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
        self._reported: _Snapshot | None = None  # the files of the last Refused or Lost
        self._refused: tuple[Finding, ...] = ()
        self._checks = 0
        self._faulty = False  # whether the last reported change was Refused or Lost

    def read(self) -> Config:
        """Loads the configuration and makes it the one in force. Raises ConfigError; then nothing changes.

        Used at start and for SIGHUP, which does not wait for a second check. Reads files, so it may block.
        """
        with self._lock:
            found = self._snapshot(self._also)
            self._faulty = True
            config = self._load(check_not_special(self._path))
            if self._snapshot(self._also) != found:
                found, config = self._snapshot(self._also), self._load(check_not_special(self._path))
            self._in_force_now(config, found)
            return config

    def check(self) -> ConfigChange | None:
        """The change since the last check, or None. Reads files, so it may block."""
        with self._lock:
            return self._check(self._snapshot(self._also))

    async def changes(self) -> AsyncIterator[ConfigChange]:
        """Yields each change. Files are read in a thread."""
        while True:
            await self._sleep(self._interval)
            change = await asyncio.to_thread(self.check)
            if change is not None:
                yield change

    def _check(self, found: _Snapshot) -> ConfigChange | None:
        if found == self._in_force:
            self._candidate, self._reported = None, None
            restored, self._faulty = self._faulty, False
            return Restored() if restored else None
        if found != self._candidate:
            self._candidate, self._checks = found, 0
            return None
        self._checks += 1
        lost = self._lost()
        if found == self._reported and (lost is not None or self._checks % _RETRY_CHECKS):
            return None
        known = self._refused if found == self._reported else ()
        self._reported = found
        if lost is not None:
            self._faulty = True
            return lost
        return self._load_candidate(found, known)

    def _load_candidate(self, found: _Snapshot, known: tuple[Finding, ...]) -> ConfigChange | None:
        try:
            loaded: Config | ConfigError = self._load(check_not_special(self._path))
        except ConfigError as error:
            loaded = error
        if self._snapshot(self._also) != found:
            # The file changed during loading, so the next check starts over.
            self._candidate = self._reported = None
            return None
        if isinstance(loaded, ConfigError):
            self._refused, self._faulty = loaded.findings, True
            return Refused(loaded.findings) if loaded.findings != known else None
        self._in_force_now(loaded, found)
        return Changed(loaded)

    def _in_force_now(self, config: Config, found: _Snapshot) -> None:
        # The file of `config` keeps its digest from before loading; the other files are read again.
        self._also = tuple(self._files(config))
        self._in_force = {**self._snapshot(self._also), self._path: found[self._path]}
        self._candidate = self._reported = None
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
                path.stat()  # raises OSError if the path does not exist
                return b"no regular file"
            with open_regular(path) as file:
                # In pieces: glibc would keep the memory of a whole file.
                return file_digest(file, lambda: blake2b(key=self._key)).digest()
        except OSError as error:
            return f"errno {error.errno}".encode()
