"""Resource Manager's own operations: tenants, subscriptions, resource groups, resources and the registration of providers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from keysync.emulator.services.arm import ArmOperation, ArmRequest, Provider
from keysync.emulator.services.arm_errors import unknown_namespace
from keysync.emulator.services.arm_paging import page_of
from keysync.emulator.services.arm_versions import LOCATIONS
from keysync.emulator.services.gateway import Gateway
from keysync.emulator.services.odata_filter import parse_filter
from keysync.emulator.state import State
from keysync.emulator.subscriptions import ResourceGroup, Subscription
from keysync.emulator.wire import Json, Refused, Reply

_VERSIONS = (
    "2014-04-01", "2015-01-01", "2015-11-01", "2016-02-01", "2016-06-01", "2016-07-01", "2016-09-01", "2017-05-10", "2018-01-01",
    "2018-02-01", "2018-05-01", "2019-03-01", "2019-05-01", "2019-05-10", "2019-06-01", "2019-07-01", "2019-08-01",
    "2019-10-01", "2019-11-01", "2020-01-01", "2020-06-01", "2020-08-01", "2020-10-01", "2021-01-01", "2021-04-01",
    "2022-09-01", "2022-12-01", "2023-07-01", "2024-03-01", "2024-07-01", "2024-11-01", "2025-03-01", "2025-04-01",
)  # fmt: skip
_GROUPS = "Microsoft.Resources/subscriptions/resourceGroups"
_RESOURCE_FIELDS = {"resourcetype", "name", "resourcegroup", "location", "tagname", "tagvalue"}
_TAG_FIELDS = {"tagname", "tagvalue"}


@dataclass(frozen=True)
class Resource:
    """A resource of any provider, as a listing shows it."""

    id: str
    name: str
    type: str
    location: str
    tags: Mapping[str, str]
    group: str

    def body(self) -> Json:
        """The JSON of a listing."""
        return {"id": self.id, "name": self.name, "type": self.type, "location": self.location, "tags": dict(self.tags)}


class Resources:
    """The operations without a provider. `providers` can be registered."""

    namespace: ClassVar[str] = ""
    versions: ClassVar[Mapping[str, tuple[str, ...]]] = {"": _VERSIONS}

    def __init__(self, state: State, gateway: Gateway, providers: Mapping[str, Provider], *, page_size: int) -> None:
        self._state = state
        self._gateway = gateway
        self._providers = providers
        self._page_size = page_size

    def find(self, request: ArmRequest) -> ArmOperation | None:
        """The operation that a request is for, None if there is none."""
        words = tuple(part.lower() for part in request.scope)
        match (request.call.method, *words):
            case ("GET", "tenants"):
                return ArmOperation("listTenants", "", self._tenants)
            case ("GET", "subscriptions"):
                return ArmOperation("listSubscriptions", "", partial(self._subscriptions, request))
            case (method, "subscriptions", _, *rest):
                return self._in_subscription(request, (method, *rest))
            case _:
                return None

    def _in_subscription(self, request: ArmRequest, words: tuple[str, ...]) -> ArmOperation | None:
        subscription = request.subscription
        match words:
            case ("GET",):
                return ArmOperation("getSubscription", subscription, partial(self._get_subscription, request))
            case ("GET", "locations"):
                return ArmOperation("listLocations", subscription, partial(self._locations, request))
            case ("GET", "resourcegroups"):
                return ArmOperation("listGroups", subscription, partial(self._groups, request))
            case ("GET" | "HEAD", "resourcegroups", _):
                return ArmOperation(
                    "getGroup", request.group, partial(self._group, request), f"{_GROUPS}/read", request.scope_id
                )
            case ("GET", "resources") | ("GET", "resourcegroups", _, "resources"):
                return ArmOperation("listResources", request.group or subscription, partial(self._resources, request))
            case ("GET", "providers"):
                return ArmOperation("listProviders", subscription, partial(self._list_providers, request))
            case ("GET", "providers", namespace):
                return ArmOperation("getProvider", namespace, partial(self._provider, request, namespace))
            case ("POST", "providers", namespace, "register"):
                return ArmOperation("registerProvider", namespace, partial(self._register, request, namespace))
            case _:
                return None

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

    def _subscriptions(self, request: ArmRequest) -> Reply:
        seen = [
            self._subscription(each)
            for each in self._state.subscriptions.values()
            if self._gateway.sees(request.call, f"/subscriptions/{each.id}")
        ]
        return Reply(200, {"value": seen})

    def _get_subscription(self, request: ArmRequest) -> Reply:
        self._gateway.readable(request.call, "Microsoft.Resources/subscriptions/read", request.scope_id, (), str)
        return Reply(200, self._subscription(self._state.subscriptions[request.subscription.lower()]))

    def _subscription(self, subscription: Subscription) -> Json:
        return {
            "id": f"/subscriptions/{subscription.id}",
            "authorizationSource": "RoleBased",
            "managedByTenants": [],
            "subscriptionId": subscription.id,
            "tenantId": self._state.tenant_of(subscription.id),
            "displayName": subscription.name,
            "state": subscription.state,
            "subscriptionPolicies": {
                "locationPlacementId": "Public_2014-09-01",
                "quotaId": "PayAsYouGo_2014-09-01",
                "spendingLimit": "Off",
            },
        }

    def _locations(self, request: ArmRequest) -> Reply:
        values = [
            {
                "id": f"/subscriptions/{request.subscription}/locations/{name}",
                "name": name,
                "type": "Region",
                "displayName": name,
                "regionalDisplayName": name,
                "metadata": {"regionType": "Physical", "regionCategory": "Recommended"},
            }
            for name in LOCATIONS
        ]
        return Reply(200, {"value": values})

    def _groups(self, request: ArmRequest) -> Reply:
        matches = parse_filter(request.call.query.get("$filter", ""), _TAG_FIELDS)
        groups = [
            group
            for (subscription, _), group in self._state.groups.items()
            if subscription == request.subscription.lower() and any(map(matches, _tags(group.tags)))
        ]
        action, scope = f"{_GROUPS}/read", f"/subscriptions/{request.subscription}"
        readable = self._gateway.readable(request.call, action, scope, groups, lambda group: group.id)
        return page_of(request, readable, _group_body, self._page_size)

    def _group(self, request: ArmRequest) -> Reply:
        group = self._state.groups[request.subscription.lower(), request.group.lower()]
        return Reply(204) if request.call.method == "HEAD" else Reply(200, _group_body(group))

    def _resources(self, request: ArmRequest) -> Reply:
        matches = parse_filter(request.call.query.get("$filter", ""), _RESOURCE_FIELDS)
        found = [
            resource
            for resource in resources_of(self._state, request.subscription)
            if request.group.lower() in {"", resource.group.lower()}
            and self._gateway.may_read(request.call, f"{resource.type}/read", resource.id)
            and any(matches({**_fields(resource), **tag}) for tag in _tags(resource.tags))
        ]
        return page_of(request, found, Resource.body, self._page_size)

    def _list_providers(self, request: ArmRequest) -> Reply:
        bodies = [self._provider_body(request, provider) for provider in self._providers.values()]
        return Reply(200, {"value": bodies})

    def _provider(self, request: ArmRequest, namespace: str) -> Reply:
        provider = self._providers.get(namespace)
        if provider is None:
            raise Refused(unknown_namespace(namespace))
        return Reply(200, self._provider_body(request, provider))

    def _register(self, request: ArmRequest, namespace: str) -> Reply:
        reply = self._provider(request, namespace)
        self._state.subscriptions[request.subscription.lower()].unregistered.discard(namespace)
        return self._provider(request, namespace) if reply.status == 200 else reply

    def _provider_body(self, request: ArmRequest, provider: Provider) -> Json:
        subscription = self._state.subscriptions[request.subscription.lower()]
        registered = provider.namespace.lower() not in subscription.unregistered
        types = [
            {"resourceType": name, "locations": list(LOCATIONS), "apiVersions": sorted(versions, reverse=True)}
            for name, versions in provider.versions.items()
        ]
        return {
            "id": f"/subscriptions/{subscription.id}/providers/{provider.namespace}",
            "namespace": provider.namespace,
            "resourceTypes": types,
            "registrationState": "Registered" if registered else "NotRegistered",
            "registrationPolicy": "RegistrationRequired",
        }


def resources_of(state: State, subscription: str) -> list[Resource]:
    """The resources of a subscription that exists."""
    accounts = [
        Resource(each.id, each.name, "Microsoft.Batch/batchAccounts", each.location, each.tags, each.resource_group)
        for each in state.by_subscription[subscription.lower()]
    ]
    vaults = [
        Resource(each.id, each.name, "Microsoft.KeyVault/vaults", each.location, each.tags, each.resource_group)
        for each in state.vaults
        if each.subscription_id.lower() == subscription.lower()
    ]
    return [*accounts, *vaults]


def _group_body(group: ResourceGroup) -> Json:
    body: Json = {
        "id": group.id,
        "name": group.name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": group.location,
        "properties": {"provisioningState": "Succeeded"},
    }
    return {**body, "tags": group.tags} if group.tags else body


def _fields(resource: Resource) -> dict[str, str]:
    return {
        "resourcetype": resource.type,
        "name": resource.name,
        "resourcegroup": resource.group,
        "location": resource.location,
    }


def _tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """The fields of a filter for each tag, and for an item without tags."""
    return [{"tagname": name, "tagvalue": value} for name, value in tags.items()] or [{}]
