"""The separate process returns the same configuration and the same findings."""

from __future__ import annotations

import os
import pickle
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keysync.config import isolated
from keysync.config.isolated import begin_reading, read_config
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


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules replace those of a library, in processes that this one starts."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.mark.usefixtures("apart")
def test_killed_process_is_replaced(path: Path, modules: Path) -> None:
    """This process then reads the file."""
    (modules / "pydantic.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    assert read_config(path).accounts[0].name == "sampleacct"
    assert "keysync.config.load" in sys.modules


@pytest.fixture
def stuck(tmp_path: Path, modules: Path) -> Iterator[int]:
    """Blocks every process that reads a configuration. A pipe that such a process keeps open, and to which it writes its id."""
    pipe = tmp_path / "started"
    os.mkfifo(pipe)
    (modules / "pydantic.py").write_text(
        f"import os, signal\nos.write(os.open({str(pipe)!r}, os.O_WRONLY), str(os.getpid()).encode())\nsignal.pause()\n"
    )
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    yield descriptor
    os.close(descriptor)


def read_within(descriptor: int, seconds: float) -> bytes:
    """The next bytes from a pipe, empty at its end. Fails after `seconds` without any."""
    assert select.select([descriptor], [], [], seconds)[0]
    return os.read(descriptor, 100)


def test_separate_process_ends_without_its_parent(path: Path, stuck: int, modules: Path) -> None:
    """It has a deadline of its own, because its parent may be killed."""
    code = "import pathlib, sys, keysync.config.isolated as isolated;isolated.read_config(pathlib.Path(sys.argv[1]))"
    (modules / "sitecustomize.py").write_text(
        "import signal\nsignal.alarm = lambda _: signal.setitimer(signal.ITIMER_REAL, 3)"
    )
    env = {**os.environ, "PYTHONPATH": str(modules)}
    with subprocess.Popen([sys.executable, "-c", code, str(path)], env=env) as parent:
        assert int(read_within(stuck, 60)) != parent.pid
        parent.kill()
    assert read_within(stuck, 60) == b""  # the end of the last process that could write to it


@pytest.mark.usefixtures("apart")
def test_timeout_of_the_process_is_an_error(path: Path, stuck: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the file, and the process is killed."""
    monkeypatch.setattr(isolated, "_DEADLINE_SECONDS", 3)
    with pytest.raises(
        ConfigError, match=r"keysync\.yaml: the file could not be read and checked within 3 s"
    ) as caught:
        read_config(path)
    assert caught.value.exit_code == 2
    read_within(stuck, 60)
    assert read_within(stuck, 60) == b""


@pytest.mark.usefixtures("apart")
def test_pipe_is_read_in_this_process(tmp_path: Path) -> None:
    """Another process could not open it, or would consume its content."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen([sys.executable, "-c", f"open({str(pipe)!r}, 'w').write({RIGHT!r})"]):
        assert read_config(pipe).accounts[0].name == "sampleacct"


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize("processors", [1, 2])
def test_reading_goes_on_in_the_background(path: Path, processors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one processor there is no background: the result is read when it is needed."""
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    result = begin_reading(path)
    assert result().accounts[0].name == "sampleacct"
    assert ("keysync.config.load" in sys.modules) == (processors == 1)


def test_no_secret_passes_between_the_processes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result contains the name of the variable, not its value."""
    monkeypatch.setenv("PLANTED", PLANTED)
    path.write_text(RIGHT + SECRET, encoding="utf-8")
    command = [sys.executable, "-m", "keysync.config.isolated", str(path)]
    passed = subprocess.run(command, capture_output=True, check=True).stdout
    assert pickle.loads(passed) == load_config(path, os.environ)  # noqa: S301  # nosec B301  # made by this test
    assert b"PLANTED" in passed
    assert PLANTED.encode() not in passed
    assert PLANTED[:8].encode() not in passed


@pytest.mark.usefixtures("apart")
def test_working_folder_is_not_a_module_path(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with the name of a library must not run because keysync was started in its folder."""
    (path.parent / "pydantic.py").write_text("raise SystemExit(7)", encoding="utf-8")
    monkeypatch.chdir(path.parent)
    assert read_config(path).accounts[0].name == "sampleacct"
    assert "keysync.config.load" not in sys.modules


def test_daemon_does_not_import_the_parser() -> None:
    """A single import anywhere would bring its memory back."""
    code = "import sys, keysync.cli.main, keysync.cli.run, keysync.cli.sync; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"keysync.cli.run", "azure.mgmt.batch"} <= set(loaded)
    assert [module for module in loaded if module.partition(".")[0] in {"pydantic", "pydantic_core", "ruamel"}] == []
