"""16 threads over the blocking SDKs, with one session that keeps a connection for each of them."""

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
    """One pass, or as many as are asked for."""
    work = work_from_command_line()
    with ExitStack() as stack:
        session = stack.enter_context(requests.Session())
        # Unless told so, requests keeps ten connections a host and opens the others anew for each call.
        session.mount("https://", HTTPAdapter(pool_maxsize=THREADS))
        clients = open_clients(stack, work, transport=RequestsTransport(session=session, session_owner=False))
        pool = stack.enter_context(ThreadPoolExecutor(THREADS))
        run(lambda: sum(pool.map(clients.sync, work.accounts)))


if __name__ == "__main__":
    main()
