"""The commands that need no configuration: `demo`, `emulator`, `schema`, `--help` and `--version`."""

from __future__ import annotations

import json
import re
import signal
import ssl
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from keysync import __version__
from tests.system.conftest import clean_environment, run_keysync

READY_FIELDS = {
    "authority",
    "resource_manager",
    "ca_bundle",
    "tenant_id",
    "client_id",
    "client_secret",
    "vaults",
    "control",
}


_SLOW_CALLBACK = re.compile(r"^Executing <.* took [0-9.]+ seconds\n", re.MULTILINE)


@contextmanager
def started(*arguments: str, temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """A command that runs until a signal; it is killed at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-X", "dev", "-m", "keysync", *arguments],
        env={**clean_environment(), "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate(timeout=10)


def ends(process: subprocess.Popen[str], signum: signal.Signals) -> tuple[int, str, str]:
    """Exit code, stdout and stderr after the signal, without what asyncio's debug mode says of a slow machine."""
    process.send_signal(signum)
    out, err = process.communicate(timeout=15)
    return process.returncode, out, _SLOW_CALLBACK.sub("", err)


def test_demo_once_ends_by_itself(tmp_path: Path) -> None:
    """Three runs show writes, refusals and failures, exit with 0, and leave no files."""
    began = time.monotonic()
    ran = run_keysync("demo", "--once", "--every", "1", env={"TMPDIR": str(tmp_path)}, cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert time.monotonic() - began < 20
    assert "Traceback" not in ran.err
    assert "created" in ran.out
    assert "refused" in ran.out
    assert "failed" in ran.out
    assert ran.out.index("renderfarm-primary-key") < ran.out.index("regenerated in Azure")
    assert "updated" in ran.out
    assert "3 runs" in ran.out
    assert list(tmp_path.rglob("*")) == []


def test_a_demo_shows_no_secret_at_any_level(tmp_path: Path) -> None:
    """The debug log shows no key, token or sample value."""
    ran = run_keysync("demo", "--once", "--every", "1", "--log-level", "debug", env={"TMPDIR": str(tmp_path)})
    assert ran.code == 0, ran.err
    assert "Request URL" in ran.err
    everything = ran.out + ran.err
    assert re.findall(r"[A-Za-z0-9+/]{60,}={0,2}|eyJ\w+|made by hand", everything) == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_demo_ends_cleanly_on_a_signal(tmp_path: Path, signum: signal.Signals) -> None:
    """Ctrl-C or closing the terminal ends a demo: exit code 0, a closing line, no traceback and no temporary files."""
    with started("demo", "--every", "1", temporary=tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "run 2" in line:
                break
        code, out, err = ends(process, signum)
    assert code == 0, err
    assert "ended" in out
    assert err == ""
    assert list(tmp_path.rglob("*")) == []


def test_an_emulator_serves_once_its_ready_file_is_there(tmp_path: Path) -> None:
    """The ready file has the contract's fields, is readable by its owner only and is correct; SIGTERM ends the command
    with 0.
    """
    temporary, ready = tmp_path / "tmp", tmp_path / "ready.json"
    temporary.mkdir()
    with started("emulator", "--ready-file", str(ready), temporary=temporary) as process:
        wait_for(ready, process)
        ready_data = json.loads(ready.read_text())
        assert set(ready_data) >= READY_FIELDS
        assert stat.S_IMODE(ready.stat().st_mode) == 0o600
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ready_data["ca_bundle"])),
        )
        for url in ready_data["vaults"].values():
            assert url.startswith("https://")
        tenant = f"{ready_data['authority']}/{ready_data['tenant_id']}/v2.0/.well-known/openid-configuration"
        with opener.open(tenant, timeout=5) as reply:
            assert reply.status == 200
        with opener.open(ready_data["control"], timeout=5) as reply:
            assert reply.status == 200
        code, out, err = ends(process, signal.SIGTERM)
    assert code == 0, err
    assert err == ""
    assert ready_data["resource_manager"] in out
    assert list(temporary.rglob("*")) == []


def test_an_emulator_prints_a_configuration(tmp_path: Path) -> None:
    """A first sync needs only the printed configuration and variables."""
    data, ready, config = tmp_path / "data.yaml", tmp_path / "ready.json", tmp_path / "keysync.yaml"
    account = {"subscription_id": "11111111-2222-3333-4444-555555555555", "resource_group": "group", "name": "alpha"}
    data.write_text(json.dumps({"accounts": [account], "vaults": [{"name": "kv-alpha"}]}))
    arguments = ["emulator", "--data", str(data), "--ready-file", str(ready), "--latency", "1ms", "--limits", "azure"]
    with started(*arguments, temporary=tmp_path) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("# Press Ctrl-C"):
                break
        config.write_text("".join(lines[: lines.index("# Environment\n")]))
        variables = dict(re.findall(r"^export (AZURE_\w+)=(\S+)$", "".join(lines), re.MULTILINE))
        ran = run_keysync("sync", "-c", str(config), "--output", "json", env=variables, cwd=tmp_path)
        assert ran.code == 0, ran.err
        assert ran.outcomes() == {
            "kv-alpha/alpha-primary-key": "created",
            "kv-alpha/alpha-secondary-key": "created",
        }
        assert ends(process, signal.SIGINT)[0] == 0


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Until the emulator has written its ready file, in place of an earlier one."""
    deadline, before = time.monotonic() + 15, path.stat().st_ino if path.exists() else None
    while (
        (not path.exists() or path.stat().st_ino == before) and process.poll() is None and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    assert path.exists()


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_written_files_are_all_that_a_sync_needs(tmp_path: Path, shell: str) -> None:
    """The configuration and the environment, both for their owner only; the secret of the data file may have any character."""
    data, config, env, ready = (tmp_path / name for name in ("data.yaml", "k.yaml", "e.env", "ready.json"))
    account = {"subscription_id": "11111111-2222-3333-4444-555555555555", "resource_group": "group", "name": "alpha"}
    secret = 'it\'s a "$HOME" `secret`'
    data.write_text(json.dumps({"client_secret": secret, "accounts": [account], "vaults": [{"name": "0x1"}]}))
    for path in (config, env):
        path.write_text("of an emulator that has ended")
        path.chmod(0o644)
    options = ["--write-config", str(config), "--env-file", str(env), "--ready-file", str(ready)]
    with started("emulator", "--data", str(data), *options, temporary=tmp_path) as process:
        wait_for(ready, process)
        assert {stat.S_IMODE(path.stat().st_mode) for path in (config, env, ready)} == {0o600}
        command = f". ./e.env; exec '{sys.executable}' -m keysync sync -c k.yaml --output json"
        environ = clean_environment()
        done = subprocess.run(
            [shell, "-c", command], env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert [item["outcome"] for item in json.loads(done.stdout)["items"]] == ["created", "created"]
        assert ends(process, signal.SIGTERM)[0] == 0


@pytest.mark.parametrize("option", ["--write-config", "--env-file", "--ready-file"])
def test_a_link_in_place_of_a_file_is_refused(tmp_path: Path, option: str) -> None:
    """Before anything is served; its target stays as it is."""
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("mine")
    link.symlink_to(target)
    ran = run_keysync("emulator", option, str(link), cwd=tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert f"{option} {link}: it is a symbolic link, expected a regular file or nothing" in ran.err
    assert (link.is_symlink(), target.read_text()) == (True, "mine")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--env-file", "one", "--ready-file", "./one"], "--env-file, --ready-file: name a file of its own for each"),
        (["--env-file", "missing/one"], "--env-file missing/one: its folder does not exist or is not writable"),
        (["--write-config", "k.yaml", "--data", "no-vault.yaml"], "--write-config needs an account and a vault"),
        (["--latency", "soon"], "--latency is 'soon'"),
        (["--data", "nowhere.yaml"], "nowhere.yaml"),
        (["--port", "70000"], "65535"),
    ],
)
def test_an_emulator_refuses_wrong_options(tmp_path: Path, arguments: list[str], part: str) -> None:
    """Exit code 2 and the reason, before the server starts."""
    (tmp_path / "no-vault.yaml").write_text("vaults: []")
    ran = run_keysync("emulator", *arguments, cwd=tmp_path)
    assert ran.code == 2
    assert part in ran.err
    assert "Traceback" not in ran.err


def test_version_help_and_schema() -> None:
    """The version is the package's, the help lists each command, and the schema equals the file in the repository."""
    assert run_keysync("--version").out == f"keysync {__version__}\n"
    help_text = run_keysync("--help")
    assert help_text.code == 0
    for command in ("sync", "plan", "check", "demo", "emulator", "schema"):
        assert command in help_text.out
    schema = run_keysync("schema")
    kept = Path(__file__).parents[2] / "config" / "keysync.schema.json"
    assert (schema.code, schema.out) == (0, kept.read_text(encoding="utf-8"))
