"""Reads the configuration file together with what the environment says."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from keysync.config import models
from keysync.config.files import problem_with
from keysync.config.formats import split_listen
from keysync.config.settings import Config
from keysync.config.yaml import Document, Location, read_document
from keysync.errors import Finding

_FILES = {
    "credential": ("token_file", "client_secret_file", "certificate_file", "password_file"),
    "cloud": ("ca_bundle",),
    "notify": ("secret_file",),
}
_SWITCH = {"1": True, "true": True, "0": False, "false": False}


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """The configuration in `path`; KEYSYNC_READ_ONLY wins over its `read_only`, its `listen` wins over KEYSYNC_LISTEN.

    Paths in it start at its folder, and must exist. Raises ConfigError with every finding.
    """
    document = read_document(path, environ=environ)
    switch = environ.get("KEYSYNC_READ_ONLY", "").lower()
    if switch not in ("", *_SWITCH):
        message = "expected 1, true, 0 or false (or leave the variable unset)"
        document.findings.append(Finding("environment", None, None, "KEYSYNC_READ_ONLY", message))
    _listen_from(environ, document)
    _resolve_files(document, path.parent)
    config = document.validate(models.Config).plain()
    return replace(config, read_only=_SWITCH[switch]) if switch else config


def load_listen(path: Path, environ: Mapping[str, str]) -> str:
    """Where `run` listens by `path` and KEYSYNC_LISTEN, as ``host:port``, with no look at the rest of the file.

    Raises ConfigError where the file cannot be read. What is returned need not be an address that can be.
    """
    default = default_listen(environ)
    try:
        if b"listen" not in path.read_bytes():
            return default  # at once: to parse thousands of accounts takes seconds
    except (OSError, ValueError):
        pass  # reading it below says why not
    return str(read_document(path, environ=environ).value.get("listen", default))


def default_listen(environ: Mapping[str, str]) -> str:
    """Where `run` listens unless its configuration says."""
    return environ.get("KEYSYNC_LISTEN") or str(models.Config.model_fields["listen"].default)


def _listen_from(environ: Mapping[str, str], document: Document) -> None:
    given = environ.get("KEYSYNC_LISTEN")
    if not given or "listen" in document.value:
        return
    try:
        split_listen(given)
    except ValueError:
        message = "expected an address and a port such as 0.0.0.0:8080"
        document.findings.append(Finding("environment", None, None, "KEYSYNC_LISTEN", message))
    else:
        document.value["listen"] = given


def _resolve_files(document: Document, folder: Path) -> None:
    for where, holder in list(_holders((), document.value)):
        for key in _FILES[str(where[-1])]:
            name = holder.get(key)
            if not isinstance(name, str):
                continue
            file = folder / name
            place = (*where, key)
            if not _is_file(file):
                kind = "regular file" if os.path.exists(file) else "file that exists"  # noqa: PTH110  # never raises
                # A path is never shown: it may be the secret itself.
                message = f"found {document.found(place)}, expected a {kind}"
                document.report(place, message, f"a relative path starts at {folder.absolute()}")
                continue
            holder[key] = str(file.absolute())
            password = holder.get("password_file")
            problem = problem_with(key, file, folder / password if isinstance(password, str) else None)
            if problem is not None:
                what, hint = problem
                # The file is there, so its name is no secret.
                document.report(place, f"found {name!r}, which is {what}", hint)


def _holders(where: Location, value: object) -> Iterator[tuple[Location, dict[str, Any]]]:
    """Every mapping of the document whose keys may name files: credentials, the cloud, the webhook."""
    if not isinstance(value, dict):
        return
    for key in _FILES:
        if isinstance(value.get(key), dict):
            yield (*where, key), value[key]
    for key in ("accounts", "discover", "vaults") if not where else ():
        entries = value.get(key)
        pairs = (
            entries.items() if isinstance(entries, dict) else enumerate(entries if isinstance(entries, list) else ())
        )
        for name, entry in pairs:
            yield from _holders((key, name), entry)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name with a zero byte, or too long for the file system
        return False
