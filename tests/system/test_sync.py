"""`sync` and `plan` with a real process, real SDKs and real HTTPS."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from keysync.emulator import Fault
from tests.system.conftest import World, clean_environment

MakeWorld = Callable[..., World]


def test_the_first_run_writes_both_keys_with_their_tags(make_world: MakeWorld) -> None:
    """The vault gets each live key, tagged as keysync's."""
    world = make_world("alpha")
    world.configure(["alpha"])
    ran = world.sync()
    assert ran.code == 0, ran.err
    assert ran.outcomes() == {"main/alpha-primary-key": "created", "main/alpha-secondary-key": "created"}
    live = world.running.do(lambda azure: azure.state.keys("alpha"))
    for key, value in zip(("primary", "secondary"), live, strict=True):
        (version,) = world.versions("main", f"alpha-{key}-key")
        assert version.value == value
        assert version.tags["managed-by"] == "keysync"
        assert version.tags["keysync-key"] == key
        assert version.tags["keysync-source"].endswith("/batchAccounts/alpha")
        assert version.content_type


def test_a_second_run_changes_nothing_and_makes_no_version(make_world: MakeWorld) -> None:
    """A run without changes writes nothing."""
    world = make_world("alpha", "beta")
    world.configure(["alpha", "beta"])
    assert world.sync().code == 0
    world.running.do(lambda azure: azure.counts.clear())
    ran = world.sync()
    assert ran.code == 0
    assert set(ran.outcomes().values()) == {"unchanged"}
    assert world.running.do(lambda azure: azure.counts["setSecret"]) == 0
    assert len(world.versions("main", "alpha-primary-key")) == 1


def test_a_regenerated_primary_changes_exactly_one_secret(make_world: MakeWorld) -> None:
    """Only the secret whose key changed gets a version."""
    world = make_world("alpha", "beta")
    world.configure(["alpha", "beta"])
    world.sync()
    world.running.do(lambda azure: azure.state.regenerate("alpha", "Primary"))
    outcomes = world.sync().outcomes()
    assert outcomes.pop("main/alpha-primary-key") == "updated"
    assert set(outcomes.values()) == {"unchanged"}
    assert len(world.versions("main", "alpha-primary-key")) == 2
    assert len(world.versions("main", "alpha-secondary-key")) == 1


def test_one_failing_account_does_not_affect_the_others(make_world: MakeWorld) -> None:
    """A partial failure exits with 1, and all other accounts are synced."""
    world = make_world("alpha", {"name": "denied", "fault": "role_missing"}, "gamma")
    world.configure(["alpha", "denied", "gamma"])
    ran = world.sync()
    assert ran.code == 1
    outcomes = ran.outcomes()
    assert {outcomes[f"main/{name}-{key}-key"] for name in ("alpha", "gamma") for key in ("primary", "secondary")} == {
        "created"
    }
    failed = [item for item in ran.report["items"] if item["outcome"] == "failed"]
    assert len(failed) == 2
    assert failed[0]["error"]["http_status"] == 403
    assert failed[0]["error"]["cloud_error"]["code"] == "AuthorizationFailed"
    assert "Microsoft.Batch/batchAccounts/listKeys/action" in failed[0]["error"]["hint"]


def test_a_hung_account_delays_no_other(make_world: MakeWorld) -> None:
    """Others are written while one account never answers; it fails by its own deadline."""
    world = make_world("alpha", {"name": "stuck", "fault": "hang"})
    world.configure(["stuck", "alpha"], timeouts={"request": "3s", "account": "6s", "collect": "1s"})
    ran = world.sync()
    assert ran.code == 1
    assert ran.outcomes()["main/alpha-primary-key"] == "created"
    (error,) = {item["error"]["kind"] for item in ran.report["items"] if item["outcome"] == "failed"}
    assert error == "timeout"


def test_a_nested_cloud_error_is_logged_completely(make_world: MakeWorld) -> None:
    """Code, message, target and details of every level, with the three request ids."""
    details = [
        {
            "code": "Outer",
            "message": "m1",
            "target": "t1",
            "details": [{"code": "Inner", "message": "m2", "target": "t2"}],
        }
    ]
    world = make_world("alpha")
    world.configure(["alpha"])
    fault = Fault(
        operation="listKeys", kind="status", status=409, code="ScopeLocked", message="locked", details=details
    )
    world.running.do(lambda azure: azure.faults.add(fault))
    ran = world.sync()
    line = next(line for line in ran.log if line["event"] == "secret.failed")
    assert line["http_status"] == 409
    assert line["cloud_error"]["code"] == "ScopeLocked"
    assert line["cloud_error"]["details"][0]["target"] == "t1"
    assert line["cloud_error"]["details"][0]["details"][0]["code"] == "Inner"
    assert line["request_id"]
    assert line["correlation_id"]
    assert line["client_request_id"]
    assert "lock" in line["hint"]


def test_an_account_without_shared_key_has_its_own_state(make_world: MakeWorld) -> None:
    """It is found by reading the account, and has its own state."""
    world = make_world({"name": "entra", "allowed_authentication_modes": ["AAD"]})
    world.configure(["entra"])
    ran = world.sync()
    assert ran.code == 1
    assert {item["error"]["kind"] for item in ran.report["items"]} == {"shared_key_disabled"}


def test_plan_with_exit_code_reports_changes_and_writes_nothing(make_world: MakeWorld) -> None:
    """`plan --exit-code` returns 3 while something would change, and 0 afterwards."""
    world = make_world("alpha")
    world.configure(["alpha"])
    ran = world.run("plan", "--exit-code", "--output", "json")
    assert ran.code == 3
    assert set(ran.outcomes().values()) == {"create"}
    assert world.running.do(lambda azure: azure.counts["setSecret"]) == 0
    world.sync()
    assert world.run("plan", "--exit-code").code == 0


@pytest.mark.parametrize("command", ["plan", "sync"])
def test_all_shows_each_secret(make_world: MakeWorld, command: str) -> None:
    """Without `--all` the table has only changes. With it, the table also has secrets in sync, in natural order."""
    world = make_world("farm10", "farm2")
    world.configure(["farm10", "farm2"])
    world.sync()
    world.running.do(lambda azure: azure.state.regenerate("farm10", "Primary"))

    def rows(*options: str) -> list[str]:
        lines = world.run(command, *options).out.splitlines()
        return [f"{line.split()[3]} {line.split()[-1]}" for line in lines if line.startswith("farm")]

    changed = "update" if command == "plan" else "updated"
    assert rows("--all", *(["--dry-run"] if command == "sync" else [])) == [
        "farm2-primary-key unchanged",
        "farm2-secondary-key unchanged",
        "farm10-primary-key update",
        "farm10-secondary-key unchanged",
    ]
    assert rows() == [f"farm10-primary-key {changed}"]


def test_an_unmanaged_secret_is_never_overwritten(make_world: MakeWorld) -> None:
    """A secret of another tool keeps its value, and the refusal names its owner."""
    world = make_world(
        "alpha", vaults=({"name": "main", "secrets": [{"name": "alpha-primary-key", "value": "by-hand"}]},)
    )
    world.configure(["alpha"])
    ran = world.sync()
    assert ran.code == 1
    assert ran.outcomes() == {"main/alpha-primary-key": "refused", "main/alpha-secondary-key": "created"}
    assert [version.value for version in world.versions("main", "alpha-primary-key")] == ["by-hand"]


def test_a_write_whose_reply_is_lost_makes_one_version(make_world: MakeWorld) -> None:
    """The value is read back after an ambiguous failure, not written twice."""
    world = make_world("alpha")
    world.configure(["alpha"])
    fault = Fault(operation="setSecret", kind="reset", after=True, times=1)
    world.running.do(lambda azure: azure.faults.add(fault))
    ran = world.sync()
    assert ran.code == 0, ran.out
    assert len(world.versions("main", "alpha-primary-key")) == 1
    assert len(world.versions("main", "alpha-secondary-key")) == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "reset"},
        {"kind": "status", "status": 502},
        {"kind": "status", "status": 429, "code": "TooManyRequests"},
        {"kind": "truncated", "status": 200},
    ],
    ids=lambda fault: f"{fault['kind']}-{fault.get('status', '')}",
)
def test_list_keys_is_retried_where_the_sdk_would_not(make_world: MakeWorld, fault: dict[str, Any]) -> None:
    """A dropped connection, a 502 and a 429 without Retry-After cause a retry, not a failed account."""
    world = make_world("alpha")
    world.configure(["alpha"])
    world.running.do(lambda azure: azure.faults.add(Fault(operation="listKeys", times=1, **fault)))
    assert world.sync().code == 0
    assert world.running.do(lambda azure: azure.counts["listKeys"]) == 2


def test_a_retry_after_of_twenty_minutes_fails_the_account(make_world: MakeWorld) -> None:
    """The run does not wait that long, and says so."""
    world = make_world("alpha")
    world.configure(["alpha"])
    fault = Fault(operation="listKeys", kind="status", status=429, code="TooManyRequests", retry_after="1200")
    world.running.do(lambda azure: azure.faults.add(fault))
    ran = world.sync()
    assert ran.code == 1
    assert {item["error"]["kind"] for item in ran.report["items"]} == {"throttled"}
    assert "1200 s" in ran.report["items"][0]["reason"]
    assert world.running.do(lambda azure: azure.counts["listKeys"]) == 1


def test_null_keys_are_refused(make_world: MakeWorld) -> None:
    """A reply without keys writes nothing."""
    world = make_world("alpha")
    world.configure(["alpha"])
    world.running.do(lambda azure: azure.faults.add(Fault(operation="listKeys", kind="null_keys")))
    ran = world.sync()
    assert ran.code == 1
    assert set(ran.outcomes().values()) == {"refused"}
    assert world.running.do(lambda azure: azure.counts["setSecret"]) == 0


def test_limits_stop_before_any_write_until_accept(make_world: MakeWorld) -> None:
    """Exit code 4 with the numbers. `--accept` with that checksum writes; another checksum does not."""
    world = make_world("alpha")
    world.configure(["alpha"], limits={"creates": 1})
    stopped = world.sync()
    assert stopped.code == 4
    assert "2 secrets would be created" in stopped.report["stopped"]
    assert world.running.do(lambda azure: azure.counts["setSecret"]) == 0
    assert world.sync("--accept", "0123456789abcdef0123456789abcdef").code == 4
    assert world.sync("--accept", stopped.report["checksum"]).code == 0


def test_read_only_reports_and_writes_nothing(make_world: MakeWorld) -> None:
    """KEYSYNC_READ_ONLY=1 gives the outcomes of a dry run, with exit code 0."""
    world = make_world("alpha")
    world.configure(["alpha"])
    ran = world.sync(env={"KEYSYNC_READ_ONLY": "1"})
    assert ran.code == 0
    assert set(ran.outcomes().values()) == {"create"}
    assert world.running.do(lambda azure: azure.counts["setSecret"]) == 0


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_sync_still_reports(make_world: MakeWorld, signum: signal.Signals, code: int) -> None:
    """SIGTERM and SIGINT end the run with a report of the work so far."""
    world = make_world("alpha", {"name": "stuck", "fault": "hang"})
    world.configure(["alpha", "stuck"], timeouts={"collect": "100ms"})
    command = [sys.executable, "-W", "error", "-m", "keysync", "sync", "-c", str(world.path), "--output", "json"]
    process = subprocess.Popen(
        command,
        env={**clean_environment(), **world.running.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 20
    while world.running.do(lambda azure: azure.counts["setSecret"]) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signum)
    out, err = process.communicate(timeout=20)
    assert process.returncode == code, err
    assert '"interrupted": true' in out
    assert '"outcome": "failed"' in out


def test_two_vaults_are_served_with_one_list_keys(make_world: MakeWorld) -> None:
    """An account that serves two vaults is read once. If one vault fails, the other is still served."""
    world = make_world("alpha", vaults=("main", "spare"))
    world.configure([{"name": "alpha", "vaults": ["main", "spare"]}])
    fault = Fault(
        operation="*", target="spare*", kind="status", status=403, code="Forbidden", inner_code="ForbiddenByFirewall"
    )
    world.running.do(lambda azure: azure.faults.add(fault))
    ran = world.sync()
    assert ran.code == 1
    outcomes = ran.outcomes()
    assert outcomes["main/alpha-primary-key"] == "created"
    assert outcomes["spare/alpha-primary-key"] == "failed"
    assert world.running.do(lambda azure: azure.counts["listKeys"]) == 1
    assert any("firewall" in (item["error"] or {}).get("hint", "") for item in ran.report["items"] if item["error"])


def test_many_accounts_share_one_token_for_each_scope(make_world: MakeWorld) -> None:
    """Thirty accounts need one token for Resource Manager and one for the vault."""
    names = [f"account{number}" for number in range(30)]
    world = make_world(*names)
    world.configure(names)
    assert world.sync().code == 0
    assert world.running.do(lambda azure: azure.counts["token"]) == 2


def test_metrics_of_a_one_off_run_are_written(make_world: MakeWorld) -> None:
    """The textfile has the contract's names."""
    world = make_world("alpha")
    world.configure(["alpha"])
    target = world.folder / "keysync.prom"
    assert world.sync("--metrics-file", str(target)).code == 0
    text = target.read_text()
    assert 'keysync_runs_total{result="success"} 1.0' in text
    assert 'keysync_secret_outcomes_total{outcome="created",vault="main"} 2.0' in text
    assert 'operation="listKeys"' in text


def test_shards_divide_the_accounts(make_world: MakeWorld) -> None:
    """Two shards together serve each account once; an impossible shard is a usage error."""
    names = [f"account{number}" for number in range(8)]
    world = make_world(*names)
    world.configure(names)
    first, second = world.sync("--shard", "0/2"), world.sync("--shard", "1/2")
    assert (first.code, second.code) == (0, 0)
    served = [*first.outcomes(), *second.outcomes()]
    assert len(served) == len(set(served)) == 16
    assert world.sync("--shard", "4/3").code == 2


def test_a_hung_account_in_two_vaults_fails_alone(make_world: MakeWorld) -> None:
    """Its second vault makes a new request after the first gave up. The run continues and reports each item."""
    world = make_world({"name": "stuck", "fault": "hang"}, "alpha", vaults=("main", "spare"))
    world.configure(
        [{"name": "stuck", "vaults": ["main", "spare"]}, "alpha"],
        concurrency=1,
        timeouts={"request": "3s", "account": "5s", "collect": "8s"},
    )
    ran = world.sync()
    assert ran.code == 1, ran.err
    outcomes = ran.outcomes()
    assert outcomes["main/alpha-primary-key"] == "created"
    assert outcomes["spare/stuck-primary-key"] == "failed"


def test_a_hung_token_request_fails_an_attempt_not_the_run(make_world: MakeWorld) -> None:
    """The shared token request has its own deadline, so that the next attempt makes another one."""
    world = make_world("alpha")
    world.configure(["alpha"], timeouts={"request": "500ms"})
    world.running.do(lambda azure: azure.faults.add(Fault(operation="token", kind="hang", times=1)))
    assert world.sync().code == 0


def test_a_metrics_file_that_cannot_be_written_is_reported_first(make_world: MakeWorld) -> None:
    """Exit code 2 means that nothing was changed."""
    world = make_world("alpha")
    world.configure(["alpha"])
    ran = world.sync("--metrics-file", str(world.folder / "nowhere" / "keysync.prom"))
    assert ran.code == 2
    assert world.running.do(lambda azure: sum(azure.counts.values())) == 0


def test_a_check_that_is_interrupted_ends(make_world: MakeWorld) -> None:
    """SIGINT ends `check` while an account hangs."""
    world = make_world({"name": "stuck", "fault": {"operation": "*", "kind": "hang"}})
    world.configure(["stuck"])
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "keysync", "check", "-c", str(world.path)],
        env={**clean_environment(), **world.running.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 20
    while not world.running.do(lambda azure: azure.counts["getAccount"]) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130
