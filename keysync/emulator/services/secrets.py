"""The operations on the secrets of a vault that are not deleted: get, list, set and update."""

from __future__ import annotations

from dataclasses import asdict

from keysync.emulator.services.certificate_format import converted
from keysync.emulator.services.secret_body import (
    bad_parameter,
    invalid_property,
    parse_properties,
    secret_bundle,
    secret_item,
)
from keysync.emulator.services.vault_checks import (
    check_name,
    check_name_free,
    check_policy,
    check_unmanaged,
    existing,
    find_secret,
    find_version,
)
from keysync.emulator.services.vault_paging import paged
from keysync.emulator.vault import Vault
from keysync.emulator.vault_versions import is_since
from keysync.emulator.wire import Call, Json, Refused, Reply, error, json_body

MAX_VALUE = 25 * 1024


class Secrets:
    """The operations on the secrets of one vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def get_secret(self, call: Call, name: str, version: str | None) -> Reply:
        """The value and the properties of a secret."""
        check_name(name)
        secret = existing(self._vault.read(name) if version is None else self._vault.find(name), call, name)
        selected = find_version(secret, call, version)
        if not selected.enabled:
            message = "Operation get is not allowed on a disabled secret."
            return error(403, "Forbidden", message, inner="SecretDisabled")
        bundle = {"value": selected.value, **secret_bundle(call, self._vault, secret, selected)}
        requested = call.query.get("outContentType")
        if requested and secret.managed and is_since(call.query["api-version"], "2025-07-01"):
            bundle.update(value=converted(selected, requested), contentType=requested)
        return Reply(200, bundle)

    def list_secrets(self, call: Call) -> Reply:
        """A page of the secrets, without values."""

        def fetch(after: str, size: int) -> tuple[list[Json], str | None]:
            page, next_after = self._vault.page(after, size)
            return [secret_item(call, self._vault, secret) for secret in page], next_after

        return paged(call, self._vault, fetch)

    def list_versions(self, call: Call, name: str) -> Reply:
        """A page of the versions of a secret, without values."""

        def fetch(after: str, size: int) -> tuple[list[Json], str | None]:
            secret = find_secret(self._vault, call, name)
            # Sorted by identifier: the order of versions has no meaning in Azure either.
            versions = sorted((each for each in secret.versions if each.version > after), key=lambda each: each.version)
            next_after = versions[size - 1].version if len(versions) > size else None
            return [secret_item(call, self._vault, secret, version) for version in versions[:size]], next_after

        return paged(call, self._vault, fetch)

    def set_secret(self, call: Call, name: str) -> Reply:
        """Add a version to a secret, or create the secret."""
        check_name(name)
        body = json_body(call)
        value = body.get("value")
        if not isinstance(value, str):
            raise Refused(bad_parameter("Property value is required and has to be a string."))
        if len(value.encode("utf-8", "surrogatepass")) > MAX_VALUE:
            raise Refused(invalid_property())
        properties = parse_properties(body)
        check_name_free(self._vault, name)
        present = self._vault.find(name)
        if present is not None:
            check_unmanaged(present, "set")
        check_policy(self._vault, {**properties, "created": int(self._vault.now())})
        secret, version = self._vault.add_version(name, value)
        for field, content in properties.items():
            setattr(version, field, content)
        return Reply(200, {"value": value, **secret_bundle(call, self._vault, secret, version)})

    def update_secret(self, call: Call, name: str, version: str | None) -> Reply:
        """Change the properties of one version of a secret; the latest for None."""
        secret = find_secret(self._vault, call, name)
        updated = find_version(secret, call, version)
        properties = parse_properties(json_body(call))
        check_unmanaged(secret, "update")
        check_policy(self._vault, {**asdict(updated), **properties})
        self._vault.update(name, updated, properties)
        return Reply(200, secret_bundle(call, self._vault, secret, updated))
