"""A closed pipe or a full disk does not interrupt a command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.conftest import Ran, clean_environment

FULL = Path("/dev/full")
COMMAND = [sys.executable, "-W", "error", "-m", "keysync"]


def run_into(stdout: int | None, *arguments: str) -> Ran:
    """A command whose stdout is a file descriptor."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=clean_environment(),
        text=True,
        timeout=60,
        check=False,
    )
    return Ran(done.returncode, "", done.stderr)


def closed_pipe() -> int:
    """The writing end of a pipe whose reading end is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize(("arguments", "code"), [(("schema",), 0), (("--version",), 0), (("schema", "--nonsense"), 2)])
def test_a_closed_pipe_does_not_change_the_exit_code(arguments: tuple[str, ...], code: int) -> None:
    """As in `keysync schema | head -1`, which prints no error either."""
    pipe = closed_pipe()
    try:
        ran = run_into(pipe, *arguments)
    finally:
        os.close(pipe)
    assert ran.code == code, ran.err
    assert ("stdout" in ran.err, "rror" in ran.err) == (False, code == 2)


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("argument", ["schema", "--help", "--version"])
def test_a_full_disk_is_reported(argument: str) -> None:
    """The result is incomplete, so the exit code is 1."""
    with FULL.open("wb") as full:
        ran = run_into(full.fileno(), argument)
    assert ran.code == 1
    assert ran.err == "keysync: the result could not be written to stdout: No space left on device\n"


def test_the_demo_ends_when_its_pipe_is_closed() -> None:
    """Otherwise it would run forever."""
    with subprocess.Popen(
        [*COMMAND, "demo", "--every", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(),
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert "embedded Azure is up" in process.stdout.readline()
            process.stdout.close()
            assert process.wait(60) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()
