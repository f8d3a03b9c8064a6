"""What of a reply the SDK's models do not show: when the service sent it, by its own clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import SansIOHTTPPolicy

_DATES: Final[ContextVar[list[str] | None]] = ContextVar("dates", default=None)


class ReplyDate(SansIOHTTPPolicy[Any, Any]):
    """A policy of a client's pipeline that keeps the Date of each reply for `reply_date`."""

    def on_response(self, request: PipelineRequest[Any], response: PipelineResponse[Any, Any]) -> None:  # noqa: ARG002
        """Looks at one reply, whatever its status."""
        dates = _DATES.get()
        if dates is not None:
            dates.append(response.http_response.headers.get("Date", ""))


@contextmanager
def reply_date() -> Iterator[Callable[[], datetime | None]]:
    """Yields what tells, after a call within the block, when its last reply was sent; None where it did not say."""
    dates: list[str] = []
    token = _DATES.set(dates)
    try:
        yield lambda: _parsed(dates[-1] if dates else "")
    finally:
        _DATES.reset(token)


def _parsed(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else None
