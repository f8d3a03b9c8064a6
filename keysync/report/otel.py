"""Spans through the OpenTelemetry SDK. Only `keysync.report.tracing` imports it, since the SDK is an extra."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import ProxyTracerProvider, Status
from requests import Response, Session

from keysync import __version__

_URLS: Final = frozenset({"url.full", "http.url"})


def make_provider(redact: Callable[[str], str], exporter: SpanExporter | None) -> TracerProvider | None:
    """Sets the provider of the process, from which azure-core gets its tracer too; None if the process already has one.

    It sends to `exporter`, or to the collector that the environment names. Service attributes from the environment
    (OTEL_SERVICE_NAME, …) take precedence.
    """
    if not isinstance(trace.get_tracer_provider(), ProxyTracerProvider):
        return None
    defaults = Resource({"service.name": "keysync", "service.version": __version__})
    provider = TracerProvider(resource=defaults.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(_RedactingProcessor(exporter or OTLPSpanExporter(session=_NoRedirects()), redact))
    trace.set_tracer_provider(provider)
    return provider


class _NoRedirects(Session):
    """A session without redirects: a redirect would send the headers, which may contain credentials, to another host."""

    def get_redirect_target(self, resp: Response) -> None:  # the base class's signature
        """None: no redirect is followed."""


class _RedactingProcessor(BatchSpanProcessor):
    """Queues a redacted copy of each span when it ends. Later the redactor may have forgotten a value."""

    def __init__(self, exporter: SpanExporter, redact: Callable[[str], str]) -> None:
        super().__init__(exporter)
        self._redact = redact

    def on_end(self, span: ReadableSpan) -> None:
        """Queues the span: redacted, without events, and without the exception texts that azure-core adds."""
        attributes = (span.attributes or {}).items()
        super().on_end(
            ReadableSpan(
                name=self._redact(span.name),
                context=span.context,
                parent=span.parent,
                resource=span.resource,
                attributes={name: self._redacted(name, value) for name, value in attributes},
                links=span.links,
                kind=span.kind,
                status=Status(span.status.status_code),
                start_time=span.start_time,
                end_time=span.end_time,
                instrumentation_scope=span.instrumentation_scope,
            )
        )

    def _redacted(self, name: str, value: Any) -> Any:  # noqa: ANN401  # an attribute: a scalar or a sequence of scalars
        if isinstance(value, str):
            # Older releases of azure-core include the query of a URL.
            return self._redact(value.partition("?")[0] if name in _URLS else value)
        if isinstance(value, list | tuple):
            return [self._redacted(name, item) for item in cast("Sequence[Any]", value)]
        return value
