"""`keysync run` against the embedded Azure: scheduled runs, signals, reloads, the page and shutdown."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from keysync.emulator import Fault
from tests.support.azure import GROUP, SUBSCRIPTION, data, running_azure
from tests.support.daemon import Cold, Daemon, Holding, running, serving
from tests.support.other_writers import remove_account
from tests.support.receiver import loopback_tls, receiving_in_a_thread
from tests.support.warm_process import WarmKeysync, warm_keysync
from tests.system.conftest import World, clean_environment

MakeWorld = Callable[..., World]
# The limits wait for slow accounts. On a busy machine any account is slow, so only tests with a hung one use a short wait.
TIMEOUTS = {"request": "2s", "account": "20s", "collect": "5s", "shutdown": "2s"}
SECOND: dict[str, Any] = {"schedule": {"every": "1s"}, "timeouts": TIMEOUTS, "listen": "127.0.0.1:0", "limits": {"changes_per_day": None}}  # fmt: skip
HOUR: dict[str, Any] = {**SECOND, "schedule": {"every": "1h"}}
DENIED = {"kind": "status", "status": 403, "code": "AuthorizationFailed", "message": "no role"}


@pytest.fixture(scope="module")
def warm() -> Iterator[WarmKeysync]:
    """Forks daemons, so that no test waits a second for the imports."""
    with warm_keysync(clean_environment()) as warm_process:
        yield warm_process


def environment(world: World, **more: str) -> dict[str, str]:
    return {**clean_environment(), **world.running.environ, **more}


def aim(world: World, *faults: dict[str, Any]) -> None:
    """Replaces the active faults with `faults`."""

    def replace(azure: Any) -> None:
        azure.faults.clear()
        for fault in faults:
            azure.faults.add(Fault(**fault))

    world.running.do(replace)


def served_by(world: World, operation: str, target: str) -> int:
    """The number of requests to Azure of one kind."""
    return world.running.do(
        lambda azure: sum(request.operation == operation and request.target == target for request in azure.requests)
    )


def newest(world: World, secret: str, vault: str = "main") -> str | None:
    versions = world.versions(vault, secret)
    return str(versions[-1].value) if versions else None


def live(world: World, account: str) -> tuple[str, str]:
    return world.running.do(lambda azure: azure.state.keys(account))


def regenerate(world: World, account: str, key: str = "Primary") -> str:
    """Regenerates a key and returns its new value."""
    world.running.do(lambda azure: azure.state.regenerate(account, key))
    return live(world, account)[key == "Secondary"]


# One daemon for all tests that only read from it


class Shared:
    """A daemon with accounts in sync, denied, hung, on a slow schedule, and one whose keys are regenerated."""

    def __init__(self, world: World, daemon: Daemon) -> None:
        self.world = world
        self.daemon = daemon


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    accounts = ("fine", "rotating", {"name": "denied", "fault": "role_missing"}, {"name": "hung", "fault": "hang"}, "hourly")  # fmt: skip
    with ExitStack() as stack:
        azure = stack.enter_context(running_azure(data(*accounts)))
        world = World(azure, tmp_path_factory.mktemp("shared"))
        hourly = {"name": "hourly", "schedule": {"every": "1h"}}
        world.configure(
            ["fine", "rotating", "denied", "hung", hourly],
            **{**SECOND, "timeouts": {**TIMEOUTS, "request": "30s", "account": "1s", "collect": "200ms"}},
        )
        daemon = stack.enter_context(running(world.path, environment(world)))
        daemon.until_runs(3)
        daemon.until(lambda: daemon.get("/readyz").status == 200)
        yield Shared(world, daemon)


def test_the_first_run_is_at_the_start(shared: Shared) -> None:
    """It does not wait for the first interval. The log has the address of the page."""
    (started,) = shared.daemon.events("daemon.started")
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9][0-9]*", started["url"])
    assert (started["accounts"], started["vaults"]) == (5, 1)
    assert newest(shared.world, "hourly-primary-key") == live(shared.world, "hourly")[0]


def test_a_regenerated_key_is_in_the_vault_after_the_next_run(shared: Shared) -> None:
    """It becomes one new version, with one line in the log and one entry in the history."""
    before = len(shared.world.versions("main", "rotating-secondary-key"))
    new = regenerate(shared.world, "rotating", "Secondary")
    shared.daemon.until(lambda: newest(shared.world, "rotating-secondary-key") == new)
    shared.daemon.until_runs(2)
    versions = shared.world.versions("main", "rotating-secondary-key")
    assert len(versions) == before + 1
    lines = [line for line in shared.daemon.events("secret.updated") if line["secret"] == "rotating-secondary-key"]
    assert [line["version"] for line in lines] == [versions[-1].version]
    writes = [write for write in shared.daemon.status()["writes"] if write["outcome"] == "updated"]
    assert [write["version"] for write in writes] == [versions[-1].version]


def test_a_hung_account_does_not_delay_the_others(shared: Shared) -> None:
    """While it is busy the runs continue without it, and each logs the number of skipped accounts."""
    daemon = shared.daemon
    daemon.until(lambda: daemon.account("hung")["busy"])
    attempts = daemon.account("hung")["last_attempt"]
    daemon.until(lambda: any(line["busy"] == 1 for line in daemon.events("run.skipped")))
    assert attempts is not None
    assert daemon.account("hung")["state"] == "failing"
    assert daemon.account("fine")["state"] in {"in_sync", "changed"}


def test_a_denied_account_does_not_affect_the_others(shared: Shared) -> None:
    """The page shows its failure, the hint and the time of the next try. All other accounts are in sync."""
    denied = shared.daemon.account("denied")
    assert denied["state"] == "failing"
    assert denied["next_try"] is not None
    error = denied["secrets"][0]["error"]
    assert (error["http_status"], error["cloud_error"]["code"]) == (403, "AuthorizationFailed")
    assert "listKeys/action" in error["hint"]
    assert [shared.daemon.account(name)["failures"] for name in ("fine", "rotating", "hourly")] == [0, 0, 0]
    assert newest(shared.world, "fine-primary-key") == live(shared.world, "fine")[0]


def test_a_repeated_failure_is_logged_once(shared: Shared) -> None:
    """However many runs fail in the same way."""
    shared.daemon.until(lambda: served_by(shared.world, "listKeys", "denied") >= 3)
    shared.daemon.until_runs(1)
    lines = [line for line in shared.daemon.events("secret.failed") if "denied" in line["secret"]]
    assert [line["key"] for line in lines] == ["primary"]


def test_an_account_can_have_its_own_schedule(shared: Shared) -> None:
    """It has one run while the others have several."""
    assert served_by(shared.world, "listKeys", "fine") >= 3
    assert served_by(shared.world, "listKeys", "hourly") == 1
    hourly, fine = shared.daemon.account("hourly"), shared.daemon.account("fine")
    assert (hourly["schedule"], fine["schedule"]) == ("every 1h", "every 1s")
    assert hourly["next_try"] > fine["next_try"]
    assert hourly["last_attempt"] <= fine["last_attempt"]


def test_the_probes_report_liveness_and_readiness(shared: Shared) -> None:
    """The reply lists the stale accounts; they do not make the daemon unready."""
    daemon = shared.daemon
    live_reply = daemon.get("/healthz")
    assert (live_reply.status, live_reply.json()) == (200, {"live": True, "reason": None})
    daemon.until(lambda: len(daemon.get("/readyz").json()["stale_accounts"]) == 2)
    ready = daemon.get("/readyz")
    assert (ready.status, ready.json()["ready"]) == (200, True)
    names = {account.rsplit("/", 1)[-1] for account in ready.json()["stale_accounts"]}
    assert names == {"denied", "hung"}


def test_the_page_and_the_api_show_the_same(shared: Shared) -> None:
    """Both have every account, and the content security policy allows only the page's own resources."""
    status = shared.daemon.status()
    assert [account["name"] for account in status["accounts"]] == ["fine", "rotating", "denied", "hung", "hourly"]
    assert status["counts"]["secrets"] == 10
    assert (status["every"], status["ready"], status["live"], status["config_error"]) == ("every 1s", True, True, None)
    (vault,) = status["vaults"]
    assert (vault["name"], vault["breaker"]) == ("main", "closed")
    page = shared.daemon.get("/")
    assert page.status == 200
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    for name in ("fine", "rotating", "denied", "hung", "hourly"):
        assert name in page.text


@pytest.mark.parametrize("path", ["/", "/api/status", "/healthz", "/readyz", "/metrics"])
def test_nothing_can_be_triggered_over_http(shared: Shared, path: str) -> None:
    """Every endpoint is read-only."""
    assert shared.daemon.get(path, method="HEAD").status == 200
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert shared.daemon.get(path, method=method).status == 405


def test_the_metrics_have_their_names_and_values(shared: Shared) -> None:
    """The metrics of the contract and of the snapshot."""
    text = shared.daemon.get("/metrics").text

    def value(series: str) -> float:
        (sample,) = re.findall(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
        return float(sample)

    account = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Batch/batchAccounts"
    assert value('keysync_runs_total{result="failed"}') >= 1
    assert value("keysync_run_duration_seconds_count") >= 3
    assert value('keysync_secret_outcomes_total{outcome="created",vault="main"}') == 6
    assert value('keysync_azure_requests_total{operation="setSecret",service="key_vault",status="200"}') >= 6
    assert value('keysync_azure_requests_total{operation="listKeys",service="batch",status="403"}') >= 1
    assert value(f'keysync_account_last_success_timestamp_seconds{{account="{account}/fine"}}') > 1.7e9
    assert value(f'keysync_account_failures{{account="{account}/denied"}}') >= 1
    assert value(f'keysync_account_failures{{account="{account}/fine"}}') == 0
    assert value('keysync_vault_breaker{vault="main"}') == 0
    assert value("keysync_config_last_reload_successful") == 1
    assert value("keysync_safety_limit_active") == 0
    assert f'{{account="{account}/denied"}}' not in "".join(re.findall("keysync_account_last_success.*", text))


# Start and shutdown


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_time_and_with_the_write_in_flight(
    make_world: MakeWorld, warm: WarmKeysync, keysync: WarmKeysync, signum: signal.Signals
) -> None:
    """Code 0 although an account hangs and further signals arrive. The vault has one version from the write, also after
    the next run.
    """
    world = make_world("writing", {"name": "hung", "fault": "hang"})
    world.configure([{"name": "writing", "secrets": {"secondary": None}}, "hung"], **{**HOUR, "timeouts": {**TIMEOUTS, "collect": "1s", "shutdown": "8s"}})  # fmt: skip
    with running(world.path, environment(world), warm=warm) as daemon, Holding(world.running, "setSecret") as holding:
        assert holding.came.wait(10)
        daemon.send(signum)
        for late in (signal.SIGUSR1, signal.SIGHUP, signum):
            daemon.send(late)
        daemon.until(lambda: daemon.get("/healthz").status)
        holding.let_go()
        assert daemon.ended(8) == 0
        (ended,) = daemon.events("daemon.ended")
        assert ended["signal"] == signum
        assert daemon.events("daemon.shutdown_timeout") == []
        assert daemon.stray == []
        assert [line["secret"] for line in daemon.events("secret.created")] == ["writing-primary-key"]
    assert len(world.versions("main", "writing-primary-key")) == 1
    aim(world)
    done = keysync.run(
        ["sync", "-c", str(world.path), "--account", "writing"], env=environment(world), folder=world.folder
    )
    assert done.code == 0, done.err
    assert len(world.versions("main", "writing-primary-key")) == 1


@pytest.mark.parametrize("reader", ["late", "silent", "gone"])
def test_a_stderr_without_reader_does_not_stop_the_daemon(make_world: MakeWorld, tmp_path: Path, reader: str) -> None:
    """Neither a full pipe nor a closed one stops the runs, and the exit code is 0. The lines that are read are
    complete.
    """
    world = make_world("alpha")
    world.configure(["alpha"], **SECOND)
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    command = [sys.executable, "-m", "keysync", "--log-level", "debug", "run", "-c", str(world.path)]
    with ExitStack() as stack:
        pipe = stack.enter_context(os.fdopen(reading, "rb"))
        process = subprocess.Popen(command, env=environment(world), stdout=subprocess.DEVNULL, stderr=writing)
        os.close(writing)
        stack.callback(process.wait)
        stack.callback(process.kill)
        daemon = Daemon(Cold(process), tmp_path / "unread")
        (tmp_path / "unread").touch()
        began = pipe.readline()
        while b"daemon.started" not in began:
            began = pipe.readline()
        if reader == "gone":
            pipe.close()
        daemon.until(lambda: newest(world, "alpha-primary-key"))
        for _ in range(3):
            new = regenerate(world, "alpha")
            daemon.until(lambda new=new: newest(world, "alpha-primary-key") == new)  # type: ignore[misc]
        process.send_signal(signal.SIGTERM)
        if reader == "late":
            log = [json.loads(line) for line in pipe]
            assert [line["event"] for line in log].count("secret.updated") == 3
            assert log[-1]["event"] == "daemon.ended"
        assert process.wait(60) == 0


def test_it_ends_in_time_although_everything_hangs(make_world: MakeWorld, warm: WarmKeysync, tmp_path: Path) -> None:
    """A write, the webhook and the trace collector all hang; one deadline covers them together."""
    world = make_world("alpha", "beta")
    context, bundle = loopback_tls(tmp_path)
    with receiving_in_a_thread(context) as hook, receiving_in_a_thread() as collector:
        hook.answers = ["hang"] * 50
        collector.answers = ["hang"] * 50
        (tmp_path / "signing").write_text("a-secret-that-signs-the-requests-of-this-test")
        world.configure(
            ["alpha", "beta"],
            notify={"url": f"{hook.base}/hook", "secret_file": str(tmp_path / "signing")},
            **SECOND,
        )
        env = environment(world, SSL_CERT_FILE=str(bundle), OTEL_EXPORTER_OTLP_ENDPOINT=collector.base)
        with running(world.path, env, warm=warm) as daemon:
            daemon.until(lambda: hook.received)
            aim(world, {"operation": "setSecret", "kind": "hang"})
            regenerate(world, "beta")
            daemon.until(lambda: served_by(world, "setSecret", "main/beta-primary-key") == 2)
            # The deadline, plus a second for the process itself.
            assert daemon.end(within=2 + 1) == 0
            assert daemon.stray == []


def test_it_runs_as_pid_1(make_world: MakeWorld) -> None:
    """As in a container without an init process, where a signal without a handler is lost."""
    unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:  # fmt: skip
        message = "this machine does not allow process namespaces"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    world = make_world("alpha")
    world.configure(["alpha"], **HOUR)
    with running(world.path, environment(world), before=unshare) as daemon:
        children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
        daemon.pid = int(children[0])
        namespaced = Path(f"/proc/{daemon.pid}/status").read_text()
        assert re.search(r"^NSpid:\s+\d+\s+1$", namespaced, re.MULTILINE)
        daemon.until(lambda: newest(world, "alpha-primary-key"))
        new = regenerate(world, "alpha")
        daemon.send(signal.SIGUSR1)
        daemon.until(lambda: newest(world, "alpha-primary-key") == new)
        assert daemon.end() == 0
        assert daemon.events("daemon.ended")


def test_a_port_in_use_is_an_error_at_the_start(make_world: MakeWorld, keysync: WarmKeysync) -> None:
    """Code 2, one sentence with the address, and no request to Azure."""
    world = make_world("alpha")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        world.configure(["alpha"], **{**HOUR, "listen": address})
        done = keysync.run(["run", "-c", str(world.path)], env=environment(world), folder=world.folder)
    assert done.code == 2
    assert f"keysync: listen {address}: " in done.err
    assert "Traceback" not in done.err
    assert world.running.do(lambda azure: sum(azure.counts.values())) == 0


def test_a_bad_configuration_is_an_error_at_the_start(make_world: MakeWorld, keysync: WarmKeysync) -> None:
    """Code 2 with file and key."""
    world = make_world("alpha")
    world.configure(["alpha"], **{**HOUR, "schedule": {"every": "1ms"}})
    done = keysync.run(["run", "-c", str(world.path)], env=environment(world), folder=world.folder)
    assert done.code == 2
    assert f"{world.path}:" in done.err
    assert "schedule.every" in done.err
    assert world.running.do(lambda azure: sum(azure.counts.values())) == 0


# Signals


def test_it_is_alive_but_not_ready_before_the_first_run(make_world: MakeWorld, warm: WarmKeysync) -> None:
    """A rollout waits for it, and Kubernetes does not restart it."""
    world = make_world("alpha")
    world.configure(["alpha"], **HOUR)
    with Holding(world.running, "listKeys") as holding, running(world.path, environment(world), warm=warm) as daemon:
        assert holding.came.wait(10)
        early = daemon.get("/readyz")
        assert (early.status, early.json()["reason"]) == (503, "the first run is not done")
        assert daemon.get("/healthz").status == 200
        assert daemon.account("alpha")["busy"]
        holding.let_go()
        daemon.until(lambda: daemon.get("/readyz").status == 200)


def test_signals_at_the_start_are_harmless(make_world: MakeWorld, warm: WarmKeysync) -> None:
    """A sidecar may send a signal as soon as it sees the file."""
    world = make_world("alpha")
    world.configure(["alpha"], **HOUR)
    with running(world.path, environment(world), warm=warm) as daemon:
        for signum in (signal.SIGHUP, signal.SIGUSR1) * 3:
            daemon.send(signum)
        daemon.until_state("alpha", "changed", "in_sync")
        assert daemon.end() == 0
        assert daemon.stray == []


def test_sigusr1_syncs_now(make_world: MakeWorld, warm: WarmKeysync) -> None:
    """An hour before the run is due."""
    world = make_world("alpha")
    world.configure(["alpha"], **HOUR)
    with running(world.path, environment(world), warm=warm) as daemon:
        daemon.until(lambda: newest(world, "alpha-secondary-key"))
        new = regenerate(world, "alpha")
        daemon.send(signal.SIGUSR1)
        daemon.until(lambda: newest(world, "alpha-primary-key") == new)
        assert len(daemon.events("daemon.sync_now")) == 1


def test_sighup_reloads_refuses_and_recovers(make_world: MakeWorld, warm: WarmKeysync) -> None:
    """A bad file is refused; page, API, metrics and log show its findings. The old configuration stays active until the
    fix.
    """
    world = make_world("alpha", "beta")
    world.configure(["alpha"], **HOUR)
    good = world.path.read_text()
    with running(world.path, environment(world), warm=warm) as daemon:
        daemon.until_state("alpha", "changed", "in_sync")
        world.path.write_text(good.replace('"listen"', '"lisen"'))
        daemon.send(signal.SIGHUP)
        (refused,) = daemon.until_event("config.refused")
        for message in (refused["reason"], daemon.status()["config_error"], daemon.get("/").text):
            assert "lisen" in message
        assert "keysync_config_last_reload_successful 0.0" in daemon.get("/metrics").text
        new = regenerate(world, "alpha")
        daemon.send(signal.SIGUSR1)
        daemon.until(lambda: newest(world, "alpha-primary-key") == new)
        world.configure(["alpha", "beta"], **HOUR)
        daemon.send(signal.SIGHUP)
        daemon.until_event("config.reloaded")
        daemon.until_state("beta", "changed", "in_sync")
        assert daemon.status()["config_error"] is None
        assert newest(world, "beta-primary-key") == live(world, "beta")[0]
        assert daemon.end() == 0
        assert daemon.stray == []


# Changed files


@pytest.fixture
def world_of(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> MakeWorld:
    """Makes worlds whose sign-in data is in this process's environment, for a daemon in the test's own loop."""
    for name in list(os.environ):
        if name.upper().startswith(("AZURE_", "KEYSYNC_")) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)

    def make(*accounts: Any, **options: Any) -> World:
        world = make_world(*accounts, **options)
        for name, value in world.running.environ.items():
            monkeypatch.setenv(name, value)
        return world

    return make


async def test_accounts_are_discovered_and_removed_while_it_runs(world_of: MakeWorld) -> None:
    """A new account of the subscription is served. A deleted one disappears from the page, and its secrets stay."""
    late = {"name": "late", "tags": {"keysync": "yes"}}
    world = world_of({"name": "alpha", "tags": {"keysync": "yes"}}, {"name": "other"})
    entry = {"subscription_id": SUBSCRIPTION, "tags": {"keysync": "yes"}, "vaults": ["main"]}
    world.configure([], discover=[entry], **SECOND)
    async with serving(world.path) as daemon:
        await daemon.until(lambda: world.versions("main", "alpha-secondary-key"))
        world.running.do(lambda azure: azure.state.add_account(data(late).accounts[0]))
        await daemon.until(lambda: world.versions("main", "late-secondary-key"))
        world.running.do(lambda azure: remove_account(azure, "alpha"))
        status = await daemon.until_status(lambda status: len(status["accounts"]) == 1)
        assert [account["name"] for account in status["accounts"]] == ["late"]
        gone = "it was deleted, or no entry of `discover` matches it any more"
        (unserved,) = (await daemon.status())["unserved"]
        assert (unserved["account"].rpartition("/")[2], unserved["reason"]) == ("alpha", gone)
        (line,) = daemon.events("discovery.unserved")
        assert (line["log_level"], line["account"], line["reason"]) == ("warning", unserved["account"], gone)
        assert "keysync_accounts_unserved 1.0" in (await daemon.get("/metrics")).text
        page = (await daemon.get("/")).text
        assert f"<li>{unserved['account']}: {gone}</li>" in page
        assert "1 account no longer served" in page
    assert len(world.versions("main", "alpha-primary-key")) == 1
    assert not world.versions("main", "other-primary-key")


async def test_a_failed_listing_removes_no_account(world_of: MakeWorld) -> None:
    """Discovered accounts are served while the listing fails, and the log says so once."""
    world = world_of("alpha")
    world.configure([], discover=[{"subscription_id": SUBSCRIPTION, "vaults": ["main"]}], **SECOND)
    async with serving(world.path) as daemon:
        await daemon.until(lambda: world.versions("main", "alpha-secondary-key"))
        world.running.do(
            lambda azure: azure.faults.add(Fault(operation="listAccounts", status=403, code="AuthorizationFailed"))
        )
        await daemon.until(lambda: daemon.events("discovery.incomplete"))
        world.running.do(lambda azure: azure.state.regenerate("alpha", "Primary"))
        await daemon.until(lambda: len(world.versions("main", "alpha-primary-key")) == 2)
        assert [account["name"] for account in (await daemon.status())["accounts"]] == ["alpha"]
        assert len(daemon.events("discovery.incomplete")) == 1


async def test_discovered_accounts_that_would_share_a_secret_are_refused(world_of: MakeWorld) -> None:
    """The page shows that neither is served, and why."""
    world = world_of("twin", {"name": "twin", "resource_group": "elsewhere"})
    world.configure([], discover=[{"subscription_id": SUBSCRIPTION, "vaults": ["main"]}], **SECOND)
    async with serving(world.path) as daemon:
        status = await daemon.until_status(
            lambda status: [account["state"] for account in status["accounts"]] == ["refused"] * 2
        )
        assert all(
            "elsewhere" in account["secrets"][0]["reason"] or "twin" in account["secrets"][0]["reason"]
            for account in status["accounts"]
        )
    assert not world.versions("main", "twin-primary-key")


async def test_accounts_are_added_and_removed_with_the_file(world_of: MakeWorld) -> None:
    """A new account is served at once. A removed one disappears from page and metrics, and its secrets stay."""
    world = world_of("alpha", "beta")
    world.configure(["alpha"], **HOUR)
    async with serving(world.path) as daemon:
        await daemon.until_runs(1)
        world.configure(["alpha", "beta"], **HOUR)
        await daemon.until_status(
            lambda status: [account["state"] for account in status["accounts"]] == ["in_sync", "changed"]
        )
        world.configure(["beta"], **HOUR)
        await daemon.until_status(lambda status: [account["name"] for account in status["accounts"]] == ["beta"])
        assert "batchAccounts/alpha" not in (await daemon.get("/api/status")).text.partition('"writes"')[0]
        assert newest(world, "alpha-primary-key") == live(world, "alpha")[0]
        assert [line["accounts"] for line in daemon.events("config.reloaded")] == [2, 1]


async def test_a_removed_account_leaves_no_series_behind(world_of: MakeWorld) -> None:
    """Otherwise an alert on the account's last success would fire forever."""
    world = world_of("alpha", "beta")
    world.configure(["alpha", "beta"], **HOUR)
    async with serving(world.path) as daemon:
        await daemon.until_runs(1)
        world.configure(["beta"], **HOUR)
        await daemon.until_status(lambda status: [account["name"] for account in status["accounts"]] == ["beta"])
        assert "batchAccounts/alpha" not in (await daemon.get("/metrics")).text


async def test_an_invalid_file_is_refused_until_it_is_fixed_or_reverted(world_of: MakeWorld) -> None:
    """Its findings are shown once, and disappear with the fix or when the old content returns."""
    world = world_of("alpha")
    world.configure(["alpha"], **HOUR)
    good = world.path.read_text()
    async with serving(world.path) as daemon:
        await daemon.until_runs(1)
        for fixed, event in ((good, "config.restored"), (good + "\n", "config.reloaded")):
            world.path.write_text(good.replace('"alpha"', '"al pha"'))
            status = await daemon.until_status(lambda status: status["config_error"])
            assert "al pha" in status["config_error"]
            assert [account["state"] for account in status["accounts"]] != ["pending"]
            world.path.write_text(fixed)
            await daemon.until_status(lambda status: status["config_error"] is None)
            assert len(daemon.events(event)) == 1
        assert len(daemon.events("config.refused")) == 2


async def test_a_file_that_cannot_be_opened_is_refused(world_of: MakeWorld) -> None:
    """Errors that appear only when clients are created also refuse the file, and no client stays open."""
    world = world_of("alpha")
    world.configure(["alpha"], **HOUR)
    good = world.path.read_text()
    async with serving(world.path) as daemon:
        await daemon.until_runs(1)
        (world.folder / "empty").touch()
        document = json.loads(good)
        credential = {"type": "client_secret", "tenant_id": "t", "client_id": "c", "client_secret_file": "empty"}
        document["vaults"]["main"]["credential"] = credential
        world.path.write_text(json.dumps(document))
        status = await daemon.until_status(lambda status: status["config_error"])
        assert "client_secret_file" in status["config_error"]
        world.path.write_text(good)
        await daemon.until_status(lambda status: status["config_error"] is None)
        (report,) = await daemon.until_runs(1)
        assert not report.failed


async def test_a_config_map_is_reloaded_by_its_link(world_of: MakeWorld, tmp_path: Path) -> None:
    """Kubernetes points the link ..data to another folder."""
    world = world_of("alpha", "beta")
    mount = tmp_path / "mount"
    for number, names in enumerate((["alpha"], ["alpha", "beta"])):
        world.path = mount / f"..{number}" / "keysync.yaml"
        world.path.parent.mkdir(parents=True)
        world.configure(names, **HOUR)
    (mount / "..data").symlink_to("..0")
    (mount / "keysync.yaml").symlink_to("..data/keysync.yaml")
    async with serving(mount / "keysync.yaml") as daemon:
        await daemon.until_runs(1)
        (mount / "..data_tmp").symlink_to("..1")
        (mount / "..data_tmp").replace(mount / "..data")
        await daemon.until_status(
            lambda status: [account["state"] for account in status["accounts"]] == ["in_sync", "changed"]
        )


@pytest.mark.slow
def test_the_daemon_notices_a_changed_file(make_world: MakeWorld, warm: WarmKeysync) -> None:
    """Within two checks, which are five seconds apart."""
    world = make_world("alpha", "beta")
    world.configure(["alpha"], **HOUR)
    with running(world.path, environment(world), warm=warm) as daemon:
        world.configure(["alpha", "beta"], **HOUR)
        daemon.until_event("config.reloaded")
        daemon.until_state("beta", "changed", "in_sync")


async def test_a_client_secret_that_rotates_is_picked_up(world_of: MakeWorld, tmp_path: Path) -> None:
    """At once, although the old secret had opened the circuit breaker and its accounts were skipped."""
    world = world_of("alpha", "beta", "gamma")
    endpoints = world.running.azure.endpoints
    mounted = tmp_path / "client-secret"
    mounted.write_text("expired")
    credential = {"type": "client_secret", "tenant_id": endpoints.tenant_id, "client_id": endpoints.client_id}
    world.configure(["alpha", "beta", "gamma"], **HOUR, credential={**credential, "client_secret_file": str(mounted)})
    async with serving(world.path) as daemon:
        (report,) = await daemon.until_runs(1)
        assert {result.outcome for result in report.results} == {"failed"}
        mounted.write_text(endpoints.client_secret)
        (report,) = await daemon.until_runs(1)
        assert {result.outcome for result in report.results} == {"created"}
        assert len(daemon.events("config.reloaded")) == 1


async def test_a_federated_token_that_rotates_is_picked_up(
    world_of: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token file is read for each token request, so new content is used at once."""
    world = world_of("alpha")
    sent: list[str] = []
    entra = world.running.azure._entra
    find = entra._application

    def listening(form: dict[str, str], tenant: str, refuse: Any) -> Any:
        sent.append(form.get("client_assertion", ""))
        return find(form, tenant, refuse)

    monkeypatch.setattr(entra, "_application", listening)
    # Tokens are so short-lived that each run needs a new one.
    monkeypatch.setattr(entra.tokens, "lifetime", 60)
    token = tmp_path / "token"
    token.write_text("first")
    endpoints = world.running.azure.endpoints
    credential = {"type": "workload_identity", "tenant_id": endpoints.tenant_id, "client_id": endpoints.client_id}
    world.configure(["alpha"], **SECOND, credential={**credential, "token_file": str(token)})
    async with serving(world.path) as daemon:
        (report,) = await daemon.until_runs(1)
        assert {result.outcome for result in report.results} == {"created"}
        token.write_text("other")
        # azure-identity requests no new token within 30 seconds of the last request unless the old one is refused.
        world.running.do(lambda azure: azure.revoke_tokens())
        await daemon.until(lambda: sent[-1] == "other")
        (report,) = await daemon.until_runs(1)
        assert not report.failed
        assert daemon.events("config.reloaded") == []


# Faults


@pytest.mark.slow
async def test_a_vault_that_is_not_found_opens_its_breaker_and_closes_it_again(
    world_of: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its name does not resolve, the other vault is served and few calls are made. Later its secrets are brought
    in sync.
    """
    world = world_of("alpha", "beta", "gamma", vaults=("main", "lost"))
    names = {"vaults": ["main", "lost"]}
    world.configure(
        [{"name": name, **names} for name in ("alpha", "beta", "gamma")],
        **{**SECOND, "timeouts": {**TIMEOUTS, "collect": "200ms"}},
    )
    document = json.loads(world.path.read_text())
    port = document["vaults"]["lost"]["url"].rpartition(":")[2]
    document["vaults"]["lost"]["url"] = f"https://lost.localhost:{port}"
    world.path.write_text(json.dumps(document))
    known = False
    resolve = socket.getaddrinfo

    def resolving(host: Any, *arguments: Any, **options: Any) -> Any:
        if host == "lost.localhost":
            if not known:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            host = "localhost"
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolving)
    async with serving(world.path) as daemon:
        status = await daemon.until_status(lambda status: status["vaults"][1]["breaker"] != "closed")
        assert [vault["state"] for vault in status["vaults"]] == ["ok", "failing"]
        assert newest(world, "alpha-primary-key") == live(world, "alpha")[0]
        lost = next(secret for secret in status["accounts"][0]["secrets"] if secret["vault"] == "lost")
        assert lost["error"]["kind"] == "dns"
        assert 'keysync_vault_breaker{vault="lost"} 0.0' not in (await daemon.get("/metrics")).text
        known = True
        await daemon.until_status(
            lambda status: [(vault["state"], vault["breaker"]) for vault in status["vaults"]] == [("ok", "closed")] * 2
        )
        await daemon.until_status(lambda status: status["counts"]["out_of_sync"] == 0)
    assert newest(world, "gamma-primary-key", "lost") == live(world, "gamma")[0]


@pytest.mark.slow  # it waits in real time
async def test_a_vault_that_hangs_opens_its_breaker_and_closes_it_again(world_of: MakeWorld) -> None:
    """The other vault's secrets are not delayed."""
    world = world_of("alpha", "beta", "gamma", vaults=("main", "stuck"))
    accounts = [{"name": name, "vaults": ["main", "stuck"]} for name in ("alpha", "beta", "gamma")]
    world.configure(accounts, **{**SECOND, "timeouts": {**TIMEOUTS, "request": "300ms", "collect": "200ms"}})
    async with serving(world.path) as daemon:
        await daemon.first_run()
        aim(world, {"target": "stuck", "kind": "hang"})
        new = regenerate(world, "alpha")
        await daemon.until(lambda: newest(world, "alpha-primary-key") == new)
        status = await daemon.until_status(lambda status: status["vaults"][1]["breaker"] != "closed")
        assert status["vaults"][0]["breaker"] == "closed"
        aim(world)
        await daemon.until_status(
            lambda status: (
                [(vault["breaker"], vault["out_of_sync"]) for vault in status["vaults"]] == [("closed", 0)] * 2
            )
        )


async def test_a_vault_that_hangs_opens_its_breaker_with_default_timeouts(world_of: MakeWorld) -> None:
    """With 30 s for a request and 2 m for an account, four attempts with their pauses exceed the account's deadline."""
    world = world_of("alpha", "beta", "gamma")
    timeouts = {**TIMEOUTS, "request": "150ms", "account": "600ms"}
    world.configure(["alpha", "beta", "gamma"], **{**HOUR, "timeouts": timeouts})
    async with serving(world.path) as daemon:
        await daemon.first_run()
        aim(world, {"target": "main", "kind": "hang"})
        await daemon.sync(3)
        (vault,) = (await daemon.status())["vaults"]
        assert vault["breaker"] != "closed"


def test_a_blocked_run_writes_nothing_until_it_is_accepted(
    make_world: MakeWorld, warm: WarmKeysync, keysync: WarmKeysync
) -> None:
    """The daemon keeps checking, shows how to accept, and continues after a one-off run that accepts."""
    world = make_world("alpha", "beta")
    world.configure(["alpha", "beta"], **{**HOUR, "limits": {"creates": 1}})
    with running(world.path, environment(world), warm=warm) as daemon:
        daemon.until_event("run.stopped")
        daemon.sync(2)
        stops = daemon.events("run.stopped")
        assert len(stops) == 3
        status = daemon.status()
        checksum = stops[0]["checksum"]
        assert {line["checksum"] for line in stops} == {checksum}
        assert {line["level"] for line in stops} == {"error"}
        assert f"--accept {checksum}" in status["stopped"]
        assert [account["state"] for account in status["accounts"]] == ["needs_accept", "needs_accept"]
        assert {secret["verdict"] for account in status["accounts"] for secret in account["secrets"]} == {"missing"}
        assert "keysync_safety_limit_active 1.0" in daemon.get("/metrics").text
        assert "limits.creates is 1" in daemon.get("/").text
        assert len(daemon.events("secret.skipped")) == 4
        assert world.running.do(lambda azure: azure.counts["setSecret"]) == 0
        done = keysync.run(
            ["sync", "-c", str(world.path), "--accept", checksum], env=environment(world), folder=world.folder / ".."
        )
        assert done.code == 0, done.err
        daemon.sync()
        assert daemon.status()["stopped"] is None
        assert [account["state"] for account in daemon.status()["accounts"]] == ["in_sync", "in_sync"]
        new = regenerate(world, "alpha")
        daemon.sync()
        assert newest(world, "alpha-primary-key") == new


def test_read_only_reports_drift_and_writes_nothing(make_world: MakeWorld, warm: WarmKeysync) -> None:
    """Drift is shown while it lasts, and logged once."""
    world = make_world("alpha")
    world.configure(["alpha"], **HOUR)
    with running(world.path, environment(world, KEYSYNC_READ_ONLY="1"), warm=warm) as daemon:
        daemon.until_event("run.finished")
        daemon.sync(2)
        status = daemon.status()
        assert status["read_only"]
        assert [account["state"] for account in status["accounts"]] == ["drift"]
        assert [vault["state"] for vault in status["vaults"]] == ["read_only"]
        assert [line["secret"] for line in daemon.events("secret.create")] == [
            "alpha-primary-key",
            "alpha-secondary-key",
        ]
        assert world.running.do(lambda azure: azure.counts["setSecret"]) == 0


async def test_identical_failures_are_counted_until_they_change(world_of: MakeWorld) -> None:
    """One line when they begin, and one with their count when they end."""
    world = world_of("alpha")
    world.configure(["alpha"], **HOUR)
    aim(world, {"operation": "listKeys", "kind": "status", "status": 409, "code": "Conflict"})
    async with serving(world.path) as daemon:
        await daemon.first_run()
        await daemon.sync(2)
        assert [line["cloud_error"]["code"] for line in daemon.events("secret.failed")] == ["Conflict"] * 2
        aim(world, {"operation": "listKeys", **DENIED})
        await daemon.sync(2)
        others = daemon.events("secret.failed")[2:]
        assert [(line["http_status"], line["times_before"]) for line in others] == [(403, 3)] * 2
        aim(world)
        await daemon.sync(2)
        assert [line["times_before"] for line in daemon.events("secret.created")] == [2, 2]
        assert len(daemon.events("secret.failed")) == 4
        assert len(daemon.events("run.finished")) == 7


async def test_two_keys_that_changed_at_once_cause_a_warning(world_of: MakeWorld) -> None:
    """Both are written, but clients of either key were cut off."""
    world = world_of("alpha")
    world.configure(["alpha"], **HOUR)
    async with serving(world.path) as daemon:
        await daemon.first_run()

        def both(azure: Any) -> None:
            azure.state.regenerate("alpha", "Primary")
            azure.state.regenerate("alpha", "Secondary")

        world.running.do(both)
        await daemon.sync(2)
        assert len(daemon.events("secret.updated")) == 2
        (warning,) = daemon.events("account.both_keys_changed")
        assert (warning["log_level"], warning["account"].rsplit("/", 1)[-1]) == ("warning", "alpha")
        assert "regenerate one key at a time" in warning["hint"]
        text = (await daemon.get("/metrics")).text
        assert 'keysync_both_keys_changed_total{vault="main"} 1.0' in text


# Orphans


def ghost(owner: str) -> dict[str, Any]:
    """A managed secret of an account that Azure does not have."""
    source = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Batch/batchAccounts/ghost"
    tags = {"managed-by": "keysync", "keysync-source": source, "keysync-key": "primary", "keysync-owner": owner}
    return {"name": "ghost-primary-key", "value": "a key of an account that is gone", "tags": tags}


def is_enabled(world: World) -> bool:
    return bool(world.versions("main", "ghost-primary-key")[-1].enabled)


async def test_an_orphan_is_removed_after_three_proving_runs(world_of: MakeWorld) -> None:
    """In each of them ARM replies 404 and the listing lacks the account; the first two only report."""
    world = world_of("alpha", vaults=({"name": "main", "secrets": [ghost("tests")]},))
    world.configure(["alpha"], **SECOND, owner="tests", orphans="disable")
    async with serving(world.path) as daemon:
        await daemon.first_run()
        await daemon.until_runs(3)
        reports = daemon.watcher.reports[:4]
    outcomes = [
        [result.outcome for result in report.results if result.ref.secret == "ghost-primary-key"] for report in reports
    ]
    assert outcomes == [["skipped"], ["skipped"], ["disabled"], []]
    assert not is_enabled(world)


async def test_requested_runs_do_not_count_as_proof(world_of: MakeWorld) -> None:
    """Three signals in quick succession are not three scheduled runs."""
    world = world_of("alpha", vaults=({"name": "main", "secrets": [ghost("tests")]},))
    world.configure(["alpha"], **HOUR, owner="tests", orphans="disable")
    async with serving(world.path) as daemon:
        await daemon.first_run()
        await daemon.sync(4)
        assert is_enabled(world)


@pytest.mark.slow  # it waits in real time
async def test_no_orphan_is_removed_while_the_listing_fails(world_of: MakeWorld) -> None:
    """A 404 alone proves nothing. The run warns and serves the accounts, and the count restarts at zero."""
    world = world_of("alpha", vaults=({"name": "main", "secrets": [ghost("tests")]},))
    world.configure(["alpha"], **SECOND, owner="tests", orphans="disable")
    async with serving(world.path) as daemon:
        await daemon.first_run()
        aim(world, {"operation": "listAccounts", **DENIED})
        await daemon.until_runs(1)  # it may have begun earlier
        reports = await daemon.until_runs(3)
        assert is_enabled(world)
        assert all("is unknown" in " ".join(report.warnings) for report in reports)
        assert newest(world, "alpha-primary-key") == live(world, "alpha")[0]
        aim(world)
        await daemon.until(lambda: not is_enabled(world) and bool(daemon.events("secret.disabled")))
        disabled = [line for line in daemon.events("secret.disabled") if line["secret"] == "ghost-primary-key"]
        assert len(disabled) == 1


async def test_an_orphan_is_removed_although_an_account_has_its_own_schedule(world_of: MakeWorld) -> None:
    """Runs of the general schedule are proof enough; a skipped account does not reset the count."""
    world = world_of("alpha", "hourly", vaults=({"name": "main", "secrets": [ghost("tests")]},))
    hourly = {"name": "hourly", "schedule": {"every": "1h"}}
    world.configure(["alpha", hourly], **SECOND, owner="tests", orphans="disable")
    async with serving(world.path) as daemon:
        await daemon.until_runs(4)
        assert not is_enabled(world)


# Notifications


def test_the_webhook_gets_each_change_of_state_once(make_world: MakeWorld, warm: WarmKeysync, tmp_path: Path) -> None:
    """Changed, failed and recovered, over TLS with the CA in SSL_CERT_FILE."""
    world = make_world("alpha")
    context, bundle = loopback_tls(tmp_path)
    (tmp_path / "signing").write_text("a-secret-that-signs-the-requests-of-this-test")
    with receiving_in_a_thread(context) as hook:

        def names() -> list[str]:
            return [
                f"{event['event']} {event['key']}" for each in list(hook.received) for event in each.json()["events"]
            ]

        notify = {"url": f"{hook.base}/hook", "secret_file": str(tmp_path / "signing")}
        world.configure(["alpha"], **HOUR, notify=notify)
        with running(world.path, environment(world, SSL_CERT_FILE=str(bundle)), warm=warm) as daemon:
            daemon.until_event("run.finished")
            aim(world, {"operation": "listKeys", **DENIED})
            daemon.sync(3)
            aim(world)
            daemon.sync(3)
            assert daemon.end() == 0
    assert sorted(names()[:2]) == ["changed primary", "changed secondary"]
    assert sorted(names()[2:4]) == ["failed primary", "failed secondary"]
    assert sorted(names()[4:]) == ["recovered primary", "recovered secondary"]
    assert all("X-Keysync-Signature" in request.headers for request in hook.received)


def test_traces_reach_the_collector_of_the_environment(make_world: MakeWorld, warm: WarmKeysync) -> None:
    """One trace for each run, with a span for the account and, below it, one for the written secret."""
    otlp = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    world = make_world("alpha")
    world.configure(["alpha"], **HOUR)
    with receiving_in_a_thread() as collector:
        env = environment(world, OTEL_EXPORTER_OTLP_ENDPOINT=collector.base)
        with running(world.path, env, warm=warm) as daemon:
            daemon.until_event("run.finished")
            daemon.sync()
            assert daemon.end() == 0
            assert daemon.stray == []
    spans = []
    for request in collector.received:
        body = gzip.decompress(request.body) if request.headers.get("Content-Encoding") == "gzip" else request.body
        sent = otlp.ExportTraceServiceRequest.FromString(body)
        spans += [span for group in sent.resource_spans for scope in group.scope_spans for span in scope.spans]
    by_id = {span.span_id: span for span in spans}
    roots = [span for span in spans if span.name == "keysync.run" and not span.parent_span_id]
    assert len(roots) == len({span.trace_id for span in roots}) == 2
    parents = {
        (span.name, by_id[span.parent_span_id].name)
        for span in spans
        if span.name.startswith("keysync.") and span.parent_span_id in by_id
    }
    assert ("keysync.account", "keysync.run") in parents
    assert {span.name for span in spans} >= {"keysync.run", "keysync.account", "keysync.secret"}
