"""Sends the traces of runs, if the extra ``tracing`` is installed and the environment names a collector."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import structlog
from azure.core.settings import settings

from keysync import __version__
from keysync.report.threads import in_thread
from keysync.tracing import NO_TRACER, use_tracer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

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
) -> AsyncGenerator[None]:
    """Sends the spans of the block, redacted, if the environment requests traces and the extra is installed.

    azure-core's clients that are opened in the block make spans too. `exporter` replaces the collector that the environment
    names. On exit, buffered spans are sent for up to `close_seconds`. It can be opened once in a process.
    """
    provider = _make_provider(redact, exporter) if exporter is not None or is_requested(os.environ) else None
    if provider is None:
        yield
        return
    settings.tracing_enabled = True
    use_tracer(provider.get_tracer("keysync", __version__))
    try:
        yield
    finally:
        use_tracer(NO_TRACER)
        settings.tracing_enabled.unset_value()
        try:
            await in_thread(provider.shutdown, seconds=close_seconds, name="close tracing")
        except TimeoutError:
            reason = f"the collector did not accept all spans within {close_seconds:g} s"
            structlog.get_logger("keysync").warning("tracing.flush_timeout", reason=reason)


def _make_provider(redact: Callable[[str], str], exporter: SpanExporter | None) -> TracerProvider | None:
    log = structlog.get_logger("keysync")
    try:
        from keysync.report.otel import make_provider  # noqa: PLC0415  # needs the extra
    except ImportError:
        reason = "the environment requests traces, but OpenTelemetry is missing: in a clone, pip install '.[tracing]'"
        log.warning("tracing.disabled", reason=reason)
        return None
    provider = make_provider(redact, exporter)
    if provider is None:
        log.warning("tracing.disabled", reason="this process already has another tracer provider")
    return provider
