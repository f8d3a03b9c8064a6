"""Whether a caller may carry out an operation on a vault, by its roles or its access policies."""

from __future__ import annotations

from keysync.emulator.services.entra import Token
from keysync.emulator.services.vault_operations import ACTIONS, PERMISSIONS
from keysync.emulator.vault import Vault
from keysync.emulator.wire import Reply, error


def denial(vault: Vault, token: Token, issuer: str, operation: str, resource: str) -> Reply | None:
    """The reply to a caller without permission, None if `operation` is allowed. `resource` is the URL of the vault or secret."""
    if operation not in vault.denied:
        return None
    caller = f"appid={token.client_id};oid={token.object_id};iss={issuer}"
    return (
        _no_permission(vault, caller, operation)
        if vault.access_policies
        else _no_role(vault, caller, operation, resource)
    )


def _no_role(vault: Vault, caller: str, operation: str, resource: str) -> Reply:
    message = (
        "Caller is not authorized to perform action on resource.\r\n"
        "If role assignments, deny assignments or role definitions were changed recently, please observe "
        "propagation time.\r\n"
        f"Caller: {caller}\r\n"
        f"Action: 'Microsoft.KeyVault/vaults/secrets/{ACTIONS[operation]}'\r\n"
        f"Resource: '{resource}'\r\n"
        f"Assignment: (not found)\r\nDenyAssignmentId: null\r\nDecisionReason: null \r\nVault: {vault.name}\r\n"
    )
    return error(403, "Forbidden", message, inner="ForbiddenByRbac")


def _no_permission(vault: Vault, caller: str, operation: str) -> Reply:
    """The denial of a vault with access policies, as quoted in public issues."""
    message = (
        f"The user, group or application '{caller}' does not have secrets {PERMISSIONS[operation]} permission on key "
        f"vault '{vault.name};location=westeurope'."
    )
    return error(403, "Forbidden", message, inner="ForbiddenByPolicy")
