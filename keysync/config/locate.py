"""Where the configuration is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from keysync.errors import ConfigError, Finding

_PLACES: Final = (Path("keysync.yaml"), Path("/etc/keysync/keysync.yaml"))


def find_config(explicit: Path | None, environ: Mapping[str, str]) -> Path:
    """The file to read: `explicit`, else KEYSYNC_CONFIG, else ./keysync.yaml, else /etc/keysync/keysync.yaml.

    A file that was named is not looked for elsewhere. Raises ConfigError that says where it looked.
    """
    if explicit is not None:
        return explicit
    if environ.get("KEYSYNC_CONFIG"):
        return Path(environ["KEYSYNC_CONFIG"])
    for place in _PLACES:
        if is_there(place):
            return place
    looked = ", ".join(f"./{place}" if not place.is_absolute() else str(place) for place in _PLACES)
    raise ConfigError(
        [
            Finding(
                str(_PLACES[0]),
                None,
                None,
                "",
                f"found no configuration; looked at KEYSYNC_CONFIG (not set), {looked}",
                "name a file with -c FILE, or write one; `keysync demo` needs none",
            )
        ]
    )


def is_there(path: Path) -> bool:
    """Whether `path` is a regular file, or in a folder that this process may not enter: reading it then says so."""
    try:
        return path.is_file()
    except PermissionError:
        return True
