"""Whether a caller may carry out an operation on a vault, by its roles or its access policies.

The wordings are those of the real replies `kv-403-rbac-get`, `kv-403-rbac-set`, `kv-403-access-policy-ForbiddenByPolicy-get` and
`kv-403-ForbiddenByPolicy-obo`. The lines about a deny assignment are inferred from them.
"""

from __future__ import annotations

from keysync.emulator.access import Access, Decision
from keysync.emulator.conditions import secret_attributes
from keysync.emulator.roles import DenyAssignment
from keysync.emulator.services.vault_operations import ACTIONS, PERMISSIONS
from keysync.emulator.tokens import Token
from keysync.emulator.vault import Vault
from keysync.emulator.wire import Reply, error


class VaultAccess:
    """The permissions for one vault. Its `denied` operations are denied to every caller."""

    def __init__(self, vault: Vault, access: Access) -> None:
        self._vault = vault
        self._access = access

    def denial(self, token: Token, operation: str, secret: str) -> Reply | None:
        """The reply to a caller without permission, None if `operation` is allowed. `secret` is empty for a listing."""
        vault = self._vault
        if operation not in ACTIONS:
            return None
        denied = operation in vault.denied
        if vault.access_policies is not False:
            permission = PERMISSIONS[operation]
            if denied:
                return self._no_permission(token, permission)
            if self._access.may_use(token, vault, permission):
                return None
            for_users = self._access.may_use(token, vault, permission, on_behalf_of=True)
            return _on_behalf_only(token) if for_users else self._no_permission(token, permission)
        action = f"Microsoft.KeyVault/vaults/secrets/{ACTIONS[operation]}"
        scope = f"{vault.id}/secrets/{secret}" if secret else vault.id
        decision = self._access.decide(token, action, scope, data=True, attributes=secret_attributes(secret))
        if denied:
            decision = Decision(False)
        return None if decision.allowed else self._no_role(token, action, secret, decision.denied_by)

    def _policy_denial(self, token: Token, permission: str, *, denied: bool) -> Reply | None:
        if not denied and self._access.may_use(token, self._vault, permission):
            return None
        if not denied and self._access.may_use(token, self._vault, permission, on_behalf_of=True):
            message = (
                f"The policy requires the caller '{_caller(token)}' to use on-behalf-of (OBO) flow. For more information on "
                "OBO, please see https://go.microsoft.com/fwlink/?linkid=2152310"
            )
            return error(403, "Forbidden", message, inner="ForbiddenByPolicy")
        return self._no_permission(token, permission)

    def _no_role(self, token: Token, action: str, secret: str, denied_by: DenyAssignment | None) -> Reply:
        vault = self._vault
        group = f"/subscriptions/{vault.subscription_id}/resourcegroups/{vault.resource_group}"
        resource = f"{group}/providers/microsoft.keyvault/vaults/{vault.name}".lower()
        found, denial, reason = "(not found)", "null", "DeniedWithNoValidRBAC"
        if denied_by is not None:
            found, denial, reason = "(found)", f"'{denied_by.deny_id}'", "DeniedByDenyAssignment"
        message = (
            "Caller is not authorized to perform action on resource.\r\n"
            "If role assignments, deny assignments or role definitions were changed recently, please observe "
            "propagation time.\r\n"
            f"Caller: {_caller(token)}\r\n"
            f"Action: '{action}'\r\n"
            f"Resource: '{resource}{f'/secrets/{secret}' if secret else ''}'\r\n"
            f"Assignment: {found}\r\n"
            f"DenyAssignmentId: {denial}\r\n"
            f"DecisionReason: '{reason}' \r\n"
            f"Vault: {vault.name};location={vault.location}\r\n"
        )
        return error(403, "Forbidden", message, inner="ForbiddenByRbac")

    def _no_permission(self, token: Token, permission: str) -> Reply:
        message = (
            f"The user, group or application '{_caller(token)}' does not have secrets {permission} permission on key "
            f"vault '{self._vault.name};location={self._vault.location}'. For help resolving this issue, please see "
            "https://go.microsoft.com/fwlink/?linkid=2125287"
        )
        return error(403, "Forbidden", message, inner="ForbiddenByPolicy")


def _on_behalf_only(token: Token) -> Reply:
    """As in SparebankenVest/azure-key-vault-to-kubernetes#232."""
    message = (
        f"The policy requires the caller '{_caller(token)}' to use on-behalf-of (OBO) flow. For more information on OBO, "
        "please see https://go.microsoft.com/fwlink/?linkid=2152310"
    )
    return error(403, "Forbidden", message, inner="ForbiddenByPolicy")


def _caller(token: Token) -> str:
    return f"appid={token.client_id};oid={token.object_id};iss={token.issuer}"
