"""Traces of runs, if the extra ``tracing`` is installed and the environment names a collector."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Mapping
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


def is_requested(environ: Mapping[str, str]) -> bool:
    """Whether the standard variables of OpenTelemetry request traces."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return False
    return any(environ.get(name) for name in _ENDPOINTS)


@asynccontextmanager
async def open_tracing(
    redact: Callable[[str], str], *, close_seconds: float = 5.0, exporter: SpanExporter | None = None
) -> AsyncGenerator[Tracer, None]:
    """The tracer of this process: `NO_TRACER` unless the environment requests traces and the extra is installed.

    While it is open, azure-core creates spans too. `exporter` replaces the collector that the environment names. On exit,
    buffered spans are sent for up to `close_seconds`. It can be opened once in a process.
    """
    tracer = _make(redact, exporter) if exporter is not None or is_requested(os.environ) else None
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
        reason = "the environment requests traces, but OpenTelemetry is missing: in a clone, pip install '.[tracing]'"
        log.warning("tracing.disabled", reason=reason)
        return None
    tracer = SdkTracer.make(redact, exporter)
    if tracer is None:
        log.warning("tracing.disabled", reason="this process already has another tracer provider")
    return tracer


async def _close(tracer: SdkTracer, seconds: float) -> None:
    try:
        await in_thread(tracer.shutdown, seconds=seconds, name="close tracing")
    except TimeoutError:
        reason = f"the collector did not accept all spans within {seconds:g} s"
        structlog.get_logger("keysync").warning("tracing.flush_timeout", reason=reason)
