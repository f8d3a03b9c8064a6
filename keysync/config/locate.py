"""Finds the configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from keysync.errors import ConfigError, Finding

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
    raise ConfigError(
        [
            Finding(
                str(_DEFAULT_PATHS[0]),
                None,
                None,
                "",
                f"found no configuration; checked KEYSYNC_CONFIG (not set), {checked}",
                "pass a file with -c FILE, or write one; `keysync demo` needs none",
            )
        ]
    )


def is_there(path: Path) -> bool:
    """Whether `path` is a regular file. Also true in a folder without access, so that reading it reports the reason."""
    try:
        return path.is_file()
    except PermissionError:
        return True
