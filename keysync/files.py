"""Small files: read without blocking, and replaced through symbolic links; and the text of a secret in one."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Final

from keysync.errors import UsageError

_LARGEST: Final = 1 << 20  # bytes of a token, a password or a certificate
_OTHER_KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_regular(path: Path) -> None:
    """Raises OSError unless `path` leads to a regular file: to open or read another kind can block for ever."""
    _check_mode(path.stat().st_mode, path)


def open_regular(path: Path) -> BufferedReader:
    """Opens a regular file. Raises OSError for any other kind of file, at once."""
    check_regular(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _check_mode(os.fstat(descriptor).st_mode, path)  # it may have been replaced since
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_small(path: Path) -> bytes:
    """The content of a regular file of up to 1 MiB. Raises OSError, also for other kinds of files and larger ones."""
    with open_regular(path) as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise OSError(errno.EFBIG, "it has more than 1 MiB", str(path))
    return content


def replaceable(path: Path) -> Path:
    """The regular file behind `path` that may be replaced, or created: symbolic links are followed and stay.

    Raises OSError where there is something else, or where its folder cannot be written to.
    """
    target = Path(os.path.realpath(path))
    if os.path.lexists(target):
        check_regular(target)
    if not (target.parent.is_dir() and os.access(target.parent, os.W_OK)):
        raise OSError(errno.EACCES, "its folder is not there or cannot be written to", str(path))
    return target


def check_replaceable(path: Path, option: str) -> None:
    """Raises UsageError where `replaceable` would raise, so that it is found before the first request."""
    try:
        replaceable(path)
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}") from None


def check_trust() -> None:
    """Raises UsageError where SSL_CERT_FILE names a FIFO or the like: aiohttp reads it on import, which would block."""
    named = os.environ.get("SSL_CERT_FILE")
    if not named or not os.path.exists(named):  # noqa: PTH110  # never raises
        return  # a missing file is reported when the TLS context is made
    try:
        check_regular(Path(named))
    except OSError as error:
        raise UsageError(
            f"SSL_CERT_FILE={named}: {error.strerror}; name a PEM file of the CAs to trust, or unset it"
        ) from None


def _check_mode(mode: int, path: Path) -> None:
    for is_kind, name in _OTHER_KINDS:
        if is_kind(mode):
            raise OSError(errno.EINVAL, f"it is {name}, expected a regular file", str(path))


def secret_text(data: str | bytes) -> str:
    """The secret that a file or a variable holds: without a byte order mark and without the white space around it.

    Editors and `kubectl create secret` add line ends. Raises UnicodeDecodeError where bytes are not UTF-8.
    """
    text = data.decode("utf-8-sig") if isinstance(data, bytes) else data.removeprefix("\ufeff")
    return text.strip()
