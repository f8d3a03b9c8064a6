"""Spans through the OpenTelemetry SDK. Only `keysync.report.tracing` imports it, since the SDK is an extra."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import ProxyTracerProvider, Status, StatusCode
from requests import Response, Session

from keysync import __version__

_URLS: Final = frozenset({"url.full", "http.url"})


class _NoRedirects(Session):
    """A session without redirects: a redirect would send the headers, which may contain credentials, to another host."""

    def get_redirect_target(self, resp: Response) -> None:  # the base class's signature
        """None: no redirect is followed."""


class SdkTracer:
    """A `Tracer` that sends spans to `exporter`, or by default to the collector that the environment names.

    azure-core gets its tracer from the global provider of OpenTelemetry, which can be set once in a process. `make` returns
    None if it is already set: spans of another provider would not be redacted.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("keysync", __version__)

    @property
    def enabled(self) -> bool:
        """True: spans are exported."""
        return True

    @classmethod
    def make(cls, redact: Callable[[str], str], exporter: SpanExporter | None) -> SdkTracer | None:
        """Sets the provider of the process. Service attributes from the environment (OTEL_SERVICE_NAME, …) take precedence."""
        if not isinstance(trace.get_tracer_provider(), ProxyTracerProvider):
            return None
        defaults = Resource({"service.name": "keysync", "service.version": __version__})
        provider = TracerProvider(resource=defaults.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
        provider.add_span_processor(
            RedactingExporter(BatchSpanProcessor(exporter or OTLPSpanExporter(session=_NoRedirects())), redact)
        )
        trace.set_tracer_provider(provider)
        return cls(provider)

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, str]) -> Generator[None, None, None]:
        """A span for the duration of the block. It has an exception's type, not its text, which may repeat a service's reply."""
        with self._tracer.start_as_current_span(
            name, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except BaseException as error:
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(StatusCode.ERROR)
                raise

    def shutdown(self) -> None:
        """Sends buffered spans; blocks until done."""
        self._provider.shutdown()


class RedactingExporter(SpanProcessor):
    """Gives a redacted copy of each span to `inner` when it ends. Later the redactor may have forgotten a value."""

    def __init__(self, inner: SpanProcessor, redact: Callable[[str], str]) -> None:
        self._inner = inner
        self._redact = redact

    def on_end(self, span: ReadableSpan) -> None:
        """Copies a span: redacted, without events, and without the exception texts that azure-core adds."""
        attributes = (span.attributes or {}).items()
        self._inner.on_end(
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

    def shutdown(self) -> None:
        """Shuts `inner` down."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Makes `inner` send buffered spans."""
        return self._inner.force_flush(timeout_millis)

    def _redacted(self, name: str, value: Any) -> Any:  # noqa: ANN401  # an attribute: a scalar or a sequence of scalars
        if isinstance(value, str):
            # Older releases of azure-core include the query of a URL.
            return self._redact(value.partition("?")[0] if name in _URLS else value)
        if isinstance(value, list | tuple):
            return [self._redacted(name, item) for item in cast("Sequence[Any]", value)]
        return value
