"""Reads the configuration in a separate process, which returns the result through a pipe.

Parsing and checking a file loads libraries that take a sixth of a daemon's memory, and many times that while a long file
is parsed. The separate process gives all of it back when it ends. Reading the file also takes a quarter of a command's
start-up time; meanwhile this process imports what the command needs.
"""

from __future__ import annotations

import os
import pickle  # nosec B403  # the data comes from this module, in a process that this one started
import select
import subprocess  # nosec B404  # runs only this interpreter, see _start
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, cast

from keysync.config.locate import find_config, is_there
from keysync.errors import ConfigError, Finding

if TYPE_CHECKING:
    from keysync.config.model import Config

_PARSER: Final = "keysync.config.load"
_DEADLINE_SECONDS: Final = 120.0  # a slow machine needs a quarter of it for the largest accepted file


class Reading:
    """A read of a configuration that starts with this object and ends with `result`.

    With `apart` it runs in a separate process. Otherwise `result` reads the file in this process.
    """

    def __init__(self, path: Path, *, apart: bool) -> None:
        self._path = path
        # A pipe or another special file may be open in this process only.
        possible = apart and sys.executable and _PARSER not in sys.modules and is_there(path)
        self._process = _start(path) if possible else None

    @classmethod
    def begin(cls, explicit: Path | None) -> Self:
        """Starts to read the file that `explicit` or the environment names. Raises ConfigError if there is no file.

        Uses a separate process only if there is more than one processor, because it needs a third more processor time.
        """
        return cls(find_config(explicit, os.environ), apart=processors() > 1)

    def result(self) -> Config:
        """Waits for the configuration and returns it. Raises ConfigError with every finding."""
        result = _result_of(self._process, self._path) if self._process is not None else None
        if result is None:
            return _read_here(self._path)
        if isinstance(result, tuple):
            raise ConfigError(result)
        return result


def read_config(path: Path) -> Config:
    """The configuration in `path` with the environment of this process. Raises ConfigError with every finding."""
    return Reading(path, apart=True).result()


def processors(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> float:
    """The number of processors that this process may use, limited by the `quota` of its container.

    The file `quota` has two numbers in microseconds: the processor time in a period, or ``max``, and the length of the
    period (docs.kernel.org/admin-guide/cgroup-v2.html, "cpu.max").
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        share, period = quota.read_text(encoding="ascii").split()
        return min(available, int(share) / int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return available  # no Linux, or no quota


def _read_here(path: Path) -> Config:
    from keysync.config.load import load_config  # noqa: PLC0415  # costs memory, see the docstring of the module

    return load_config(path, os.environ)


def _start(path: Path) -> subprocess.Popen[bytes] | None:
    try:
        return subprocess.Popen(  # noqa: S603  # nosec B603  # this interpreter, without a shell
            [sys.executable, "-P", "-m", __name__, str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(os.environ),
            start_new_session=True,  # Ctrl-C reaches this process only, which then ends
        )
    except OSError:
        return None  # no process can be started: this one reads the file


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    # The separate process finds the same modules as this one, and none in the working folder.
    return {**environ, "PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)}


def _result_of(process: subprocess.Popen[bytes], path: Path) -> Config | tuple[Finding, ...] | None:
    """What the process read. None if it failed for another reason, which then shows when this process reads the file.

    Raises ConfigError if it takes longer than the deadline.
    """
    try:
        output, _ = process.communicate(timeout=_DEADLINE_SECONDS)
    except subprocess.TimeoutExpired:
        _kill(process)
        message = f"the file could not be read and checked within {_DEADLINE_SECONDS:.0f} s"
        hint = "check that its file system responds and that this machine is not overloaded"
        raise ConfigError([Finding(str(path), None, None, "", message, hint)]) from None
    except BaseException:
        _kill(process)
        raise
    if process.returncode != 0:
        return None
    result = pickle.loads(output)  # noqa: S301  # nosec B301  # see the import
    return cast("Config | tuple[Finding, ...]", result)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with process:  # closes its pipe and waits for its end
        process.kill()


def _end_with_parent() -> None:
    # Only the parent has the other end of stdout. The kernel closes it when the parent ends for any reason.
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)  # POLLERR is always reported
    output.poll()
    os._exit(1)


def _main() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        result: object = _read_here(Path(sys.argv[1]))
    except ConfigError as error:
        result = error.findings
    sys.stdout.buffer.write(pickle.dumps(result))
    sys.stdout.flush()


if __name__ == "__main__":
    _main()
