"""The separate process returns the same configuration and the same findings."""

from __future__ import annotations

import os
import pickle
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keysync.config import isolated
from keysync.config.isolated import Reading, processors, read_config
from keysync.config.load import load_config
from keysync.errors import ConfigError
from tests.unit.config.conftest import RIGHT

SECRET = "credential: {type: client_secret, tenant_id: t, client_id: c, client_secret: '${PLANTED}'}\n"
PLANTED = "8Z-planted-client-secret-0001"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "keysync.yaml"
    file.write_text(RIGHT, encoding="utf-8")
    return file


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Simulates a process that has not imported the parser."""
    monkeypatch.delitem(sys.modules, "keysync.config.load")
    yield
    monkeypatch.undo()


@pytest.mark.usefixtures("apart")
def test_separate_process_returns_the_same_configuration(path: Path) -> None:
    """Every setting is the same, and this process does not import the parser."""
    path.write_text(RIGHT + "owner: us\nschedule: {every: 90s}\n", encoding="utf-8")
    config = read_config(path)
    assert "keysync.config.load" not in sys.modules
    assert config == load_config(path, os.environ)
    assert (config.owner, config.accounts[0].name) == ("us", "sampleacct")


@pytest.mark.usefixtures("apart")
def test_separate_process_returns_the_same_findings(path: Path) -> None:
    """Each finding has its position."""
    path.write_text(RIGHT + "owner: 5\nshedule: {}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as there:
        read_config(path)
    with pytest.raises(ConfigError) as here:
        load_config(path, os.environ)
    assert there.value.findings == here.value.findings
    assert len(there.value.findings) == 2


@pytest.mark.usefixtures("apart")
def test_killed_process_is_replaced(path: Path) -> None:
    """This process then reads the file."""
    reading = Reading(path, apart=True)
    process = reading._process
    assert process is not None
    process.send_signal(signal.SIGKILL)
    assert reading.result().accounts[0].name == "sampleacct"


@pytest.fixture
def stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Blocks every process that reads a configuration. Returns a pipe to which the process writes its id and which it never closes."""
    pipe, modules = tmp_path / "started", tmp_path / "modules"
    os.mkfifo(pipe)
    modules.mkdir()
    (modules / "pydantic.py").write_text(
        f"import os, signal\nos.write(os.open({str(pipe)!r}, os.O_WRONLY), str(os.getpid()).encode())\nsignal.pause()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(modules))
    monkeypatch.syspath_prepend(modules)
    return os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)


def read_within(descriptor: int, seconds: float) -> bytes:
    """The next bytes from a pipe, empty at its end. Fails after `seconds` without any."""
    assert select.select([descriptor], [], [], seconds)[0]
    return os.read(descriptor, 100)


def test_separate_process_ends_with_its_parent(path: Path, stuck: int) -> None:
    """Also if the parent is killed: the kernel then closes the pipe."""
    code = "import pathlib, sys, keysync.config.isolated as r; r.read_config(pathlib.Path(sys.argv[1]))"
    with subprocess.Popen([sys.executable, "-c", code, str(path)]) as parent:
        assert int(read_within(stuck, 60)) != parent.pid
        parent.kill()
    assert read_within(stuck, 60) == b""  # the end of the last process that could write to it
    os.close(stuck)


@pytest.mark.usefixtures("apart")
def test_timeout_of_the_process_is_an_error(path: Path, stuck: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the file, and the process is killed."""
    reading = Reading(path, apart=True)
    read_within(stuck, 60)
    monkeypatch.setattr(isolated, "_DEADLINE_SECONDS", 0.01)
    with pytest.raises(ConfigError, match=r"keysync\.yaml: the file could not be read and checked within") as caught:
        reading.result()
    assert caught.value.exit_code == 2
    assert read_within(stuck, 60) == b""
    os.close(stuck)


@pytest.mark.usefixtures("apart")
def test_pipe_is_read_in_this_process(tmp_path: Path) -> None:
    """Another process could not open it, or would consume its content."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = Reading(pipe, apart=True)
    assert reading._process is None
    with subprocess.Popen([sys.executable, "-c", f"open({str(pipe)!r}, 'w').write({RIGHT!r})"]):
        assert reading.result().accounts[0].name == "sampleacct"


def test_no_secret_passes_between_the_processes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result contains the name of the variable, not its value."""
    monkeypatch.setenv("PLANTED", PLANTED)
    path.write_text(RIGHT + SECRET, encoding="utf-8")
    process = isolated._start(path)
    assert process is not None
    passed, _ = process.communicate()
    assert pickle.loads(passed) == load_config(path, os.environ)  # noqa: S301  # nosec B301  # made by this test
    assert b"PLANTED" in passed
    assert PLANTED.encode() not in passed
    assert PLANTED[:8].encode() not in passed


def test_working_folder_is_not_a_module_path(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with the name of a library must not run because keysync was started in its folder."""
    (path.parent / "pydantic.py").write_text("raise SystemExit(7)", encoding="utf-8")
    monkeypatch.chdir(path.parent)
    process = isolated._start(path)
    assert process is not None
    process.communicate()
    assert process.returncode == 0


def test_daemon_does_not_import_the_parser() -> None:
    """A single import anywhere would bring its memory back."""
    code = "import sys, keysync.cli.main, keysync.cli.run, keysync.cli.sync; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"keysync.cli.run", "azure.mgmt.batch"} <= set(loaded)
    assert [module for module in loaded if module.partition(".")[0] in {"pydantic", "pydantic_core", "ruamel"}] == []


@pytest.mark.parametrize(
    ("text", "most"), [("150000 100000\n", 1.5), ("max 100000\n", None), ("", None), ("100000 0", None)]
)
def test_container_quota_limits_the_processors(tmp_path: Path, text: str, most: float | None) -> None:
    """Without a quota all processors count."""
    quota = tmp_path / "cpu.max"
    quota.write_text(text, encoding="ascii")
    there = processors(tmp_path / "none")
    assert there >= 1
    assert processors(quota) == (there if most is None else min(there, most))


def test_unpickled_accounts_share_their_strings(path: Path) -> None:
    """The id of an account, which tags of its secrets repeat, exists once in memory."""
    path.write_text(RIGHT, encoding="utf-8")
    (account,) = load_config(path, os.environ).accounts
    (again,) = pickle.loads(pickle.dumps((account,)))  # noqa: S301  # nosec B301  # made by this test
    assert (again, again.key, again.secret_names()) == (account, account.key, account.secret_names())
    assert again.resource_id is account.resource_id
