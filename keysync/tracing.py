"""Spans of a run, through OpenTelemetry's API. They do nothing until `keysync.report.tracing` sets a tracer."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Final

from opentelemetry.trace import NoOpTracer, StatusCode, Tracer

RUN: Final = "keysync.run"  # a span's name
ACCOUNT: Final = "keysync.account"
SECRET: Final = "keysync.secret"  # noqa: S105  # a span's name

NO_TRACER: Final[Tracer] = NoOpTracer()
_tracer = NO_TRACER


@contextmanager
def span(name: str, attributes: Mapping[str, str]) -> Generator[None]:
    """A span for the duration of the block, below the span in which it, or its task, was started.

    `attributes` contain names, never values of secrets. Of an exception the span has the type, not the text, which may repeat
    a service's reply.
    """
    if _tracer is NO_TRACER:  # 2 µs, where OpenTelemetry's own takes 19
        yield
        return
    with _tracer.start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield
        except BaseException as error:
            current.set_attribute("error.type", type(error).__qualname__)
            current.set_status(StatusCode.ERROR)
            raise


def use_tracer(tracer: Tracer) -> None:
    """Sets the tracer of all later spans of this process."""
    # Not OpenTelemetry's global tracer: another provider of this process would not redact the spans.
    global _tracer  # noqa: PLW0603  # as in OpenTelemetry, so that no layer passes it through
    _tracer = tracer
