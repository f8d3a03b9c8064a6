"""Reads small files without blocking, resolves the files to replace, and reads secrets from files and variables."""

from __future__ import annotations

import errno
import os
import pwd
import stat
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Final

from keysync.errors import UsageError

_MAX_BYTES: Final = 1 << 20  # for a token, a password or a certificate
_OTHER_KINDS: Final = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}


def check_regular(path: Path, descriptor: int | None = None) -> None:
    """Raises OSError unless `path`, or the open `descriptor`, is a regular file. Opening or reading another kind can block forever."""
    mode = os.stat(path if descriptor is None else descriptor).st_mode  # noqa: PTH116  # also takes a descriptor
    if not stat.S_ISREG(mode):
        kind = _OTHER_KINDS.get(stat.S_IFMT(mode), "a device")
        raise OSError(errno.EINVAL, f"it is {kind}, expected a regular file", str(path))


def irregular_reason(path: Path) -> str | None:
    """Why `path` is not a regular file; None if it is one, or does not exist."""
    try:
        check_regular(path)
    except OSError as error:
        return error.strerror if os.path.exists(path) else None  # noqa: PTH110  # unlike Path.exists, it never raises
    return None


def open_regular(path: Path) -> BufferedReader:
    """Opens a regular file for reading. Raises OSError for another kind of file, without blocking."""
    check_regular(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        check_regular(path, descriptor)  # it may have been replaced since the first check
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_small(path: Path) -> bytes:
    """The content of a regular file of at most 1 MiB. Raises OSError for a larger file or another kind of file."""
    with open_regular(path) as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise OSError(errno.EFBIG, "it has more than 1 MiB", str(path))
    return content


def replaceable_path(path: Path) -> Path:
    """The regular file to replace, or create, for `path`. Symbolic links are followed, so that they stay.

    Raises OSError if another kind of file is there, or if its folder is not writable.
    """
    target = Path(os.path.realpath(path))
    if os.path.lexists(target):
        check_regular(target)
    if not (target.parent.is_dir() and os.access(target.parent, os.W_OK)):
        raise OSError(errno.EACCES, "its folder does not exist or is not writable", str(path))
    return target


def check_replaceable(path: Path, option: str) -> None:
    """Raises UsageError if `replaceable_path` would raise, so that the error is found before the first request."""
    try:
        replaceable_path(path)
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}") from None


def check_ssl_cert_file() -> None:
    """Raises UsageError if SSL_CERT_FILE is not a regular file. aiohttp reads it on import, and a FIFO would block that."""
    path = os.environ.get("SSL_CERT_FILE")
    if path and (reason := irregular_reason(Path(path))):  # `keysync.http.session` reports a missing file
        raise UsageError(f"SSL_CERT_FILE={path}: {reason}; name a PEM file of the CAs to trust, or unset it")


def secret_text(data: str | bytes) -> str:
    """The secret in a file or a variable, without a byte order mark and without surrounding white space.

    Editors and `kubectl create secret` add line ends. Raises UnicodeDecodeError if `data` is not UTF-8.
    """
    return (data.decode() if isinstance(data, bytes) else data).removeprefix("\ufeff").strip()


def read_secret(path: Path, key: str) -> str:
    """The secret in the file that the configuration names under `key`. Raises UsageError if it is unreadable or empty."""
    try:
        if text := secret_text(read_small(path)):
            return text
        problem = "is empty"
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    except UnicodeDecodeError:
        problem = "is not UTF-8 text"
    # Outside of the handler, so not chained: the message of a UnicodeDecodeError shows the bytes.
    raise UsageError(f"{key}: {path}: the file {problem}")


def unreadable_hint() -> str:
    """How to let this process read a file that it has no permission for."""
    user = f"uid {os.geteuid()}"
    with suppress(KeyError):
        user = f"{pwd.getpwuid(os.geteuid()).pw_name} ({user})"
    return f"keysync runs as {user}: give that user the right to read it and to enter its folders (chmod, chown, or fsGroup)"
