"""Finds the configuration file, and reads it in a separate process, which returns the result through a pipe.

The libraries that parse and check a file, and the heap that they leave, end with that process. It saves a daemon 12 MB, and
36 MB with 10,000 accounts in its file. A one-off command imports its modules meanwhile, and starts 0.1 s to 0.3 s sooner.
"""

from __future__ import annotations

import os
import pickle  # nosec B403  # the data comes from this module, in a process that this one started
import signal
import subprocess  # nosec B404  # runs only this interpreter
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from keysync.errors import ConfigError, Finding

if TYPE_CHECKING:
    from keysync.config.model import Config

_DEFAULT_PATHS: Final = (Path("keysync.yaml"), Path("/etc/keysync/keysync.yaml"))
_PARSER: Final = "keysync.config.load"
_DEADLINE_SECONDS = 120  # a slow machine needs a quarter of it for the largest accepted file


def find_config(explicit: Path | None, environ: Mapping[str, str]) -> Path:
    """The file to read: `explicit`, else KEYSYNC_CONFIG, else ./keysync.yaml, else /etc/keysync/keysync.yaml.

    A file that is named explicitly has no fallback. Raises ConfigError with the paths that it checked.
    """
    if named := explicit or environ.get("KEYSYNC_CONFIG"):
        return Path(named)
    for path in filter(is_there, _DEFAULT_PATHS):
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


def begin_reading(explicit: Path | None) -> Callable[[], Config]:
    """Starts to read the file that `explicit` or the environment names. The result waits for it, and may raise ConfigError.

    Raises ConfigError if there is no file. With one processor the result reads the file: another process would take longer.
    """
    path = find_config(explicit, os.environ)
    if (os.cpu_count() or 1) == 1:
        return partial(_read_here, path)
    return ThreadPoolExecutor(1).submit(read_config, path).result


def read_config(path: Path) -> Config:
    """The configuration in `path` with the environment of this process. Raises ConfigError with every finding."""
    # A pipe or another special file may be open in this process only.
    if _PARSER in sys.modules or not is_there(path):
        return _read_here(path)
    # It finds the same modules as this process, and none in the working folder.
    modules = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    command = [sys.executable, "-P", "-m", __name__, str(path)]
    environ, nothing = {**os.environ, "PYTHONPATH": modules}, subprocess.DEVNULL
    try:
        # This interpreter, without a shell.
        output = subprocess.check_output(command, stdin=nothing, stderr=nothing, env=environ, timeout=_DEADLINE_SECONDS)  # noqa: S603  # nosec B603  # as said above
    except subprocess.TimeoutExpired:
        message = f"the file could not be read and checked within {_DEADLINE_SECONDS} s"
        hint = "check that its file system responds and that this machine is not overloaded"
        raise ConfigError([Finding(str(path), None, None, "", message, hint)]) from None
    except (OSError, subprocess.CalledProcessError):
        return _read_here(path)  # no process could be started, or it failed; if this fails too, it shows why
    result: Config | tuple[Finding, ...] = pickle.loads(output)  # noqa: S301  # nosec B301  # see the import
    if isinstance(result, tuple):
        raise ConfigError(result)
    return result


def _read_here(path: Path) -> Config:
    from keysync.config.load import load_config  # noqa: PLC0415  # costs memory, see the docstring of the module

    return load_config(path, os.environ)


if __name__ == "__main__":
    signal.alarm(_DEADLINE_SECONDS)  # ends this process, also if the parent was killed
    try:
        outcome: object = _read_here(Path(sys.argv[1]))
    except ConfigError as error:
        outcome = error.findings
    sys.stdout.buffer.write(pickle.dumps(outcome))
