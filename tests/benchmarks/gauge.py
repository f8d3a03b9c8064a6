"""Runs one command and writes what it took to a file, as JSON: ``python -I -S gauge.py RESULT COMMAND...``.

A program of its own and a small one, since the kernel counts what a process had resident before it became the command (and
that is the starter's memory) as the command's own.
"""

import json
import os
import signal
import sys
import time


def main() -> None:
    """Runs it; ends with its exit code."""
    result, *command = sys.argv[1:]
    began = time.monotonic()
    pid = os.posix_spawnp(command[0], command, os.environ)
    signal.signal(signal.SIGTERM, lambda signum, _frame: os.kill(pid, signum))
    _, status, usage = os.wait4(pid, 0)
    told = {
        "wall": time.monotonic() - began,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss,
    }
    with open(result, "w") as file:  # noqa: PTH123  # pathlib would take longer to come than this
        json.dump(told, file)
    sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)


if __name__ == "__main__":
    main()
