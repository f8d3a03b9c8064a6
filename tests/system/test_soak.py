"""A day of the daemon with all faults in turn, on a clock that moves only while all code waits."""

from __future__ import annotations

import asyncio
import json
import os
import random as global_random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

import aiohttp
import pytest

from keysync.cli.run import serve
from keysync.cli.signals import interruptible
from keysync.config.load import load_config
from keysync.config.model import Config
from keysync.daemon.config_watch import ConfigWatch
from keysync.emulator import Emulator
from keysync.emulator.faults import Fault
from keysync.secret.redact import Redactor
from keysync.sync.runtime import Shared
from tests.support.soak import (
    FAULT_PLACES,
    FLEET,
    HOUR,
    MINUTE,
    Auditor,
    Books,
    FaultSchedule,
    Footprint,
    Keys,
    LogBook,
    Span,
    document,
    emulator_data,
    logged_to,
    open_files,
    spurious,
)
from tests.support.virtual_clock import seeded
from tests.support.warp import Warp, WarpLoop

T = TypeVar("T")

HOURS: Final = float(os.environ.get("SOAK_HOURS", "24"))
SEED: Final = int(os.environ.get("SOAK_SEED", "0")) or int.from_bytes(os.urandom(3))
"""Random for each run, and printed. To repeat a run: SOAK_SEED=… pytest -m slow tests/system/test_soak.py."""

_LATENCY = 0.02
_ITEMS = sum(2 * len(vaults) for vaults, _ in FLEET.values())


def say(*words: str) -> None:
    """Writes to the output that pytest shows for a failed test, or with -s."""
    sys.stdout.write(" ".join(("\n", *words)))


@dataclass
class Daemon:
    """The daemon with its embedded Azure, and what the test observes from outside."""

    azure: Emulator
    config: Config
    books: Books
    path: Path
    text: str
    loop: WarpLoop
    log: LogBook = field(default_factory=LogBook)
    url: str = ""


async def run_daemon(
    folder: Path, work: Callable[[Daemon], Awaitable[None]], *, keep: int = 8, **settings: Any
) -> Daemon:
    """Runs the daemon for the duration of `work`, and ends it by SIGTERM."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, WarpLoop)
    path, redactor, listening = folder / "keysync.yaml", Redactor(), asyncio.Event()
    async with AsyncExitStack() as stack:
        azure = await stack.enter_async_context(Emulator(emulator_data(token_lifetime=1800), latency=_LATENCY))
        text = json.dumps(document(azure, folder, **settings))
        path.write_text(text)
        watch = ConfigWatch(path, lambda place: load_config(place, {}))
        daemon = Daemon(azure, watch.read(), Books(keep=keep), path, text, loop)
        stack.enter_context(logged_to(daemon.log, redactor.redact))
        interruption = stack.enter_context(interruptible())

        def announce(url: str) -> None:
            daemon.url = url
            listening.set()

        serving = asyncio.create_task(
            serve(
                daemon.config,
                Shared(redactor, (daemon.books,)),
                interruption,
                watch=watch,
                announce=announce,
                random=seeded(SEED),
            )
        )
        await listening.wait()
        working = asyncio.ensure_future(work(daemon))
        await asyncio.wait({serving, working}, return_when=asyncio.FIRST_COMPLETED)
        assert not serving.done(), "the daemon ended by itself"
        await working
        os.kill(os.getpid(), signal.SIGTERM)
        await serving
        assert interruption.signum == signal.SIGTERM
    return daemon


def warped(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs `work` on a warped loop and returns its result. It may leave no task, socket or other open file."""
    global_random.seed(SEED)  # the jitter of single calls uses it
    before = open_files()
    warp = Warp()

    async def checked() -> T:
        result = await work()
        await asyncio.sleep(90)  # longer than either side keeps a connection
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left: {left}"
        return result

    with warp.installed(), asyncio.Runner(loop_factory=lambda: WarpLoop(warp)) as runner:
        result = runner.run(checked())
    after = open_files()
    assert after == before, f"files left: {[after[item] for item in after.keys() - before.keys()]}"
    return result


class Day:
    """Two halves with faults, each with an hour without faults at its end, and the findings."""

    def __init__(self) -> None:
        self.fair_from = 0.0
        self.footprints: list[Footprint] = []
        self.requests: list[int] = []
        self.behind: dict[str, list[str]] = {}
        self.spurious: list[str] = []

    async def __call__(self, daemon: Daemon) -> None:
        """Runs the day."""
        random = seeded(SEED)
        self.keys = Keys(daemon.azure, random)
        self.fault_schedule = FaultSchedule(daemon.azure, daemon.loop, self.keys, random)
        self.auditor = Auditor(daemon.config, daemon.azure, self.keys, self.fault_schedule, daemon.books)
        others = [asyncio.create_task(self.auditor.work()), asyncio.create_task(self._visit(daemon, random))]
        await self._half(daemon, random, HOURS / 2 * HOUR)
        self._measure(daemon)
        forget = self.keys.mark()
        await self._half(daemon, random, HOURS * HOUR)
        a_while_ago = time.monotonic() - 20 * MINUTE
        self.behind = {name: self.auditor.behind(name, a_while_ago, a_while_ago) for name in FLEET}
        self.spurious = spurious(daemon.azure, self.keys)
        self.regenerations = self.keys.regenerations
        forget()
        self._measure(daemon)
        for task in others:
            task.cancel()
        for outcome in await asyncio.gather(*others, return_exceptions=True):
            assert isinstance(outcome, asyncio.CancelledError), repr(outcome)

    async def _half(self, daemon: Daemon, random: Random, end: float) -> None:
        self.fair_from = end - HOUR
        self.keys.in_the_middle(0.01, self._left)
        async with asyncio.TaskGroup() as group:
            for place, gap in FAULT_PLACES:
                group.create_task(self.fault_schedule.somewhere(place, gap, self._left))
            for account in FLEET:
                group.create_task(self.keys.keep_changing(account, 40 * MINUTE, self._left))
        # Between two runs, with no open connection.
        await asyncio.sleep(end - 100 - time.monotonic())

    def _left(self) -> float:
        return self.fair_from - time.monotonic()

    async def _visit(self, daemon: Daemon, random: Random) -> None:
        while True:
            await asyncio.sleep(random.expovariate(1 / (20 * MINUTE)))
            if self._left() > 0:
                await visit(daemon, random)

    def _measure(self, daemon: Daemon) -> None:
        self.requests.append(len(daemon.azure.requests))
        daemon.azure.requests.clear()
        self.footprints.append(Footprint.now())


@pytest.mark.slow
def test_a_day_of_faults_leaves_every_secret_in_sync_and_nothing_behind(tmp_path: Path) -> None:
    """24 hours with faults of every kind at every operation, keys that change at any moment, reloads, signals and HTTP
    clients.
    """
    say(f"SOAK_SEED={SEED}")
    day, began = Day(), time.perf_counter()
    daemon = warped(lambda: run_daemon(tmp_path, day))
    books, log, (early, late) = daemon.books, daemon.log, day.footprints
    say(
        f"{time.perf_counter() - began:.0f} s for {HOURS:g} h: {books.runs} runs, {day.requests} requests,",
        f"{day.fault_schedule.met.total()} troubles, {day.auditor.checked} times looked after one, {day.regenerations} regenerations,",
        f"{dict(books.results)}, {log.lines} lines, {log.busiest} in the busiest minute: {dict(log.events)}; {early}, {late}",
    )
    # In sync: after each fault, and at the end.
    assert day.auditor.late == []
    assert {name: behind for name, behind in day.behind.items() if behind} == {}
    # No version without a regeneration, and no account in two runs at once.
    assert day.spurious == []
    assert books.overlaps == []
    # All of it happened.
    assert day.auditor.checked >= 3 * HOURS
    assert books.results["updated"] >= 8 * HOURS
    assert len(day.fault_schedule.met) >= HOURS
    assert_log_is_bounded(daemon, day)
    assert_memory_is_flat(day)


def assert_memory_is_flat(day: Day) -> None:
    """The second half of the day leaves no objects behind.

    After the first half the history of writes is full (200 entries), every page was rendered, and every metric has its
    labels. Two things may still grow: the times of the last 24 hours' writes, one object each, and labels of a new
    outcome. Together they are a few thousand objects at most, while the second half serves some 5,000 requests in 300
    runs. One object kept for each request, or one task or report for each run, exceeds the bound. Resident memory is
    compared for memory that Python does not count, such as TLS sessions: kept for each request, at 10 KiB each, they
    would use 50 MiB.
    """
    early, late = day.footprints
    assert late.tasks == early.tasks
    assert late.files == early.files
    # The time of each written version is kept for 24 hours, in several blocks.
    assert late.blocks - early.blocks < max(4000, day.requests[1])
    assert late.resident - early.resident < 16 * 1024


def assert_log_is_bounded(daemon: Daemon, day: Day) -> None:
    """One line for each run and change; for a failure its beginning and its end, for each secret and each form of
    failure.
    """
    log = daemon.log
    assert log.unexpected == []
    ours = {event: count for event, count in log.events.items() if not event.startswith("library.")}
    runs, changes = daemon.books.runs, daemon.books.results["updated"] + daemon.books.results["created"]
    assert ours["run.finished"] == runs
    assert ours.get("run.skipped", 0) <= runs
    assert ours["secret.updated"] + ours["secret.created"] == changes
    affected_secrets = day.fault_schedule.secrets_met
    failures = sum(ours.get(f"secret.{name}", 0) for name in ("failed", "unknown", "refused", "skipped"))
    assert failures <= 2 * affected_secrets
    assert ours["secret.in_sync"] <= affected_secrets
    # Worst case: each secret fails, recovers and is written within a minute, with the runs around it.
    assert log.busiest <= 6 * _ITEMS + 20


async def visit(daemon: Daemon, random: Random) -> None:
    """What users and machines do to a daemon: open the page, scrape, request a run, change the file, break the file."""
    async with aiohttp.ClientSession() as session:
        for page in ("/", "/metrics", "/api/status", "/healthz", "/readyz"):
            async with session.get(daemon.url + page) as reply:
                await reply.read()
                assert page != "/healthz" or reply.status == 200
    match random.randrange(10):
        case 0:
            os.kill(os.getpid(), signal.SIGUSR1)
        case 1:
            daemon.path.write_text(daemon.text + " " * random.randrange(1, 100))
        case 2:
            daemon.path.write_text("vaults: [")


_HUNG: Final = "render2"


def spans_of(folder: Path, every: str, hung: Fault | None) -> tuple[Daemon, dict[str, list[Span]]]:
    """An hour of runs with changing keys, without faults or with one account that always hangs."""
    folder.mkdir()

    async def hour(daemon: Daemon) -> None:
        if hung is not None:
            daemon.azure.faults.add(hung)
        for number in range(4):
            await asyncio.sleep(15 * MINUTE - 100)
            for account in FLEET:
                daemon.azure.state.regenerate(account, ("Primary", "Secondary")[number % 2])
            await asyncio.sleep(100)

    daemon = warped(lambda: run_daemon(folder, hour, keep=1000, schedule={"every": every}))
    return daemon, {
        account: sorted(spans, key=lambda span: span.start) for account, spans in daemon.books.spans.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operation", "target"),
    [("listKeys", _HUNG), ("getSecret", f"kva/{_HUNG}-*"), ("setSecret", f"kva/{_HUNG}-*")],
)
@pytest.mark.parametrize("schedule", ["5m", "1m"])
def test_a_hung_account_delays_no_other_by_a_tenth_of_its_interval(
    tmp_path: Path, operation: str, target: str, schedule: str
) -> None:
    """Compared with the same hour without the hung account, each run of each other account starts at the same time, and
    ends nearly as soon.

    Every run that includes the hung account waits for it, since the limits cover all accounts. With a minute between
    runs, that wait is no longer than `timeouts.collect`.
    """
    hang = Fault(operation=operation, target=target, kind="hang")
    calm, expected = spans_of(tmp_path / "calm", schedule, None)
    daemon, spans = spans_of(tmp_path / "hung", schedule, hang)
    every = {account.name: interval_of(calm.config, account.name) for account in calm.config.accounts}
    worst: dict[str, float] = {}
    for account in FLEET.keys() - {_HUNG}:
        assert len(spans[account]) == len(expected[account])
        for theirs, ours in zip(expected[account], spans[account], strict=True):
            assert ours.good
            assert ours.start - theirs.start == pytest.approx(0, abs=0.01 * every[account])
            delay = (ours.end - theirs.end) / every[account]
            assert delay < 0.1
            worst[account] = max(worst.get(account, 0.0), delay)
    say(f"{operation} hangs, every {schedule}: an end later by {max(worst.values()):.3f} of an interval at most")
    assert not all(span.good for span in spans[_HUNG])
    assert daemon.books.overlaps == []


def interval_of(config: Config, name: str) -> float:
    """The shortest time between two runs over an account, in seconds."""
    (account,) = (account for account in config.accounts if account.name == name)
    every = (account.schedule or config.schedule).every
    return every.total_seconds() if every is not None else 10 * MINUTE
