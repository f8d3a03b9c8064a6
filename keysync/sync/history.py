"""How often a secret has changed: asked only where a new version may be called for."""

from __future__ import annotations

from dataclasses import replace

from keysync.failures import CallFailed
from keysync.sync.model import Observed
from keysync.sync.plan import may_need_a_version
from keysync.targets.interface import SecretTarget, StoredSecret


async def with_history(target: SecretTarget, seen: Observed) -> Observed:
    """`seen` with its history, where it may need a version; as it is where the history cannot be had.

    An identity that may not list versions still keeps keys in sync (docs/safety.md).
    """
    if not isinstance(seen.stored, StoredSecret) or not may_need_a_version(seen):
        return seen
    try:
        history = await target.history(seen.item.ref.secret, seen.stored.version)
    except CallFailed:
        return seen
    return replace(seen, history=history)
