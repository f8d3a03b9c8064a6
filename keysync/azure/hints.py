"""Hints: how to fix a failed call, in a sentence or two, with the setting, role or command to change."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Final
from urllib.parse import urlsplit

from keysync.azure.sign_in import UNKNOWN, SignIn
from keysync.failures import FailureRecord
from keysync.names import fold

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


def _rule(
    text: str, when: Sequence[str] = ("",), message: str = ""
) -> tuple[list[frozenset[str]], re.Pattern[str], str]:
    return [frozenset(fold(group).split()) for group in when], re.compile(message, re.IGNORECASE), text


_RULES: Final = [
    _rule(**rule) for rule in tomllib.loads(files("keysync.azure").joinpath("hints.toml").read_text("utf-8"))["hint"]
]
# What any message may name, by the placeholder in a text.
_FACTS: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"perform action '(?P<action>[^']+)'(?: or [^']*)? over scope '(?P<where>[^']+)'",
        r"\"policyAssignment\":\{[^}]*\"id\":\"(?P<assignment>[^\"]+)\"",
        r"are locked: '(?P<locked>[^']+)'",
        r"does not have secrets (?P<permission>\w+) permission on key vault '(?P<vault>[^;']+)",
        r"\boid=(?P<object_id>[0-9a-f-]{36})",
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
    words.update(fold(code) for code in (*record.codes, *re.findall(r"(?i)akv\d+|aadsts\d+", message)))
    if record.operation in RIGHTS:
        words.add("vault")
    for groups, pattern, text in _RULES:
        if any(group <= words for group in groups) and (match := pattern.search(message)):
            facts = _facts(record.operation, message, scope, sign_in) | match.groupdict()
            if "versions" in facts:
                facts["newest_version"] = _newest(facts["versions"])
            return replace(record, hint=text.format_map(facts))
    return record


def _facts(operation: str, message: str, scope: str, sign_in: SignIn) -> dict[str, str]:
    """What the placeholders stand for: from the call, and from the message if it names more."""
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
    permission = facts["permission"].lower()
    permissions = " ".join(dict.fromkeys(("get", "list", "set", permission)))
    return {**facts, "permission": permission, "permissions": permissions}


def _newest(versions: str) -> str:
    """The newest of the listed api-versions that is not a preview, if there is one."""
    listed = [version.strip() for version in versions.split(",")]
    stable = (version for version in listed if "preview" not in version)
    return max(stable, default=listed[-1], key=lambda version: [int(part) for part in re.findall(r"\d+", version)])
