"""The interface for tracing a run. It does not need OpenTelemetry: `NO_TRACER` implements it without.

`keysync.report.tracing` opens the tracer that exports spans.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol


class Tracer(Protocol):
    """Makes spans. A span is the child of the span in which it, or its task, was started."""

    @property
    def enabled(self) -> bool:
        """Whether spans are exported; if not, clients can skip making their own."""
        ...

    def span(self, name: str, attributes: Mapping[str, str]) -> AbstractContextManager[None]:
        """A span for the duration of the block. An exception that leaves the block marks the span as failed.

        `attributes` contain names, never values of secrets.
        """
        ...


RUN: Final = "keysync.run"  # a span's name
ACCOUNT: Final = "keysync.account"
SECRET: Final = "keysync.secret"  # noqa: S105  # a span's name


class _NoTracer:
    """Makes no spans."""

    @property
    def enabled(self) -> bool:
        return False

    def span(self, name: str, attributes: Mapping[str, str]) -> AbstractContextManager[None]:  # noqa: ARG002  # the protocol's
        return nullcontext()


NO_TRACER: Final[Tracer] = _NoTracer()
"""The tracer for when tracing is off."""
