"""Hints for failures of Key Vault."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from keysync.azure.hints.failed_call import ROLE_DELAY, FailedCall

DATA_ACTION_PREFIX: Final = "Microsoft.KeyVault/vaults/secrets/"
RIGHTS: Final = {
    "getSecret": ("getSecret/action", "get"),
    "setSecret": ("setSecret/action", "set"),
    "updateSecret": ("update/action", "set"),
    "listSecrets": ("readMetadata/action", "list"),
    "listVersions": ("readMetadata/action", "list"),
    "getDeletedSecret": ("readMetadata/action", "get"),
    "recoverSecret": ("recover/action", "recover"),
    "deleteSecret": ("delete", "delete"),
}
"""For each operation, the data action that a role needs and the permission that an access policy needs."""

_USUAL_PERMISSIONS: Final = ("get", "list", "set")

_POLICY: Final = (
    "an Azure Policy on {scope} denies this: if it requires a content type or an expiry, set `content_type` "
    "or `expires_after` (such as 90d) on the vault in the configuration; the message says what it requires"
)

TEXTS: Final = {
    "akv10022": (
        "the token is for another cloud or service than {scope}: set `cloud` and the vault's `url` to the same cloud"
    ),
    "forbiddenbyconnection": "{scope} accepts private endpoints only: run keysync inside that network",
    "governancepolicy": _POLICY,
    "objectisdeletedbutrecoverable": (
        "a deleted secret has this name: recover it (az keyvault secret recover) or purge it, then sync again"
    ),
    "objectisbeingdeleted": "the old secret of this name is still being deleted: the next run tries again",
    "objectisbeingrecovered": "the secret is being recovered: the next run tries again",
    "secretdisabled": "the secret is disabled: to sync it, enable it (az keyvault secret set-attributes --enabled true)",
}
"""The hint for a code of the service, by the code in lower case. `hint_for` fills in the placeholders."""


def access_policy(call: FailedCall) -> str | None:
    """The access policy lacks a permission."""
    match = re.search(r"does not have secrets (\w+) permission on key vault '([^;']+)", call.message, re.IGNORECASE)
    on_behalf = "on-behalf-of" in call.message
    if match is None and not on_behalf:
        return None
    vault = match[2] if match else _vault_name(call.scope)
    permission = match[1].lower() if match else RIGHTS.get(call.operation, ("", "get"))[1]
    object_id = re.search(r"\boid=([0-9a-f-]{36})", call.message, re.IGNORECASE)
    permissions = " ".join(dict.fromkeys((*_USUAL_PERMISSIONS, permission)))
    cause = (
        f"the access policy of {call.scope} for this identity is for an application acting on a user's behalf: add one for the identity alone"
        if on_behalf
        else f"the vault {call.scope} uses access policies, and none gives this identity the permission {permission}: add one"
    )
    return (
        f"{cause} (it replaces the identity's permissions on secrets there). To do so: az keyvault set-policy --name {vault} "
        f"--object-id {object_id[1] if object_id else 'OBJECT_ID'} --secret-permissions {permissions}"
    )


def forbidden_by_policy(call: FailedCall) -> str | None:
    """An access policy or an Azure Policy denies the call."""
    if "forbiddenbypolicy" not in call.codes:
        return None
    if "azure policy" in call.message.lower():
        return _POLICY.format(scope=call.scope)
    _, permission = RIGHTS.get(call.operation, ("", call.operation))
    return (
        f"a policy of {call.scope} denies this: either its access policy lacks the permission {permission} for this identity "
        "(az keyvault set-policy), or an Azure Policy requires a content type or an expiry (`content_type` or `expires_after` "
        "on the vault in the configuration)"
    )


def firewall(call: FailedCall) -> str | None:
    """The firewall does not admit this address."""
    if "forbiddenbyfirewall" not in call.codes:
        return None
    match = re.search(r"Client address: ([0-9a-fA-F.:]+)", call.message)
    hint = f"the firewall of {call.scope} does not admit {match[1] if match else 'this address'}: add it, or use a private endpoint"
    if match is None:
        return hint
    return f"{hint}. To add it: az keyvault network-rule add --name {_vault_name(call.scope)} --ip-address {match[1]}"


def read_only(call: FailedCall) -> str | None:
    """The vault is read-only during a failover."""
    if call.status != 503 or "read-only" not in call.message.lower():
        return None
    return f"{call.scope} is read-only while Azure moves it to its other region: no action is needed, the next run tries again"


def missing_data_action(call: FailedCall) -> str | None:
    """A role assignment is missing."""
    forbidden = "forbidden" in call.codes and call.operation in RIGHTS
    if not forbidden and not call.codes & {"forbiddenbyrbac", "accessdenied"}:
        return None
    match = re.search(r"Action: '([^']+)'", call.message)
    data_action, _ = RIGHTS.get(call.operation, ("", ""))
    action = match[1] if match else f"{DATA_ACTION_PREFIX}{data_action}" if data_action else call.operation
    return f"the identity lacks the data action {action} on {call.scope}: assign a role that has it {ROLE_DELAY}"


def _vault_name(url: str) -> str:
    return (urlsplit(url).hostname or "").partition(".")[0] or "VAULT"
