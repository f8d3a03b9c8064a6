"""Finds changes of the configuration by reading its files every few seconds.

Polling, because notifications of file systems are not reliable: Kubernetes swaps the symbolic link ``..data`` above the file
(kubernetes.io/docs/concepts/configuration/configmap, "Mounted ConfigMaps are updated automatically"), editors write another
file and rename it, and network file systems send no events.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Final, Literal, TypeAlias, cast

from keysync.config.model import Config
from keysync.errors import ConfigError, Finding
from keysync.files import open_regular

ConfigChange: TypeAlias = Config | ConfigError | Literal["restored"]
"""A new configuration; why the file cannot be read or is invalid; or that it has the configuration in force again."""

_RETRY_CHECKS: Final = 6  # then a refused configuration is loaded again: a file that it names may have been missing


def named_files(part: object, key: str = "") -> Iterator[Path]:
    """The mounted files named in a configuration, or in a `part` of one, that keysync reads once.

    Not `token_file`: azure-identity reads it again for each token, and Kubernetes renews it regularly.
    """
    if isinstance(part, Path) and key != "token_file":
        yield part
    elif is_dataclass(part):
        for field in fields(part):
            yield from named_files(getattr(part, field.name), field.name)
    elif isinstance(part, Mapping):
        yield from named_files(tuple(cast("Mapping[object, object]", part).values()))
    elif isinstance(part, tuple):
        for value in cast("tuple[object, ...]", part):
            yield from named_files(value)


class ConfigWatch:
    """Finds each change of the configuration at `path` once.

    A change counts when two checks in a row, `interval` seconds apart, read the same content: this ignores a file that is
    half written or missing for a moment. `load` raises ConfigError for an invalid file. The files that the configuration names
    are watched too. Only digests are kept, with a key that exists only in this process.
    """

    def __init__(self, path: Path, load: Callable[[Path], Config], *, interval: float = 5.0) -> None:
        self.interval = interval
        self._path = path
        self._load_file = load
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._named: tuple[Path, ...] = ()
        self._in_force: dict[Path, bytes] | None = None
        self._candidate: dict[Path, bytes] | None = None
        self._checks = 0  # of the candidate, after the first one
        self._error: ConfigError | None = None  # the last one, until a configuration is in force again

    def read(self) -> Config:
        """Loads the configuration and makes it the one in force. Raises ConfigError; then nothing changes.

        Used at start and for SIGHUP, which does not wait for a second check. Reads files, so it may block.
        """
        with self._lock:
            try:
                found, config = self._snapshot(), self._load()
                if self._snapshot() != found:
                    found, config = self._snapshot(), self._load()
            except ConfigError as error:
                self._error = error
                raise
            return self._put_in_force(config, found)

    def check(self) -> ConfigChange | None:
        """The change since the last check, or None. Reads files, so it may block."""
        with self._lock:
            found = self._snapshot()
            if found == self._in_force:
                error, self._error, self._candidate = self._error, None, None
                return None if error is None else "restored"
            if found != self._candidate:
                self._candidate, self._checks = found, 0
                return None
            self._checks += 1
            return self._load_candidate(found) if self._checks % _RETRY_CHECKS == 1 else None

    def _load_candidate(self, found: dict[Path, bytes]) -> ConfigChange | None:
        known = self._error.findings if self._error is not None and self._checks > 1 else None
        try:
            loaded: Config | ConfigError = self._load()
        except ConfigError as error:
            loaded = error
        if self._snapshot() != found:
            self._candidate = None  # the file changed during loading, so the next check starts over
            return None
        if isinstance(loaded, ConfigError):
            self._error = loaded
            return loaded if loaded.findings != known else None
        return self._put_in_force(loaded, found)

    def _load(self) -> Config:
        if self._path.exists() and not self._path.is_file() and not self._path.is_dir():
            # A pipe, socket or device could block a reader forever.
            message = "found no regular file (a pipe?): the daemon reads its configuration repeatedly"
            raise ConfigError([Finding(str(self._path), None, None, "", message)])
        return self._load_file(self._path)

    def _put_in_force(self, config: Config, found: dict[Path, bytes]) -> Config:
        # The file of `config` keeps its digest from before loading; the other files are read again.
        self._named = tuple(named_files(config))
        self._in_force = {**self._snapshot(), self._path: found[self._path]}
        self._candidate = self._error = None
        return config

    def _snapshot(self) -> dict[Path, bytes]:
        return {path: self._digest(path) for path in (self._path, *self._named)}

    def _digest(self, path: Path) -> bytes:
        try:
            with open_regular(path) as file:
                # In pieces: glibc would keep the memory of a whole file.
                return file_digest(file, lambda: blake2b(key=self._key)).digest()
        except OSError as error:
            return f"errno {error.errno}".encode()
