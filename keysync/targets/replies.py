"""Checks of a vault's replies: each has to be the vault's own, and about the vault and the secret that were asked for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from keysync.failures import CallFailed, FailureRecord
from keysync.names import fold
from keysync.targets.interface import SecretProperties

_HTTPS: Final = 443
_BAD_REQUEST: Final = 400
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404


class SecretIds:
    """Reads ids of the vault at `url`."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._prefix = f"{self._url}/secrets/"
        self._origin = _origin(url)

    def parse(self, text: object) -> tuple[str, str]:
        """Name and version (empty for none) of a secret in this vault. Raises CallFailed for any other id."""
        path = self._path(text) if isinstance(text, str) else ""
        name, _, version = path.partition("/")
        if not name or "/" in version:
            raise _failure(f"the reply names no secret of {self._url}: not used")
        return name, version

    def version(self, text: object, name: str, *, changed: bool = False) -> str:
        """The version of an id that names the secret `name` and a version of it. Raises CallFailed for any other id.

        With `changed` the reply is one to a change, which may have taken effect: the failure is ambiguous.
        """
        try:
            found, version = self.parse(text)
        except CallFailed:
            found, version = "", ""
        if fold(found) != fold(name) or not version:
            raise _failure(f"the reply is not about {self._prefix}{name}: not used", ambiguous=changed)
        return version

    def _path(self, text: str) -> str:
        """What comes after ``/secrets/``, empty for an id of another vault."""
        if text.startswith(self._prefix):
            return text[len(self._prefix) :]
        path = urlsplit(text).path
        start = fold(path[: len("/secrets/")])
        return path[len(start) :] if start == "/secrets/" and _origin(text) == self._origin else ""


def _origin(url: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(url)
        return fold(parts.scheme), fold(parts.hostname or ""), parts.port or _HTTPS
    except ValueError:
        return "", "", 0


def _failure(summary: str, *, ambiguous: bool = False) -> CallFailed:
    return CallFailed(FailureRecord(kind="invalid_response", summary=summary, ambiguous=ambiguous))


def is_absent(record: FailureRecord) -> bool:
    """Whether the vault itself says that there is no such secret. A gateway's 404 says nothing of the vault."""
    return record.http_status == _NOT_FOUND and record.has_code("SecretNotFound")


def is_denied(record: FailureRecord) -> bool:
    """Whether the vault itself refuses this identity, or this operation on this secret."""
    return record.http_status == _FORBIDDEN and record.cloud_error is not None


def is_bad_value(record: FailureRecord) -> bool:
    """Whether the vault refuses the value of a set. It refuses an api-version that it does not know by the same code."""
    message = (record.cloud_error.message if record.cloud_error else None) or ""
    return record.http_status == _BAD_REQUEST and record.code == "BadParameter" and "version" not in message


def listed_of(item: dict[str, Any], name: str) -> SecretProperties:
    """One entry of a page of the listing (SecretItem of the service's description)."""
    attributes = item.get("attributes") or {}
    return SecretProperties(
        name=name,
        tags=checked_tags(item.get("tags")),
        enabled=bool(attributes.get("enabled", True)),
        managed=bool(item.get("managed")),
        content_type=item.get("contentType"),
        expires=_moment(attributes.get("exp")),
        updated=_moment(attributes.get("updated")),
    )


def checked_text(value: object) -> str:
    """`value` if it is text. Raises TypeError."""
    if not isinstance(value, str):
        raise TypeError("a secret whose value is no text")
    return value


def checked_tags(tags: Any) -> dict[str, str]:  # noqa: ANN401  # a reply may hold anything
    """The tags of a reply, none for null. Raises TypeError where they are no texts."""
    found = dict(tags or {})
    if not all(isinstance(value, str) for value in found.values()):
        raise TypeError("a tag whose value is no text")
    return found


def _moment(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
