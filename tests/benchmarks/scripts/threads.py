"""A script with the blocking SDKs and 16 threads, and one session with a connection for each thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import requests
from azure.core.pipeline.transport import RequestsTransport
from requests.adapters import HTTPAdapter

from tests.benchmarks.scripts.blocking import open_clients
from tests.benchmarks.scripts.stages import run, work_from_command_line

THREADS = 16


def main() -> None:
    """Do one run, or as many as the command line asks for."""
    work = work_from_command_line()
    with ExitStack() as stack:
        session = stack.enter_context(requests.Session())
        # By default requests keeps ten connections per host, and opens a new one for each further call.
        session.mount("https://", HTTPAdapter(pool_maxsize=THREADS))
        clients = open_clients(stack, work, transport=RequestsTransport(session=session, session_owner=False))
        pool = stack.enter_context(ThreadPoolExecutor(THREADS))
        run(lambda: sum(pool.map(clients.sync, work.accounts)))


if __name__ == "__main__":
    main()
