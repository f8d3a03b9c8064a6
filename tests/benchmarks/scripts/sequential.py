"""A simple script: one call after the other with the blocking SDKs."""

from __future__ import annotations

from contextlib import ExitStack

from tests.benchmarks.scripts.blocking import open_clients
from tests.benchmarks.scripts.stages import run, work_from_command_line


def main() -> None:
    """Do one run, or as many as the command line asks for."""
    work = work_from_command_line()
    with ExitStack() as stack:
        clients = open_clients(stack, work)
        run(lambda: sum(clients.sync(account) for account in work.accounts))


if __name__ == "__main__":
    main()
