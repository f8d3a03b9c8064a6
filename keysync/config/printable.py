"""Decides which keys and values of a file an error message may show: any other value could be a misplaced secret."""

from __future__ import annotations

import re
from typing import Final

from keysync.config.rules import Location
from keysync.secret.redact import Redactor

SECRET_KEYS: Final = frozenset({"client_secret", "password", "certificate_password"})
"""Values under these keys are never shown, whatever they are."""

SHOWN_KEYS: Final = frozenset({
    "account", "accounts", "adopt", "authority", "batch", "changes_per_day", "cloud", "collect", "concurrency",
    "creates", "cron", "disabled", "discover", "every", "events", "exclude", "expires_after", "jitter", "lease",
    "lease_duration", "listen", "name", "namespace", "orphans", "owner", "primary", "read_only", "recover",
    "removal_percent", "renew_deadline", "request", "resource_group", "resource_groups", "resource_manager",
    "retry_period", "secondary", "shutdown", "subscription_id", "subscriptions", "timeout", "timezone", "type",
    "update_percent", "url", "vaults", "verify_challenge_resource", "verify_every", "via",
})  # fmt: skip
"""Keys whose values are harmless. A message shows the values of no other key."""

MAX_SHOWN: Final = 60
"""Characters of a value in a message."""

_KEY: Final = re.compile(r"[a-z_]{1,40}")
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,127}")


def is_secret_key(location: Location) -> bool:
    """Whether a key on the path to `location` is one of `SECRET_KEYS`."""
    return any(part in SECRET_KEYS for part in location)


def may_be_shown(location: Location, value: object) -> bool:
    """Whether a message may show `value`.

    Its key must be harmless. The value must not look like a key, nor be a URL with user info, a query or a fragment.
    """
    if is_secret_key(location) or "notify" in location:
        return False
    key = next((part for part in reversed(location) if isinstance(part, str)), "")
    known = key in SHOWN_KEYS or location[0] == "api_versions"
    if not known or (key == "url" and location[0] != "vaults"):
        return False
    text = str(value)
    url_with_query = "//" in text and any(sign in text for sign in "?#")
    return not url_with_query and "@" not in text[1:] and Redactor().redact(text) == text


def dotted(location: Location) -> str:
    """A location as a message shows it: ``accounts[0].name``. A key that may be a misplaced secret becomes ``…``."""
    parts = (_shown_part(location, index) for index in range(len(location)))
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")


def describe(value: object) -> str:
    """`value` for "found …": text is quoted and cut to `MAX_SHOWN` characters, containers are only named."""
    if isinstance(value, str):
        return repr(value if len(value) <= MAX_SHOWN else value[:MAX_SHOWN] + "…")
    named: dict[type, str] = {type(None): "nothing", dict: "a mapping", list: "a list", bool: str(value).lower()}
    return named.get(type(value)) or f"the number {str(value)[:MAX_SHOWN]}"


def _shown_part(location: Location, index: int) -> str | int:
    part = location[index]
    if isinstance(part, int) or _KEY.fullmatch(part):
        return part
    # Users choose the names of vaults and tags; every other key comes from the model.
    chosen = index > 0 and location[index - 1] in {"vaults", "tags"} and _NAME.fullmatch(part)
    return part if chosen and Redactor().redact(part) == part else "…"
