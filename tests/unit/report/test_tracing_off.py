"""Without the extra, or without a collector, nothing is traced, and nothing of OpenTelemetry is even imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import structlog
from azure.core.settings import settings

from keysync.report.tracing import is_requested, open_tracing
from keysync.tracing import NO_TRACER

COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environ", "asked"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        (COLLECTOR, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:4318"}, False),
        ({**COLLECTOR, "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({**COLLECTOR, "OTEL_SDK_DISABLED": "false"}, True),
        ({**COLLECTOR, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**COLLECTOR, "OTEL_TRACES_EXPORTER": "otlp"}, True),
    ],
)
def test_the_standard_variables_decide(environ: dict[str, str], asked: bool) -> None:
    """An endpoint for traces turns them on, and the standard ways to turn them off do so."""
    assert is_requested(environ) is asked


async def test_without_a_collector_there_is_a_tracer_that_does_nothing() -> None:
    """Whoever takes a tracer need not ask whether there is one; an exception passes through it."""
    async with open_tracing(str) as tracer:
        assert tracer is NO_TRACER
        assert not tracer.enabled
        assert not settings.tracing_enabled()
        with pytest.raises(KeyError), tracer.span("keysync.run", {"a": "b"}):
            raise KeyError


async def test_a_missing_extra_is_told_and_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector that is named in vain is a warning with its cure; keysync goes on."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", COLLECTOR["OTEL_EXPORTER_OTLP_ENDPOINT"])
    monkeypatch.setitem(sys.modules, "keysync.report.otel", None)
    with structlog.testing.capture_logs() as logged:
        async with open_tracing(str) as tracer:
            assert tracer is NO_TRACER
    (one,) = logged
    assert (one["event"], one["log_level"]) == ("tracing.disabled", "warning")
    assert "pip install '.[tracing]'" in one["reason"]


def test_what_is_not_asked_for_is_not_imported() -> None:
    """A pass without traces pays nothing for them."""
    code = (
        "import keysync.cli.sync, keysync.report.tracing, sys;"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "[]"
