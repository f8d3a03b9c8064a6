"""What is kept of each account that a listing told of. There may be a hundred thousand of them, so it is little."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from keysync.config.settings import Account
from keysync.sources.arm_id import AccountId
from keysync.sources.filters import SkippedAccount
from keysync.sources.listing import ListedAccount


class Traits(NamedTuple):
    """What many accounts have in common: a `ListedAccount` without its id, and of its tags only those that somebody asks about."""

    tags: tuple[tuple[str, str], ...]
    modes: frozenset[str] | None
    pool_mode: str
    state: str


@dataclass(slots=True, eq=False)
class DiscoveredAccount:
    """One account: its id in parts, its traits, and whether it is `mine`, in the share of this process.

    `entry` is the index of the entry by which it was judged last, -1 while none was. `places` are then the secrets that it would
    write, as `collisions.places` has them, and `made` is what became of it, which nobody asks where it is not `mine`.
    """

    subscription: str
    group: str
    name: str
    traits: Traits
    mine: bool
    entry: int = -1
    places: bytes = b""
    made: Account | SkippedAccount | None = None

    @property
    def row(self) -> ListedAccount:
        """As a listing would show it."""
        place = AccountId(self.subscription, self.group, self.name)
        return ListedAccount(place, dict(self.traits.tags), self.traits.modes, self.traits.pool_mode, self.traits.state)

    def with_traits(self, traits: Traits) -> DiscoveredAccount:
        """The same account under the same spelling, to be judged anew."""
        return replace(self, traits=traits, entry=-1, places=b"", made=None)
