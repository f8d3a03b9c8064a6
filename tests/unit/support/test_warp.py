"""The clock that the soak runs on: what it promises about timers, sockets and threads."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from time import monotonic as monotonic_taken_before
from typing import Any, TypeVar

import pytest

from tests.support.warp import EPOCH, Warp, WarpLoop

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T], warp: Warp | None = None) -> T:
    """What `work` returns, on a warped loop with the clocks installed."""
    warp = warp or Warp()
    with warp.installed(), asyncio.Runner(loop_factory=lambda: WarpLoop(warp)) as runner:
        return runner.run(work)


def test_a_day_takes_no_time_and_all_clocks_agree() -> None:
    """After a sleep of a day, every clock says that a day has passed, to the microsecond, wherever it was imported."""

    async def work() -> None:
        before = (time.monotonic(), monotonic_taken_before(), time.time(), datetime.now(UTC))
        await asyncio.sleep(86_400)
        after = (time.monotonic(), monotonic_taken_before(), time.time(), datetime.now(UTC))
        assert [late - early for late, early in zip(after[:3], before[:3], strict=True)] == pytest.approx([86_400] * 3)
        assert abs(after[3] - before[3] - timedelta(days=1)) <= timedelta(microseconds=1)
        assert before[3] == EPOCH

    run(work())


def test_the_real_clocks_are_back_afterwards() -> None:
    """Outside the block nothing of the warp is left."""
    kernel = time.clock_gettime(time.CLOCK_MONOTONIC)
    with Warp().installed():
        assert time.monotonic() == 0
    assert monotonic_taken_before() >= kernel
    assert datetime.now(UTC) != EPOCH


def test_timers_fire_in_order_each_at_its_own_moment() -> None:
    """However they were set, timers come by their time, and find the clock at exactly that time."""
    found: list[tuple[int, float]] = []

    async def sleeper(seconds: int) -> None:
        await asyncio.sleep(seconds)
        found.append((seconds, asyncio.get_running_loop().time()))

    async def work() -> None:
        await asyncio.gather(*(sleeper(seconds) for seconds in (3600, 1, 60, 59, 7)))

    run(work())
    assert [seconds for seconds, _ in found] == [1, 7, 59, 60, 3600]
    assert [moment for _, moment in found] == pytest.approx([1, 7, 59, 60, 3600])


def test_a_reply_on_its_way_comes_before_any_timer() -> None:
    """A thousand round trips through a real socket, with a short deadline each, and no time runs."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    async def work() -> float:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            began = time.monotonic()
            for number in range(1000):
                async with asyncio.timeout(0.001):
                    writer.write(b"%d\n" % number)
                    assert await reader.readline() == b"%d\n" % number
            passed = time.monotonic() - began
            writer.close()
            await writer.wait_closed()
        return passed

    assert run(work()) == 0


def test_the_clock_stops_while_a_thread_works() -> None:
    """Work in a thread is waited for in real time, and takes none of the loop's."""
    go_on = threading.Event()

    async def work() -> tuple[str, float]:
        async with asyncio.timeout(0.001):
            working = asyncio.create_task(asyncio.to_thread(go_on.wait, 20))
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(go_on.set)
            assert await working
        return "done", time.monotonic()

    assert run(work()) == ("done", 0)


def test_a_hang_ends_at_its_deadline() -> None:
    """A peer that says nothing costs the deadline in the loop's time, and next to nothing in ours."""

    async def work() -> float:
        near, far = socket.socketpair()
        near.setblocking(False)
        with near, far, pytest.raises(TimeoutError):
            async with asyncio.timeout(1200):
                await asyncio.get_running_loop().sock_recv(near, 1)
        return time.monotonic()

    assert run(work()) == pytest.approx(1200)


def test_time_never_goes_back() -> None:
    """A step back is refused, and a thousand random sleeps leave a clock that only grew."""
    warp = Warp()
    with pytest.raises(ValueError, match="does not go back"):
        warp.advance(-1)
    seen: list[tuple[float, float]] = []

    async def sleeper(seconds: float) -> None:
        for _ in range(10):
            await asyncio.sleep(seconds)
            seen.append((time.monotonic(), time.time()))

    async def work() -> None:
        await asyncio.gather(*(sleeper(number / 7) for number in range(100)))

    run(work(), warp)
    assert seen == sorted(seen)


def test_what_spins_without_time_passing_is_found_out() -> None:
    """A loop that is always ready never jumps; that ends in an error rather than in a test that hangs."""
    warp = Warp()

    async def work() -> None:
        while True:  # noqa: ASYNC110  # to spin is the point
            await asyncio.sleep(0)

    with (
        warp.installed(),
        asyncio.Runner(loop_factory=lambda: WarpLoop(warp, real_seconds=0.05)) as runner,
        pytest.raises(TimeoutError, match="without any time passing"),
    ):
        runner.run(work())


def test_a_name_that_does_not_exist_is_a_resolver_s_error() -> None:
    """Names under .localhost are this machine's; one that was struck out fails as the system's resolver fails."""

    async def work() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, WarpLoop)
        found = await loop.getaddrinfo("kv.localhost", 443, type=socket.SOCK_STREAM)
        assert [address[4][0] for address in found] == ["127.0.0.1"]
        loop.unknown_hosts.add("kv.localhost")
        with pytest.raises(socket.gaierror):
            await loop.getaddrinfo("kv.localhost", 443)

    run(work())
