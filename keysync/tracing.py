"""What a run is traced with. Nothing here needs OpenTelemetry: whoever takes a `Tracer` works without it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol


class Tracer(Protocol):
    """Makes spans; a span that begins within another, in the same task or in one started there, is its child.

    `enabled` says whether spans go anywhere, so that clients can do without what makes their own.
    """

    @property
    def enabled(self) -> bool: ...

    def span(self, name: str, attributes: Mapping[str, str]) -> AbstractContextManager[None]:
        """A span for as long as the block runs, failed where an exception leaves it. `attributes` are names, never values
        of secrets."""
        ...


RUN: Final = "keysync.run"  # a span's name
ACCOUNT: Final = "keysync.account"
SECRET: Final = "keysync.secret"  # noqa: S105  # a span's name


class _NoTracer:
    """Makes no spans, at the cost of a call."""

    enabled: Final = False

    def span(self, name: str, attributes: Mapping[str, str]) -> AbstractContextManager[None]:  # noqa: ARG002
        """A context that does nothing."""
        return nullcontext()


NO_TRACER: Final[Tracer] = _NoTracer()
"""Where nothing is traced."""
