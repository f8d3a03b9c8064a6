"""How to fix a failure: a sentence or two for each one that operators meet, with its cause and its place."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from keysync.azure.sign_in import UNKNOWN, SignIn

_SOON: Final = "(it takes effect after some minutes)"
_BATCH_ACTIONS: Final = {
    "listKeys": "Microsoft.Batch/batchAccounts/listKeys/action",
    "getAccount": "Microsoft.Batch/batchAccounts/read",
    "listAccounts": "Microsoft.Batch/batchAccounts/read",
    # Resource Graph shows what the identity may read anyway.
    "queryResources": "Microsoft.Batch/batchAccounts/read",
}
_SECRETS: Final = "Microsoft.KeyVault/vaults/secrets/"
# The data action that a role needs, and the permission that an access policy needs.
_SECRET_RIGHTS: Final = {
    "getSecret": ("getSecret/action", "get"),
    "setSecret": ("setSecret/action", "set"),
    "updateSecret": ("update/action", "set"),
    "listSecrets": ("readMetadata/action", "list"),
    "listVersions": ("readMetadata/action", "list"),
    "getDeletedSecret": ("readMetadata/action", "get"),
    "recoverSecret": ("recover/action", "recover"),
    "deleteSecret": ("delete", "delete"),
}
_USUAL_PERMISSIONS: Final = ("get", "list", "set")

_POLICY: Final = (
    "an Azure Policy on {scope} denies this: where it demands a content type or an expiry, set `content_type` "
    "or `expires_after` (such as 90d) on the vault in the configuration; the message says what it demands"
)
_NO_ACCOUNT: Final = "no such Batch account: check name, resource_group and subscription_id of {scope}"
_NO_FEDERATION: Final = (
    "no federated credential of the application (client_id: {client}) matches the token in {proof}{presented}: "
    "add one with this issuer, subject and audience, which are compared with case"
)
_NEW_SIGN_IN: Final = "the user's sign-in has ended: az login"
_SECOND_FACTOR: Final = (
    "Entra asks this user for a second factor, which a program cannot give: sign in with a service principal or a "
    "managed identity, set by `type` under `credential`"
)
_ENTRA_FAULT: Final = "Entra has a fault of its own: the next run tries again"

# By code, lower-cased; `{scope}` is the account's ARM id or the vault's URL, `{tenant}`, `{client}` and `{proof}` are where
# the credential has them from, `{app}` is the application's id.
_BY_CODE: Final = {
    "resourcenotfound": _NO_ACCOUNT,
    "accountnotfound": _NO_ACCOUNT,
    "resourcegroupnotfound": "no such resource group: check resource_group of {scope}",
    "subscriptionnotfound": "no such subscription for this identity: check subscription_id, tenant and role of {scope}",
    "invalidsubscriptionid": "Azure takes subscription_id of {scope} for malformed: set the GUID of a subscription",
    "missingsubscriptionregistration": "register the provider once: az provider register --namespace Microsoft.Batch",
    "readonlydisabledsubscription": (
        "the subscription of {scope} is disabled and so read-only, which stops listKeys (a POST): enable it again, or take "
        "its accounts out of the configuration"
    ),
    "disallowedoperation": (
        "this type of subscription may not use Azure's resource providers ({scope}): set another subscription_id"
    ),
    "invalidauthenticationtoken": (
        "Azure does not accept the token for {scope}: check `cloud`, and the tenant of the credential (`tenant_id` or "
        "AZURE_TENANT_ID)"
    ),
    "invalidauthenticationtokenaudience": (
        "the token is for another cloud or service than {scope}: set `cloud` to the cloud of this subscription"
    ),
    "akv10022": (
        "the token is for another cloud or service than {scope}: let `cloud` and the vault's `url` name the same cloud"
    ),
    "forbiddenbyconnection": "{scope} takes private endpoints only: run keysync inside that network",
    "governancepolicy": _POLICY,
    "objectisdeletedbutrecoverable": (
        "a deleted secret holds this name: recover it (az keyvault secret recover) or let it be purged, then sync again"
    ),
    "objectisbeingdeleted": "the old secret of this name is still being deleted: the next run tries again",
    "objectisbeingrecovered": "the secret is being recovered: the next run tries again",
    "secretdisabled": "the secret is disabled: enable it (az keyvault secret set-attributes --enabled true) to have it synced",
    "aadsts7000222": (
        "the client secret has expired. It comes from {proof}: put the value of a new one there. To make one: "
        "az ad app credential reset --append --id {app}"
    ),
    "aadsts7000215": (
        "the client secret is wrong (its id instead of its value?). It comes from {proof}: put the secret's value there"
    ),
    "aadsts700016": "the tenant ({tenant}) knows no such application ({client}): correct one of the two",
    "aadsts7000112": (
        "the application ({client}) is disabled in its tenant. To enable it: az ad sp update --id {app} --set accountEnabled=true"
    ),
    "aadsts90002": "no such tenant in this cloud: correct {tenant}, or `cloud`",
    "aadsts900023": "this is not the id or the domain of a tenant: correct {tenant}",
    "aadsts500011": "this tenant has no such service: correct {tenant}, or `cloud`",
    "aadsts700027": (
        "the application ({client}) does not know the certificate of {proof}. To add it: az ad app credential reset "
        "--append --id {app} --cert @FILE"
    ),
    "aadsts70021": _NO_FEDERATION,
    "aadsts700211": _NO_FEDERATION,
    "aadsts700212": _NO_FEDERATION,
    "aadsts700213": _NO_FEDERATION,
    "aadsts53003": (
        "a Conditional Access policy blocks this identity ({client}): have it excluded from the policy, or this machine's "
        "address allowed; Entra's sign-in log names the policy"
    ),
    "aadsts50079": _SECOND_FACTOR,
    "aadsts50076": _SECOND_FACTOR,
    "aadsts50173": _NEW_SIGN_IN,
    "aadsts70043": _NEW_SIGN_IN,
    "aadsts700082": _NEW_SIGN_IN,
    "aadsts90025": _ENTRA_FAULT,
    "aadsts90033": _ENTRA_FAULT,
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
    "throttled": "Azure limits the rate of calls: spread accounts over subscriptions or vaults, or sync less often",
    "timeout": "{scope} did not answer in time: check the network, or raise timeouts.request",
    "http_error": "the reply came from something other than Azure (a proxy?): check HTTPS_PROXY and NO_PROXY",
    "invalid_response": "the reply came from something other than Azure (a proxy?): check HTTPS_PROXY and NO_PROXY",
}


@dataclass(frozen=True, slots=True)
class _Failure:
    kind: str
    status: int | None
    codes: frozenset[str]
    message: str
    operation: str
    scope: str
    sign_in: SignIn


def hint_for(
    *,
    kind: str,
    codes: tuple[str, ...],
    message: str,
    operation: str,
    scope: str,
    status: int | None = None,
    sign_in: SignIn = UNKNOWN,
) -> str | None:
    """How to fix a failure, or None where the record itself says everything.

    `sign_in` is the credential that raised it, where one did.
    """
    in_text = re.findall(r"akv\d+|aadsts\d+", message.lower())
    lowered = frozenset((*(code.lower() for code in codes), *in_text))
    failure = _Failure(kind, status, lowered, message, operation, scope, sign_in)
    found = (hint for reader in _READERS if (hint := reader(failure)) is not None)
    return next(found, None)


# Resource Manager


def _missing_action(failure: _Failure) -> str | None:
    if not failure.codes & {"authorizationfailed", "linkedauthorizationfailed"}:
        return None
    found = re.search(
        r"perform action '([^']+)'(?: or [^']*)? over scope '([^']+)'", failure.message, flags=re.IGNORECASE
    )
    action = found[1] if found else _BATCH_ACTIONS.get(failure.operation, failure.operation)
    where = found[2] if found else failure.scope
    return f"the identity lacks the action {action} on {where}: assign a role that has it {_SOON}"


def _deny_assignment(failure: _Failure) -> str | None:
    if "denyassignmentauthorizationfailed" not in failure.codes:
        return None
    found = re.search(
        r"deny assignment with name '([^']*)' and Id '[^']*' at scope '([^']*)'", failure.message, re.IGNORECASE
    )
    which = f"the deny assignment '{found[1]}' on {found[2]}" if found else f"a deny assignment on {failure.scope}"
    return (
        f"{which} forbids this, and no role overrides it: exclude the identity from it where it was made (a deployment stack "
        "or a managed application)"
    )


def _disallowed_by_policy(failure: _Failure) -> str | None:
    if "requestdisallowedbypolicy" not in failure.codes:
        return None
    found = re.search(r"\"policyAssignment\":\{[^}]*\"id\":\"([^\"]+)\"", failure.message)
    which = f"the policy assignment {found[1]}" if found else "an Azure Policy"
    return (
        f"{which} denies this call on {failure.scope}: have the account exempted from it (az policy exemption create)"
    )


def _locked(failure: _Failure) -> str | None:
    if "scopelocked" not in failure.codes:
        return None
    found = re.search(r"are locked: '([^']+)'", failure.message)
    where = found[1] if found else "the account, its group or subscription"
    return f"a read-only lock on {where} stops listKeys (a POST): replace it by a delete lock"


def _wrong_tenant(failure: _Failure) -> str | None:
    vault = "akv10032" in failure.codes
    if not vault and "invalidauthenticationtokentenant" not in failure.codes:
        return None
    named = re.findall(r"//sts\.windows\.net/([0-9a-f-]{36})", failure.message, re.IGNORECASE)
    # Key Vault names the token's tenant last, Resource Manager first.
    first, second = (f" ({named[0]})", f" ({named[-1]})") if len(named) > 1 else ("", "")
    ours, theirs = (second, first) if vault else (first, second)
    return (
        f"the credential is of another tenant{ours} than {failure.scope}{theirs}: set its `tenant_id` (or AZURE_TENANT_ID) to that "
        f"tenant, or give the {'vault' if vault else 'account'} a `credential` of its own"
    )


def _expired(failure: _Failure) -> str | None:
    by_text = re.search(r"IDX10222|IDX10223|token (?:has|is) expired", failure.message, re.IGNORECASE)
    if "expiredauthenticationtoken" not in failure.codes and not (failure.status == 401 and by_text):
        return None
    return (
        f"the token for {failure.scope} is expired by Azure's clock: compare the clock of this machine with the time in the message, "
        "and set it by NTP"
    )


def _api_version(failure: _Failure) -> str | None:
    known = {"noregisteredproviderfound", "invalidresourcetype", "invalidapiversionparameter", "badparameter"}
    versions = re.search(
        r"(?:latest supported version \(|supported(?: api-| )?versions are:? ')([^)']+)", failure.message, re.IGNORECASE
    )
    if versions is None or not failure.codes & known:
        return None
    key = "secrets" if failure.operation in _SECRET_RIGHTS else "batch"
    offered = [version.strip() for version in versions[1].split(",")]
    newest = max((version for version in offered if "preview" not in version), default=offered[-1], key=_age)
    return (
        f'this cloud does not offer the api-version yet: set `api_versions: {{{key}: "{newest}"}}` in the configuration'
    )


def _age(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


# Key Vault


def _access_policy(failure: _Failure) -> str | None:
    found = re.search(r"does not have secrets (\w+) permission on key vault '([^;']+)", failure.message, re.IGNORECASE)
    on_behalf = "on-behalf-of" in failure.message
    if found is None and not on_behalf:
        return None
    vault = found[2] if found else _vault_name(failure.scope)
    wanted = found[1].lower() if found else _SECRET_RIGHTS.get(failure.operation, ("", "get"))[1]
    who = re.search(r"\boid=([0-9a-f-]{36})", failure.message, re.IGNORECASE)
    granted = " ".join(dict.fromkeys((*_USUAL_PERMISSIONS, wanted)))
    why = (
        f"the access policy of {failure.scope} for this identity is for a user on whose behalf it acts: add one for the identity alone"
        if on_behalf
        else f"the vault {failure.scope} uses access policies, and none gives this identity the permission {wanted}: add one"
    )
    return (
        f"{why} (it replaces the identity's permissions on secrets there). To do so: az keyvault set-policy --name {vault} "
        f"--object-id {who[1] if who else 'OBJECT_ID'} --secret-permissions {granted}"
    )


def _vault_policy(failure: _Failure) -> str | None:
    if "forbiddenbypolicy" not in failure.codes:
        return None
    if "azure policy" in failure.message.lower():
        return _POLICY.format(scope=failure.scope)
    _, permission = _SECRET_RIGHTS.get(failure.operation, ("", failure.operation))
    return (
        f"a policy of {failure.scope} denies this: either its access policy lacks the permission {permission} for this identity "
        "(az keyvault set-policy), or an Azure Policy demands a content type or an expiry (`content_type` or `expires_after` "
        "on the vault in the configuration)"
    )


def _vault_firewall(failure: _Failure) -> str | None:
    if "forbiddenbyfirewall" not in failure.codes:
        return None
    found = re.search(r"Client address: ([0-9a-fA-F.:]+)", failure.message)
    hint = f"the firewall of {failure.scope} does not let {found[1] if found else 'this address'} in: add it, or use a private endpoint"
    if found is None:
        return hint
    return (
        f"{hint}. To add it: az keyvault network-rule add --name {_vault_name(failure.scope)} --ip-address {found[1]}"
    )


def _vault_read_only(failure: _Failure) -> str | None:
    if failure.status != 503 or "read-only" not in failure.message.lower():
        return None
    return f"{failure.scope} is read-only while Azure moves it to its other region: nothing is to be done, the next run tries again"


def _missing_secret_action(failure: _Failure) -> str | None:
    forbidden = "forbidden" in failure.codes and failure.operation in _SECRET_RIGHTS
    if not forbidden and not failure.codes & {"forbiddenbyrbac", "accessdenied"}:
        return None
    found = re.search(r"Action: '([^']+)'", failure.message)
    known, _ = _SECRET_RIGHTS.get(failure.operation, ("", ""))
    action = found[1] if found else f"{_SECRETS}{known}" if known else failure.operation
    return f"the identity lacks the data action {action} on {failure.scope}: assign a role that has it {_SOON}"


def _vault_name(url: str) -> str:
    return (urlsplit(url).hostname or "").partition(".")[0] or "VAULT"


# Signing in


def _assertion_time(failure: _Failure) -> str | None:
    if "aadsts700024" not in failure.codes:
        return None
    if failure.sign_in.type == "workload_identity":
        return (
            f"the federated token in {failure.sign_in.proof} is outside its time of validity, which the message quotes beside "
            "Entra's own time: see that Kubernetes renews the file, and that the cluster's clocks are right"
        )
    return (
        "what the certificate signed is outside its time of validity, which the message quotes beside Entra's own time: "
        "the clock of this machine is wrong, set it by NTP"
    )


def _unavailable(failure: _Failure) -> str | None:
    if failure.kind != "credential_unavailable":
        return None
    message = failure.message.lower()
    match failure.sign_in.type:
        case "managed_identity" if "assigned to this resource" in message or "identity not found" in message:
            return (
                f"this machine has no such identity: assign it to the machine, or correct {failure.sign_in.client} (without one "
                "the system-assigned identity is meant)"
            )
        case "managed_identity":
            return (
                "no managed-identity endpoint answers here: run keysync on an Azure machine with an identity, or set another `type` "
                "under `credential`"
            )
        case "azure_cli":
            return "az is not installed or not logged in here: install it, then az login"
        case "default":
            return (
                "nothing to sign in with was found: set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, assign a managed "
                "identity to this machine, or name what you use by `type` under `credential`"
            )
    return (
        "no credential of the configured type is at hand here: check `credential` and its environment; for `azure_cli`, "
        "install az and run az login"
    )


def _identity_reply(failure: _Failure) -> str | None:
    if failure.kind != "invalid_response" or failure.sign_in.type != "managed_identity":
        return None
    return (
        "the managed-identity endpoint of this machine answered with something that is not a token: the next run tries again; "
        "if it lasts, restart the app or the machine, or set another `type` under `credential`"
    )


def _by_code(failure: _Failure) -> str | None:
    app = re.search(r"(?:app|identifier|application) '([0-9a-f-]{36})'", failure.message, re.IGNORECASE)
    presented = re.search(r"presented assertion (\w+ '[^']*')", failure.message)
    for code, text in _BY_CODE.items():
        if code in failure.codes:
            return text.format(
                scope=failure.scope,
                tenant=failure.sign_in.tenant,
                client=failure.sign_in.client,
                proof=failure.sign_in.proof,
                app=app[1] if app else "CLIENT_ID",
                presented=f" ({presented[1]})" if presented else "",
            )
    return None


def _by_kind(failure: _Failure) -> str | None:
    if failure.kind == "cloud_error" and failure.status is not None and failure.status >= 500:
        return "Azure has a fault of its own: the next run tries again"
    text = _BY_KIND.get(failure.kind)
    return text.format(scope=failure.scope) if text else None


_READERS: Final[tuple[Callable[[_Failure], str | None], ...]] = (
    _missing_action,
    _deny_assignment,
    _disallowed_by_policy,
    _locked,
    _wrong_tenant,
    _expired,
    _api_version,
    _access_policy,
    _vault_policy,
    _vault_firewall,
    _vault_read_only,
    _assertion_time,
    _by_code,
    _missing_secret_action,
    _unavailable,
    _identity_reply,
    _by_kind,
)
