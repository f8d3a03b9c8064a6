"""The alerts, the dashboard and the runbook, and the metrics of the code for comparison."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from ruamel.yaml import YAML

from keysync.calls import Operation
from keysync.report.metrics import Metrics, StatusCollector
from keysync.sources.shard import Shard
from keysync.sync.model import Report, Result
from tests.support.runs import ref
from tests.support.snapshots import NOW, varied

ROOT: Final = Path(__file__).parents[2]
RULES: Final = ROOT / "deploy" / "helm" / "keysync" / "files" / "alerts.yaml"
DASHBOARD: Final = ROOT / "deploy" / "helm" / "keysync" / "files" / "dashboard.json"
CASES: Final = sorted((ROOT / "tests" / "alerts").glob("*.yaml"))
CHART_RULES: Final = sorted((ROOT / "tests" / "alerts" / "chart").glob("*.rules.yaml"))
CHART_CASES: Final = sorted((ROOT / "tests" / "alerts" / "chart").glob("*.test.yaml"))
RUNBOOK: Final = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")

REPORT: Final = Report("run-1", False, "0123", datetime(2026, 11, 24, tzinfo=UTC), 0.4, 1, ())
# Labels that Prometheus, or the group at a Pushgateway, adds to each series.
TARGET_LABELS: Final = frozenset({"cluster", "namespace", "job", "instance", "owner", "shard"})


def load(path: Path) -> Any:
    """Reads a YAML file, or a JSON file, which is valid YAML."""
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def families() -> list[Metric]:
    """All metrics of keysync, each with at least one series."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.cover([ref("alpha").account], ["main"])
    metrics.sharded(Shard(0, 3))
    metrics.scheduled(300.0)
    metrics.credentials({"client_certificate": NOW})
    metrics.overdue(NOW, None)
    metrics.called(Operation("batch", "listKeys"), "429")
    metrics.result("run-1", Result(ref("alpha"), "unchanged", verdict="both_changed"))
    metrics.finished(replace(REPORT, results=(Result(ref("alpha"), "unchanged"),), orphans_searched=True))
    return [*registry.collect(), *StatusCollector(varied()).collect()]


def exposed(family: Metric) -> str:
    """The exposed name of a metric family."""
    return f"{family.name}_total" if family.type == "counter" else family.name


@cache
def series() -> dict[str, dict[str, set[str]]]:
    """By series name, the labels and their values in an example, including the process metrics."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    results: dict[str, dict[str, set[str]]] = {"up": {}, "ALERTS": {"alertname": set(), "alertstate": set()}}
    for family in (*families(), *registry.collect()):
        for sample in family.samples:
            values = results.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                values.setdefault(label, set()).add(value)
    return results


@dataclass(frozen=True)
class Selector:
    """One vector selector of an expression: `matchers` are (label, operator, value)."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...]


def selectors(expression: str) -> list[Selector]:
    """Every selector of `expression`."""
    bare = re.sub(r'"[^"]*"', '""', re.sub(r"\b(?:by|on|group_left|group_right|without)\s*\([^)]*\)", "", expression))
    named = set(re.findall(r"\b(?:keysync_\w+|process_\w+|up|ALERTS)\b", bare))
    with_braces = re.findall(r"\b(\w+)\{([^}]*)\}", expression)
    results = [Selector(name, tuple(re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', inside))) for name, inside in with_braces]
    return [*results, *(Selector(name, ()) for name in named)]


def grouped_by(expression: str) -> set[str]:
    """The labels in every ``by``, ``on`` and ``group_left`` of `expression`."""
    lists = re.findall(r"\b(?:by|on|group_left)\s*\(([^)]*)\)", expression)
    return {label.strip() for name in lists for label in name.split(",") if label.strip()}


def complaints(expression: str) -> list[str]:
    """The names in `expression` that the code does not have: a metric, a label, or a value of a label."""
    known, wrong = series(), []
    labels = {label for values in known.values() for label in values} | TARGET_LABELS
    for selector in selectors(expression):
        if selector.metric not in known:
            wrong.append(f"no metric {selector.metric}")
            continue
        mine = known[selector.metric]
        for label, operator, value in selector.matchers:
            if label not in mine and label not in TARGET_LABELS:
                wrong.append(f"{selector.metric} has no label {label}")
            elif operator in {"=", "!=", "=~"} and label in {
                "state",
                "verdict",
                "result",
                "outcome",
                "reason",
            }:
                wrong += [f"{label} is never {item}" for item in value.split("|") if item not in mine[label]]
    return [*wrong, *(f"no label {label}" for label in grouped_by(expression) - labels)]


def rules() -> dict[str, dict[str, Any]]:
    """Each alert, by name."""
    results = [rule for group in load(RULES)["groups"] for rule in group["rules"]]
    named = {rule["alert"]: rule for rule in results}
    assert len(named) == len(results)
    return named


def panels() -> list[dict[str, Any]]:
    """The panels of the dashboard, including rows."""
    results: list[dict[str, Any]] = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return results


def queries() -> list[tuple[str, str]]:
    """Title and expression of each target of the dashboard, as Grafana sends it with everything selected."""
    return [(panel["title"], _as_sent(target["expr"])) for panel in panels() for target in panel.get("targets", ())]


def _as_sent(expression: str) -> str:
    sent = expression.replace("$__rate_interval", "1m")
    return re.sub(r"\$(job|instance|vault|account)\b", ".*", sent)
