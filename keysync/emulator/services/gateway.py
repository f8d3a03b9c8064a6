"""What Resource Manager itself checks before a provider sees a request, with the errors of the real replies.

Its own errors have the header ``x-ms-failure-cause: gateway`` and spend no request of the limits. Resource Manager checks, in
this order: the token, the api-version parameter, the subscription, the limits, the provider and its api-versions, roles, deny
assignments, the state of the subscription, locks, the resource group.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from keysync.emulator.access import Access
from keysync.emulator.services.arm import ArmOperation, ArmRequest, Provider
from keysync.emulator.services.arm_errors import (
    FAILURE_CAUSE,
    expired,
    gateway_error,
    method_not_allowed,
    missing_subscription,
    missing_version,
    not_registered,
    request_kind,
    throttled,
    unauthorized,
    unknown_namespace,
)
from keysync.emulator.services.arm_versions import check_version
from keysync.emulator.services.entra import Entra
from keysync.emulator.state import State
from keysync.emulator.throttle import ARM_LIMITS, TokenBuckets
from keysync.emulator.tokens import BadToken, Token
from keysync.emulator.wire import Call, Refused, Reply

_PUBLIC_AUDIENCES = {"https://management.azure.com", "https://management.core.windows.net"}
_LOOPBACK = re.compile(r"^https://(?:localhost|127\.0\.0\.1|\[::1\])(?=:|$)")
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

T = TypeVar("T")


class Gateway:
    """The front of Resource Manager. `buckets` is None without limits."""

    def __init__(self, state: State, entra: Entra, access: Access, buckets: TokenBuckets | None) -> None:
        self._state = state
        self._entra = entra
        self.access = access
        self._buckets = buckets

    def authenticate(self, request: ArmRequest) -> Reply | None:
        """The refusal of a request without a good token or an api-version, None if it has both."""
        try:
            token = self.token(request.call)
            if not request.version:
                return missing_version()
            self._check_tenant(request, token)
        except Refused as refused:
            return refused.reply
        return None

    def token(self, call: Call) -> Token:
        """The claims of the caller's token. Raises Refused if there is no good one."""
        tenant = self._state.tenant_id
        if call.bearer is None:
            message = "Authentication failed. The 'Authorization' header is missing."
            raise Refused(unauthorized(call, tenant, "AuthenticationFailed", message))
        try:
            token = self._entra.read(call.bearer)
        except BadToken:
            message = "The access token is invalid."
            raise Refused(unauthorized(call, tenant, "InvalidAuthenticationToken", message)) from None
        if _host(token.audience) != _host(call.base) and token.audience.rstrip("/") not in _PUBLIC_AUDIENCES:
            message = (
                "The access token has been obtained for wrong audience or resource "
                f"'{token.audience}'. It should exactly match with one of the allowed audiences '{call.base}/'."
            )
            raise Refused(unauthorized(call, tenant, "InvalidAuthenticationTokenAudience", message))
        now = self._state.clock()
        if token.expires <= now:
            raise Refused(expired(call, tenant, token.expires, now))
        return token

    def serve(self, request: ArmRequest, provider: Provider | None, operation: ArmOperation | None) -> Reply:
        """The reply to an authenticated request. `provider` is None for an unknown namespace."""
        limits: dict[str, str] = {}
        try:
            reply = self._checked(request, provider, operation, limits)
        except Refused as refused:
            reply = refused.reply
        if FAILURE_CAUSE not in reply.headers:
            reply.headers = {**limits, **reply.headers}
        return reply

    def _checked(
        self, request: ArmRequest, provider: Provider | None, operation: ArmOperation | None, limits: dict[str, str]
    ) -> Reply:
        token = self.token(request.call)
        if request.subscription:
            self._check_subscription(request)
            self._take(request, token, limits)
        if provider is None:
            return unknown_namespace(request.namespace)
        only = self._state.api_versions.get(request.namespace.lower(), ())
        check_version(request, provider, self._location(request), only)
        if operation is None:
            return method_not_allowed(request.call) if request.namespace else missing_subscription()
        if operation.action:
            self._check_access(token, operation)
        if request.subscription:
            self._check_state(request, operation)
        if request.group and (request.subscription.lower(), request.group.lower()) not in self._state.groups:
            message = f"Resource group '{request.group}' could not be found."
            raise Refused(gateway_error(404, "ResourceGroupNotFound", message))
        if request.call.body:
            _check_media_type(request.call)
        return operation.run()

    def _check_tenant(self, request: ArmRequest, token: Token) -> None:
        call, tenant = request.call, self._state.tenant_of(request.subscription)
        if not request.subscription or token.tenant_id.lower() == tenant.lower():
            return
        message = (
            f"The access token is from the wrong issuer '{call.base}/{token.tenant_id}/'. It must match the tenant "
            f"'{call.base}/{tenant}/' associated with this subscription. Please use the authority (URL) "
            f"'{call.base}/{tenant}' to get the token. Note, if the subscription is transferred to another tenant there is no "
            "impact to the services, but information about new tenant could take time to propagate (up to an hour). If you "
            "just transferred your subscription and see this error message, please try back later."
        )
        short = (
            "The access token is from the wrong issuer. It must match the tenant associated with this subscription. Please "
            "use correct authority to get the token."
        )
        raise Refused(unauthorized(call, tenant, "InvalidAuthenticationTokenTenant", message, short))

    def _check_subscription(self, request: ArmRequest) -> None:
        if not _GUID.fullmatch(request.subscription.lower()):
            message = f"The provided subscription identifier '{request.subscription}' is malformed or invalid."
            raise Refused(gateway_error(400, "InvalidSubscriptionId", message))
        subscription = self._state.subscriptions.get(request.subscription.lower())
        if subscription is None:
            message = f"The subscription '{request.subscription}' could not be found."
            raise Refused(gateway_error(404, "SubscriptionNotFound", message))
        if not request.namespace:
            return
        if subscription.providers_blocked:
            message = (
                "The current subscription type is not permitted to perform operations on any provider namespace. Please use "
                "a different subscription."
            )
            raise Refused(gateway_error(400, "DisallowedOperation", message))
        if request.namespace.lower() in subscription.unregistered:
            raise Refused(not_registered(request.namespace))

    def _take(self, request: ArmRequest, token: Token, limits: dict[str, str]) -> None:
        if self._buckets is None:
            return
        subscription, kind = request.subscription.lower(), request_kind(request.call)
        for limit in ARM_LIMITS[kind]:
            actor = "" if limit.is_global else token.object_id
            decision = self._buckets.take((kind, subscription, actor), limit)
            limits[f"x-ms-ratelimit-remaining-subscription-{limit.name}"] = str(decision.remaining)
            if not decision.allowed:
                message = throttled(request.call, actor, str(decision.retry_after))
                headers = {"Retry-After": str(decision.retry_after)}
                raise Refused(gateway_error(429, "SubscriptionRequestsThrottled", message, headers=headers))

    def _location(self, request: ArmRequest) -> str:
        """The region of the existing account that a request is about, empty if there is none."""
        account = self._state.accounts.get(request.resource_id.lower())
        return account.location if account is not None else ""

    def _check_access(self, token: Token, operation: ArmOperation) -> None:
        who = f"The client '{token.caller}' with object id '{token.object_id}'"
        account = self._state.accounts.get(operation.scope.lower())
        decision = self.access.decide(token, operation.action, operation.scope)
        if decision.denied_by is not None:
            denial = decision.denied_by
            message = (
                f"{who} has permission to perform action '{operation.action}' on scope '{operation.scope}'; however, the "
                f"access is denied because of the deny assignment with name '{denial.name}' and Id '{denial.deny_id}' at scope "
                f"'{denial.scope}'."
            )
            raise Refused(gateway_error(403, "DenyAssignmentAuthorizationFailed", message))
        if not decision.allowed or (account is not None and operation.name in account.denied):
            message = (
                f"{who} does not have authorization to perform action '{operation.action}' over scope '{operation.scope}' or "
                "the scope is invalid. If access was recently granted, please refresh your credentials."
            )
            raise Refused(gateway_error(403, "AuthorizationFailed", message))

    def readable(
        self, call: Call, action: str, scope: str, items: Sequence[T], id_of: Callable[[T], str]
    ) -> Sequence[T]:
        """The items of a listing at `scope` that the caller may read.

        A role at the scope or above allows all of them; one below allows some. Without any, the listing is refused.
        """
        token = self.token(call)
        decision = self.access.decide(token, action, scope)
        if decision.allowed:
            return items
        if decision.denied_by is not None or not self.access.sees(token, scope):
            self._check_access(token, ArmOperation("listResources", "", lambda: Reply(200), action, scope))
        return [item for item in items if self.access.decide(token, action, id_of(item)).allowed]

    def check_access(self, call: Call, action: str, scope: str) -> None:
        """Raises Refused unless the caller may carry out `action` on `scope` too."""
        self._check_access(self.token(call), ArmOperation("unknown", "", lambda: Reply(200), action, scope))

    def may_read(self, call: Call, action: str, scope: str) -> bool:
        """Whether the caller may read a resource of a listing."""
        return self.access.decide(self.token(call), action, scope).allowed

    def sees(self, call: Call, scope: str) -> bool:
        """Whether the caller has any role at a scope, above it or in it."""
        return self.access.sees(self.token(call), scope)

    def _check_state(self, request: ArmRequest, operation: ArmOperation) -> None:
        kind = request_kind(request.call)
        if kind == "read":
            return
        if self._state.subscriptions[request.subscription.lower()].is_read_only:
            message = (
                f"The subscription '{request.subscription}' is disabled and therefore marked as read only. You cannot perform "
                "any write actions on this subscription until it is re-enabled."
            )
            raise Refused(gateway_error(409, "ReadOnlyDisabledSubscription", message))
        locked = self._state.locked_scopes(operation.scope, deletes=kind == "delete") if operation.scope else []
        if locked:
            message = (
                f"The scope '{operation.scope}' cannot perform {kind} operation because following scope(s) are locked: "
                f"'{','.join(map(_locked, locked))}'. Please remove the lock and try again."
            )
            raise Refused(gateway_error(409, "ScopeLocked", message))


def _check_media_type(call: Call) -> None:
    """Raises Refused for a body that is no JSON: github.com/Azure/azure-cli/issues/10143."""
    sent = call.headers.get("Content-Type", "").partition(";")[0].strip()
    if sent.lower() != "application/json":
        message = f"The content media type '{sent or '<null>'}' is not supported. Only 'application/json' is supported."
        raise Refused(gateway_error(415, "UnsupportedMediaType", message))


def _host(url: str) -> str:
    """The scheme, host and port of an address or audience. The names of loopback are one host."""
    return _LOOPBACK.sub("https://localhost", url.rstrip("/").lower())


def _locked(scope: str) -> str:
    """The id of a locked scope, as messages have it: that of a group is written ``resourcegroups``."""
    return scope.replace("/resourceGroups/", "/resourcegroups/") if "/providers/" not in scope else scope
