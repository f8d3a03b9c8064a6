"""Signals set an event or call the daemon, and never kill the process while they are handled."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from keysync.cli.signals import DaemonSignals, interruptible


async def send(signum: signal.Signals) -> None:
    """Sends a signal to this process and lets the loop handle it."""
    os.kill(os.getpid(), signum)
    await asyncio.sleep(0.01)


async def test_daemon_signals_call_back_only_inside_the_block() -> None:
    """Before and after it they do nothing."""
    calls: list[str] = []
    signals = DaemonSignals()
    with signals.installed():
        await send(signal.SIGUSR1)
        with signals.calling(lambda: calls.append("usr1"), lambda: calls.append("hup")):
            await send(signal.SIGUSR1)
            await send(signal.SIGHUP)
        await send(signal.SIGHUP)
    assert calls == ["usr1", "hup"]


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_the_first_signal_sets_the_exit_code(signum: signal.Signals, code: int) -> None:
    """A second one changes nothing."""
    with interruptible(signal.SIGHUP) as interruption:
        assert interruption.exit_code is None
        await send(signum)
        await send(signal.SIGHUP)
        assert interruption.stop.is_set()
    assert interruption.exit_code == code
