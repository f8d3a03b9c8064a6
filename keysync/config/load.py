"""Loads the configuration file together with the environment variables that belong to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

from keysync.config.checks import ValidConfig
from keysync.config.files import find_config, problem_with
from keysync.config.formats import DEFAULT_LISTEN, nearest, split_listen
from keysync.config.model import Config
from keysync.config.rules import Location, Problem
from keysync.config.validate import validate
from keysync.config.yaml import Document, read_document
from keysync.errors import ConfigError, Finding

_FILE_KEYS: Final[Mapping[object, tuple[str, ...]]] = {
    "credential": ("token_file", "client_secret_file", "certificate_file", "password_file"),
    "cloud": ("ca_bundle",),
    "notify": ("secret_file",),
}
_SWITCH: Final = {"1": True, "true": True, "0": False, "false": False}


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """Loads and checks the configuration in `path`.

    KEYSYNC_READ_ONLY overrides `read_only` of the file. `listen` of the file overrides KEYSYNC_LISTEN. Relative paths in
    the file start at its folder, and the files must exist. Raises ConfigError with every finding.
    """
    document = read_document(path, environ=environ)

    def report_variable(name: str, message: str) -> None:
        document.findings.append(Finding("environment", None, None, name, message))

    switch = environ.get("KEYSYNC_READ_ONLY", "").lower()
    if switch not in ("", *_SWITCH):
        report_variable("KEYSYNC_READ_ONLY", "expected 1, true, 0 or false (or leave the variable unset)")
    listen = environ.get("KEYSYNC_LISTEN")
    if listen and "listen" not in document.value:
        try:
            split_listen(listen)
            document.value["listen"] = listen
        except ValueError:
            report_variable("KEYSYNC_LISTEN", "expected an address and a port such as 0.0.0.0:8080")
    for location in list(document.spots):
        if len(location) > 1 and location[-1] in _FILE_KEYS.get(location[-2], ()):
            _resolve_file(document, path.parent, location)
    _report_unknown_vaults(document)
    config: Config = validate(document, ValidConfig)
    return replace(config, read_only=_SWITCH[switch]) if switch else config


def load_listen(explicit: Path | None, environ: Mapping[str, str]) -> str:
    """The address that `run` listens on, as ``host:port``: of the file, else of KEYSYNC_LISTEN. It is not validated.

    A file that cannot be read counts as one without `listen`: a daemon keeps its previous configuration.
    """
    with suppress(ConfigError, OSError, ValueError):
        path = find_config(explicit, environ)
        # Parsing takes seconds for thousands of accounts.
        if b"listen" in path.read_bytes() and "listen" in (value := read_document(path, environ=environ).value):
            return str(value["listen"])
    return environ.get("KEYSYNC_LISTEN") or DEFAULT_LISTEN


def _resolve_file(document: Document, folder: Path, location: Location) -> None:
    """Makes the path at `location` absolute, and reports a file that is missing or unusable."""
    mapping = cast("dict[str, Any]", document.spots[location[:-1]].value)
    key, name = str(location[-1]), mapping[str(location[-1])]
    if not isinstance(name, str):
        return
    file = folder / name
    if not os.path.isfile(file):  # noqa: PTH113  # unlike Path.is_file, it never raises
        # The message hides the path: it may be a secret that was put there by mistake.
        kind = "a regular file" if os.path.exists(file) else "a file that exists"  # noqa: PTH110  # as above
        hint = f"a relative path starts at {folder.absolute()}"
        document.report(location, Problem(kind, hint, is_expectation=True))
        return
    mapping[key] = str(file.absolute())
    password = mapping.get("password_file")
    problem = problem_with(key, file, folder / password if isinstance(password, str) else None)
    if problem is not None:
        description, hint = problem
        # A file of this name exists, so the name is no secret.
        document.report(location, Problem(f"found {name!r}, which is {description}", hint))


def _report_unknown_vaults(document: Document) -> None:
    """Reports each reference to no vault. Not a rule of the model, because a file with other errors does not become one."""
    known = document.value.get("vaults")
    if not isinstance(known, dict):
        return
    names = cast("dict[str, object]", known)
    for location, spot in list(document.spots.items()):
        match location:
            case ("accounts" | "discover", int(), "vaults", int()) if (
                isinstance(spot.value, str) and spot.value not in names
            ):
                guess = nearest(spot.value, names)
                hint = f"did you mean '{guess}'?" if guess else None
                expectation = "the name of a vault: " + ", ".join(names)
                document.report(location, Problem(expectation, hint, is_expectation=True))
            case _:
                pass
