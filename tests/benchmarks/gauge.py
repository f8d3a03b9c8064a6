"""Runs one command and writes its cost to a file, as JSON: ``python -I -S gauge.py RESULT COMMAND...``.

A separate, small program: the peak memory of the command includes what the process had before exec, which is a copy of its
parent.
"""

import json
import os
import signal
import sys
import time


def main() -> None:
    """Run the command, and exit with its exit code."""
    result, *command = sys.argv[1:]
    began = time.monotonic()
    pid = os.posix_spawnp(command[0], command, os.environ)
    signal.signal(signal.SIGTERM, lambda signum, _frame: os.kill(pid, signum))
    _, status, usage = os.wait4(pid, 0)
    cost = {
        "wall": time.monotonic() - began,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss,
    }
    with open(result, "w") as file:  # noqa: PTH123  # pathlib is slow to import
        json.dump(cost, file)
    sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)


if __name__ == "__main__":
    main()
