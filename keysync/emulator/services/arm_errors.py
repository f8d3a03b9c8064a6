"""The errors of Resource Manager itself. The header ``x-ms-failure-cause`` distinguishes them from those of a provider."""

from __future__ import annotations

from datetime import UTC, datetime

from keysync.emulator.wire import Call, Reply, error

FAILURE_CAUSE = "x-ms-failure-cause"


def gateway_error(
    status: int, code: str, message: str, *, details: object = None, headers: dict[str, str] | None = None
) -> Reply:
    """An error of Resource Manager itself."""
    return error(status, code, message, details=details, headers={FAILURE_CAUSE: "gateway", **(headers or {})})


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
