"""Errors of the Batch service: OData, with the request's id and the time in the message."""

from __future__ import annotations

import uuid

from keysync.emulator.times import timestamp
from keysync.emulator.wire import Call, Json, Reply

_MESSAGES = {
    "AuthorizationFailure": "This request is not authorized to perform this operation.",
    "InvalidAuthenticationInfo": (
        "The authentication information was not provided in the correct format. Verify the value of Authorization header."
    ),
    "InvalidQueryParameterValue": "Value for one of the query parameters specified in the request URI is invalid.",
    "InvalidUri": "The requested URI does not represent any resource on the server.",
    "JobNotFound": "The specified job does not exist.",
    "MissingRequiredQueryParameter": "A query parameter that's mandatory for this request is not specified.",
    "OutOfRangeQueryParameterValue": "A query parameter specified in the request URI is outside the permissible range.",
    "PoolNotFound": "The specified pool does not exist.",
    "ResourceNotFound": "The specified resource does not exist.",
    "ServerBusy": "The server is currently unable to receive requests. Please retry your request.",
    "UnsupportedHttpVerb": "The resource doesn't support the specified HTTP verb.",
}
"""https://learn.microsoft.com/rest/api/batchservice/batch-status-and-error-codes, worded as in public replies."""


def batch_error(
    call: Call,
    status: int,
    code: str,
    now: float,
    *,
    message: str | None = None,
    values: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
) -> Reply:
    """An error of the Batch service. `now` is in seconds since 1970, `message` replaces the usual text of `code`."""
    request_id = str(uuid.uuid4())
    text = message or _MESSAGES.get(code, code)
    body: Json = {
        "odata.metadata": f"{call.base}/$metadata#Microsoft.Azure.Batch.Protocol.Entities.Container.errors/@Element",
        "code": code,
        "message": {"lang": "en-US", "value": f"{text}\nRequestId:{request_id}\nTime:{timestamp(now)}"},
    }
    if values:
        body["values"] = [{"key": key, "value": value} for key, value in values.items()]
    return Reply(status, body, {"request-id": request_id, **(headers or {})})
