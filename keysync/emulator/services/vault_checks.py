"""The checks that several operations of Key Vault share. Each raises Refused with the reply of the service."""

from __future__ import annotations

import re
from collections.abc import Mapping

from keysync.emulator.services.azure_policy import denial
from keysync.emulator.services.secret_body import bad_parameter
from keysync.emulator.vault import Secret, SecretVersion, Vault
from keysync.emulator.wire import Refused, Reply, error

_NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")


def check_name(name: str) -> None:
    """Refuse the name of a secret that Key Vault does not allow."""
    if not _NAME.fullmatch(name):
        raise Refused(bad_parameter(f"The request URI contains an invalid name: {name}"))


def check_unmanaged(secret: Secret, operation: str) -> None:
    """Refuse an operation on a secret that a certificate owns."""
    if secret.managed:
        message = f"Operation {operation} is not allowed on this secret, since it is associated with a certificate."
        raise Refused(error(403, "Forbidden", message))


def check_name_free(vault: Vault, name: str) -> None:
    """Refuse the name of a secret that is deleted, or whose deletion or recovery is in progress."""
    deleted = vault.find_deleted(name)
    if deleted is None:
        return
    if deleted.recovered_at is not None:
        message, inner = f"Secret {name} is currently being recovered, retry later.", "ObjectIsBeingRecovered"
    elif not vault.is_visible(deleted):
        message, inner = f"Secret {name} is currently being deleted.", "ObjectIsBeingDeleted"
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


def find_secret(vault: Vault, name: str) -> Secret:
    """The secret of this name. Raises Refused if there is none."""
    check_name(name)
    return existing(vault.find(name), name)


def existing(secret: Secret | None, name: str) -> Secret:
    """`secret`, the result of a search for `name`. Raises Refused if it is None."""
    if secret is None:
        raise Refused(_not_found(name))
    return secret


def find_version(secret: Secret, version: str | None) -> SecretVersion:
    """A version of the secret, the latest for None. Raises Refused if there is none."""
    if version is None:
        return secret.latest
    for candidate in secret.versions:
        if candidate.version == version.lower():
            return candidate
    raise Refused(_not_found(f"{secret.name}/{version}"))


def _not_found(name: str) -> Reply:
    message = (
        f"A secret with (name/id) {name} was not found in this key vault. If you recently deleted this secret you may "
        "be able to recover it using the correct recovery command."
    )
    return error(404, "SecretNotFound", message)
