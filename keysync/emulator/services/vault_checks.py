"""The checks that several operations of Key Vault share. Each raises Refused with the reply of the service."""

from __future__ import annotations

import re
from collections.abc import Mapping

from keysync.emulator.services.azure_policy import denial
from keysync.emulator.services.secret_body import bad_parameter
from keysync.emulator.vault import Vault
from keysync.emulator.vault_secrets import Secret, SecretVersion
from keysync.emulator.vault_versions import is_since
from keysync.emulator.wire import Call, Refused, Reply, error

_NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")


def check_name(name: str) -> None:
    """Refuse the name of a secret that Key Vault does not allow."""
    if not _NAME.fullmatch(name):
        raise Refused(bad_parameter(f"The request URI contains an invalid name: {name}"))


def check_unmanaged(secret: Secret, operation: str) -> None:
    """Refuse an operation on a secret that a certificate owns, as quoted in public issues."""
    if secret.managed:
        message = (
            f'Operation "{operation}" is not allowed on this secret, since it is associated with a certificate. Perform '
            "the operation on the corresponding certificate. For more information refer to https://docs.microsoft.com/"
            "en-us/azure/key-vault/certificates/about-certificates#composition-of-a-certificate"
        )
        raise Refused(error(403, "Forbidden", message, inner="SecretManagedByKeyVault"))


def check_name_free(vault: Vault, name: str) -> None:
    """Refuse the name of a secret that is deleted, or whose deletion or recovery is in progress."""
    deleted = vault.find_deleted(name)
    if deleted is None:
        return
    if deleted.recovered_at is not None:
        # As in hashicorp/terraform-provider-azurerm#12285.
        message = f"Secret {name} is currently being recovered and cannot be re-created; retry later."
        inner = "ObjectIsBeingRecovered"
    elif not vault.is_visible(deleted):
        message, inner = "Secret is currently being deleted.", "ObjectIsBeingDeleted"
    else:
        message = (
            f"Secret {name} is currently in a deleted but recoverable state, and its name cannot be reused; in "
            "this state, the secret can only be recovered or purged."
        )
        inner = "ObjectIsDeletedButRecoverable"
    raise Refused(error(409, "Conflict", message, inner=inner))


def check_policy(vault: Vault, version: Mapping[str, object]) -> None:
    """Refuse a secret version with these fields of `SecretVersion` if the vault's Azure Policy denies it."""
    message = denial(vault.policy, version) if vault.policy is not None else None
    if message is not None:
        raise Refused(error(403, "Forbidden", message, inner="ForbiddenByPolicy"))


def find_secret(vault: Vault, call: Call, name: str) -> Secret:
    """The secret of this name. Raises Refused if there is none."""
    check_name(name)
    return existing(vault.find(name), call, name)


def existing(secret: Secret | None, call: Call, name: str) -> Secret:
    """`secret`, the result of a search for `name`. Raises Refused if it is None."""
    if secret is None:
        raise Refused(_not_found(call, name))
    return secret


def find_version(secret: Secret, call: Call, version: str | None) -> SecretVersion:
    """A version of the secret, the latest for None. Raises Refused if there is none."""
    if version is None:
        return secret.latest
    for candidate in secret.versions:
        if candidate.version == version.lower():
            return candidate
    raise Refused(_not_found(call, f"{secret.name}/{version}"))


def _not_found(call: Call, name: str) -> Reply:
    message = (
        f"A secret with (name/id) {name} was not found in this key vault. If you recently deleted this secret you may "
        "be able to recover it using the correct recovery command. For help resolving this issue, please see "
        "https://go.microsoft.com/fwlink/?linkid=2125182"
    )
    if not is_since(call.query["api-version"], "7.1"):
        message = f"Secret not found: {name}"  # the wording of the service when these versions were new
    return error(404, "SecretNotFound", message)
