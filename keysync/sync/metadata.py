"""The metadata of a secret (tags, content type, expiry), and which of it a write would change."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from keysync.sync.model import Field, Item
from keysync.sync.ownership import OWN, own_tags
from keysync.targets.interface import Metadata, StoredSecret

# The default, for people who open the vault.
_CONTENT_TYPE: Final = "text/plain; azure-batch-account-key"


def desired_metadata(item: Item, stored: StoredSecret | None, now: datetime, *, new_version: bool) -> Metadata:
    """The metadata that the secret should have after a write at `now` (UTC). Tags of other tools are kept, as are content type and expiry if not configured."""
    return Metadata(
        _tags(item, stored), _content_type(item, stored), _expires(item, stored, now, new_version=new_version)
    )


def changed_fields(stored: StoredSecret, desired: Metadata, *, value: bool = False) -> frozenset[Field]:
    """The fields that differ from `desired`. `value`: whether the value does."""
    differences: Mapping[Field, bool] = {
        "value": value,
        "tags": dict(stored.tags) != dict(desired.tags),
        "content_type": stored.content_type != desired.content_type,
        "expires": stored.expires != desired.expires,
    }
    return frozenset(name for name, differs in differences.items() if differs)


def _tags(item: Item, stored: StoredSecret | None) -> dict[str, str]:
    kept = {**(stored.tags if stored else {}), **item.policy.tags}
    return {**{name: value for name, value in kept.items() if name not in OWN}, **own_tags(item)}


def _content_type(item: Item, stored: StoredSecret | None) -> str | None:
    if item.policy.content_type is not None:
        return item.policy.content_type
    return stored.content_type if stored else _CONTENT_TYPE


def _expires(item: Item, stored: StoredSecret | None, now: datetime, *, new_version: bool) -> datetime | None:
    current = stored.expires if stored else None
    if item.policy.expires_after is None:
        # An expiry that another tool set is kept, unless it has passed: a new value must not be expired.
        return None if current is not None and new_version and current <= now else current
    if current is not None and not new_version and _is_long_enough(current - now, item.policy.expires_after):
        return current
    return (now + item.policy.expires_after).replace(microsecond=0)


def _is_long_enough(left: timedelta, expires_after: timedelta) -> bool:
    # Renewed at half time: rarely, and long before the event that Key Vault raises near an expiry.
    return expires_after / 2 < left <= expires_after
