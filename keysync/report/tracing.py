"""Traces of runs, where the extra ``tracing`` is installed and the environment names a collector."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import structlog
from azure.core.settings import settings

from keysync.report.threads import in_thread
from keysync.tracing import NO_TRACER, Tracer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from keysync.report.otel import SdkTracer

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def asked_for(environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's standard variables ask for traces."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return False
    return any(environ.get(name) for name in _ENDPOINTS)


@asynccontextmanager
async def open_tracing(
    redact: Callable[[str], str], *, close_seconds: float = 5.0, exporter: SpanExporter | None = None
) -> AsyncIterator[Tracer]:
    """The tracer of this process: `NO_TRACER` unless the environment asks for traces and the extra is there.

    azure-core makes spans of its own for as long as it is open. `exporter` takes the spans in place of the collector that the
    environment names. On leaving, what is still buffered has `close_seconds` to be sent. Can be opened once a process.
    """
    tracer = _make(redact, exporter) if exporter is not None or asked_for(os.environ) else None
    if tracer is None:
        yield NO_TRACER
        return
    settings.tracing_enabled = True
    try:
        yield tracer
    finally:
        settings.tracing_enabled.unset_value()
        await _close(tracer, close_seconds)


def _make(redact: Callable[[str], str], exporter: SpanExporter | None) -> SdkTracer | None:
    log = structlog.get_logger("keysync")
    try:
        from keysync.report.otel import SdkTracer  # noqa: PLC0415  # an extra
    except ImportError:
        reason = "the environment asks for traces, and OpenTelemetry is missing: in a clone, pip install '.[tracing]'"
        log.warning("tracing.disabled", reason=reason)
        return None
    tracer = SdkTracer.make(redact, exporter)
    if tracer is None:
        log.warning("tracing.disabled", reason="this process has another tracer provider already")
    return tracer


async def _close(tracer: SdkTracer, seconds: float) -> None:
    try:
        await in_thread(tracer.shutdown, seconds=seconds, name="close tracing")
    except TimeoutError:
        reason = f"the collector did not take every span within {seconds:g} s"
        structlog.get_logger("keysync").warning("tracing.flush_timeout", reason=reason)
