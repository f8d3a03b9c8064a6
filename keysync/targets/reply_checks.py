"""Checks of a vault's replies: each must come from the vault, and must be about the secret that was requested."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from sys import intern
from typing import Any
from urllib.parse import urlsplit

from keysync.failures import FailureRecord, invalid_response
from keysync.names import fold
from keysync.targets.interface import LONG_AGO, SecretProperties


class SecretIds:
    """Reads ids of the vault at `url`."""

    def __init__(self, url: str) -> None:
        self._prefix = f"{url.rstrip('/')}/secrets/"
        self._origin = _origin(url)

    def name(self, text: object) -> str:
        """The name in an id of a secret in this vault, with or without a version. Raises CallFailed for any other id."""
        name, _, version = self._path(text).partition("/")
        if not name or "/" in version:
            raise invalid_response(f"the reply names no secret of {self._prefix}: not used")
        return name

    def version(self, text: object, name: str, *, changed: bool = False) -> str:
        """The version in an id of the secret `name`. Raises CallFailed for any other id.

        `changed` says that the request was a change. It may have taken effect, so the failure is ambiguous.
        """
        replied_name, _, version = self._path(text).partition("/")
        if fold(replied_name) != fold(name) or not version or "/" in version:
            raise invalid_response(f"the reply is not about {self._prefix}{name}: not used", ambiguous=changed)
        return version

    def _path(self, text: object) -> str:
        """The part after ``/secrets/``; empty for an id of another vault."""
        if not isinstance(text, str):
            return ""
        if text.startswith(self._prefix):
            return text[len(self._prefix) :]
        start, _, rest = urlsplit(text).path[1:].partition("/")
        return rest if fold(start) == "secrets" and _origin(text) == self._origin else ""


def _origin(url: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(url)
        return fold(parts.scheme), fold(parts.hostname or ""), parts.port or 443
    except ValueError:
        return "", "", 0


def is_absent(record: FailureRecord) -> bool:
    """Whether the vault itself says that the secret does not exist. A gateway's 404 does not count."""
    return record.http_status == 404 and record.has_code("SecretNotFound")


def is_denied(record: FailureRecord) -> bool:
    """Whether the vault itself refuses this identity, or this operation on this secret."""
    return record.http_status == 403 and record.cloud_error is not None


def listed_secret(item: Mapping[str, Any], name: str, version: str = "") -> SecretProperties:
    """One entry of a page of secrets or versions (SecretItem in the REST reference); a single secret has the same fields."""
    attributes: dict[str, Any] = item.get("attributes") or {}
    return SecretProperties(
        name=name,
        tags=checked_tags(item.get("tags")),
        enabled=bool(attributes.get("enabled", True)),
        managed=bool(item.get("managed")),
        content_type=item.get("contentType"),
        expires=_moment(attributes.get("exp")),
        updated=_moment(attributes.get("updated")),
        created=_moment(attributes.get("created")) or LONG_AGO,
        version=version,
    )


def _moment(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def checked_tags(tags: Any) -> dict[str, str]:  # noqa: ANN401  # a reply may hold anything
    """The tags of a reply; empty for null. Raises TypeError if a value is not a string."""
    # Interned: thousands of cached secrets have the same names, accounts and owners.
    return {intern(name): intern(value) for name, value in dict(tags or {}).items()}
