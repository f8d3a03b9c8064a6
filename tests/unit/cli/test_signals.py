"""Signals set an event or call the daemon, and never kill the process while they are handled."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from keysync.cli.signals import handled, interruptible


async def send(signum: signal.Signals) -> None:
    """Sends a signal to this process and lets the loop handle it."""
    os.kill(os.getpid(), signum)
    await asyncio.sleep(0.01)


async def test_signals_call_a_function_only_inside_the_block() -> None:
    """A signal that is handled does not kill the process."""
    calls: list[int] = []
    with handled(calls.append, signal.SIGUSR1, signal.SIGHUP):
        await send(signal.SIGUSR1)
        await send(signal.SIGHUP)
    assert calls == [signal.SIGUSR1, signal.SIGHUP]
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_the_first_signal_sets_the_exit_code(signum: signal.Signals, code: int) -> None:
    """A second one changes nothing."""
    with interruptible(signal.SIGHUP) as interruption:
        assert interruption.exit_code is None
        await send(signum)
        await send(signal.SIGHUP)
        assert interruption.stop.is_set()
    assert interruption.exit_code == code
