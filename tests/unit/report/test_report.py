"""The output of a run: JSON, text, log and metrics."""

from __future__ import annotations

import io
import json
import re
import unicodedata
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry, generate_latest

from keysync.calls import Operation
from keysync.cli.streams import console_for
from keysync.errors import UsageError
from keysync.failures import CloudError, FailureRecord
from keysync.report.console import to_json
from keysync.report.log import RunLog
from keysync.report.metrics import Metrics, StatusCollector
from keysync.report.status import Status
from keysync.report.text import print_report
from keysync.sources.shard import Shard
from keysync.sync.model import Outcome, Report, Result
from tests.support.runs import GROUP, ref
from tests.support.snapshots import account, make_status

ERROR = FailureRecord(
    kind="cloud_error",
    summary="HTTP 403: AuthorizationFailed: no",
    http_status=403,
    cloud_error=CloudError("AuthorizationFailed", "no", "t", (CloudError("Inner", "i"),), {"code": "Innermost"}),
    request_id="request-1",
    correlation_id="correlation-1",
    client_request_id="client-1",
    hint="the identity lacks the action x",
)
REPORT = Report(
    run_id="run-1",
    dry_run=False,
    checksum="0123456789abcdef0123456789abcdef",
    started=datetime(2026, 11, 24, 5, 22, tzinfo=UTC),
    duration_seconds=0.41,
    accounts=3,
    results=(
        Result(ref("alpha"), "created", version="v1", verdict="missing"),
        Result(ref("alpha", "secondary"), "unchanged", version="v2"),
        Result(ref("beta"), "failed", reason=ERROR.summary, error=ERROR),
        Result(ref("beta", "secondary"), "failed", reason=ERROR.summary, error=ERROR),
        Result(ref("gamma"), "refused", reason="a certificate owns this name"),
        Result(ref("gamma", "secondary"), "updated", version="v3", reason="the stored value is not the live key"),
    ),
)
FAILURE_FIELDS = {"kind", "http_status", "cloud_error", "request_id", "correlation_id", "client_request_id", "hint"}


class FakeTerminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        """True."""
        return True


def printed(report: Report) -> str:
    stream = io.StringIO()
    print_report(console_for(stream), report)
    return stream.getvalue()


def test_the_json_report_has_the_promised_fields():
    """Exactly the fields of the contract, and those of a stopped or interrupted run."""
    report = json.loads(to_json(REPORT.to_dict()))
    promised = {"run_id", "dry_run", "checksum", "started", "duration_seconds", "summary", "items"}
    assert set(report) == promised | {"stopped", "interrupted", "warnings"}
    assert report["started"] == "2026-11-24T05:22:00Z"
    assert report["summary"] == {"accounts": 3, "created": 1, "updated": 1, "unchanged": 1, "refused": 1, "failed": 2}
    assert report["items"][0] == {
        "account": f"{GROUP}/alpha",
        "key": "primary",
        "vault": "main",
        "secret": "alpha-primary-key",
        "outcome": "created",
        "verdict": "missing",
        "version": "v1",
        "reason": None,
        "error": None,
    }
    assert set(report["items"][2]["error"]) == FAILURE_FIELDS
    assert report["items"][2]["error"]["cloud_error"] == {
        "code": "AuthorizationFailed",
        "message": "no",
        "target": "t",
        "details": [{"code": "Inner", "message": "i", "target": None, "details": [], "innererror": None}],
        "innererror": {"code": "Innermost"},
    }


def test_a_summary_always_has_the_usual_counts():
    """So a script need not check for them. A rarer outcome appears when it occurs."""
    empty = replace(REPORT, results=(), accounts=0)
    assert empty.summary() == {
        "accounts": 0,
        "created": 0,
        "updated": 0,
        "unchanged": 0,
        "refused": 0,
        "failed": 0,
    }
    rare = replace(REPORT, results=(Result(ref("alpha"), "unknown"),))
    assert rare.summary()["unknown"] == 1


def test_the_text_has_outcome_hint_and_request():
    """What happened to each secret, how to fix a failure, and the request id for support."""
    text = printed(REPORT)
    for part in (
        "alpha-primary-key",
        "+ created",
        "failed beta",
        "refused gamma",
        "→ the identity lacks the action x",
        "request request-1",
        "a certificate owns this name",
    ):
        assert part in text
    assert text.splitlines()[-1] == "3 accounts: 1 created, 1 updated, 1 unchanged, 1 refused, 2 failed in 0.41 s"


def test_each_reason_is_printed_once():
    """A failure of an account is printed once, with its secrets."""
    text = printed(REPORT)
    assert text.count("AuthorizationFailed") == 1
    assert "beta (beta-primary-key, beta-secondary-key)" in text


def test_piped_text_is_plain():
    """Without colors and without line breaks inside a reason."""
    long = "word " * 200
    text = printed(replace(REPORT, results=(Result(ref("alpha"), "refused", reason=long),)))
    assert "\x1b" not in text
    assert long.strip() in text


HOSTILE = "a\x1b]0;title\x07\x1b[2Jb\x9b31m\u202ec\rd\x7f"


@pytest.mark.parametrize("terminal", [False, True])
def test_control_codes_in_messages_are_replaced(terminal: bool):
    """Escape sequences in a tag or a service's message have no effect, on a terminal and in a pipe."""
    error = replace(ERROR, summary=HOSTILE, hint=HOSTILE, request_id=HOSTILE)
    results = (
        Result(
            replace(ref("alpha"), secret=HOSTILE), "refused", reason=f"marked by {HOSTILE}: keysync adopt {HOSTILE}"
        ),
        Result(ref("beta"), "failed", reason=HOSTILE, error=error),
    )
    stream = FakeTerminal() if terminal else io.StringIO()
    print_report(console_for(stream), replace(REPORT, results=results, warnings=(HOSTILE,), stopped=HOSTILE))
    text = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())  # rich's own colors
    assert "]0;title" in text  # the text is still printed
    assert not [each for each in text if unicodedata.category(each) in {"Cc", "Cf"} and each != "\n"]


@pytest.mark.parametrize(
    "words", ["az group delete --name render", "denied: az group delete; then: keysync adopt --yes"]
)
def test_a_command_in_a_services_message_is_not_shown_as_keysyncs(words: str):
    """Only commands that keysync suggests have their own line, for copying."""
    error = replace(ERROR, summary=words, hint=None, request_id=None)
    results = (
        Result(ref("alpha"), "failed", reason=words, error=error),
        Result(ref("beta"), "refused", reason="it is unmanaged. To take it over: keysync adopt --secret main/x"),
    )
    stream = FakeTerminal()
    print_report(console_for(stream), replace(REPORT, results=results, warnings=(words,)))
    lines = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).splitlines()]
    assert [line for line in lines if line.startswith("    ")] == ["    keysync adopt --secret main/x"]
    assert sum("az group delete" in line for line in lines) == 2


def test_brackets_are_not_markup():
    """Brackets in a service's message are printed unchanged."""
    text = printed(replace(REPORT, results=(Result(ref("alpha"), "refused", reason="[red]x[/red] [bold]"),)))
    assert "[red]x[/red] [bold]" in text


def test_unchanged_secrets_are_not_listed():
    """Among hundreds of secrets, those with a problem are easy to see."""
    same = tuple(Result(ref(f"a{index:03}"), "unchanged", version="v") for index in range(100))
    text = printed(replace(REPORT, results=(*same, Result(ref("zeta"), "refused", reason="r"))))
    assert "a050" not in text
    assert "zeta" in text
    assert "100 unchanged" in text


def test_a_plan_says_that_nothing_was_written_and_has_its_checksum():
    """The checksum is the argument of `--accept`."""
    line = printed(replace(REPORT, dry_run=True, results=(Result(ref("a"), "create"),))).splitlines()[-1]
    assert "nothing was written" in line
    assert "0123456789abcdef0123456789abcdef" in line


def test_a_stop_and_an_interruption_are_printed():
    """A reader sees that a run did not complete."""
    assert "stopped: too many" in printed(replace(REPORT, stopped="too many"))
    assert "interrupted" in printed(replace(REPORT, interrupted=True))


OUTCOMES: tuple[Outcome, ...] = (
    "created", "updated", "adopted", "unchanged", "skipped", "refused", "failed", "unknown", "create", "update", "adopt",
)  # fmt: skip


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_each_outcome_has_an_output_everywhere(outcome: Outcome):
    """In the table, the JSON, the log and the metrics."""
    report = replace(REPORT, results=(Result(ref("alpha"), outcome, reason="because"),))
    assert outcome in printed(report)
    assert outcome in to_json(report.to_dict())
    metrics = Metrics(CollectorRegistry())
    with structlog.testing.capture_logs() as logs:
        for observer in (RunLog(), metrics):
            observer.result("run-1", report.results[0])
            observer.finished(report)
    assert [entry["event"] for entry in logs if entry["event"].startswith("secret.")] == (
        [] if outcome == "unchanged" else [f"secret.{outcome}"]
    )


def logged(report: Report) -> list[Any]:
    log = RunLog()
    with structlog.testing.capture_logs() as logs:
        for result in report.results:
            log.result(report.run_id, result)
        log.finished(report)
    return list(logs)


def test_the_log_has_one_event_for_each_change_and_one_summary():
    """Events have stable names and matching levels. An unchanged secret causes no event."""
    events = [(entry["event"], entry["log_level"]) for entry in logged(REPORT)]
    assert events == [
        ("secret.created", "info"),
        ("secret.failed", "error"),
        ("secret.failed", "debug"),
        ("secret.refused", "warning"),
        ("secret.updated", "info"),
        ("run.cause", "warning"),
        ("run.finished", "warning"),
    ]


def test_a_failure_in_the_log_has_the_fields_of_the_report():
    """At the top level, beside the run and the secret."""
    entry = logged(REPORT)[1]
    assert entry["run_id"] == "run-1"
    assert (entry["account"], entry["vault"], entry["secret"], entry["key"]) == (
        f"{GROUP}/beta",
        "main",
        "beta-primary-key",
        "primary",
    )
    assert {field: entry[field] for field in FAILURE_FIELDS} == ERROR.to_dict()


@pytest.mark.parametrize(
    ("change", "event", "level"),
    [
        ({"results": ()}, "run.finished", "info"),
        ({"stopped": "too many"}, "run.stopped", "error"),
        ({"interrupted": True, "results": ()}, "run.interrupted", "info"),
    ],
)
def test_the_end_of_a_run_has_its_own_event(change: dict[str, Any], event: str, level: str):
    """A stop, an interruption and an ordinary end have different names."""
    entry = logged(replace(REPORT, **change))[-1]
    assert (entry["event"], entry["log_level"], entry["run_id"]) == (event, level, "run-1")


def exposition(metrics: Metrics, registry: CollectorRegistry) -> set[str]:
    lines = generate_latest(registry).decode().splitlines()
    return {line.split(" ")[0] for line in lines if line and not line.startswith("#") and "_created" not in line}


def test_metrics_have_the_promised_names_and_labels():
    """Those of the contract."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.called(Operation("batch", "listKeys"), "429")
    metrics.called(Operation("key_vault", "getSecret"), "200")
    for result in REPORT.results:
        metrics.result("run-1", result)
    metrics.finished(REPORT)
    series = exposition(metrics, registry)
    assert {name.split("{")[0] for name in series} >= {
        "keysync_runs_total",
        "keysync_run_duration_seconds_bucket",
        "keysync_run_duration_seconds_count",
        "keysync_run_duration_seconds_sum",
        "keysync_secret_outcomes_total",
        "keysync_secret_verdicts_total",
        "keysync_account_last_success_timestamp_seconds",
        "keysync_azure_requests_total",
        "keysync_azure_throttled_total",
    }
    assert registry.get_sample_value("keysync_runs_total", {"result": "failed"}) == 1
    assert registry.get_sample_value("keysync_secret_outcomes_total", {"vault": "main", "outcome": "failed"}) == 2
    assert registry.get_sample_value("keysync_azure_throttled_total", {"service": "batch"}) == 1
    labels = {"service": "batch", "operation": "listKeys", "status": "429"}
    assert registry.get_sample_value("keysync_azure_requests_total", labels) == 1


def test_only_accounts_completely_in_sync_are_marked():
    """The time of the last success changes for accounts without a failure, refusal or skip, and not in a dry run."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    name = "keysync_account_last_success_timestamp_seconds"
    metrics.finished(replace(REPORT, dry_run=True))
    assert registry.get_sample_value(name, {"account": f"{GROUP}/alpha"}) is None
    metrics.finished(REPORT)
    assert registry.get_sample_value(name, {"account": f"{GROUP}/alpha"}) == REPORT.started.timestamp() + 0.41
    assert registry.get_sample_value(name, {"account": f"{GROUP}/beta"}) is None
    assert registry.get_sample_value(name, {"account": f"{GROUP}/gamma"}) is None


def test_a_read_only_account_that_is_out_of_sync_is_not_marked():
    """Its keys would have to be written."""
    registry = CollectorRegistry()
    Metrics(registry).finished(replace(REPORT, results=(Result(ref("alpha"), "update"),)))
    name = "keysync_account_last_success_timestamp_seconds"
    assert registry.get_sample_value(name, {"account": f"{GROUP}/alpha"}) is None


def success_of(registry: CollectorRegistry, account: str) -> float | None:
    name = "keysync_account_last_success_timestamp_seconds"
    return registry.get_sample_value(name, {"account": f"{GROUP}/{account}"})


def test_an_account_that_was_never_in_sync_has_no_series():
    """It is covered, but a value of 0 would mean 1970."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.cover([f"{GROUP}/{name}" for name in ("alpha", "beta")], ["main"])
    metrics.finished(REPORT)
    assert success_of(registry, "alpha") is not None
    assert success_of(registry, "beta") is None
    assert f'{GROUP}/beta"' not in generate_latest(registry).decode()


def test_series_of_removed_accounts_and_vaults_disappear():
    """After a reload, also if a run with the previous configuration ends later."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    results = tuple(
        Result(ref(name, vault=vault), "unchanged", verdict="in_sync")
        for name in ("alpha", "beta")
        for vault in ("main", "old")
    )
    report = replace(REPORT, results=results)
    for _ in ("before", "after"):
        for result in results:
            metrics.result("run-1", result)
        metrics.finished(report)
        metrics.cover([f"{GROUP}/alpha"], ["main"])
    series = exposition(metrics, registry)
    assert success_of(registry, "alpha") is not None
    assert not [one for one in series if "beta" in one or "old" in one]
    labels = {"vault": "main", "outcome": "unchanged"}
    assert registry.get_sample_value("keysync_secret_outcomes_total", labels) == 4


def test_an_orphan_is_not_an_account_in_sync():
    """Removing an orphan creates no series for its former account."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.cover([f"{GROUP}/alpha"], ["main"])
    gone = Result(ref("gone"), "disabled", verdict="orphaned")
    metrics.finished(replace(REPORT, results=(gone, Result(ref("alpha"), "unchanged"))))
    assert success_of(registry, "alpha") is not None
    assert success_of(registry, "gone") is None


def test_waiting_orphans_are_counted_until_a_search_finds_none():
    """A run without a search keeps the number. A new configuration makes it unknown."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.cover([f"{GROUP}/alpha"], ["main", "other"])
    waits = Result(ref("gone"), "skipped", verdict="orphaned")
    removed = Result(ref("gone", "secondary"), "deleted", verdict="orphaned")

    def waiting() -> list[float | None]:
        return [registry.get_sample_value("keysync_orphans", {"vault": vault}) for vault in ("main", "other")]

    assert waiting() == [None, None]
    metrics.finished(replace(REPORT, results=(waits, removed), orphans_searched=True))
    assert waiting() == [1, 0]
    metrics.finished(replace(REPORT, results=()))
    assert waiting() == [1, 0]
    metrics.finished(replace(REPORT, results=(), orphans_searched=True))
    assert waiting() == [0, 0]
    metrics.cover([f"{GROUP}/alpha"], ["main"])
    assert waiting() == [None, None]


def test_the_configuration_has_metrics():
    """Interval, shard, and the expiry of certificates. A removed credential has no series."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.scheduled(300.0)
    metrics.sharded(Shard(1, 3))
    value = registry.get_sample_value
    assert value("keysync_schedule_interval_seconds") == 300
    assert (value("keysync_shards"), value("keysync_shard_info", {"index": "1", "count": "3"})) == (3, 1)
    name, moment = "keysync_credential_expiry_timestamp_seconds", REPORT.started
    metrics.credentials({"client_certificate": moment, "environment": moment})
    metrics.credentials({"client_certificate": moment})
    assert value(name, {"credential": "client_certificate"}) == moment.timestamp()
    assert value(name, {"credential": "environment"}) is None
    metrics.overdue(moment, Shard(1, 3))
    assert value("keysync_run_overdue_timestamp_seconds", {"shard": "1/3"}) == moment.timestamp()


def test_both_keys_changed_starts_at_zero_for_each_vault():
    """So a rate shows the first event."""
    registry = CollectorRegistry()
    Metrics(registry).cover([], ["main"])
    assert registry.get_sample_value("keysync_both_keys_changed_total", {"vault": "main"}) == 0


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (
            make_status(account("a", last_success=None), account("b"), account("c", last_success=None, stale=True)),
            {"b": 0, "c": 1},
        ),
        (make_status(account("b"), leader=False), {}),
    ],
)
def test_staleness_is_exported_only_if_known(status: Status, expected: dict[str, int]):
    """Not before the first check after a start, and not on a standby."""
    registry = CollectorRegistry()
    registry.register(StatusCollector(status))
    samples = [one for family in registry.collect() if family.name == "keysync_account_stale" for one in family.samples]
    assert {one.labels["account"].rsplit("/", 1)[-1]: one.value for one in samples} == expected


def test_counters_start_at_zero():
    """So a rate shows the first failure."""
    registry = CollectorRegistry()
    Metrics(registry)
    for name, label, values in (
        ("keysync_runs_total", "result", ("success", "failed", "stopped", "interrupted")),
        ("keysync_azure_throttled_total", "service", ("batch", "key_vault")),
        ("keysync_accounts_skipped_total", "reason", ("busy", "backing_off")),
        ("keysync_config_reloads_total", "result", ("success", "refused")),
        ("keysync_notifications_total", "result", ("sent", "failed", "dropped")),
    ):
        assert [registry.get_sample_value(name, {label: value}) for value in values] == [0] * len(values)


def test_skipped_accounts_and_reloads_are_counted():
    """Accounts by reason, reloads by result."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.skipped(busy=2, backing_off=3)
    metrics.reloaded(succeeded=True)
    metrics.reloaded(succeeded=False)
    metrics.reloaded(succeeded=False)
    value = registry.get_sample_value
    assert value("keysync_accounts_skipped_total", {"reason": "busy"}) == 2
    assert value("keysync_accounts_skipped_total", {"reason": "backing_off"}) == 3
    assert value("keysync_config_reloads_total", {"result": "success"}) == 1
    assert value("keysync_config_reloads_total", {"result": "refused"}) == 2


def test_the_metrics_file_is_written_or_the_error_names_it(tmp_path: Path):
    """A missing folder is a usage error."""
    metrics = Metrics(CollectorRegistry())
    metrics.finished(REPORT)
    metrics.write(tmp_path / "keysync.prom")
    assert "keysync_runs_total" in (tmp_path / "keysync.prom").read_text()
    with pytest.raises(UsageError, match="missing"):
        metrics.write(tmp_path / "missing" / "keysync.prom")
