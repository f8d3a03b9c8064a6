"""The program behind `WarmKeysync`: imports keysync and its libraries, then forks a child for each command that it
reads.

It opens no files and starts no thread or event loop, so that a child is like a new process.
"""

import gc
import json
import os
import sys
from pathlib import Path

import keysync.cli.compose  # a command would import it, together with the SDKs
import keysync.cli.run  # as above
import keysync.cli.sync  # as above
import keysync.config.load  # noqa: F401  # otherwise each would start a process to read its file
from keysync.cli.main import main
from keysync.daemon import leader_election


def serve() -> None:
    """Reads requests from stdin until it is closed: to start a command, or to check or reap the current one."""
    gc.freeze()
    pid = 0
    for line in sys.stdin.buffer:
        order = json.loads(line)
        if order == "reap":
            say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        elif order == "look":
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            say("running" if ended is None else "over")
        else:
            pid = os.fork()
            if pid == 0:
                become(**order)
            say(pid)


def say(word: object) -> None:
    """Writes one line unbuffered, so that a child cannot write it twice."""
    os.write(1, f"{word}\n".encode())


def become(arguments: list[str], env: dict[str, str], out: str, err: str) -> None:
    """Turns this child into the command; never returns."""
    code: object = 70
    try:
        os.environ.clear()
        os.environ.update(env)
        # Kubernetes mounts it at a fixed path, which a test cannot write to.
        leader_election.SERVICE_ACCOUNT = Path(env.get("TEST_SERVICE_ACCOUNT", leader_election.SERVICE_ACCOUNT))
        for descriptor, path, flags in (
            (0, os.devnull, os.O_RDONLY),
            (1, out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
            (2, err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        ):
            os.dup2(os.open(path, flags, 0o600), descriptor)
        sys.argv = ["keysync", *arguments]
        main()
        code = 0
    except SystemExit as end:
        code = 0 if end.code is None else end.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    serve()
