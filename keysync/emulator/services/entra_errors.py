"""Errors of Entra's token endpoint, in its words.

Wordings: the replies `aad-*` of tests/data/real_replies, and learn.microsoft.com/entra/identity-platform/reference-error-codes.
"""

from __future__ import annotations

import re
import time
import uuid

from keysync.emulator.wire import Call, Json, Refused, Reply

_OAUTH_ERRORS = {
    "AADSTS28000": "invalid_scope",
    "AADSTS500011": "invalid_resource",
    "AADSTS700003": "invalid_grant",
    "AADSTS7000215": "invalid_client",
    "AADSTS7000216": "invalid_client",
    "AADSTS7000222": "invalid_client",
    "AADSTS700016": "unauthorized_client",
    "AADSTS70003": "unsupported_grant_type",
    "AADSTS70000": "invalid_grant",
    "AADSTS700024": "invalid_client",
    "AADSTS700027": "invalid_client",
    "AADSTS700211": "invalid_client",
    "AADSTS700212": "invalid_client",
    "AADSTS700213": "invalid_client",
    "AADSTS1002012": "invalid_scope",
    "AADSTS50034": "invalid_grant",
    "AADSTS50049": "invalid_instance",
    "AADSTS50027": "invalid_request",
    "AADSTS70021": "invalid_request",
    "AADSTS90025": "temporarily_unavailable",
    "AADSTS90033": "temporarily_unavailable",
}
_NO_MESSAGE = "The request could not be processed."
_MESSAGES = {
    "AADSTS7000215": "Invalid client secret provided.",
    "AADSTS7000222": (
        "The provided client secret keys for the app are expired. Visit the Azure portal to create new keys for your "
        "app: https://aka.ms/NewClientSecret, or consider using certificate credentials for added security: "
        "https://aka.ms/certCreds."
    ),
    "AADSTS700024": "Client assertion is not within its valid time range.",
    "AADSTS70021": "No matching federated identity record found for presented assertion.",
    "AADSTS90025": "Request processing has exceeded gateway allowance.",
    "AADSTS90033": "A transient error has occurred. Please try again.",
}


def token_error(call: Call, now: float, status: int, code: str, message: str | None = None) -> Reply:
    """An error. `code` is an AADSTS code or an OAuth error code, `now` the time in seconds since 1970."""
    if not code.startswith("AADSTS"):
        oauth, description = code, message or ""
        match = re.match(r"AADSTS(\d+)", description)
        number = match[1] if match else ""
    else:
        oauth = _OAUTH_ERRORS.get(code, "server_error" if status >= 500 else "invalid_request")
        description = f"{code}: {message or _MESSAGES.get(code, _NO_MESSAGE)}"
        number = code.removeprefix("AADSTS")
    stamp = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(now))
    trace, correlation = str(uuid.uuid4()), call.headers.get("client-request-id") or str(uuid.uuid4())
    description += f" Trace ID: {trace} Correlation ID: {correlation} Timestamp: {stamp}"
    body: Json = {
        "error": oauth,
        "error_description": description,
        "error_codes": [int(number)] if number.isdigit() else [],
        "timestamp": stamp,
        "trace_id": trace,
        "correlation_id": correlation,
    }
    if number.isdigit():
        body["error_uri"] = f"{call.base}/error?code={number}"
    return Reply(status, body)


class Refusals:
    """Makes the refusals of one request."""

    def __init__(self, call: Call, now: float) -> None:
        self._call = call
        self.now = now

    def __call__(self, status: int, code: str, message: str | None = None) -> Refused:
        """The refusal to raise."""
        return Refused(token_error(self._call, self.now, status, code, message))

    def missing(self, parameter: str) -> Refused:
        """A parameter of the body is missing."""
        return self(400, "AADSTS900144", f"The request body must contain the following parameter: '{parameter}'.")
