"""The effect `deny` of an Azure Policy that is assigned to a vault.

The names are those of the built-in definitions. Azure documents the status and the inner code of a denial, but not its
wording.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from keysync.emulator.data import PolicyData

_DAY = 86_400


def denial(policy: PolicyData, version: Mapping[str, object]) -> str | None:
    """The message that denies a secret version with these fields of `SecretVersion`, None if the policy allows it."""
    names = list(_denied_by(policy, version))
    if not names:
        return None
    return f"Operation was denied by the Azure Policy assigned to this key vault: {', '.join(names)}."


def _denied_by(policy: PolicyData, version: Mapping[str, object]) -> Iterator[str]:
    begins, expires = version.get("not_before") or version["created"], version.get("expires")
    if policy.content_type_required and not version.get("content_type"):
        yield "'Secrets should have content type set'"
    if policy.expiry_required and expires is None:
        yield "'Key Vault secrets should have an expiration date'"
    if policy.max_validity_days is None or not isinstance(expires, int) or not isinstance(begins, int):
        return
    if expires - begins > policy.max_validity_days * _DAY:
        yield "'Secrets should have the specified maximum validity period'"
