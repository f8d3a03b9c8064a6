"""Loads the configuration file with its environment variables, and checks what the model cannot: files and other mappings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias, cast

from keysync.config.formats import DEFAULT_LISTEN, nearest, split_listen
from keysync.config.isolated import find_config
from keysync.config.model import Config
from keysync.config.rules import Location, Problem, Rule, require_none
from keysync.config.validate import validate
from keysync.config.yaml import Document, read_document
from keysync.errors import ConfigError, Finding
from keysync.files import read_small, secret_text, unreadable_hint
from keysync.names import fold

_FILE_KEYS: Final[Mapping[object, tuple[str, ...]]] = {
    "credential": ("token_file", "client_secret_file", "certificate_file", "password_file"),
    "cloud": ("ca_bundle",),
    "notify": ("secret_file",),
}
_SWITCH: Final = {"1": True, "true": True, "0": False, "false": False}


def _checked(config: Config) -> Config:
    """Rules about several mappings."""
    require_none([*_empty_or_unowned(config), *_shared_secrets(config), *_duplicate_vaults(config)])
    return config


ValidConfig: TypeAlias = Annotated[Config, Rule(_checked)]
"""A configuration that keeps these rules too."""


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
    problem = _problem_with(key, file, folder / password if isinstance(password, str) else None)
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


def _problem_with(key: str, path: Path, password_file: Path | None) -> tuple[str, str] | None:
    """The problem of the file `path` under `key` and its fix, for "found …, which is …"; None if the file is good.

    `password_file` holds the password of an encrypted certificate file.
    """
    try:
        path.open("rb").close()
    except OSError:
        return "a file that cannot be read", unreadable_hint()
    if key == "certificate_file":
        return _problem_with_certificate(read_small(path), password_file)
    if key == "ca_bundle":
        import ssl  # noqa: PLC0415  # most configurations name no bundle

        try:
            ssl.create_default_context(cafile=path)
        except (ssl.SSLError, OSError):
            hint = "use a PEM file with certificate authorities (-----BEGIN CERTIFICATE-----)"
            return "a file without certificates", hint
    return None


def _problem_with_certificate(data: bytes, password_file: Path | None) -> tuple[str, str] | None:
    hint = "put the certificate and its private key into one file, PEM or PKCS#12"
    if b"-----BEGIN" in data:
        if b"PRIVATE KEY-----" not in data:
            return "a certificate without its private key", hint
        return None if b"-----BEGIN CERTIFICATE-----" in data else ("a private key without a certificate", hint)
    from cryptography.hazmat.primitives.serialization import pkcs12  # noqa: PLC0415  # few configurations use one

    try:
        password = secret_text(read_small(password_file)).encode() if password_file is not None else None
    except (OSError, UnicodeDecodeError):
        return None  # the password file has its own finding
    try:
        key, certificate, _ = pkcs12.load_key_and_certificates(data, password)
    except (ValueError, TypeError):
        fix = f"{hint}; if it has a password, put it into a file and set password_file"
        return "a file that cannot be opened as PEM or PKCS#12", fix
    return ("a file without a private key and its certificate", hint) if key is None or certificate is None else None


def _empty_or_unowned(config: Config) -> Iterator[Problem]:
    if not config.accounts and not config.discover:
        hint = "list an account under `accounts`, or add an entry to `discover`"
        yield Problem("accounts and discover are both empty", hint)
    if config.orphans != "keep" and config.owner is None:
        message = f"orphans: {config.orphans} needs an owner: it affects only secrets with the tag of this owner"
        hint = "set `owner` to a name for this installation, or set orphans: keep"
        yield Problem(message, hint, ("orphans",))


def _shared_secrets(config: Config) -> Iterator[Problem]:
    """Accounts that are listed twice, and other keys that would be written to one secret."""
    seen: dict[str, int] = {}
    writers: dict[tuple[str, str], str] = {}
    for index, account in enumerate(config.accounts):
        first = seen.setdefault(account.key, index)
        if first != index:
            yield Problem(f"this account is also accounts[{first}]", "remove one", ("accounts", index, "name"))
            continue
        for vault, (key, secret) in product(account.vaults, account.secret_names().items()):
            if vault not in config.vaults:
                continue  # `load` reports it
            url, writer = config.vaults[vault].url, f"the {key} key of {account.name} (accounts[{index}])"
            if other := writers.get((url, fold(secret))):
                message = f"{other} and {writer} would both write the secret {secret!r} of {url}"
                hint = "give one of them another name under secrets"
                yield Problem(message, hint, ("accounts", index, "secrets", key))
            writers.setdefault((url, fold(secret)), writer)


def _duplicate_vaults(config: Config) -> Iterator[Problem]:
    """Two names of one vault in a `discover` entry, which would write each secret twice. `_shared_secrets` covers `accounts`."""
    for index, entry in enumerate(config.discover):
        seen: dict[str, str] = {}
        for position, name in enumerate(entry.vaults):
            url = config.vaults[name].url if name in config.vaults else name
            first = seen.setdefault(url, name)
            if position and first in entry.vaults[:position]:
                message = f"{name!r} is the same vault as {first!r}, so each secret would be written twice"
                yield Problem(message, "remove one", ("discover", index, "vaults", position))
