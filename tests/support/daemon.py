"""`keysync run` for tests, in its own process or in the test's event loop, where files are checked often."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import aiohttp
from structlog.testing import capture_logs

from keysync.cli.run import serve
from keysync.cli.signals import Interruption
from keysync.config.load import load_config
from keysync.daemon.config_watch import ConfigWatch
from keysync.secret.redact import Redactor
from keysync.sources.shard import Shard
from keysync.sync.model import Report, Result
from keysync.sync.runtime import Shared
from tests.support.azure import RunningAzure
from tests.support.warm_process import WarmKeysync

PATIENCE = 60.0
"""The longest time in seconds that a test waits for anything; tests do not assert how long things take."""
_POLL_INTERVAL = 0.03


@dataclass(frozen=True)
class Reply:
    """A reply of the daemon."""

    status: int
    text: str
    headers: Mapping[str, str]

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.text)


class Process(Protocol):
    """A process that a test has started."""

    @property
    def pid(self) -> int: ...

    def has_ended(self) -> bool: ...

    def wait(self) -> int:
        """Waits for the exit code."""
        ...


class Cold:
    """A process with a new interpreter."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid

    def has_ended(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def wait(self) -> int:
        """Waits for the exit code."""
        return self._process.wait(PATIENCE)


class Warm:
    """A command that a warm process has forked; its exit code is kept."""

    def __init__(self, warm: WarmKeysync) -> None:
        assert warm.pid is not None
        self._warm = warm
        self._code: int | None = None
        self.pid = warm.pid

    def has_ended(self) -> bool:
        """Whether it has ended."""
        return self._code is not None or self._warm.has_ended()

    def wait(self) -> int:
        """Waits for the exit code."""
        if self._code is None:
            self._code = self._warm.wait()
        return self._code


class Daemon:
    """A running `keysync run`; `pid` is the daemon's own, even if another process started it."""

    def __init__(self, process: Process, err: Path) -> None:
        self._process = process
        self._err = err
        self.pid = process.pid
        self.url = ""

    @property
    def err(self) -> str:
        """Everything written to stderr so far."""
        return self._err.read_text()

    @property
    def log(self) -> list[dict[str, Any]]:
        """The log so far, complete lines only."""
        lines = self.err.split("\n")[:-1] if self._err.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{")]

    @property
    def stray(self) -> list[str]:
        """Text on stderr that is no log line, such as a traceback."""
        return [line for line in self.err.splitlines() if line and not line.startswith("{")]

    def events(self, name: str) -> list[dict[str, Any]]:
        """Every line of one event, in order."""
        return [line for line in self.log if line["event"] == name]

    def get(self, path: str, *, method: str = "GET") -> Reply:
        """Makes one request."""
        request = urllib.request.Request(self.url + path, method=method)  # noqa: S310  # loopback
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=PATIENCE) as reply:
                return Reply(reply.status, reply.read().decode(), dict(reply.headers))
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.read().decode(), dict(error.headers))

    def status(self) -> dict[str, Any]:
        """`/api/status`."""
        results: dict[str, Any] = self.get("/api/status").json()
        return results

    def account(self, name: str) -> dict[str, Any]:
        """One account of `/api/status`."""
        return next(account for account in self.status()["accounts"] if account["name"] == name)

    def until(self, condition: Callable[[], object]) -> None:
        """Waits until `condition` is true."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert not self._process.has_ended(), f"it has ended\n{self.err[-3000:]}"
            assert time.monotonic() < deadline, f"it never came\n{self.err[-3000:]}"
            time.sleep(_POLL_INTERVAL)

    def until_event(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        """Waits until an event was logged `count` times."""
        self.until(lambda: len(self.events(name)) >= count)
        return self.events(name)

    def until_runs(self, more: int) -> None:
        """Waits until `more` runs have finished."""
        before = len(self.events("run.finished"))
        self.until(lambda: len(self.events("run.finished")) >= before + more)

    def sync(self, times: int = 1) -> None:
        """Requests runs one after the other, by SIGUSR1; no other run may be in progress."""
        for _ in range(times):
            before = self._ended()
            self.send(signal.SIGUSR1)
            self.until(lambda: self._ended() > before)  # noqa: B023  # it is called in this iteration

    def _ended(self) -> int:
        return len(self.events("run.finished")) + len(self.events("run.stopped"))

    def until_state(self, name: str, *states: str) -> None:
        """Waits until an account is in one of `states`."""
        self.until(lambda: self.account(name)["state"] in states)

    def send(self, signum: signal.Signals) -> None:
        """Sends a signal."""
        os.kill(self.pid, signum)

    def end(self, signum: signal.Signals = signal.SIGTERM, *, within: float = PATIENCE) -> int:
        """Sends SIGTERM and returns the exit code. Fails if that takes longer than `within` seconds."""
        self.send(signum)
        return self.ended(within)

    def ended(self, within: float = PATIENCE) -> int:
        """Waits for its end and returns the exit code."""
        deadline = time.monotonic() + within
        while not self._process.has_ended():
            assert time.monotonic() < deadline, f"it does not end\n{self.err[-3000:]}"
            time.sleep(_POLL_INTERVAL)
        return self._process.wait()

    def kill(self) -> None:
        """Kills the process if it still runs."""
        if not self._process.has_ended():
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()


@contextmanager
def running(
    config: Path,
    env: Mapping[str, str],
    *arguments: str,
    before: Sequence[str] = (),
    warm: WarmKeysync | None = None,
) -> Iterator[Daemon]:
    """`keysync run` until the block ends, serving. `warm` forks it, if given; `before` is a command that runs it."""
    out, err = config.parent / "stdout", config.parent / "stderr"
    command = ["run", "-c", str(config), *arguments]
    process: Process
    if warm is not None:
        warm.start(command, env=env, out=out, err=err)
        process = Warm(warm)
    else:
        command = [*before, sys.executable, "-W", "error", "-m", "keysync", *command]
        with err.open("wb") as stream:
            started = subprocess.Popen(command, env=dict(env), stdout=subprocess.DEVNULL, stderr=stream)
        process = Cold(started)
    daemon = Daemon(process, err)
    try:
        daemon.url = daemon.until_event("daemon.started")[0]["url"]
        yield daemon
    finally:
        daemon.kill()


@dataclass
class Watcher:
    """A `RunObserver` that stores the reports."""

    reports: list[Report] = field(default_factory=list)

    def started(self, run_id: str, work_items: int) -> None: ...

    def collected(self, run_id: str, account: str) -> None: ...

    def result(self, run_id: str, result: Result) -> None: ...

    def finished(self, report: Report) -> None:
        """Stores the report."""
        self.reports.append(report)


class Served:
    """The daemon in the test's own event loop."""

    def __init__(self, session: aiohttp.ClientSession, log: list[Any], interruption: Interruption) -> None:
        self._session = session
        self.log = log
        self.interruption = interruption
        self.watcher = Watcher()
        self.url = ""

    def events(self, name: str) -> list[Any]:
        """Every line of one event, in order."""
        return [line for line in self.log if line["event"] == name]

    async def get(self, path: str) -> Reply:
        """Makes one request."""
        async with self._session.get(self.url + path) as reply:
            return Reply(reply.status, await reply.text(), reply.headers)

    async def status(self) -> dict[str, Any]:
        """`/api/status`."""
        results: dict[str, Any] = (await self.get("/api/status")).json()
        return results

    async def states(self) -> dict[str, str]:
        """The state of each account."""
        return {account["name"]: account["state"] for account in (await self.status())["accounts"]}

    async def until(self, condition: Callable[[], object]) -> None:
        """Waits until `condition` is true."""
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110  # no event signals it
                await asyncio.sleep(_POLL_INTERVAL / 3)

    async def until_status(self, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Waits until the snapshot satisfies the condition, and returns it."""
        async with asyncio.timeout(PATIENCE):
            while not condition(results := await self.status()):  # noqa: ASYNC110  # as above
                await asyncio.sleep(_POLL_INTERVAL / 3)
        return results

    async def sync(self, times: int = 1) -> list[Report]:
        """Requests runs one after the other, by SIGUSR1, and returns their reports; no other run may be in progress."""
        results: list[Report] = []
        for _ in range(times):
            before = len(self.watcher.reports)
            os.kill(os.getpid(), signal.SIGUSR1)
            await self.until(lambda: len(self.watcher.reports) > before)  # noqa: B023  # it is called in this iteration
            results += self.watcher.reports[before:]
        return results

    async def first_run(self) -> None:
        """Waits for the run at the start."""
        await self.until(lambda: self.watcher.reports)

    async def until_runs(self, more: int) -> list[Report]:
        """Waits until `more` runs have finished; returns their reports."""
        before = len(self.watcher.reports)
        await self.until(lambda: len(self.watcher.reports) >= before + more)
        return self.watcher.reports[before : before + more]


@asynccontextmanager
async def serving(config: Path, *, interval: float = 0.02, shard: Shard | None = None) -> AsyncIterator[Served]:
    """Serves `config` until the block ends; its files are checked every `interval` seconds. Nothing may stay open."""
    watch = ConfigWatch(config, lambda place: load_config(place, {}), interval=interval)
    loaded = await asyncio.to_thread(watch.read)
    interruption = Interruption()
    before = asyncio.all_tasks()
    with capture_logs() as log:
        async with aiohttp.ClientSession(trust_env=False) as session:
            served = Served(session, log, interruption)
            url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            task = asyncio.create_task(
                serve(
                    loaded,
                    Shared(Redactor(), (served.watcher,), shard=shard),
                    interruption,
                    watch=watch,
                    announce=url.set_result,
                )
            )
            try:
                async with asyncio.timeout(PATIENCE):
                    while not url.done() and not task.done():  # noqa: ASYNC110  # either of the two
                        await asyncio.sleep(0)
                if task.done():
                    await task
                served.url = url.result()
                yield served
            finally:
                interruption.stop.set()
                async with asyncio.timeout(PATIENCE):
                    await task
    assert asyncio.all_tasks() - before == set()


class Holding:
    """Delays requests of one operation before their effect, until `let_go`."""

    def __init__(self, azure: RunningAzure, operation: str) -> None:
        self._azure = azure
        self._operation = operation
        self._free: asyncio.Event | None = None
        self.came = threading.Event()

    def __enter__(self) -> Self:
        def begin(azure: Any) -> None:
            self._free = asyncio.Event()
            azure.hooks.install(self._on_request)

        self._azure.do(begin)
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()
        self._azure.do(lambda azure: azure.hooks.install(None))

    def let_go(self) -> None:
        """Continues the waiting requests, and delays no more."""
        free = self._free
        assert free is not None
        self._azure.do(lambda _azure: free.set())

    async def _on_request(self, _index: int, operation: str, _target: str, stage: str) -> None:
        if operation == self._operation and stage == "before" and self._free is not None:
            self.came.set()
            await self._free.wait()
