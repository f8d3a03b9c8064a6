"""Alerts, dashboard and runbook match the code and each other."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from keysync.cli.main import app
from tests.support.alerts import (
    CASES,
    CHART_CASES,
    CHART_RULES,
    DASHBOARD,
    ROOT,
    RUNBOOK,
    TARGET_LABELS,
    complaints,
    exposed,
    families,
    grouped_by,
    load,
    panels,
    queries,
    rules,
    selectors,
    series,
)

OBSERVABILITY = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
SEVERITIES = {"critical", "warning", "info"}


def anchors(text: str) -> list[str]:
    """The anchors that GitHub makes for the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]


# Rules


@pytest.mark.parametrize("alert", sorted(rules()))
def test_an_alert_uses_existing_series(alert: str) -> None:
    """Metric, labels and their values: an expression on anything else would never fire."""
    assert complaints(rules()[alert]["expr"]) == []


@pytest.mark.parametrize("alert", sorted(rules()))
def test_an_alert_has_severity_texts_and_a_runbook_link(alert: str) -> None:
    """Severity, one line, the first step and the runbook's entry; its templates use labels that exist."""
    rule = rules()[alert]
    assert rule["labels"]["severity"] in SEVERITIES
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{alert.lower()}"
    used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"] + rule["annotations"]["description"]))
    # A series keeps all its labels if no aggregation is around it.
    assert used <= (grouped_by(rule["expr"]) or TARGET_LABELS)


def test_an_installation_is_identified_by_the_same_labels_everywhere() -> None:
    """Two installations in one Prometheus never hide or cause each other's alerts."""
    for alert, rule in rules().items():
        for labels in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", rule["expr"]):
            assert labels.startswith("cluster, namespace, job"), alert


def test_the_checks_find_unknown_names() -> None:
    """A metric, a label, a value and a grouping that do not exist."""
    assert complaints("sum by (cluster) (keysync_acounts) > 0") == ["no metric keysync_acounts"]
    assert complaints('keysync_vault_breaker{account="a"}') == ["keysync_vault_breaker has no label account"]
    assert complaints('keysync_runs_total{result=~"failed|lost"}') == ["result is never lost"]
    assert complaints("max by (acount) (keysync_accounts)") == ["no label acount"]
    assert complaints('time() - max by (shard) (keysync_run_overdue_timestamp_seconds{shard=~"0.*"}) > 0') == []


# Tests of the rules


def cases() -> list[tuple[str, list[Any]]]:
    """Every expression that promtool tests, and its expected samples."""
    return [
        (item["expr"], item.get("exp_samples", []))
        for path in CASES
        for test in load(path)["tests"]
        for item in test["promql_expr_test"]
    ]


def fires_in(samples: list[Any], alert: str) -> bool:
    return any(f'alertname="{alert}"' in sample["labels"] and sample["value"] for sample in samples)


@pytest.mark.parametrize("alert", sorted(rules()))
def test_an_alert_is_tested_firing_and_silent(alert: str) -> None:
    """tests/alerts has both cases for each alert."""
    asked = [(expression, samples) for expression, samples in cases() if asks_for(expression, alert)]
    assert any(fires_in(samples, alert) for _, samples in asked)
    assert any(not samples for _, samples in asked)


def asks_for(expression: str, alert: str) -> bool:
    match = re.search(r'alertname=(~?)"([^"]*)"', expression)
    assert match, expression
    return bool(re.fullmatch(match[2], alert)) if match[1] else match[2] == alert


def test_the_promtool_tests_match_the_rules() -> None:
    """They also name no removed alert, metric or label."""
    for path in CASES:
        document = load(path)
        assert [(path.parent / file).resolve() for file in document["rule_files"]] == [
            ROOT / "deploy" / "helm" / "keysync" / "files" / "alerts.yaml"
        ]
        for test in document["tests"]:
            for series_text in test["input_series"]:
                if not series_text["series"].startswith("up{"):
                    assert complaints(series_text["series"]) == [], path
    documented = {
        name
        for _, samples in cases()
        for sample in samples
        for name in re.findall(r'alertname="(\w+)"', sample["labels"])
    }
    assert documented == set(rules())


@pytest.mark.parametrize("path", CHART_RULES, ids=lambda path: path.stem)
def test_a_rule_of_the_chart_selects_the_job_of_its_release(path: Path) -> None:
    """By its exact name, whatever that is, without the name of another mode. Each has a promtool test."""
    labels = {
        "daemon.rules": {"job": "keysync", "namespace": "render"},
        "sharded.rules": {"job": "keysync", "namespace": "render"},
        "cronjob.rules": {"job": "keysync", "owner": "tokyo"},
        "renamed.rules": {"job": "batch-keys", "namespace": "render"},
    }[path.stem]
    (group,) = load(path)["groups"]
    chart_rules = {rule["alert"]: rule for rule in group["rules"]}
    assert set(chart_rules) == {"KeysyncAbsent", *(["KeysyncDown"] if "namespace" in labels else [])}
    for alert, rule in chart_rules.items():
        (selector, *_) = selectors(rule["expr"])
        assert {label: value for label, operator, value in selector.matchers if operator == "="} == labels
        assert complaints(rule["expr"]) == []
        assert "[" not in rule["expr"]
        assert {**rule, "expr": "", "annotations": ""} == {**rules()[alert], "expr": "", "annotations": ""}
    assert path.with_name(path.name.replace(".rules.", ".test.")) in CHART_CASES


# Runbook


def entries() -> dict[str, str]:
    """The text of each `### ` heading of the runbook."""
    parts = re.split(r"^### (.*)$", RUNBOOK, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_alerts_and_runbook_entries_match() -> None:
    """No alert without an entry, and no entry of a removed alert."""
    documented = [heading for heading in entries() if heading.startswith("Keysync")]
    assert sorted(documented) == sorted(rules())
    assert {rule["annotations"]["runbook_url"].partition("#")[2] for rule in rules().values()} <= set(anchors(RUNBOOK))


@pytest.mark.parametrize("alert", sorted(rules()))
def test_a_runbook_entry_has_all_parts(alert: str) -> None:
    """Meaning, impact, diagnosis, fix, and when it resolves; one paragraph may have the middle three."""
    labels = " ".join(re.findall(r"^\*\*([^*]+):\*\*", entries()[alert], re.MULTILINE)).lower()
    assert labels.startswith("meaning")
    assert labels.endswith("resolves")
    assert {"impact", "diagnosis", "fix"} <= set(re.findall(r"\w+", labels))


def test_links_within_the_runbook_have_targets() -> None:
    """Also links to a heading of another page."""
    for page, anchor in re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", RUNBOOK):
        text = RUNBOOK if not page else (ROOT / "docs" / page).read_text(encoding="utf-8")
        assert anchor in anchors(text), anchor


def code_of(text: str) -> list[str]:
    """The text in backticks, in a line or as a block."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return [*blocks, *lines]


EVENTS = set(re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \| (?:debug|info|warning|error)", OBSERVABILITY, re.MULTILINE))
FIELDS = set(
    re.findall(r"`([a-z_]+)`", OBSERVABILITY[OBSERVABILITY.index("## The log") : OBSERVABILITY.index("## Metrics")])
)
TEXTS = [
    *code_of(RUNBOOK),
    *(text for rule in rules().values() for text in code_of(rule["annotations"]["description"])),
]


def test_events_and_metrics_that_are_named_exist() -> None:
    """In the runbook and in the texts of the alerts."""
    kinds = {event.partition(".")[0] for event in EVENTS}
    named = {name for text in TEXTS for name in re.findall(r"\b[a-z_]+\.[a-z_]+\b", text)}
    named = {
        name for name in named if name.partition(".")[0] in kinds and name not in {"config.yaml", "schedule.every"}
    }
    assert len(named) > 15
    assert named <= EVENTS
    metrics = {name for text in TEXTS for name in re.findall(r"\bkeysync_\w+", text)}
    assert len(metrics) > 5
    assert metrics <= {exposed(family) for family in families()}


def test_commands_and_options_that_are_named_exist() -> None:
    """An engineer on call can paste them."""
    command: Any = app
    options = {name: {text for item in sub.params for text in item.opts} for name, sub in command.commands.items()}
    used = [
        command
        for text in TEXTS
        for command in re.findall(r"(?:^|[\s`])keysync ([a-z]+)((?: [^\n`|;]*)?)", text, re.MULTILINE)
    ]
    assert len(used) > 15
    for name, rest in used:
        assert name in options, name
        assert set(re.findall(r"(?<=\s)(--?[a-z][\w-]*)", rest)) <= options[name] | {"-c"}, (name, rest)


def test_jq_uses_fields_of_the_log() -> None:
    """A misspelt field is null, and an empty result would look as if all were well."""
    filters = [text for block in code_of(RUNBOOK) for text in re.findall(r"jq (?:-\w+ )?'([^']+)' keysync\.log", block)]
    assert len(filters) > 6
    for text in filters:
        bare = re.sub(r'"[^"]*"', "", text)
        asked = set(re.findall(r"\.([a-z_]+)", bare)) | set(re.findall(r"[{,]\s*([a-z_]+)(?=\s*[,}])", bare))
        assert asked <= FIELDS | {"code"}, text
        assert set(re.findall(r'\.event == "([^"]+)"', text)) <= EVENTS


def test_states_in_links_to_the_page_exist() -> None:
    """The states in `?state=` of a link."""
    states = series()["keysync_accounts_by_state"]["state"] | {"attention", "stale"}
    documented = [name for text in [*TEXTS, RUNBOOK] for name in re.findall(r"\?state=(\w+)", text)]
    assert documented
    assert set(documented) <= states


def test_the_table_of_set_ups_names_the_alerts_for_one_off_runs() -> None:
    """Comments in the rules mark these alerts."""
    text = (ROOT / "deploy" / "helm" / "keysync" / "files" / "alerts.yaml").read_text(encoding="utf-8")
    one_off_alerts = set(re.findall(r"- alert: (\w+)\n\s+# Also applies to one-off runs", text))
    (row,) = re.findall(r"^\| CronJob with `sync --push-gateway` \|(.*)\|(?:.*)\|$", RUNBOOK, re.MULTILINE)
    certificates = {"KeysyncCredentialExpiring", "KeysyncCredentialExpiresSoon"}
    assert one_off_alerts == set(re.findall(r"`(Keysync\w+)`", row)) | certificates


# Dashboard


@pytest.mark.parametrize(("title", "expression"), queries(), ids=lambda value: value[:40])
def test_a_panel_uses_existing_series(title: str, expression: str) -> None:
    """The same rules as for an alert."""
    assert complaints(expression) == [], title


def test_each_metric_is_on_the_dashboard_or_omitted_on_purpose() -> None:
    """A metric without a panel is either unnecessary or forgotten."""
    shown = {selector.metric for _, expression in queries() for selector in selectors(expression)}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    skipped = {
        "keysync_secret_verdicts_total",  # keysync_secrets_by_verdict has their current state
        "keysync_account_last_attempt_timestamp_seconds",  # consecutive failures say more
    }
    assert {exposed(family) for family in families()} - shown == skipped


def test_the_dashboard_shows_unreadable_secrets() -> None:
    """Such secrets are not counted as out of sync, so they have their own line."""
    panel_list = [panel for panel in panels() if "keysync_vault_secrets_out_of_sync" in str(panel.get("targets"))]
    assert ['state="unread"' in target["expr"] for item in panel_list for target in item["targets"]] == [False, True]


def test_the_dashboard_can_be_drawn() -> None:
    """Ids are unique, panels do not overlap or exceed the page, and all use the selected data source."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    panel_list = panels()
    assert len({panel["id"] for panel in panel_list}) == len(panel_list)
    for panel in panel_list:
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["w"] > 0
        assert place["h"] > 0
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert panel["title"]
        if panel["type"] == "row":
            continue
        assert panel["datasource"] == source
        assert panel["description"]
        references = [target["refId"] for target in panel["targets"]]
        assert references
        assert len(set(references)) == len(references)
        assert all(target["datasource"] == source for target in panel["targets"])
    for item, other in combinations(panel_list, 2):
        assert not overlap(item["gridPos"], other["gridPos"]), (item["title"], other["title"])


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


def test_the_dashboard_declares_exactly_the_variables_it_uses() -> None:
    """And their own queries use metrics that exist."""
    document = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    variables = {item["name"]: item for item in document["templating"]["list"]}
    text = json.dumps(document["panels"])
    used = set(re.findall(r"\$\{?([a-z]\w*)", text)) - {"__rate_interval"}
    assert used == set(variables)
    assert document["schemaVersion"] >= 39
    for name, variable in variables.items():
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert asked, name
            assert asked[2] == name
            assert name in series()[selectors(asked[1])[0].metric] or name in TARGET_LABELS
            assert complaints(asked[1]) == []
    assert variables["datasource"]["query"] == "prometheus"


def test_both_files_can_be_indented() -> None:
    """A chart embeds them line by line: they have no tab, and each line ends with a newline."""
    for path in (DASHBOARD, ROOT / "deploy" / "helm" / "keysync" / "files" / "alerts.yaml"):
        text = path.read_text(encoding="utf-8")
        assert "\t" not in text
        assert text.endswith("\n")
