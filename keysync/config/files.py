"""Finds the configuration file, and checks the files that it names: whether they can be read and have the right content."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from keysync.errors import ConfigError, Finding
from keysync.files import read_small, secret_text

_DEFAULT_PATHS: Final = (Path("keysync.yaml"), Path("/etc/keysync/keysync.yaml"))


def find_config(explicit: Path | None, environ: Mapping[str, str]) -> Path:
    """The file to read: `explicit`, else KEYSYNC_CONFIG, else ./keysync.yaml, else /etc/keysync/keysync.yaml.

    A file that is named explicitly has no fallback. Raises ConfigError with the paths that it checked.
    """
    if explicit is not None:
        return explicit
    if environ.get("KEYSYNC_CONFIG"):
        return Path(environ["KEYSYNC_CONFIG"])
    for path in _DEFAULT_PATHS:
        if is_there(path):
            return path
    checked = ", ".join(f"./{path}" if not path.is_absolute() else str(path) for path in _DEFAULT_PATHS)
    message = f"found no configuration; checked KEYSYNC_CONFIG (not set), {checked}"
    hint = "pass a file with -c FILE, or write one; `keysync demo` needs none"
    raise ConfigError([Finding(str(_DEFAULT_PATHS[0]), None, None, "", message, hint)])


def is_there(path: Path) -> bool:
    """Whether `path` is a regular file. Also true in a folder without access, so that reading it reports the reason."""
    try:
        return path.is_file()
    except PermissionError:
        return True


def unreadable_hint() -> str:
    """How to let this process read a file that it has no permission for."""
    try:
        import pwd  # noqa: PLC0415  # not on Windows

        user = f"{pwd.getpwuid(os.geteuid()).pw_name} (uid {os.geteuid()})"
    except (ImportError, KeyError):
        user = f"uid {os.geteuid()}" if hasattr(os, "geteuid") else "a user"
    return f"keysync runs as {user}: give that user the right to read it and to enter its folders (chmod, chown, or fsGroup)"


def problem_with(key: str, path: Path, password_file: Path | None) -> tuple[str, str] | None:
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
