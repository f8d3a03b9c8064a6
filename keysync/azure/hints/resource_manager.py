"""Hints for failures of Resource Manager."""

from __future__ import annotations

import re
from typing import Final

from keysync.azure.hints.failed_call import ROLE_DELAY, FailedCall

ACTIONS: Final = {
    "listKeys": "Microsoft.Batch/batchAccounts/listKeys/action",
    "getAccount": "Microsoft.Batch/batchAccounts/read",
    "listAccounts": "Microsoft.Batch/batchAccounts/read",
    # Resource Graph returns only accounts that the identity may read.
    "queryResources": "Microsoft.Batch/batchAccounts/read",
}
"""The action that each operation needs."""

_NO_ACCOUNT: Final = "no such Batch account: check name, resource_group and subscription_id of {scope}"

TEXTS: Final = {
    "resourcenotfound": _NO_ACCOUNT,
    "accountnotfound": _NO_ACCOUNT,
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
}
"""The hint for a code of the service, by the code in lower case. `hint_for` fills in the placeholders."""


def missing_action(call: FailedCall) -> str | None:
    """A role assignment is missing."""
    if not call.codes & {"authorizationfailed", "linkedauthorizationfailed"}:
        return None
    match = re.search(r"perform action '([^']+)'(?: or [^']*)? over scope '([^']+)'", call.message, flags=re.IGNORECASE)
    action = match[1] if match else ACTIONS.get(call.operation, call.operation)
    where = match[2] if match else call.scope
    return f"the identity lacks the action {action} on {where}: assign a role that has it {ROLE_DELAY}"


def deny_assignment(call: FailedCall) -> str | None:
    """A deny assignment forbids the call."""
    if "denyassignmentauthorizationfailed" not in call.codes:
        return None
    match = re.search(
        r"deny assignment with name '([^']*)' and Id '[^']*' at scope '([^']*)'", call.message, re.IGNORECASE
    )
    source = f"the deny assignment '{match[1]}' on {match[2]}" if match else f"a deny assignment on {call.scope}"
    return (
        f"{source} forbids this, and no role overrides it: exclude the identity in the deployment stack or managed application "
        "that created it"
    )


def disallowed_by_policy(call: FailedCall) -> str | None:
    """An Azure Policy denies the call."""
    if "requestdisallowedbypolicy" not in call.codes:
        return None
    match = re.search(r"\"policyAssignment\":\{[^}]*\"id\":\"([^\"]+)\"", call.message)
    source = f"the policy assignment {match[1]}" if match else "an Azure Policy"
    return f"{source} denies this call on {call.scope}: have the account exempted from it (az policy exemption create)"


def read_only_lock(call: FailedCall) -> str | None:
    """A read-only lock forbids listKeys."""
    if "scopelocked" not in call.codes:
        return None
    match = re.search(r"are locked: '([^']+)'", call.message)
    where = match[1] if match else "the account, its group or its subscription"
    return f"a read-only lock on {where} forbids listKeys (a POST): replace it by a delete lock"
