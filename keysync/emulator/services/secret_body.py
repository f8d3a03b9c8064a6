"""The JSON of secrets in requests and replies."""

from __future__ import annotations

from collections.abc import Mapping

from keysync.emulator.vault import KEEP_DELETED_DAYS, Secret, SecretVersion
from keysync.emulator.wire import Call, Json, Refused, Reply, as_object, error

MAX_TAGS = 15
MAX_TAG = 256
MAX_CONTENT_TYPE = 255


def bad_parameter(message: str) -> Reply:
    """The error for an invalid request."""
    return error(400, "BadParameter", message)


def parse_properties(body: Mapping[str, object]) -> dict[str, object]:
    """The fields of `SecretVersion` that a request sets. Raises Refused if one is invalid."""
    properties: dict[str, object] = {}
    if (content_type := body.get("contentType")) is not None:
        if not isinstance(content_type, str) or len(content_type) > MAX_CONTENT_TYPE:
            raise Refused(bad_parameter(f"contentType is a string of at most {MAX_CONTENT_TYPE} characters."))
        properties["content_type"] = content_type
    if (tags := body.get("tags")) is not None:
        properties["tags"] = _parse_tags(tags)
    sent = as_object(body.get("attributes") or {})
    if sent is None:
        raise Refused(bad_parameter("attributes is an object."))
    if (enabled := sent.get("enabled")) is not None:
        if not isinstance(enabled, bool):
            raise Refused(bad_parameter("attributes.enabled is true or false."))
        properties["enabled"] = enabled
    for name, field in (("nbf", "not_before"), ("exp", "expires")):
        if (when := sent.get(name)) is not None:
            if not isinstance(when, int) or isinstance(when, bool) or when < 0:
                raise Refused(bad_parameter(f"attributes.{name} is a number of seconds since 1970."))
            properties[field] = when
    return properties


def _parse_tags(value: object) -> dict[str, str]:
    tags = as_object(value)
    if tags is None:
        raise Refused(bad_parameter("tags is an object."))
    if len(tags) > MAX_TAGS:
        raise Refused(bad_parameter(f"A secret has at most {MAX_TAGS} tags; the request has {len(tags)}."))
    parsed: dict[str, str] = {}
    for name, text in tags.items():
        if not isinstance(text, str):
            raise Refused(bad_parameter(f"The value of the tag {name[:MAX_TAG]} is not a string."))
        if not name or max(len(name), len(text)) > MAX_TAG:
            message = f"Names and values of tags have at most {MAX_TAG} characters, and a name has at least 1."
            raise Refused(bad_parameter(message))
        parsed[name] = text
    return parsed


def attributes(version: SecretVersion) -> Json:
    """The `attributes` of a secret version."""
    content: Json = {
        "enabled": version.enabled,
        "created": version.created,
        "updated": version.updated,
        "recoveryLevel": "Recoverable+Purgeable",
        "recoverableDays": KEEP_DELETED_DAYS,
    }
    if version.not_before is not None:
        content["nbf"] = version.not_before
    if version.expires is not None:
        content["exp"] = version.expires
    return content


def secret_body(call: Call, secret: Secret, version: SecretVersion, *, versioned: bool = True) -> Json:
    """A secret without its value. With `versioned` its id contains the version."""
    url = f"{call.base}/secrets/{secret.name}"
    content: Json = {
        "id": f"{url}/{version.version}" if versioned else url,
        "attributes": attributes(version),
    }
    if version.tags:
        content["tags"] = version.tags
    if version.content_type is not None:
        content["contentType"] = version.content_type
    if secret.managed:
        content["managed"] = True
    return content
