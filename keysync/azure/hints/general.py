"""Hints for failures that several services have in common."""

from __future__ import annotations

import re
from typing import Final

from keysync.azure.hints.failed_call import FailedCall
from keysync.azure.hints.key_vault import RIGHTS

_BY_KIND: Final = {
    "shared_key_disabled": (
        "the account has no shared keys (SharedKey is not allowed, or its pools are in UserSubscription mode): "
        "let its jobs use Entra ID and remove it from the configuration, or allow SharedKey"
    ),
    "dns": "{scope} does not resolve: check the name, that it exists, and the DNS (private endpoint zone)",
    "tls": "the certificate is not trusted or not for that host: behind an inspecting proxy, set SSL_CERT_FILE or cloud.ca_bundle",
    "challenge": (
        "the vault asks for a token of another domain than its own: check the URL, or set "
        "verify_challenge_resource: false if you trust that host"
    ),
    "throttled": "Azure limits the rate of calls: distribute the accounts over subscriptions or vaults, or sync less often",
    "timeout": "{scope} did not reply in time: check the network, or raise timeouts.request",
    "http_error": "the reply came from something other than Azure (a proxy?): check HTTPS_PROXY and NO_PROXY",
    "invalid_response": "the reply came from something other than Azure (a proxy?): check HTTPS_PROXY and NO_PROXY",
}


def wrong_tenant(call: FailedCall) -> str | None:
    """The service belongs to another tenant than the credential."""
    is_vault = "akv10032" in call.codes
    if not is_vault and "invalidauthenticationtokentenant" not in call.codes:
        return None
    tenants = re.findall(r"//sts\.windows\.net/([0-9a-f-]{36})", call.message, re.IGNORECASE)
    # Resource Manager names the token's tenant first, Key Vault last.
    first, second = (f" ({tenants[0]})", f" ({tenants[-1]})") if len(tenants) > 1 else ("", "")
    credential_tenant, service_tenant = (second, first) if is_vault else (first, second)
    return (
        f"the credential belongs to another tenant{credential_tenant} than {call.scope}{service_tenant}: set its `tenant_id` (or AZURE_TENANT_ID) to that "
        f"tenant, or give the {'is_vault' if is_vault else 'account'} a `credential` of its own"
    )


def expired_token(call: FailedCall) -> str | None:
    """The token has expired by Azure's clock."""
    expired_text = re.search(r"IDX10222|IDX10223|token (?:has|is) expired", call.message, re.IGNORECASE)
    if "expiredauthenticationtoken" not in call.codes and not (call.status == 401 and expired_text):
        return None
    return (
        f"the token for {call.scope} has expired by Azure's clock: compare the clock of this machine with the time in the message, "
        "and set it by NTP"
    )


def unsupported_api_version(call: FailedCall) -> str | None:
    """This cloud does not support the api-version yet."""
    version_codes = {"noregisteredproviderfound", "invalidresourcetype", "invalidapiversionparameter", "badparameter"}
    versions = re.search(
        r"(?:latest supported version \(|supported(?: api-| )?versions are:? ')([^)']+)", call.message, re.IGNORECASE
    )
    if versions is None or not call.codes & version_codes:
        return None
    key = "secrets" if call.operation in RIGHTS else "batch"
    supported = [version.strip() for version in versions[1].split(",")]
    newest = max(
        (version for version in supported if "preview" not in version), default=supported[-1], key=_version_key
    )
    return f'this cloud does not support the api-version yet: set `api_versions: {{{key}: "{newest}"}}` in the configuration'


def by_kind(call: FailedCall) -> str | None:
    """The hint for the kind of the failure."""
    if call.kind == "cloud_error" and call.status is not None and call.status >= 500:
        return "Azure has an internal error: the next run tries again"
    text = _BY_KIND.get(call.kind)
    return text.format(scope=call.scope) if text else None


def _version_key(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]
