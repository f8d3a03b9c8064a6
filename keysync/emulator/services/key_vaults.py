"""The provider Microsoft.KeyVault: vaults as resources. Their secrets are another service, in `key_vault`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from keysync.emulator.services.arm import ArmOperation, ArmRequest
from keysync.emulator.services.arm_errors import resource_not_found
from keysync.emulator.services.arm_paging import page_of
from keysync.emulator.services.gateway import Gateway
from keysync.emulator.state import State
from keysync.emulator.vault import Vault
from keysync.emulator.wire import Json, Refused, Reply

_VERSIONS = (
    "2019-09-01", "2021-10-01", "2022-07-01", "2023-02-01", "2023-07-01", "2024-11-01", "2025-05-01", "2026-02-01",
)  # fmt: skip
_READ = "Microsoft.KeyVault/vaults/read"
_NETWORK_ACCESS_SINCE = "2021-10-01"
_LOOPBACK = re.compile(r"//localhost(?=:)")


class KeyVaults:
    """The operations of Microsoft.KeyVault on `state`."""

    namespace: ClassVar[str] = "Microsoft.KeyVault"
    versions: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "vaults": _VERSIONS,
        "managedHSMs": _VERSIONS,
        "deletedVaults": _VERSIONS,
    }

    def __init__(self, state: State, gateway: Gateway, *, page_size: int) -> None:
        self._state = state
        self._gateway = gateway
        self._page_size = page_size

    def find(self, request: ArmRequest) -> ArmOperation | None:
        """The operation that a request is for, None if there is none."""
        target = request.group or request.subscription
        match (request.call.method, *request.words):
            case ("GET", "vaults"):
                return ArmOperation("listVaults", target, partial(self._list, request))
            case ("GET", "vaults", name):
                return ArmOperation("getVault", name, partial(self._get, request), _READ, request.resource_id)
            case ("GET", "managedhsms" | "deletedvaults"):
                return ArmOperation("listVaults", target, lambda: Reply(200, {"value": []}))
            case _:
                return None

    def _list(self, request: ArmRequest) -> Reply:
        vaults = [
            vault
            for vault in self._state.vaults
            if vault.subscription_id.lower() == request.subscription.lower()
            and request.group.lower() in {"", vault.resource_group.lower()}
        ]
        readable = self._gateway.readable(request.call, _READ, request.scope_id, vaults, lambda vault: vault.id)
        return page_of(
            request, readable, lambda vault: self._body(request, vault), self._page_size, position="$skiptoken"
        )

    def _get(self, request: ArmRequest) -> Reply:
        for vault in self._state.vaults:
            if vault.id.lower() == request.resource_id.lower():
                return Reply(200, self._body(request, vault))
        raise Refused(resource_not_found(f"Microsoft.KeyVault/vaults/{request.path[1]}", request.group))

    def _body(self, request: ArmRequest, vault: Vault) -> Json:
        unused: Json = {"keys": [], "certificates": [], "storage": []}
        policies = [
            {"tenantId": vault.tenant_id, "objectId": object_id, "permissions": {**unused, "secrets": permissions}}
            for object_id, permissions in self._gateway.access.entries(vault)
        ]
        properties: Json = {
            "sku": {"family": "A", "name": "standard"},
            "tenantId": vault.tenant_id,
            "accessPolicies": policies,
            "enabledForDeployment": False,
            "enabledForDiskEncryption": False,
            "enabledForTemplateDeployment": False,
            "enableSoftDelete": vault.soft_delete,
            "softDeleteRetentionInDays": vault.retention_days,
            "enableRbacAuthorization": vault.access_policies is False,
            "vaultUri": _url(request, vault),
            "provisioningState": "Succeeded",
        }
        if vault.purge_protection:
            properties["enablePurgeProtection"] = True
        if request.version >= _NETWORK_ACCESS_SINCE:
            properties["publicNetworkAccess"] = "Disabled" if vault.network == "private" else "Enabled"
        if vault.network == "firewall":
            properties["networkAcls"] = {
                "bypass": "None",
                "defaultAction": "Deny",
                "ipRules": [],
                "virtualNetworkRules": [],
            }
        return {
            "id": vault.id,
            "name": vault.name,
            "type": "Microsoft.KeyVault/vaults",
            "location": vault.location,
            "tags": vault.tags,
            "properties": properties,
        }


def _url(request: ArmRequest, vault: Vault) -> str:
    """The address of the vault, with the host name by which the client reached Resource Manager."""
    host = request.call.base.removeprefix("https://").rpartition(":")[0]
    return _LOOPBACK.sub(f"//{host}", vault.url) + "/"
