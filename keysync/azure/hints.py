"""Hints: how to fix a failed call, in a sentence or two, with the setting, role or command to change."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from keysync.azure.sign_in import UNKNOWN, SignIn
from keysync.failures import FailureRecord

ACTIONS: Final = {
    "listKeys": "Microsoft.Batch/batchAccounts/listKeys/action",
    "getAccount": "Microsoft.Batch/batchAccounts/read",
    "listAccounts": "Microsoft.Batch/batchAccounts/read",
    # Resource Graph returns only accounts that the identity may read.
    "queryResources": "Microsoft.Batch/batchAccounts/read",
}
"""The action that each operation of Resource Manager needs."""

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
"""For each operation of Key Vault, the data action that a role needs and the permission that an access policy needs."""

_ASSIGN: Final = "assign a role that has it (it takes effect after some minutes)"
_TENANT: Final = "set its `tenant_id` (or AZURE_TENANT_ID) to that tenant, or give the"
_CLOCK_DIFFERS: Final = (
    "the token for {scope} has expired by Azure's clock: compare the clock of this machine with the time in the message, and "
    "set it by NTP"
)
_ADD_ACCESS_POLICY: Final = (
    "(it replaces the identity's permissions on secrets there). To do so: az keyvault set-policy --name {vault} "
    "--object-id {object_id} --secret-permissions {permissions}"
)
_AZURE_POLICY: Final = (
    "an Azure Policy on {scope} denies this: if it requires a content type or an expiry, set `content_type` "
    "or `expires_after` (such as 90d) on the vault in the configuration; the message says what it requires"
)
_VERSIONS: Final = r"(?:latest supported version \(|supported(?: api-| )?versions are:? ')(?P<versions>[^')]+)"
_NOT_AZURE: Final = "the reply came from something other than Azure (a proxy?): check HTTPS_PROXY and NO_PROXY"


RULES: Final = {
    "authorizationfailed linkedauthorizationfailed": (
        f"the identity lacks the action {{action}} on {{where}}: {_ASSIGN}"
    ),
    "denyassignmentauthorizationfailed ~ deny assignment with name '[^']*' and Id '": (
        "the deny assignment '{deny_name}' on {deny_scope} forbids this, and no role overrides it: exclude the identity in the "
        "deployment stack or managed application that created it"
    ),
    "denyassignmentauthorizationfailed": (
        "a deny assignment on {scope} forbids this, and no role overrides it: exclude the identity in the deployment stack or "
        "managed application that created it"
    ),
    "requestdisallowedbypolicy": (
        "{policy} denies this call on {scope}: have the account exempted from it (az policy exemption create)"
    ),
    "scopelocked": "a read-only lock on {locked} forbids listKeys (a POST): replace it by a delete lock",
    "akv10032": (
        f"the credential belongs to another tenant{{last_tenant}} than {{scope}}{{first_tenant}}: {_TENANT} vault a "
        "`credential` of its own"
    ),
    "invalidauthenticationtokentenant": (
        f"the credential belongs to another tenant{{first_tenant}} than {{scope}}{{last_tenant}}: {_TENANT} account "
        "a `credential` of its own"
    ),
    "expiredauthenticationtoken": _CLOCK_DIFFERS,
    "http:401 ~ IDX10222|IDX10223|token (?:has|is) expired": _CLOCK_DIFFERS,
    "noregisteredproviderfound invalidresourcetype invalidapiversionparameter badparameter ~ " + _VERSIONS: (
        'this cloud does not support the api-version yet: set `api_versions: {{{api}: "{newest_version}"}}` in the configuration'
    ),
    "~ on-behalf-of": (
        "the access policy of {scope} for this identity is for an application acting on a user's behalf: add one for the identity "
        f"alone {_ADD_ACCESS_POLICY}"
    ),
    r"~ does not have secrets \w+ permission on key vault '": (
        "the vault {scope} uses access policies, and none gives this identity the permission {permission}: add one "
        + _ADD_ACCESS_POLICY
    ),
    "forbiddenbypolicy ~ azure policy": _AZURE_POLICY,
    "forbiddenbypolicy": (
        "a policy of {scope} denies this: either its access policy lacks the permission {permission} for this identity "
        "(az keyvault set-policy), or an Azure Policy requires a content type or an expiry (`content_type` or `expires_after` "
        "on the vault in the configuration)"
    ),
    "forbiddenbyfirewall ~ Client address: [0-9a-f.:]+": (
        "the firewall of {scope} does not admit {address}: add it, or use a private endpoint. "
        "To add it: az keyvault network-rule add --name {vault} --ip-address {address}"
    ),
    "forbiddenbyfirewall": "the firewall of {scope} does not admit this address: add it, or use a private endpoint",
    "http:503 ~ read-only": (
        "{scope} is read-only while Azure moves it to its other region: no action is needed, the next run tries again"
    ),
    "aadsts700024+by:workload_identity": (
        "the federated token in {proof} is not valid at this time; the message has its validity and Entra's time: check that "
        "Kubernetes renews the file, and that the cluster's clocks are right"
    ),
    "aadsts700024": (
        "the assertion signed with the certificate is not valid at this time; the message has its validity and Entra's time: "
        "the clock of this machine is wrong, set it by NTP"
    ),
    "kind:credential_unavailable+by:managed_identity ~ assigned to this resource|identity not found": (
        "this machine has no such identity: assign it to the machine, or correct {client} (without it, the system-assigned "
        "identity is used)"
    ),
    "resourcenotfound accountnotfound": (
        "no such Batch account: check name, resource_group and subscription_id of {scope}"
    ),
    "resourcegroupnotfound": "no such resource group: check resource_group of {scope}",
    "subscriptionnotfound": "no such subscription for this identity: check subscription_id, tenant and role of {scope}",
    "invalidsubscriptionid": "subscription_id of {scope} is malformed: set the GUID of a subscription",
    "missingsubscriptionregistration": "register the provider once: az provider register --namespace Microsoft.Batch",
    "readonlydisabledsubscription": (
        "the subscription of {scope} is disabled and therefore read-only, so listKeys (a POST) fails: enable it again, or remove "
        "its accounts from the configuration"
    ),
    "disallowedoperation": (
        "this type of subscription cannot use Azure's resource providers ({scope}): set another subscription_id"
    ),
    "invalidauthenticationtoken": (
        "Azure does not accept the token for {scope}: check `cloud`, and the tenant of the credential (`tenant_id` or "
        "AZURE_TENANT_ID)"
    ),
    "invalidauthenticationtokenaudience": (
        "the token is for another cloud or service than {scope}: set `cloud` to the cloud of this subscription"
    ),
    "akv10022": (
        "the token is for another cloud or service than {scope}: set `cloud` and the vault's `url` to the same cloud"
    ),
    "forbiddenbyconnection": "{scope} accepts private endpoints only: run keysync inside that network",
    "governancepolicy": _AZURE_POLICY,
    "objectisdeletedbutrecoverable": (
        "a deleted secret has this name: recover it (az keyvault secret recover) or purge it, then sync again"
    ),
    "objectisbeingdeleted": "the old secret of this name is still being deleted: the next run tries again",
    "objectisbeingrecovered": "the secret is being recovered: the next run tries again",
    "secretdisabled": (
        "the secret is disabled: to sync it, enable it (az keyvault secret set-attributes --enabled true)"
    ),
    "aadsts7000222": (
        "the client secret has expired. It comes from {proof}: put the value of a new one there. To create one: "
        "az ad app credential reset --append --id {app}"
    ),
    "aadsts7000215": (
        "the client secret is wrong (its id instead of its value?). It comes from {proof}: put the secret's value there"
    ),
    "aadsts700016": "the tenant ({tenant}) knows no such application ({client}): correct one of the two",
    "aadsts7000112": (
        "the application ({client}) is disabled in its tenant. To enable it: az ad sp update --id {app} --set "
        "accountEnabled=true"
    ),
    "aadsts90002": "no such tenant in this cloud: correct {tenant}, or `cloud`",
    "aadsts900023": "this is not the id or the domain of a tenant: correct {tenant}",
    "aadsts500011": "this tenant has no such service: correct {tenant}, or `cloud`",
    "aadsts700027": (
        "the application ({client}) does not know the certificate of {proof}. To add it: az ad app credential reset "
        "--append --id {app} --cert @FILE"
    ),
    "aadsts70021 aadsts700211 aadsts700212 aadsts700213": (
        "no federated credential of the application (client_id: {client}) matches the token in {proof}{presented}: "
        "add one with this issuer, subject and audience (case-sensitive)"
    ),
    "aadsts53003": (
        "a Conditional Access policy blocks this identity ({client}): exclude it from the policy, or allow this machine's "
        "address; Entra's sign-in log names the policy"
    ),
    "aadsts50079 aadsts50076": (
        "Entra requires a second factor of this user, which a program cannot provide: sign in with a service principal or a "
        "managed identity, set by `type` under `credential`"
    ),
    "aadsts50173 aadsts70043 aadsts700082": "the user's sign-in has expired: az login",
    "aadsts90025 aadsts90033": "Entra has an internal error: the next run tries again",
    "forbidden+vault forbiddenbyrbac accessdenied": (
        f"the identity lacks the data action {{data_action}} on {{scope}}: {_ASSIGN}"
    ),
    "kind:credential_unavailable+by:managed_identity": (
        "no managed-identity endpoint replies on this machine: run keysync on an Azure machine with an identity, or set another "
        "`type` under `credential`"
    ),
    "kind:credential_unavailable+by:azure_cli": (
        "az is not installed or not logged in on this machine: install it, then az login"
    ),
    "kind:credential_unavailable+by:default": (
        "no credential was found: set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, assign a managed identity to this "
        "machine, or set `type` under `credential`"
    ),
    "kind:credential_unavailable": (
        "no credential of the configured type is available on this machine: check `credential` and its environment; for "
        "`azure_cli`, install az and run az login"
    ),
    "kind:invalid_response+by:managed_identity": (
        "the managed-identity endpoint of this machine did not reply with a token: the next run tries again; "
        "if this persists, restart the app or the machine, or set another `type` under `credential`"
    ),
    "kind:cloud_error+http:5xx": "Azure has an internal error: the next run tries again",
    "kind:shared_key_disabled": (
        "the account has no shared keys (SharedKey is not allowed, or its pools are in UserSubscription mode): "
        "let its jobs use Entra ID and remove it from the configuration, or allow SharedKey"
    ),
    "kind:dns": "{scope} does not resolve: check the name, that it exists, and the DNS (private endpoint zone)",
    "kind:tls": (
        "the certificate is not trusted or not for that host: behind an inspecting proxy, set SSL_CERT_FILE or "
        "cloud.ca_bundle"
    ),
    "kind:challenge": (
        "the vault asks for a token of another domain than its own: check the URL, or set "
        "verify_challenge_resource: false if you trust that host"
    ),
    "kind:throttled": (
        "Azure limits the rate of calls: distribute the accounts over subscriptions or vaults, or sync less often"
    ),
    "kind:timeout": "{scope} did not reply in time: check the network, or raise timeouts.request",
    "kind:http_error kind:invalid_response": _NOT_AZURE,
}
"""The text of each hint, by the failures that it is for. The first that applies decides.

Left of ``~`` are codes of the service in lower case, ``http:STATUS``, ``kind:KIND``, ``by:TYPE`` of credential or ``vault``: one
is enough, all that ``+`` joins are needed together. Right of it is a pattern that the message must contain.
"""

_PARSED: Final = [
    ([frozenset(filter(None, group.split("+"))) for group in when.split() or [""]], pattern, text)
    for (when, _, pattern), text in ((condition.partition("~ "), text) for condition, text in RULES.items())
]
# What a message may name, by the placeholder in a rule's text.
_FACTS: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"perform action '(?P<action>[^']+)'(?: or [^']*)? over scope '(?P<where>[^']+)'",
        r"deny assignment with name '(?P<deny_name>[^']*)' and Id '[^']*' at scope '(?P<deny_scope>[^']*)'",
        r"\"policyAssignment\":\{[^}]*\"id\":\"(?P<assignment>[^\"]+)\"",
        r"are locked: '(?P<locked>[^']+)'",
        _VERSIONS,
        r"does not have secrets (?P<permission>\w+) permission on key vault '(?P<vault>[^;']+)",
        r"\boid=(?P<object_id>[0-9a-f-]{36})",
        r"Client address: (?P<address>[0-9a-f.:]+)",
        r"Action: '(?P<data_action>[^']+)'",
        r"(?:app|identifier|application) '(?P<app>[0-9a-f-]{36})'",
        r"presented assertion (?P<assertion>\w+ '[^']*')",
    )
)


def with_hint(record: FailureRecord, scope: str, sign_in: SignIn = UNKNOWN) -> FailureRecord:
    """`record` with a hint, if there is one for it. `scope` is the account's ARM id or the vault's URL.

    `sign_in` is that of the credential that raised the failure, if one did.
    """
    message = (record.cloud_error.message if record.cloud_error else record.summary) or ""
    status = record.http_status or 0
    words = {f"kind:{record.kind}", f"http:{status}", f"http:{status // 100}xx", f"by:{sign_in.type}"}
    words.update(code.lower() for code in (*record.codes, *re.findall(r"(?i)akv\d+|aadsts\d+", message)))
    if record.operation in RIGHTS:
        words.add("vault")
    for groups, pattern, text in _PARSED:
        if any(group <= words for group in groups) and (not pattern or re.search(pattern, message, re.IGNORECASE)):
            return replace(record, hint=text.format_map(_facts(record.operation, message, scope, sign_in)))
    return record


def _facts(operation: str, message: str, scope: str, sign_in: SignIn) -> dict[str, str]:
    """What the placeholders stand for: from the call, and from the message where it names more."""
    data_action, permission = RIGHTS.get(operation, ("", "get"))
    facts = {
        "scope": scope,
        "tenant": sign_in.tenant,
        "client": sign_in.client,
        "proof": sign_in.proof,
        "action": ACTIONS.get(operation, operation),
        "where": scope,
        "data_action": f"{DATA_ACTION_PREFIX}{data_action}" if data_action else operation,
        "permission": permission,
        "vault": (urlsplit(scope).hostname or "").partition(".")[0] or "VAULT",
        "app": "CLIENT_ID",
        "object_id": "OBJECT_ID",
        "presented": "",
        "api": "secrets" if data_action else "batch",
        "policy": "an Azure Policy",
        "locked": "the account, its group or its subscription",
        "first_tenant": "",
        "last_tenant": "",
    }
    for pattern in _FACTS:
        match = pattern.search(message)
        facts |= match.groupdict() if match else {}
    if "assignment" in facts:
        facts["policy"] = f"the policy assignment {facts['assignment']}"
    if "assertion" in facts:
        facts["presented"] = f" ({facts['assertion']})"
    tenants = re.findall(r"(?i)//sts\.windows\.net/([0-9a-f-]{36})", message)
    if len(tenants) > 1:
        facts |= {"first_tenant": f" ({tenants[0]})", "last_tenant": f" ({tenants[-1]})"}
    if "versions" in facts:
        facts["newest_version"] = _newest([version.strip() for version in facts["versions"].split(",")])
    facts["permission"] = facts["permission"].lower()
    facts["permissions"] = " ".join(dict.fromkeys(("get", "list", "set", facts["permission"])))
    return facts


def _newest(versions: list[str]) -> str:
    """The newest api-version that is not a preview, if there is one."""
    stable = (version for version in versions if "preview" not in version)
    return max(stable, default=versions[-1], key=lambda version: [int(part) for part in re.findall(r"\d+", version)])
