"""A real Prometheus scrapes a real daemon, and promtool finds no problem."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.failing_fleet import make_failing_fleet
from tests.support.prometheus import fetch, find_tool, lint, prometheus_of
from tests.system.conftest import World, clean_environment

pytestmark = pytest.mark.slow

MakeWorld = Callable[..., World]
_PATIENCE = 30.0


@dataclass(frozen=True)
class Daemon:
    """A running `keysync run`; `url` is the address of its page."""

    url: str
    process: subprocess.Popen[bytes]

    def scrape(self) -> str:
        """The body of a scrape."""
        return fetch(f"{self.url}/metrics")

    def scrape_with(self, line: str) -> str:
        """The same, once it contains `line`."""
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            results = self.scrape()
            if line in results.splitlines():
                return results
            time.sleep(0.05)
        pytest.fail(f"no {line} in {self.scrape()}")


@contextmanager
def running(world: World) -> Iterator[Daemon]:
    """`keysync run` after its first run."""
    log = world.folder / "daemon.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-X", "dev", "-m", "keysync", "run", "-c", str(world.path)],
            env={**clean_environment(), **world.running.environ},
            cwd=world.folder,
            stdout=stream,
            stderr=stream,
        )
    try:
        yield Daemon(_ready(process, log), process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)


def _ready(process: subprocess.Popen[bytes], log: Path) -> str:
    until, url = time.monotonic() + _PATIENCE, None
    while time.monotonic() < until and process.poll() is None:
        try:
            url = url or _address(log.read_text())
            if url is not None:
                fetch(f"{url}/readyz")
                return url
        except OSError:
            pass  # 503: the first run has not finished
        time.sleep(0.05)
    pytest.fail(f"keysync run does not get ready: {log.read_text()}")


def _address(log: str) -> str | None:
    lines = [json.loads(line) for line in log.splitlines(keepends=True) if line.startswith("{") and line.endswith("\n")]
    return next((str(line["url"]) for line in lines if line["event"] == "daemon.started"), None)


@pytest.fixture
def tools() -> None:
    """Skips the tests (fails them in CI) before anything is started."""
    find_tool("prometheus")
    find_tool("promtool")


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """A fleet with some of everything: writes, a refusal, a failure, throttling."""
    return make_failing_fleet(make_world, retry_after=1200)


@pytest.mark.usefixtures("tools")
def test_promtool_finds_no_problem_in_a_scrape(world: World) -> None:
    """Names, types, units and help texts follow Prometheus's rules: exit code 0 and no output."""
    with running(world) as daemon:
        scrape = daemon.scrape()
    for name in ("keysync_runs_total", "keysync_secrets", "keysync_credential_breaker", "process_open_fds"):
        assert f"\n{name}" in scrape
    assert lint(scrape) == (0, "")


@pytest.mark.usefixtures("tools")
def test_promtool_finds_no_problem_in_a_textfile(world: World, tmp_path: Path) -> None:
    """node_exporter refuses a malformed file together with all others."""
    path = tmp_path / "keysync.prom"
    assert world.sync("--metrics-file", str(path)).code == 1
    assert lint(path.read_text()) == (0, "")


@pytest.mark.usefixtures("tools")
def test_prometheus_scrapes_the_daemon(world: World, tmp_path: Path) -> None:
    """Runs, failures and the state of each account can be queried."""
    with running(world) as daemon, prometheus_of(daemon.url.removeprefix("http://"), tmp_path) as prometheus:
        (runs,) = prometheus.first("sum(keysync_runs_total) > 0")
        assert float(runs["value"][1]) >= 1
        assert prometheus.query('up{job="keysync"}')[0]["value"][1] == "1"
        assert prometheus.first('keysync_accounts_skipped_total{reason="backing_off"} > 0')
        (denied,) = prometheus.first('keysync_azure_requests_total{operation="listKeys",status="403"}')
        assert denied["metric"]["service"] == "batch"
        assert float(prometheus.query('keysync_azure_throttled_total{service="batch"}')[0]["value"][1]) > 0
        states = prometheus.query("keysync_accounts_by_state > 0")
        assert {sample["metric"]["state"]: sample["value"][1] for sample in states}.items() >= {
            ("failing", "2"),
            ("refused", "1"),
        }
        seen = prometheus.query("time() - keysync_account_last_success_timestamp_seconds")
        assert [sample["metric"]["account"].rsplit("/", 1)[-1] for sample in seen] == ["alpha"]


def test_metrics_of_accounts_removed_by_a_reload_disappear(world: World) -> None:
    """A series of an account that is no longer served would raise a false alarm."""
    with running(world) as daemon:
        before = daemon.scrape()
        document = json.loads(world.path.read_text())
        document["accounts"] = [account for account in document["accounts"] if account["name"] == "handmade"]
        del document["vaults"]["other"]
        world.path.write_text(json.dumps(document))
        daemon.process.send_signal(signal.SIGHUP)
        after = daemon.scrape_with('keysync_config_reloads_total{result="success"} 1.0')
    for gone in ("batchAccounts/alpha", 'vault="other"'):
        assert gone in before
        assert gone not in after
    assert "batchAccounts/handmade" in after
