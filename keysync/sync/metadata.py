"""What a secret carries beside its value, and what of it a write would change."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from keysync.sync.model import Field, Item
from keysync.sync.ownership import OWN, own_tags
from keysync.targets.interface import Metadata, StoredSecret

MOST_TAGS: Final = 15
"""What Key Vault takes."""

# Tells a person who opens the vault what this is, where the configuration does not say.
_CONTENT_TYPE: Final = "text/plain; azure-batch-account-key"


def desired_metadata(item: Item, stored: StoredSecret | None, now: datetime, *, new_version: bool) -> Metadata:
    """What the secret should carry after a write at `now` (UTC); what is not ours is carried forward as it is."""
    return Metadata(
        _tags(item, stored), _content_type(item, stored), _expires(item, stored, now, new_version=new_version)
    )


def changed_fields(stored: StoredSecret, wanted: Metadata) -> frozenset[Field]:
    """Which of the fields beside the value differ."""
    pairs: Mapping[Field, bool] = {
        "tags": dict(stored.tags) != dict(wanted.tags),
        "content_type": stored.content_type != wanted.content_type,
        "expires": stored.expires != wanted.expires,
    }
    return frozenset(name for name, differs in pairs.items() if differs)


def _tags(item: Item, stored: StoredSecret | None) -> dict[str, str]:
    carried = {**(stored.tags if stored else {}), **item.policy.tags}
    return {**{name: value for name, value in carried.items() if name not in OWN}, **own_tags(item)}


def _content_type(item: Item, stored: StoredSecret | None) -> str | None:
    if item.policy.content_type is not None:
        return item.policy.content_type
    return stored.content_type if stored else _CONTENT_TYPE


def _expires(item: Item, stored: StoredSecret | None, now: datetime, *, new_version: bool) -> datetime | None:
    there = stored.expires if stored else None
    if item.policy.expires_after is None:
        # An expiry that somebody set outlives the value, but not itself: a new value is not born expired.
        return None if there is not None and new_version and there <= now else there
    if there is not None and not new_version and _holds_long_enough(there - now, item.policy.expires_after):
        return there
    return (now + item.policy.expires_after).replace(microsecond=0)


def _holds_long_enough(left: timedelta, whole: timedelta) -> bool:
    # Renewed at half time: rarely enough to be quiet, and long before the event that Key Vault raises near an expiry.
    return whole / 2 < left <= whole
