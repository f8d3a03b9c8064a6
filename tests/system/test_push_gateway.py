"""`sync --push-gateway`: a one-off run pushes its metrics, and the exit code is the run's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from tests.support.receiver import Receiver, receiving_in_a_thread
from tests.system.conftest import World

MakeWorld = Callable[..., World]


@pytest.fixture
def gateway() -> Iterator[Receiver]:
    with receiving_in_a_thread() as receiver:
        yield receiver


def test_a_run_pushes_its_metrics(make_world: MakeWorld, gateway: Receiver) -> None:
    """The metrics are those of the textfile, in a group for the installation and its shard."""
    world = make_world("alpha")
    world.configure(["alpha"], owner="prod")
    ran = world.sync("--push-gateway", gateway.base, "--shard", "0/1")
    assert ran.code == 0, ran.err
    (pushed,) = gateway.received
    assert pushed.path.startswith("/metrics/job/keysync/owner/prod/shard@base64/")
    assert b'keysync_runs_total{result="success"} 1.0' in pushed.body
    assert b'keysync_secret_outcomes_total{outcome="created",vault="main"} 2.0' in pushed.body
    assert b'keysync_shard_info{count="1",index="0"} 1.0' in pushed.body
    assert b"keysync_schedule_interval_seconds 300.0" in pushed.body
    (overdue,) = re.findall(rb'^keysync_run_overdue_timestamp_seconds{shard="0/1"} (.*)$', pushed.body, re.MULTILINE)
    (ended,) = re.findall(rb'^keysync_last_run_timestamp_seconds{result="success"} (.*)$', pushed.body, re.MULTILINE)
    assert float(overdue) >= float(ended) + 900
    live = world.running.do(lambda azure: azure.state.keys("alpha"))
    assert not any(value.encode() in pushed.body for value in live)


def test_a_gateway_that_refuses_affects_only_the_log(make_world: MakeWorld, gateway: Receiver) -> None:
    """The report is complete, the exit code is the sync's, and a warning describes the failed push."""
    world = make_world("alpha")
    world.configure(["alpha"])
    gateway.answers = [503]
    ran = world.sync("--push-gateway", gateway.base)
    assert ran.code == 0, ran.err
    assert set(ran.outcomes().values()) == {"created"}
    (failure,) = [line for line in ran.log if line["event"] == "metrics.push_failed"]
    assert (failure["level"], failure["reason"]) == ("warning", "HTTP 503")
    assert all(line.startswith("{") for line in ran.err.splitlines())


def test_a_wrong_address_is_reported_before_any_request(make_world: MakeWorld) -> None:
    """Exit code 2, no request, and a password in the URL is not shown."""
    world = make_world("alpha")
    world.configure(["alpha"])
    world.running.do(lambda azure: azure.counts.clear())
    ran = world.sync("--push-gateway", "http://me:hunter2@pushgateway")
    assert ran.code == 2
    assert "a user or password in the URL is refused" in ran.err
    assert "hunter2" not in ran.err + ran.out
    assert world.running.do(lambda azure: sum(azure.counts.values())) == 0
