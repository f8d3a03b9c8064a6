"""The errors of Resource Manager itself. The header ``x-ms-failure-cause`` distinguishes them from those of a provider."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from keysync.emulator.wire import Call, Reply, error

FAILURE_CAUSE = "x-ms-failure-cause"
_KINDS = {"GET": "read", "HEAD": "read", "DELETE": "delete"}


def gateway_error(
    status: int, code: str, message: str, *, details: object = None, headers: dict[str, str] | None = None
) -> Reply:
    """An error of Resource Manager itself."""
    return error(status, code, message, details=details, headers={FAILURE_CAUSE: "gateway", **(headers or {})})


def usual_error(call: Call, status: int, retry_after: str) -> tuple[str, str] | None:
    """Code and message of the gateway's error with this status, None if it has no usual one."""
    match status:
        case 429:
            return "SubscriptionRequestsThrottled", throttled(call, "", retry_after)
        case 503:
            message = (
                f"The request timed out. Diagnostic information: timestamp '{datetime.now(UTC):%Y%m%dT%H%M%SZ}', subscription "
                f"id '{_subscription(call)}', tracking id '{uuid.uuid4()}', request correlation id '{uuid.uuid4()}'."
            )
            return "ServerTimeout", message
        case 504:
            message = "The gateway did not receive a response from 'Microsoft.Batch' within the specified time period."
            return "GatewayTimeout", message
        case _:
            return None


def throttled(call: Call, actor: str, retry_after: str) -> str:
    """The message for a subscription whose requests are throttled: those of `actor`, or of all callers."""
    named = f" actor '{actor}'" if actor else ""
    return (
        f"Number of '{request_kind(call)}' requests for subscription '{_subscription(call)}'{named} exceeded. Please try again after "
        f"'{retry_after}' seconds after additional tokens are available. Refer to https://aka.ms/arm-throttling for additional "
        "information."
    )


def _subscription(call: Call) -> str:
    parts = call.segments
    return parts[1] if len(parts) > 1 and parts[0].lower() == "subscriptions" else ""


def request_kind(call: Call) -> str:
    """The kind of a request for limits and locks: read, write or delete."""
    return _KINDS.get(call.method, "write")


def unauthorized(call: Call, tenant: str, code: str, message: str, description: str | None = None) -> Reply:
    """A refusal of the token. `description` is the shorter text of the header WWW-Authenticate, if it has another one."""
    text = (description or message).replace('"', "'")
    challenge = f'Bearer authorization_uri="{call.base}/{tenant}", error="invalid_token", error_description="{text}"'
    return gateway_error(401, code, message, headers={"WWW-Authenticate": challenge})


def expired(call: Call, tenant: str, expires: float, now: float) -> Reply:
    """The refusal of a token that expired at `expires`, in seconds since 1970."""
    until, current = _american(expires), _american(now)
    message = f"The access token expiry UTC time '{until}' is earlier than current UTC time '{current}'."
    short = "The access token expiry UTC time is earlier than current UTC time."
    return unauthorized(call, tenant, "ExpiredAuthenticationToken", message, short)


def _american(seconds: float) -> str:
    """A time as .NET prints it, such as 5/13/2020 7:30:46 AM."""
    when = datetime.fromtimestamp(seconds, UTC)
    return f"{when.month}/{when.day}/{when.year} {when.hour % 12 or 12}:{when:%M:%S} {when:%p}"


def missing_version() -> Reply:
    """The refusal of a request without an api-version."""
    message = "The api-version query parameter (?api-version=) is required for all requests."
    return gateway_error(400, "MissingApiVersionParameter", message)


def missing_subscription() -> Reply:
    """The reply to a path that is no operation: github.com/cloudquery/cloudquery/issues/6635."""
    message = "The request did not have a subscription or a valid tenant level resource provider."
    return gateway_error(404, "MissingSubscription", message)


def unknown_namespace(namespace: str) -> Reply:
    """The reply for a provider that does not exist."""
    return gateway_error(404, "InvalidResourceNamespace", f"The resource namespace '{namespace}' is invalid.")


def method_not_allowed(call: Call) -> Reply:
    """The reply to a method that a resource does not have: github.com/Azure/terraform-provider-azapi/issues/936."""
    return Reply(405, {"Message": f"The requested resource does not support http method '{call.method}'."})


def not_registered(namespace: str) -> Reply:
    """The refusal of a provider that is not registered with the subscription."""
    code = "MissingSubscriptionRegistration"
    message = (
        f"The subscription is not registered to use namespace '{namespace}'. See https://aka.ms/rps-not-found for how to "
        "register subscriptions."
    )
    return gateway_error(409, code, message, details=[{"code": code, "target": namespace, "message": message}])


def resource_not_found(resource: str, group: str) -> Reply:
    """The reply for a resource, such as ``Microsoft.Batch/batchAccounts/NAME``, that is not in the group."""
    message = (
        f"The Resource '{resource}' under resource group '{group}' was not found. For more details please go to "
        "https://aka.ms/ARMResourceNotFoundFix"
    )
    return gateway_error(404, "ResourceNotFound", message)
