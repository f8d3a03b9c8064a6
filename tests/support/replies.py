"""Replies of a service in the form that the SDKs' errors have."""

from __future__ import annotations

import json
from typing import Any

from azure.core.exceptions import HttpResponseError
from azure.core.utils import case_insensitive_dict

IDS = {
    "x-ms-request-id": "request-1",
    "x-ms-correlation-request-id": "correlation-1",
    "x-ms-client-request-id": "client-1",
}


class Request:
    """The headers of a request."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = case_insensitive_dict(headers)


class Reply:
    """The part of a response that azure-core's errors and keysync read."""

    def __init__(
        self, status: int, body: Any = "", headers: dict[str, str] | None = None, sent: dict[str, str] | None = None
    ) -> None:
        self.status_code = status
        self.reason = "Reason"
        self.headers = case_insensitive_dict(headers or {})
        self.request = Request(sent or {})
        self._body = body if isinstance(body, str) else json.dumps(body)

    def text(self, encoding: str | None = None) -> str:
        """The body."""
        return self._body


def http_error(status: int, body: Any = "", headers: dict[str, str] | None = None) -> HttpResponseError:
    """The SDK's error for such a reply."""
    return HttpResponseError(response=Reply(status, body, headers))


def cloud_error(code: str, message: str, **more: Any) -> dict[str, Any]:
    """The body of an Azure error."""
    return {"error": {"code": code, "message": message, **more}}
