"""Reads the configuration in a separate process, which returns the result through a pipe.

The libraries that parse and check a file, and the heap that they leave, end with that process. Without it a daemon keeps 85
MB in place of 73 MB, and with 10,000 accounts in its file 159 MB in place of 123 MB (``python -m tests.benchmarks.memory``).
A one-off command imports its modules meanwhile, and starts 0.1 s to 0.3 s sooner.
"""

from __future__ import annotations

import os
import pickle  # nosec B403  # the data comes from this module, in a process that this one started
import signal
import subprocess  # nosec B404  # runs only this interpreter
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from keysync.config.files import find_config, is_there
from keysync.errors import ConfigError, Finding

if TYPE_CHECKING:
    from keysync.config.model import Config

_PARSER: Final = "keysync.config.load"
_DEADLINE_SECONDS = 120  # a slow machine needs a quarter of it for the largest accepted file


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
    try:
        process = subprocess.run(  # noqa: S603  # nosec B603  # this interpreter, without a shell
            [sys.executable, "-P", "-m", __name__, str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": modules},
            timeout=_DEADLINE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        message = f"the file could not be read and checked within {_DEADLINE_SECONDS} s"
        hint = "check that its file system responds and that this machine is not overloaded"
        raise ConfigError([Finding(str(path), None, None, "", message, hint)]) from None
    except OSError:
        return _read_here(path)  # no process can be started
    if process.returncode != 0:
        return _read_here(path)  # if this fails too, it shows why
    result: Config | tuple[Finding, ...] = pickle.loads(process.stdout)  # noqa: S301  # nosec B301  # see the import
    if isinstance(result, tuple):
        raise ConfigError(result)
    return result


def _read_here(path: Path) -> Config:
    from keysync.config.load import load_config  # noqa: PLC0415  # costs memory, see the docstring of the module

    return load_config(path, os.environ)


def _main() -> None:
    signal.alarm(_DEADLINE_SECONDS)  # ends this process, also if the parent was killed
    try:
        result: object = _read_here(Path(sys.argv[1]))
    except ConfigError as error:
        result = error.findings
    sys.stdout.buffer.write(pickle.dumps(result))
    sys.stdout.flush()


if __name__ == "__main__":
    _main()
