"""Azure Resource Manager: metadata, subscriptions, tenants, and Batch accounts with their keys."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from keysync.emulator.access import Access
from keysync.emulator.faults import Operation
from keysync.emulator.services.entra import BadToken, Entra, Token
from keysync.emulator.services.paging import decode_index, encode_token
from keysync.emulator.services.resource_graph import ResourceGraph, table_of
from keysync.emulator.state import Account, State
from keysync.emulator.throttle import ARM_READS, ARM_WRITES, GRAPH_QUERIES, TokenBuckets
from keysync.emulator.wire import Call, Json, Refused, Reply, Route, error, json_body

BATCH_VERSIONS = ("2023-11-01", "2024-02-01", "2024-07-01", "2025-06-01")
"""The supported api-versions of Batch accounts."""

_PUBLIC_AUDIENCES = {"https://management.azure.com", "https://management.core.windows.net"}
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ACTIONS = {
    "getAccount": "Microsoft.Batch/batchAccounts/read",
    "listKeys": "Microsoft.Batch/batchAccounts/listKeys/action",
    "regenerateKeys": "Microsoft.Batch/batchAccounts/regenerateKeys/action",
}
_OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", ""): "getAccount",
    ("POST", "listkeys"): "listKeys",
    ("POST", "regeneratekeys"): "regenerateKeys",
}


class ResourceManager:
    """The operations of Resource Manager on `state`."""

    def __init__(
        self,
        state: State,
        entra: Entra,
        access: Access,
        *,
        vault_suffix: str,
        page_size: int,
        graph_page_size: int,
        buckets: TokenBuckets | None,
    ) -> None:
        self._state = state
        self._entra = entra
        self._access = access
        self._vault_suffix = vault_suffix
        self._page_size = page_size
        self._buckets = buckets
        self._graph = ResourceGraph(state, account_body, page_size=graph_page_size)

    def route(self, call: Call) -> Route:
        """How to serve a call."""
        parts = call.segments
        lower = [part.lower() for part in parts]
        if lower == ["metadata", "endpoints"]:
            return Route("metadata", "", lambda: self._metadata(call))
        operation, target, run = self._operation(call, parts, lower)
        subscription = lower[1] if lower[:1] == ["subscriptions"] and len(lower) > 1 else ""
        return Route(
            operation,
            target,
            run,
            authorize=lambda: self._authorize(call, subscription),
            limit=lambda headers: self._limit(call, subscription, headers),
        )

    def _operation(self, call: Call, parts: list[str], lower: list[str]) -> tuple[Operation, str, Callable[[], Reply]]:
        match lower:
            case ["tenants"]:
                return "listTenants", "", self._tenants
            case ["providers", "microsoft.resourcegraph", "resources"] if call.method == "POST":
                return "queryResources", table_of(call), lambda: self._graph.query(call)
            case ["subscriptions"]:
                return "listSubscriptions", "", self._subscriptions
            case ["subscriptions", _]:
                return "getSubscription", parts[1], lambda: Reply(200, self._subscription(self._existing(parts[1])))
            case ["subscriptions", _, "resourcegroups"]:
                return "listGroups", parts[1], lambda: self._groups(parts[1])
            case ["subscriptions", _, "providers", "microsoft.batch", "batchaccounts"]:
                return "listAccounts", parts[1], partial(self._list, call, parts[1], None)
            case ["subscriptions", _, "resourcegroups", _, "providers", "microsoft.batch", "batchaccounts"]:
                return "listAccounts", parts[3], partial(self._list, call, parts[1], parts[3])
            case ["subscriptions", _, "resourcegroups", _, "providers", "microsoft.batch", "batchaccounts", _, *rest]:
                operation = _OPERATIONS.get((call.method, "/".join(rest)))
                if operation is not None:
                    return operation, parts[7], partial(self._on_account, call, operation, parts)
            case _:
                pass
        return "unknown", call.raw_path, lambda: _not_served(call)

    def _authorize(self, call: Call, subscription: str) -> Reply | None:
        token = self._token(call)
        if isinstance(token, Reply):
            return token
        version = call.query.get("api-version", "")
        if not version:
            message = "The api-version query parameter (?api-version=) is required for all requests."
            return error(400, "MissingApiVersionParameter", message)
        if "/microsoft.batch/" in call.raw_path.lower() and version not in BATCH_VERSIONS:
            message = (
                f"No registered resource provider found for location 'westeurope' and API version '{version}' for type "
                f"'batchAccounts'. The supported api-versions are '{', '.join(BATCH_VERSIONS)}'."
            )
            return error(400, "NoRegisteredProviderFound", message)
        tenant = self._state.tenant_of(subscription) if subscription else token.tenant_id
        if token.tenant_id.lower() != tenant.lower():
            message = (
                f"The access token is from the wrong issuer '{call.base}/{token.tenant_id}/'. It must match the tenant "
                f"'{call.base}/{tenant}/' associated with this subscription. Please use the authority (URL) "
                f"'{call.base}/{tenant}' to get the token."
            )
            return _unauthorized(call, tenant, "InvalidAuthenticationTokenTenant", message)
        return None

    def _token(self, call: Call) -> Token | Reply:
        tenant = self._state.tenant_id
        if call.bearer is None:
            message = "Authentication failed. The 'Authorization' header is missing."
            return _unauthorized(call, tenant, "AuthenticationFailed", message)
        try:
            token = self._entra.read(call.bearer)
        except BadToken:
            return _unauthorized(call, tenant, "InvalidAuthenticationToken", "The access token is invalid.")
        if token.audience.rstrip("/") not in {call.base, *_PUBLIC_AUDIENCES}:
            message = (
                "The access token has been obtained for wrong audience or resource "
                f"'{token.audience}'. It should exactly match with one of the allowed audiences '{call.base}/'."
            )
            return _unauthorized(call, tenant, "InvalidAuthenticationTokenAudience", message)
        if token.expires <= self._state.clock():
            return _unauthorized(call, tenant, "ExpiredAuthenticationToken", "The access token expiry is in the past.")
        return token

    def _limit(self, call: Call, subscription: str, headers: dict[str, str]) -> Reply | None:
        if self._buckets is None:
            return None
        token = self._token(call)
        caller = token.object_id if isinstance(token, Token) else ""
        if "microsoft.resourcegraph" in call.raw_path.lower():
            return self._graph_limit(self._buckets, caller, headers)
        if not subscription:
            return None
        kind, limit = ("reads", ARM_READS) if call.method in {"GET", "HEAD"} else ("writes", ARM_WRITES)
        decision = self._buckets.take((kind, subscription, caller), limit)
        headers[f"x-ms-ratelimit-remaining-subscription-{kind}"] = str(decision.remaining)
        if decision.allowed:
            return None
        message = (
            f"Number of '{kind}' requests for subscription '{subscription}' actor '{caller}' exceeded. Please try "
            f"again after '{decision.retry_after}' seconds after additional tokens are available."
        )
        throttled = {"Retry-After": str(decision.retry_after), **headers}
        return error(429, "SubscriptionRequestsThrottled", message, headers=throttled)

    def _graph_limit(self, buckets: TokenBuckets, caller: str, headers: dict[str, str]) -> Reply | None:
        decision = buckets.take(("graph", caller), GRAPH_QUERIES)
        headers["x-ms-user-quota-remaining"] = str(decision.remaining)
        headers["x-ms-user-quota-resets-after"] = "00:00:05"
        if decision.allowed:
            return None
        message = "Client application has been throttled and should not attempt to repeat the request until an amount of time."
        throttled = {"Retry-After": str(decision.retry_after), **headers}
        return error(429, "RateLimiting", message, headers=throttled)

    def _metadata(self, call: Call) -> Reply:
        if not call.query.get("api-version"):
            return error(400, "MissingApiVersionParameter", "The api-version query parameter is required.")
        return Reply(
            200,
            {
                "name": "keysync",
                "portal": call.base,
                "authentication": {
                    "loginEndpoint": call.base,
                    "audiences": [call.base],
                    "tenant": self._state.tenant_id,
                    "identityProvider": "AAD",
                },
                "resourceManager": call.base,
                "batch": call.base,
                "graph": call.base,
                "graphAudience": call.base,
                "microsoftGraphResourceId": call.base,
                "media": call.base,
                "gallery": call.base,
                "suffixes": {"keyVaultDns": self._vault_suffix},
            },
        )

    def _tenants(self) -> Reply:
        tenants = [
            {
                "id": f"/tenants/{tenant}",
                "tenantId": tenant,
                "displayName": "keysync emulator",
                "domains": ["keysync.localhost"],
                "tenantCategory": "Home",
            }
            for tenant in sorted(self._state.tenants())
        ]
        return Reply(200, {"value": tenants})

    def _subscription(self, subscription: str) -> Json:
        return {
            "id": f"/subscriptions/{subscription}",
            "subscriptionId": subscription,
            "tenantId": self._state.tenant_of(subscription),
            "displayName": f"emulated {subscription[-4:]}",
            "state": "Enabled",
            "authorizationSource": "RoleBased",
            "managedByTenants": [],
            "subscriptionPolicies": {"quotaId": "PayAsYouGo_2014-09-01", "spendingLimit": "Off"},
        }

    def _subscriptions(self) -> Reply:
        return Reply(200, {"value": [self._subscription(subscription) for subscription in self._state.by_subscription]})

    def _existing(self, subscription: str) -> str:
        if not _GUID.fullmatch(subscription.lower()):
            message = f"The provided subscription identifier '{subscription}' is malformed or invalid."
            raise Refused(error(400, "InvalidSubscriptionId", message))
        if subscription.lower() not in self._state.by_subscription:
            raise Refused(error(404, "SubscriptionNotFound", f"The subscription '{subscription}' could not be found."))
        return subscription.lower()

    def _groups(self, subscription: str) -> Reply:
        accounts = self._state.by_subscription[self._existing(subscription)]
        by_group = {account.group_id: account for account in accounts}
        groups: list[Json] = [
            {"id": group_id, "name": account.resource_group, "location": account.location, "properties": {}}
            for group_id, account in by_group.items()
        ]
        return Reply(200, {"value": groups})

    def _in_group(self, subscription: str, group: str) -> list[Account]:
        accounts = self._state.by_group.get((self._existing(subscription), group.lower()))
        if accounts is None:
            raise Refused(error(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found."))
        return accounts

    def _list(self, call: Call, subscription: str, group: str | None) -> Reply:
        if call.method != "GET":
            return _not_served(call)
        if group is None:
            accounts = self._state.by_subscription[self._existing(subscription)]
        else:
            accounts = self._in_group(subscription, group)
        first = decode_index(call.query.get("$skiptoken", ""))
        last = first + self._page_size
        page: Json = {"value": [account_body(account) for account in accounts[first:last]]}
        if last < len(accounts):
            version = call.query["api-version"]
            page["nextLink"] = f"{call.base}{call.raw_path}?api-version={version}&$skiptoken={encode_token(str(last))}"
        return Reply(200, page)

    def _on_account(self, call: Call, operation: str, parts: list[str]) -> Reply:
        subscription, group, name = parts[1], parts[3], parts[7]
        self._in_group(subscription, group)  # refuses an unknown group
        account = self._state.accounts.get(
            f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Batch/batchAccounts/{name}".lower()
        )
        if account is None:
            message = (
                f"The Resource 'Microsoft.Batch/batchAccounts/{name}' under resource group '{group}' was not found. "
                "For more details please go to https://aka.ms/ARMResourceNotFoundFix"
            )
            return error(404, "ResourceNotFound", message)
        denial = self._denial(call, operation, account)
        if denial is not None:
            return denial
        if operation == "getAccount":
            return Reply(200, account_body(account))
        return _keys_refusal(account) or _keys(call, operation, account)

    def _denial(self, call: Call, operation: str, account: Account) -> Reply | None:
        token, action = self._token(call), _ACTIONS[operation]
        if isinstance(token, Reply):
            return token
        decision = self._access.decide(token, action, account.id)
        if decision.allowed and operation not in account.denied:
            return None
        caller = f"The client '{token.caller}' with object id '{token.object_id}'"
        if decision.denied_by is not None:
            denial = decision.denied_by
            message = (
                f"{caller} has permission to perform action '{action}' on scope '{account.id}'; however, the access is "
                f"denied because of the deny assignment with name '{denial.name}' and Id '{denial.deny_id}' at scope "
                f"'{denial.scope}'."
            )
            return error(403, "DenyAssignmentAuthorizationFailed", message)
        message = (
            f"{caller} does not have authorization to perform action '{action}' over scope '{account.id}' or the scope "
            "is invalid. If access was recently granted, please refresh your credentials."
        )
        return error(403, "AuthorizationFailed", message)


def _keys_refusal(account: Account) -> Reply | None:
    if account.lock == "ReadOnly":
        message = (
            f"The scope '{account.id}' cannot perform write operation because following scope(s) are locked: "
            f"'{account.id}'. Please remove the lock and try again."
        )
        return error(409, "ScopeLocked", message)
    if not account.has_shared_keys:
        # Azure does not document this code, so it is invented. A client must read the account to be sure of the cause.
        message = f"Shared key access is not allowed on the Batch account '{account.name}'."
        return error(403, "SharedKeyAccessNotAllowed", message)
    return None


def _keys(call: Call, operation: str, account: Account) -> Reply:
    if operation == "regenerateKeys":
        name = json_body(call).get("keyName")
        if name not in {"Primary", "Secondary"}:
            message = f"The value '{name}' provided for the property 'keyName' is invalid: it is Primary or Secondary."
            return error(400, "InvalidPropertyValue", message, target="keyName")
        account.regenerate(str(name))
    return Reply(200, {"accountName": account.name, "primary": account.primary, "secondary": account.secondary})


def account_body(account: Account) -> Json:
    """An account as Batch management and Resource Graph return it."""
    return {
        "id": account.id,
        "name": account.name,
        "type": "Microsoft.Batch/batchAccounts",
        "location": account.location,
        "tags": account.tags,
        "identity": {"type": "None"},
        "properties": {
            "accountEndpoint": account.endpoint,
            "nodeManagementEndpoint": f"{account.name}.{account.location}.service.batch.azure.com",
            "provisioningState": account.provisioning_state,
            "poolAllocationMode": account.pool_allocation_mode,
            "publicNetworkAccess": "Enabled",
            "networkProfile": {"accountAccess": {"defaultAction": "Allow"}},
            "encryption": {"keySource": "Microsoft.Batch"},
            "privateEndpointConnections": [],
            "dedicatedCoreQuota": 300,
            "dedicatedCoreQuotaPerVMFamily": [],
            "dedicatedCoreQuotaPerVMFamilyEnforced": True,
            "lowPriorityCoreQuota": 100,
            "poolQuota": 100,
            "activeJobAndJobScheduleQuota": 300,
            "allowedAuthenticationModes": account.authentication_modes,
        },
    }


def _unauthorized(call: Call, tenant: str, code: str, message: str) -> Reply:
    challenge = (
        f'Bearer authorization_uri="{call.base}/{tenant}", error="invalid_token", '
        f'error_description="{message.replace(chr(34), chr(39))}"'
    )
    return error(401, code, message, headers={"WWW-Authenticate": challenge})


def _not_served(call: Call) -> Reply:
    message = f"The emulator does not serve {call.method} {call.raw_path}."
    return error(404, "InvalidResourceType", message)
