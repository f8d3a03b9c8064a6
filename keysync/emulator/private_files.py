"""Creates and replaces files that only their owner can read."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from keysync.errors import UsageError
from keysync.files import replaceable_path


def write_private(path: Path, content: bytes) -> None:
    """Create or replace `path` atomically, with mode 0600.

    Raises OSError if a symbolic link or another kind of file is there, or if its folder is not writable.
    """
    _require_private(path)
    # mkstemp opens with O_EXCL, O_NOFOLLOW and mode 0600.
    descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(partial).replace(path)
    except OSError:
        Path(partial).unlink(missing_ok=True)
        raise


def check_private(path: Path, option: str) -> None:
    """Raises UsageError if `write_private` would raise, so that the error is found before anything is served."""
    try:
        _require_private(path)
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}") from None


def _require_private(path: Path) -> None:
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a symbolic link, expected a regular file or nothing", str(path))
    replaceable_path(path)
