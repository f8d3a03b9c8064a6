"""Spans by OpenTelemetry's SDK. Only `keysync.report.tracing` imports this, since the SDK is an extra."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

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
    """A session that follows no redirect: it would take the collector's headers, which may hold credentials, elsewhere."""

    def get_redirect_target(self, resp: Response) -> None:  # the base class's signature
        """There is none."""


class SdkTracer:
    """A `Tracer` whose spans go to `exporter`, or else to the collector that the environment names.

    azure-core finds its tracer through OpenTelemetry's global provider, which can be set once a process: `make` returns None
    where somebody has set it already, whose spans would go out unscrubbed.
    """

    enabled: Final = True

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("keysync", __version__)

    @classmethod
    def make(cls, redact: Callable[[str], str], exporter: SpanExporter | None) -> SdkTracer | None:
        """Sets the process's provider. What the environment says of the service (OTEL_SERVICE_NAME, …) wins over ours."""
        if not isinstance(trace.get_tracer_provider(), ProxyTracerProvider):
            return None
        ours = Resource({"service.name": "keysync", "service.version": __version__})
        provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
        provider.add_span_processor(
            RedactingExporter(BatchSpanProcessor(exporter or OTLPSpanExporter(session=_NoRedirects())), redact)
        )
        trace.set_tracer_provider(provider)
        return cls(provider)

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, str]) -> Iterator[None]:
        """A span for as long as the block runs. Of an exception it tells the type: the text may repeat a service's reply."""
        with self._tracer.start_as_current_span(
            name, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as made:
            try:
                yield
            except BaseException as error:
                made.set_attribute("error.type", type(error).__qualname__)
                made.set_status(StatusCode.ERROR)
                raise

    def shutdown(self) -> None:
        """Sends what is buffered; blocks meanwhile."""
        self._provider.shutdown()


class RedactingExporter(SpanProcessor):
    """Hands a clean copy of each span to `inner` as it ends: later the scrubber may have forgotten a value."""

    def __init__(self, inner: SpanProcessor, redact: Callable[[str], str]) -> None:
        self._inner = inner
        self._redact = redact

    def on_end(self, span: ReadableSpan) -> None:
        """Takes a span over: scrubbed, without events, and without what azure-core's spans repeat of an exception."""
        attributes = (span.attributes or {}).items()
        self._inner.on_end(
            ReadableSpan(
                name=self._redact(span.name),
                context=span.context,
                parent=span.parent,
                resource=span.resource,
                attributes={name: self._clean(name, value) for name, value in attributes},
                links=span.links,
                kind=span.kind,
                status=Status(span.status.status_code),
                start_time=span.start_time,
                end_time=span.end_time,
                instrumentation_scope=span.instrumentation_scope,
            )
        )

    def shutdown(self) -> None:
        """Ends `inner`."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Has `inner` send what it buffered."""
        return self._inner.force_flush(timeout_millis)

    def _clean(self, name: str, value: Any) -> Any:  # noqa: ANN401  # an attribute: a scalar or a list of them
        if isinstance(value, str):
            # Older releases of azure-core keep the query of a URL as it is.
            return self._redact(value.partition("?")[0] if name in _URLS else value)
        return [self._clean(name, item) for item in value] if isinstance(value, list | tuple) else value
