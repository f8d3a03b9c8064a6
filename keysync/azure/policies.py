"""Pipeline policies: requests stay at their service, list pages are checked, and the Date of each reply is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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

RAW_LIST_ENTRIES: Final[ContextVar[list[Any] | None]] = ContextVar("raw_list_entries", default=None)
"""Where this task wants the entries of a list as they came. The SDK's models of them cost thirty times the parsing."""


def _leads_away(url: str, service: str) -> CallFailed:
    told = f"a link to the next page leads to {urlsplit(url).hostname}, which is not {service}: not followed"
    return CallFailed(FailureRecord(kind="invalid_response", summary=told))


class SingleVaultPolicy(SansIOHTTPPolicy[Any, Any]):
    """A policy of a vault's client, in front of the one that adds the token: nobody but the vault at `url` gets it."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/") + "/"
        self._origin = _origin(url)

    def on_request(self, request: PipelineRequest[Any]) -> None:
        """Raises CallFailed for a request to another host, port or scheme than the vault's."""
        url: str = request.http_request.url
        if not url.startswith(self._url) and _origin(url) != self._origin:
            raise _leads_away(url, "the vault")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else None)


_LIST: Final = "/providers/microsoft.batch/batchaccounts"


class ListPagePolicy(SansIOHTTPPolicy[Any, Any]):
    """A policy of a client's pipeline, in front of the one that adds the token.

    The SDK follows a `nextLink` wherever it leads, token included, and reads a reply without a `value` as a list without
    accounts, after which everything would seem to be gone.
    """

    def __init__(self, resource_manager: str) -> None:
        self._origin = resource_manager.rstrip("/") + "/"
        self._host = urlsplit(resource_manager).hostname or ""
        self._port = urlsplit(resource_manager).port or 443

    def on_request(self, request: PipelineRequest[Any]) -> None:
        """Raises CallFailed for a request that would go to another service than Resource Manager."""
        url: str = request.http_request.url
        if not url.startswith(self._origin) and not self._is_ours(url):
            raise _leads_away(url, "Resource Manager")

    def on_response(self, request: PipelineRequest[Any], response: PipelineResponse[Any, Any]) -> None:
        """Raises DecodeError for a list of accounts that is none, and what parsing raises where it is no JSON."""
        reply = response.http_response
        if request.http_request.method != "GET" or reply.status_code != 200 or not _is_list(request.http_request.url):
            return
        body = reply.json()
        if not isinstance(body, dict) or not isinstance(body.get("value"), list):
            raise DecodeError("a list of accounts has no `value`", response=reply)
        raw = RAW_LIST_ENTRIES.get()
        if raw is not None:
            raw += body["value"]
            body["value"] = []  # the SDK reads the same object next, and has no models to make then

    def _is_ours(self, url: str) -> bool:
        parts = urlsplit(url)
        host = parts.hostname or ""
        # A region of Resource Manager may link to itself.
        same = host == self._host or host.endswith(f".{self._host}")
        return parts.scheme == "https" and same and (parts.port or 443) == self._port


def _is_list(url: str) -> bool:
    return urlsplit(url).path.rstrip("/").lower().endswith(_LIST)


_DATES: Final[ContextVar[list[str] | None]] = ContextVar("dates", default=None)


class ReplyDatePolicy(SansIOHTTPPolicy[Any, Any]):
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
