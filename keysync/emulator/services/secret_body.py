"""The JSON of secrets in requests and replies."""

from __future__ import annotations

from collections.abc import Mapping

from keysync.emulator.vault import Vault
from keysync.emulator.vault_secrets import Secret, SecretVersion
from keysync.emulator.vault_versions import is_since
from keysync.emulator.wire import Call, Json, Refused, Reply, as_object, error

MAX_TAGS = 15
MAX_TAG = 256
MAX_CONTENT_TYPE = 255


def bad_parameter(message: str) -> Reply:
    """The error for an invalid request."""
    return error(400, "BadParameter", message)


def invalid_property() -> Reply:
    """The error for a property over its limit, as quoted in aztfmod/terraform-azurerm-caf#821."""
    return bad_parameter("Property has invalid value\r\n")


def parse_properties(body: Mapping[str, object]) -> dict[str, object]:
    """The fields of `SecretVersion` that a request sets. Raises Refused if one is invalid."""
    properties: dict[str, object] = {}
    if (content_type := body.get("contentType")) is not None:
        if not isinstance(content_type, str):
            raise Refused(bad_parameter("contentType is a string."))
        if len(content_type) > MAX_CONTENT_TYPE:
            raise Refused(invalid_property())
        properties["content_type"] = content_type
    if (tags := body.get("tags")) is not None:
        properties["tags"] = _parse_tags(tags)
    properties.update(_parse_attributes(body.get("attributes") or {}))
    return properties


def _parse_attributes(value: object) -> dict[str, object]:
    attributes = as_object(value)
    if attributes is None:
        raise Refused(bad_parameter("attributes is an object."))
    parsed: dict[str, object] = {}
    if (enabled := attributes.get("enabled")) is not None:
        if not isinstance(enabled, bool):
            raise Refused(bad_parameter("attributes.enabled is true or false."))
        parsed["enabled"] = enabled
    for name, field in (("nbf", "not_before"), ("exp", "expires")):
        if (when := attributes.get(name)) is not None:
            if not isinstance(when, int) or isinstance(when, bool) or when < 0:
                raise Refused(bad_parameter(f"attributes.{name} is a number of seconds since 1970."))
            parsed[field] = when
    return parsed


def _parse_tags(value: object) -> dict[str, str]:
    tags = as_object(value)
    if tags is None:
        raise Refused(bad_parameter("tags is an object."))
    if len(tags) > MAX_TAGS:
        raise Refused(invalid_property())
    parsed: dict[str, str] = {}
    for name, text in tags.items():
        if not isinstance(text, str):
            raise Refused(bad_parameter(f"The value of the tag {name[:MAX_TAG]} is not a string."))
        if not name or max(len(name), len(text)) > MAX_TAG:
            raise Refused(invalid_property())
        parsed[name] = text
    return parsed


def secret_bundle(call: Call, vault: Vault, secret: Secret, version: SecretVersion) -> Json:
    """One version of a secret without its value, in the shape of the call's api-version."""
    content = _item(call, vault, secret, version, f"/{version.version}")
    if secret.managed:
        content["kid"] = f"{call.base}/keys/{secret.name}/{version.version}"
    previous = secret.previous_of(version)
    if previous is not None and is_since(call.query["api-version"], "2025-07-01"):
        content["previousVersion"] = previous
    return content


def secret_item(call: Call, vault: Vault, secret: Secret, version: SecretVersion | None = None) -> Json:
    """A secret in a list of secrets, or one version of it in a list of versions."""
    if version is not None:
        return _item(call, vault, secret, version, f"/{version.version}")
    return _item(call, vault, secret, secret.latest, "")


def _item(call: Call, vault: Vault, secret: Secret, version: SecretVersion, suffix: str) -> Json:
    content: Json = {
        "id": f"{call.base}/secrets/{secret.name}{suffix}",
        "attributes": _attributes(call, vault, version),
    }
    if version.tags:
        content["tags"] = version.tags
    if version.content_type is not None:
        content["contentType"] = version.content_type
    if secret.managed:
        content["managed"] = True
    return content


def _attributes(call: Call, vault: Vault, version: SecretVersion) -> Json:
    content: Json = {"enabled": version.enabled}
    if version.not_before is not None:
        content["nbf"] = version.not_before
    if version.expires is not None:
        content["exp"] = version.expires
    content.update(created=version.created, updated=version.updated, recoveryLevel=vault.recovery_level)
    if vault.soft_delete and is_since(call.query["api-version"], "7.1"):
        content["recoverableDays"] = vault.retention_days
    return content
