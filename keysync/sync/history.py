"""The version history of a secret: when to read it, and when it prevents another version."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from keysync.failures import CallFailed
from keysync.sync.model import Observed
from keysync.sync.ownership import is_managed
from keysync.targets.interface import History, SecretTarget, StoredSecret

# Key Vault cannot back up a secret with more than 500 versions (docs/safety.md).
_MANY_VERSIONS: Final = 300
_TOO_MANY_VERSIONS: Final = 450
# Above this number, or above half of `changes_per_day`, the count in the tags is not exact enough: the versions are listed.
_COUNTED_IN_TAGS: Final = 200


def may_need_version(observed: Observed) -> bool:
    """Whether the plan may write a new version of an existing secret. Only then is its history read."""
    return not observed.has_key and is_managed(observed)


async def with_history(target: SecretTarget, observed: Observed) -> Observed:
    """`observed` with its history, if it may need a version and the history can be read.

    An identity without permission to list versions still keeps keys in sync (docs/safety.md).
    """
    if not isinstance(observed.current, StoredSecret) or not may_need_version(observed):
        return observed
    per_day = observed.item.policy.changes_per_day
    at_most = History(_COUNTED_IN_TAGS, _COUNTED_IN_TAGS if per_day is None else (per_day - 1) // 2)
    try:
        history = await target.history(observed.item.ref.secret, observed.current, at_most=at_most)
    except CallFailed:
        return observed
    return replace(observed, history=history)


def too_many_versions(history: History | None, changes_per_day: int | None) -> str | None:
    """Why a secret needs `--accept` before it gets another version; None if it may have one."""
    if history is None:
        return None  # the identity may not list versions, and a late key is an outage
    if history.versions >= _TOO_MANY_VERSIONS:
        return (
            f"the secret has {history.versions} versions, and with more than 500 it cannot be backed up: not written. "
            "Delete and purge it once, or use another name in `secrets`; to write it anyway"
        )
    if changes_per_day is not None and history.today >= changes_per_day:
        times = "once" if history.today == 1 else f"{history.today} times"
        return (
            f"the secret changed {times} in 24 hours (limits.changes_per_day is {changes_per_day}): not written, "
            "another tool may be writing it too. Check its versions; to write it anyway"
        )
    return None


def version_warning(history: History | None) -> str | None:
    """A warning that the secret has many versions and should be renewed soon; None otherwise."""
    if history is None or history.versions < _MANY_VERSIONS:
        return None
    return f"it has {history.versions} versions, at {_TOO_MANY_VERSIONS} keysync stops writing it"
