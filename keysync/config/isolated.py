"""Reads the configuration in a process of its own, and hands over what it means.

What parses and checks a file takes a sixth of the memory that a daemon has without it, and many times that while it is at work on a
long file; all of that ends with the process that does it. It also takes a quarter of the time that a command takes to start, in
which this process imports what the command needs.
"""

from __future__ import annotations

import os
import pickle  # nosec B403  # what is read was written by this very module, in a process that this one started
import select
import subprocess  # nosec B404  # as above
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from keysync.config.locate import find_config, is_there
from keysync.errors import ConfigError, Finding

if TYPE_CHECKING:
    from keysync.config.settings import Config

_PARSER: Final = "keysync.config.load"
_DEADLINE_SECONDS: Final = 120.0  # the largest file that is accepted takes a quarter of it on a slow machine


class Reading:
    """A configuration that is being read since this object was made: `apart`, in a process of its own, or else by `result`."""

    def __init__(self, path: Path, *, apart: bool) -> None:
        self._path = path
        # What is no regular file, such as a pipe, may be this process's own.
        possible = apart and sys.executable and _PARSER not in sys.modules and is_there(path)
        self._process = _started(path) if possible else None

    @classmethod
    def begin(cls, explicit: Path | None) -> Self:
        """Begins with the file that `explicit` or the environment names. Raises ConfigError where there is none.

        In a process of its own only where that has a processor of its own: it costs a third more in all.
        """
        return cls(find_config(explicit, os.environ), apart=processors() > 1)

    def result(self) -> Config:
        """The configuration. Raises ConfigError with every finding."""
        told = _told(self._process, self._path) if self._process is not None else None
        if told is None:
            return _read_here(self._path)
        if isinstance(told, tuple):
            raise ConfigError(told)
        config: Config = told
        return config


def read_config(path: Path) -> Config:
    """The configuration in `path` by the environment of this process. Raises ConfigError with every finding."""
    return Reading(path, apart=True).result()


def processors(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> float:
    """How many this process may use: those that it is given, or what a container's `quota` leaves of them.

    `quota` has two numbers, microseconds of a period and the period's own, or ``max`` for the first
    (docs.kernel.org/admin-guide/cgroup-v2.html, "cpu.max").
    """
    given = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        share, period = quota.read_text(encoding="ascii").split()
        return min(given, int(share) / int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return given  # another system, or no quota


def _read_here(path: Path) -> Config:
    from keysync.config.load import load_config  # noqa: PLC0415  # as the module's text has it

    return load_config(path, os.environ)


def _started(path: Path) -> subprocess.Popen[bytes] | None:
    try:
        return subprocess.Popen(  # noqa: S603  # nosec B603  # this interpreter, without a shell
            [sys.executable, "-P", "-m", __name__, str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(os.environ),
            start_new_session=True,  # Ctrl-C is for the command, which then ends
        )
    except OSError:
        return None  # no process is to be had: this one does it


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    # Modules are looked for where this process looks, and the folder that it happens to be in is no place of them.
    return {**environ, "PYTHONPATH": os.pathsep.join(str(Path(place).absolute()) for place in sys.path)}


def _told(process: subprocess.Popen[bytes], path: Path) -> Any:  # noqa: ANN401  # a Config, or a tuple of findings
    """What the process found; None where it failed for a reason of its own, which this one then meets and tells.

    Raises ConfigError where it takes longer than the deadline.
    """
    try:
        told, _ = process.communicate(timeout=_DEADLINE_SECONDS)
    except subprocess.TimeoutExpired:
        _kill(process)
        message = f"the file could not be read and checked within {_DEADLINE_SECONDS:.0f} s"
        hint = "check that its file system responds and that this machine is not overloaded"
        raise ConfigError([Finding(str(path), None, None, "", message, hint)]) from None
    except BaseException:
        _kill(process)
        raise
    return pickle.loads(told) if process.returncode == 0 else None  # noqa: S301  # nosec B301  # see the import


def _kill(process: subprocess.Popen[bytes]) -> None:
    with process:  # closes its pipe, and waits for its end
        process.kill()


def _end_with_parent() -> None:
    # The other end of stdout belongs to the parent alone. The kernel closes it when the parent ends, however it ends.
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)  # POLLERR is always reported
    output.poll()
    os._exit(1)


def _main() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        told: object = _read_here(Path(sys.argv[1]))
    except ConfigError as error:
        told = error.findings
    sys.stdout.buffer.write(pickle.dumps(told))
    sys.stdout.flush()


if __name__ == "__main__":
    _main()
