"""Pipeline policies: keep requests at their service, check list pages, and record the Date of replies."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

from azure.core.exceptions import DecodeError
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import SansIOHTTPPolicy

from keysync.failures import CallFailed, FailureRecord
from keysync.json_values import as_list, as_mapping

RAW_LIST_ENTRIES: Final[ContextVar[list[Any] | None]] = ContextVar("raw_list_entries", default=None)
"""The list to which the current task wants list entries appended as parsed JSON; None for the SDK's models.

Making the models takes thirty times as long as parsing.
"""
_DATES: Final[ContextVar[list[str] | None]] = ContextVar("dates", default=None)
_LIST_PATH: Final = "/providers/microsoft.batch/batchaccounts"


class SingleVaultPolicy(SansIOHTTPPolicy[Any, Any]):
    """A pipeline policy before the one that adds the token: only the vault at `url` gets the token."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/") + "/"
        self._origin = _origin(url)

    def on_request(self, request: PipelineRequest[Any]) -> None:
        """Raises CallFailed for a request to another host, port or scheme."""
        url: str = request.http_request.url
        if not url.startswith(self._url) and _origin(url) != self._origin:
            raise _wrong_host(url, "the vault")


class ListPagePolicy(SansIOHTTPPolicy[Any, Any]):
    """A pipeline policy before the one that adds the token: checks the pages of a list of accounts.

    The SDK follows a `nextLink` to any host, with the token. It takes a reply without `value` for an empty list, so that all
    accounts would seem to be gone.
    """

    def __init__(self, resource_manager: str) -> None:
        self._origin = resource_manager.rstrip("/") + "/"
        self._host = urlsplit(resource_manager).hostname or ""
        self._port = urlsplit(resource_manager).port or 443

    def on_request(self, request: PipelineRequest[Any]) -> None:
        """Raises CallFailed for a request to another service than Resource Manager."""
        url: str = request.http_request.url
        if not url.startswith(self._origin) and not self._is_resource_manager(url):
            raise _wrong_host(url, "Resource Manager")

    def on_response(self, request: PipelineRequest[Any], response: PipelineResponse[Any, Any]) -> None:
        """Raises DecodeError for a list of accounts without `value`, and the parser's exceptions for invalid JSON."""
        reply = response.http_response
        if request.http_request.method != "GET" or reply.status_code != 200 or not _is_list(request.http_request.url):
            return
        body = as_mapping(reply.json())
        entries = as_list(body.get("value")) if body is not None else None
        if entries is None:
            raise DecodeError("a list of accounts has no `value`", response=reply)
        raw = RAW_LIST_ENTRIES.get()
        if raw is not None:
            raw += entries
            entries.clear()  # the SDK reads the same list next, and then makes no models

    def _is_resource_manager(self, url: str) -> bool:
        parts = urlsplit(url)
        host = parts.hostname or ""
        # A region's Resource Manager links to its own host.
        same = host == self._host or host.endswith(f".{self._host}")
        return parts.scheme == "https" and same and (parts.port or 443) == self._port


def _is_list(url: str) -> bool:
    return urlsplit(url).path.rstrip("/").lower().endswith(_LIST_PATH)


class ReplyDatePolicy(SansIOHTTPPolicy[Any, Any]):
    """A pipeline policy: records the Date of each reply for `reply_date`."""

    def on_response(self, request: PipelineRequest[Any], response: PipelineResponse[Any, Any]) -> None:  # noqa: ARG002  # the SDK's signature
        """Records the Date of one reply, of any status."""
        dates = _DATES.get()
        if dates is not None:
            dates.append(response.http_response.headers.get("Date", ""))


@contextmanager
def reply_date() -> Generator[Callable[[], datetime | None]]:
    """Yields a function that returns the Date of the last reply within the block; None if it had none."""
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


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else None)


def _wrong_host(url: str, service: str) -> CallFailed:
    message = f"a link to the next page leads to {urlsplit(url).hostname}, which is not {service}: not followed"
    return CallFailed(FailureRecord(kind="invalid_response", summary=message))
