"""promtool runs the tests of the alerts, and a real Prometheus fires them on the metrics of a real daemon."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.alerts import CASES, CHART_CASES, RULES, queries, rules
from tests.support.failing_fleet import make_failing_fleet
from tests.support.prometheus import find_tool, prometheus_of
from tests.system.conftest import World
from tests.system.test_prometheus import MakeWorld, running

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tools")]


@pytest.fixture
def tools() -> None:
    """Skips the tests (fails them in CI) before anything is started."""
    find_tool("prometheus")
    find_tool("promtool")


def promtool(*arguments: str) -> str:
    """The output of promtool. Fails the test if promtool fails."""
    done = subprocess.run([find_tool("promtool"), *arguments], capture_output=True, text=True, timeout=300, check=False)
    alert = done.stdout + done.stderr
    assert done.returncode == 0, alert
    return alert


def test_promtool_accepts_the_rules() -> None:
    """promtool accepts expressions and templates, and finds all rules."""
    assert f"{len(rules())} rules found" in promtool("check", "rules", str(RULES))


@pytest.mark.parametrize("path", [*CASES, *CHART_CASES], ids=lambda path: path.stem)
def test_the_alerts_fire_when_they_should(path: Path) -> None:
    """promtool evaluates made-up series minute by minute: restarts, takeovers, reloads and more."""
    assert "SUCCESS" in promtool("test", "rules", str(path))


@pytest.fixture
def world(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> World:
    """A fleet with one of each failure that needs no test step, and a webhook URL without a server."""
    monkeypatch.setenv("NOTIFY_SECRET", "signs what is sent")
    return make_failing_fleet(
        make_world, retry_after=1, notify={"url": "https://127.0.0.1:1/", "secret": "${NOTIFY_SECRET}"}
    )


def test_a_real_prometheus_fires_alerts_for_a_real_daemon(world: World, tmp_path: Path) -> None:
    """The unchanged rules, with their own `for`, name each failing account and no healthy one.

    The same server answers the dashboard's queries, so the test waits only one minute.
    """
    with running(world) as daemon, prometheus_of(daemon.url.removeprefix("http://"), tmp_path, RULES) as prometheus:
        stale = prometheus.first('ALERTS{alertname="KeysyncAccountStale", alertstate="firing"}', patience=150)
        prometheus.first('ALERTS{alertname="KeysyncAccountFailing", alertstate="firing"}')
        fired = prometheus.get("/api/v1/alerts")["alerts"]
        answers = [(title, prometheus.query(expression)) for title, expression in queries()]
    assert {name_of(sample["metric"]) for sample in stale} <= {"norole", "busy", "handmade"}
    by_name = by_alert(fired)
    assert {"norole"} <= {name_of(alert["labels"]) for alert in by_name["KeysyncAccountStale"]}
    assert {"norole"} <= {name_of(alert["labels"]) for alert in by_name["KeysyncAccountFailing"]}
    assert {alert["state"] for alert in by_name["KeysyncAccountRefused"]} == {"pending"}
    (alert,) = (alert for alert in by_name["KeysyncAccountStale"] if name_of(alert["labels"]) == "norole")
    assert alert["state"] == "firing"
    assert alert["annotations"]["summary"].endswith("batchAccounts/norole")
    assert alert["annotations"]["runbook_url"] == "docs/runbook.md#keysyncaccountstale"
    assert not {"alpha"} & {name_of(alert["labels"]) for alert in fired if "account" in alert["labels"]}
    assert not by_name.keys() & {"KeysyncDown", "KeysyncAbsent", "KeysyncNoRun", "KeysyncRunFailed", "KeysyncNoLeader"}
    assert {title for title, results in answers if not results} <= {
        "Changes that need accept",
        "Leaders and shards",
        "Configuration and notifications",
        "Certificate expires in",
    }


def name_of(labels: dict[str, str]) -> str:
    return labels["account"].rsplit("/", 1)[-1]


def by_alert(fired: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    results: dict[str, list[dict[str, Any]]] = {}
    for alert in fired:
        results.setdefault(alert["labels"]["alertname"], []).append(alert)
    return results
