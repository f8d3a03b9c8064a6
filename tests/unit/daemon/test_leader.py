"""A term begins and ends on the loop, also where no news comes at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from keysync.daemon.leader_election import LeaderElector
from keysync.failures import CallFailed, FailureRecord
from tests.support.leases import NoLease
from tests.support.settings import election_of
from tests.support.warp import Warp, WarpLoop

FORBIDDEN = FailureRecord("http_error", "Kubernetes answered 403 Forbidden", 403)
NO_ANSWER = FailureRecord("connection", "no answer from Kubernetes: TimeoutError")
TERMS = election_of(lease_duration="10s", renew_deadline="7s", retry_period="2s")


class Stage:
    """A leader on a clock that the test moves, with the callbacks that it received."""

    def __init__(self, warp: Warp) -> None:
        self.warp = warp
        self.callbacks: list[tuple[float, str]] = []
        self.lead = LeaderElector(NoLease(), TERMS, "me", clock=warp.monotonic)
        self.lead.elected = lambda: self.callbacks.append((warp.monotonic(), "elected"))
        self.lead.lost = lambda: self.callbacks.append((warp.monotonic(), "lost"))


Script = Callable[[Stage], Awaitable[None]]


@pytest.fixture
def play() -> Callable[[Script], list[Any]]:
    """Runs a script on a loop whose time passes only when no task is ready. Returns the log."""

    def run(script: Script) -> list[Any]:
        warp = Warp()

        async def main() -> None:
            stage = Stage(warp)
            try:
                await script(stage)
            finally:
                await stage.lead.close()

        with capture_logs() as log, asyncio.Runner(loop_factory=lambda: WarpLoop(warp)) as runner:
            runner.run(main())
        return log

    return run


def test_without_news_the_term_ends_at_the_deadline(play: Callable[[Script], list[Any]]) -> None:
    """By a timer, and its stop is set; the log says why, and with which lease."""

    async def script(stage: Stage) -> None:
        stage.lead._renewed(0.0)
        term = stage.lead.term
        assert not term.is_set()
        await asyncio.sleep(2)
        stage.lead._renewed(2.0)
        assert stage.lead.term is term
        await asyncio.wait_for(term.wait(), 60)
        assert stage.callbacks == [(0.0, "elected"), (pytest.approx(9.0), "lost")]
        assert 0 < stage.lead.grace() < 3

    lines = play(script)
    assert [line["event"] for line in lines] == ["leader.elected", "leader.lost"]
    assert lines[1] == {
        "event": "leader.lost",
        "log_level": "warning",
        "lease": "render/keysync",
        "identity": "me",
        "reason": "it was not renewed in time",
    }


def test_a_lead_counts_from_when_its_renewal_was_sent(play: Callable[[Script], list[Any]]) -> None:
    """Not from when the reply came, which may be much later. A late reply to an earlier renewal does not shorten it."""

    async def script(stage: Stage) -> None:
        assert not stage.lead.leads()
        stage.warp.advance(3)
        stage.lead._renewed(1.0)
        stage.lead._renewed(0.0)
        stage.warp.advance(4.9)
        assert stage.lead.leads()
        stage.warp.advance(0.2)
        assert not stage.lead.leads()

    play(script)


def test_a_renewal_that_is_too_old_begins_no_term(play: Callable[[Script], list[Any]]) -> None:
    """As after a process was frozen between sending and the reply."""

    async def script(stage: Stage) -> None:
        stage.warp.advance(30)
        stage.lead._renewed(0.0)
        assert not stage.lead.leads()
        assert stage.callbacks == []

    play(script)


def test_a_reply_after_the_end_begins_another_term(play: Callable[[Script], list[Any]]) -> None:
    """The stop of the one before holds for its runs, though no other replica had the lease."""

    async def script(stage: Stage) -> None:
        stage.lead._renewed(0.0)
        before = stage.lead.term
        stage.warp.advance(8)
        stage.lead._renewed(6.0)
        assert [word for _, word in stage.callbacks] == ["elected", "lost", "elected"]
        assert asyncio.Event.is_set(before)
        assert not stage.lead.term.is_set()

    play(script)


def test_a_frozen_process_finds_its_term_over_before_any_timer(play: Callable[[Script], list[Any]]) -> None:
    """Its first action after the freeze must not be a write."""

    async def script(stage: Stage) -> None:
        stage.lead._renewed(0.0)
        stage.warp.advance(30)
        assert stage.lead.term.is_set()
        assert not stage.lead.leads()
        assert stage.callbacks == [(0.0, "elected")]

    play(script)


def test_another_holder_ends_it_at_once(play: Callable[[Script], list[Any]]) -> None:
    """Without a grace period for active writes. The holder is logged once."""

    async def script(stage: Stage) -> None:
        stage.lead._renewed(0.0)
        stage.lead._read(0.0, "you")
        assert stage.lead.term.is_set()
        assert stage.lead.grace() == 0
        stage.lead._read(0.0, "you")

    lines = play(script)
    assert [line["event"] for line in lines] == ["leader.elected", "leader.lost", "leader.standing_by"]
    assert lines[2]["holder"] == "you"


def test_the_next_term_has_a_stop_of_its_own(play: Callable[[Script], list[Any]]) -> None:
    """The runs of the one before stay stopped."""

    async def script(stage: Stage) -> None:
        stage.lead._renewed(0.0)
        before = stage.lead.term
        await asyncio.sleep(8)
        stage.lead._renewed(8.0)
        assert stage.lead.term is not before
        assert not stage.lead.term.is_set()
        assert asyncio.Event.is_set(before)
        assert [word for _, word in stage.callbacks] == ["elected", "lost", "elected"]

    play(script)


def test_a_failure_is_logged_once_until_it_changes(play: Callable[[Script], list[Any]]) -> None:
    """A missing role would otherwise be logged every two seconds."""

    async def script(stage: Stage) -> None:
        stage.lead._failed(FORBIDDEN)
        stage.lead._failed(FORBIDDEN)
        stage.lead._failed(NO_ANSWER)
        stage.lead._renewed(0.0)
        stage.lead._failed(NO_ANSWER)

    lines = play(script)
    assert [line["http_status"] for line in lines if line["event"] == "leader.failed"] == [403, None, None]


def test_nothing_is_sent_after_the_time_of_grace(play: Callable[[Script], list[Any]]) -> None:
    """Until then active calls continue."""

    async def script(stage: Stage) -> None:
        stage.lead._renewed(0.0)
        stage.lead.check()
        await asyncio.sleep(7.5)
        stage.lead.check()
        await asyncio.sleep(2.4)
        with pytest.raises(CallFailed, match="no longer leads"):
            stage.lead.check()

    play(script)
