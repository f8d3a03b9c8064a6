"""The hints of the most frequent failures."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from keysync.azure.errors import AzureFailureTranslator
from keysync.secret.redact import Redactor
from tests.support.replies import cloud_error, http_error

ACCOUNT = (
    "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/g-1/providers/Microsoft.Batch/batchAccounts/a"
)
VAULT = "https://kv-render.vault.azure.net"
DENIED = (
    "The client 'x' with object id 'y' does not have authorization to perform action "
    f"'Microsoft.Batch/batchAccounts/listKeys/action' over scope '{ACCOUNT}' or the scope is invalid."
)
RBAC = "Caller is not authorized to perform action on resource.\r\nAction: 'Microsoft.KeyVault/vaults/secrets/setSecret/action'"


def vault_error(inner: str, message: str = "m") -> dict[str, Any]:
    return cloud_error("Forbidden", message, innererror={"code": inner})


CASES: dict[str, tuple[int, dict[str, Any], str, tuple[str, ...]]] = {
    "denied": (403, cloud_error("AuthorizationFailed", DENIED), "listKeys", ("batchAccounts/listKeys/action", ACCOUNT)),
    "denied, unnamed": (
        403,
        cloud_error("AuthorizationFailed", "no"),
        "listKeys",
        ("batchAccounts/listKeys/action", ACCOUNT),
    ),
    "lock": (409, cloud_error("ScopeLocked", "locked"), "listKeys", ("read-only lock", "delete lock")),
    "tenant of ARM": (
        401,
        cloud_error("InvalidAuthenticationTokenTenant", "t"),
        "listKeys",
        ("another tenant", "`credential`"),
    ),
    "no account": (404, cloud_error("ResourceNotFound", "t"), "listKeys", ("no such Batch account",)),
    "no group": (404, cloud_error("ResourceGroupNotFound", "t"), "listKeys", ("resource_group",)),
    "no subscription": (404, cloud_error("SubscriptionNotFound", "t"), "listKeys", ("subscription_id",)),
    "tenant of a vault": (
        401,
        cloud_error("Unauthorized", "AKV10032: Invalid issuer."),
        "getSecret",
        ("another tenant", VAULT, "or give the vault a `credential`"),
    ),
    "firewall": (403, vault_error("ForbiddenByFirewall"), "getSecret", ("firewall", VAULT)),
    "private": (403, vault_error("ForbiddenByConnection"), "getSecret", ("private endpoint",)),
    "either policy": (
        403,
        vault_error("ForbiddenByPolicy"),
        "setSecret",
        ("permission set", "set-policy", "content_type"),
    ),
    "azure policy": (403, vault_error("GovernancePolicy"), "setSecret", ("Azure Policy", "content_type")),
    "rbac": (403, vault_error("ForbiddenByRbac", RBAC), "setSecret", ("secrets/setSecret/action", VAULT)),
    "rbac, unnamed": (403, vault_error("ForbiddenByRbac"), "getSecret", ("secrets/getSecret/action", VAULT)),
    "plainly forbidden": (403, cloud_error("Forbidden", "no"), "getSecret", ("secrets/getSecret/action", VAULT)),
    "deleted": (
        409,
        cloud_error("Conflict", "x", innererror={"code": "ObjectIsDeletedButRecoverable"}),
        "setSecret",
        ("recover",),
    ),
    "throttled": (429, cloud_error("TooManyRequests", "x"), "listKeys", ("rate",)),
}


@pytest.mark.parametrize(("status", "body", "operation", "parts"), CASES.values(), ids=CASES)
def test_a_known_failure_has_a_hint(status: int, body: dict[str, Any], operation: str, parts: tuple[str, ...]):
    """It says how to fix the failure; for a missing right it names the action and the scope."""
    scope = ACCOUNT if operation == "listKeys" else VAULT
    record = AzureFailureTranslator(Redactor()).record(http_error(status, body), operation=operation, scope=scope)
    assert record.hint is not None
    for part in parts:
        assert part in record.hint


def test_an_unknown_failure_has_no_hint():
    """The record already has all that is known."""
    record = AzureFailureTranslator(Redactor()).record(
        http_error(409, cloud_error("Novel", "never seen")), operation="listKeys", scope=ACCOUNT
    )
    assert record.hint is None


def test_the_runbook_has_every_entra_code_with_a_hint():
    """Operators search for the codes."""
    root = Path(__file__).parents[3]
    rules = tomllib.loads((root / "keysync" / "azure" / "hints.toml").read_text(encoding="utf-8"))["hint"]
    codes = {code for rule in rules for code in re.findall(r"AADSTS\d+", " ".join(rule.get("when", ())))}
    text = (root / "docs" / "runbook.md").read_text(encoding="utf-8")
    assert codes == set(re.findall(r"AADSTS\d+", text.partition("### Entra error codes")[2].partition("\n### ")[0]))
