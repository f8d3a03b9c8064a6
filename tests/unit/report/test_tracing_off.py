"""Without the extra, or without a collector, nothing is traced, and the SDK of OpenTelemetry is not even imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import structlog
from azure.core.settings import settings
from opentelemetry.trace import get_current_span

from keysync.report.tracing import is_requested, open_tracing
from keysync.tracing import span

COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environ", "expected"),
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
def test_the_standard_variables_decide(environ: dict[str, str], expected: bool) -> None:
    """An endpoint for traces enables tracing; the standard off switches disable it."""
    assert is_requested(environ) is expected


async def test_without_a_collector_a_span_does_nothing() -> None:
    """Callers need not check whether tracing is on. An exception passes through it."""
    async with open_tracing(str):
        assert not settings.tracing_enabled()
        with span("keysync.run", {"a": "b"}):
            assert not get_current_span().is_recording()
        with pytest.raises(KeyError), span("keysync.run", {"a": "b"}):
            raise KeyError


async def test_a_missing_extra_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says how to install the extra, and keysync continues."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", COLLECTOR["OTEL_EXPORTER_OTLP_ENDPOINT"])
    monkeypatch.setitem(sys.modules, "keysync.report.otel", None)
    with structlog.testing.capture_logs() as logged:
        async with open_tracing(str):
            with span("keysync.run", {}):
                assert not get_current_span().is_recording()
    (one,) = logged
    assert (one["event"], one["log_level"]) == ("tracing.disabled", "warning")
    assert "pip install '.[tracing]'" in one["reason"]


def test_without_tracing_the_sdk_is_not_imported() -> None:
    """So a run without tracing does not pay for it; `keysync --version` does not even import the API."""
    code = "import sys; from {} import *; print([name for name in sys.modules if name.startswith({!r})])"
    for module, package in (("keysync.cli.sync", "opentelemetry.sdk"), ("keysync.cli.main", "opentelemetry")):
        done = subprocess.run(
            [sys.executable, "-c", code.format(module, package)],
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert done.stdout.strip() == "[]"
