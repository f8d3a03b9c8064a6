"""Text from a service cannot control the terminal."""

from __future__ import annotations

from collections.abc import Callable

from keysync.emulator import Fault
from tests.system.conftest import World

HOSTILE = "a\x1b[2Jb\x9b31mc\u202ed"


def test_the_console_log_has_no_control_characters(make_quick_world: Callable[..., World]) -> None:
    """The console log shows a service's code, message and target without control characters."""
    world = make_quick_world("sampleacct")
    world.configure(["sampleacct"])
    fault = Fault(operation="listKeys", kind="status", status=409, code=HOSTILE, message=HOSTILE)
    world.running.do(lambda azure: azure.faults.add(fault))
    ran = world.run("sync", "--log-format", "console", "--log-level", "debug")
    assert ran.code == 1
    assert "[2J" in ran.err
    for text in (ran.err, ran.out):
        assert not [char for char in text if char in "\x1b\x9b\u202e"]
