"""What to do about a failure: one sentence for each of those that operators meet most."""

from __future__ import annotations

import re
from typing import Final

_DENIED: Final = re.compile(
    r"perform action '(?P<action>[^']+)'(?: or [^']*)? over scope '(?P<scope>[^']+)'", re.IGNORECASE
)
_KEY_VAULT_DENIED: Final = re.compile(r"Action: '(?P<action>[^']+)'")
_BATCH_ACTIONS: Final = {
    "listKeys": "Microsoft.Batch/batchAccounts/listKeys/action",
    "getAccount": "Microsoft.Batch/batchAccounts/read",
    "listAccounts": "Microsoft.Batch/batchAccounts/read",
    # Resource Graph shows what the identity may read anyway.
    "queryResources": "Microsoft.Batch/batchAccounts/read",
}
_SECRET_ACTIONS: Final = {
    "getSecret": "Microsoft.KeyVault/vaults/secrets/getSecret/action",
    "setSecret": "Microsoft.KeyVault/vaults/secrets/setSecret/action",
    "updateSecret": "Microsoft.KeyVault/vaults/secrets/update/action",
    "listSecrets": "Microsoft.KeyVault/vaults/secrets/readMetadata/action",
    "listVersions": "Microsoft.KeyVault/vaults/secrets/readMetadata/action",
    "getDeletedSecret": "Microsoft.KeyVault/vaults/secrets/readMetadata/action",
    "recoverSecret": "Microsoft.KeyVault/vaults/secrets/recover/action",
    "deleteSecret": "Microsoft.KeyVault/vaults/secrets/delete",
}

_POLICY: Final = (
    "an Azure Policy or access policy on {scope} denies this: where it demands a content type or an expiry, set `content_type` "
    "or `expires_after` (such as 90d) on the vault in the configuration; the message says what it demands"
)

# By code, lower-cased; `{scope}` is the account's ARM id or the vault's URL.
_BY_CODE: Final = {
    "invalidauthenticationtokentenant": (
        "the credential is of another tenant than {scope}: set the account's own `credential` with that tenant's id"
    ),
    "akv10032": "the credential is of another tenant than {scope}: set the vault's own `credential` with that tenant's id",
    "scopelocked": (
        "a read-only lock on the account, its group or subscription stops listKeys (a POST): replace it by a delete lock"
    ),
    "resourcenotfound": "no such Batch account: check name, resource_group and subscription_id of {scope}",
    "resourcegroupnotfound": "no such resource group: check resource_group of {scope}",
    "subscriptionnotfound": "no such subscription for this identity: check subscription_id, tenant and role of {scope}",
    "missingsubscriptionregistration": ("register the provider once: az provider register --namespace Microsoft.Batch"),
    "forbiddenbyfirewall": "the firewall of {scope} does not let this address in: add it, or use a private endpoint",
    "forbiddenbyconnection": "{scope} takes private endpoints only: run keysync inside that network",
    "forbiddenbypolicy": _POLICY,
    "governancepolicy": _POLICY,
    "objectisdeletedbutrecoverable": (
        "a deleted secret holds this name: recover it (az keyvault secret recover) or let it be purged, then sync again"
    ),
    "objectisbeingdeleted": "the old secret of this name is still being deleted: the next pass tries again",
    "objectisbeingrecovered": "the secret is being recovered: the next pass tries again",
    "secretdisabled": "the secret is disabled: enable it (az keyvault secret set-attributes --enabled true) to have it synced",
    "aadsts7000222": "the client secret has expired: create a new one and put it where the configuration takes it from",
    "aadsts7000215": "the client secret is wrong (its id instead of its value?): put the right one in place",
    "aadsts700016": "this tenant knows no such application: check client_id and tenant_id",
    "aadsts90002": "no such tenant: check tenant_id and `cloud`",
    "aadsts700024": "the federated token is outside its time of validity: check the clock and the projected token",
    "aadsts70021": "no federated credential matches the token: check issuer, subject and audience of the identity",
    "aadsts700213": "no federated credential matches the token: check issuer, subject and audience of the identity",
}
_BY_KIND: Final = {
    "shared_key_disabled": (
        "the account gives no shared keys (SharedKey is not allowed, or its pools are in UserSubscription mode): "
        "let its jobs use Entra ID and take it out of the configuration, or allow SharedKey"
    ),
    "dns": "{scope} does not resolve: check the name, whether it exists, and the DNS (private endpoint zone)",
    "tls": "the certificate is not trusted or not that host's: behind an inspecting proxy, set SSL_CERT_FILE or cloud.ca_bundle",
    "challenge": (
        "the vault asks for a token of another domain than its own: check the URL, or set "
        "verify_challenge_resource: false if you trust that host"
    ),
    "credential_unavailable": "no credential of the configured type is at hand here: check `credential` and its environment; for `azure_cli`, install az and run az login",
    "throttled": "Azure limits the rate of calls: spread accounts over subscriptions or vaults, or sync less often",
    "timeout": "{scope} did not answer in time: check the network, or raise timeouts.request",
    "http_error": "the reply came from something other than Azure (a proxy?): check HTTPS_PROXY and NO_PROXY",
    "invalid_response": "the reply came from something other than Azure (a proxy?): check HTTPS_PROXY and NO_PROXY",
}

ACCOUNT_TIMEOUT: Final = (
    "Azure answers slowly or makes its calls wait (keysync_azure_throttled_total counts that): try `keysync check`, and raise "
    "timeouts.account where the network or a retry needs longer"
)
"""What to do where not one call but a whole account, or a whole listing, outran `timeouts.account`."""


def hint_for(*, kind: str, codes: tuple[str, ...], message: str, operation: str, scope: str) -> str | None:
    """The cure for a failure, or None where the record itself says all there is to say."""
    lowered = {code.lower() for code in codes}
    if "authorizationfailed" in lowered or "linkedauthorizationfailed" in lowered:
        return _missing_action(message, operation, scope)
    specific = _specific_hint(lowered | set(re.findall(r"akv\d+|aadsts\d+", message.lower())), scope)
    if specific is not None:
        return specific
    if lowered & {"forbiddenbyrbac", "accessdenied"} or ("forbidden" in lowered and operation in _SECRET_ACTIONS):
        return _missing_secret_action(message, operation, scope)
    by_kind = _BY_KIND.get(kind)
    return by_kind.format(scope=scope) if by_kind else None


def _specific_hint(codes: set[str], scope: str) -> str | None:
    # The innermost code is the most telling one, and the table's order puts none above another.
    for code, text in _BY_CODE.items():
        if code in codes:
            return text.format(scope=scope)
    return None


def _missing_action(message: str, operation: str, scope: str) -> str:
    found = _DENIED.search(message)
    action = found["action"] if found else _BATCH_ACTIONS.get(operation, operation)
    where = found["scope"] if found else scope
    return f"the identity lacks the action {action} on {where}: assign a role that has it (minutes may pass until it counts)"


def _missing_secret_action(message: str, operation: str, scope: str) -> str:
    found = _KEY_VAULT_DENIED.search(message)
    action = found["action"] if found else _SECRET_ACTIONS.get(operation, operation)
    return f"the identity lacks the data action {action} on {scope}: assign a role that has it (minutes may pass until it counts)"
