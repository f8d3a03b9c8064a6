"""A discovered account in memory. There may be 100,000 of them, so each takes little memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from keysync.config.model import Account
from keysync.sources.arm_id import AccountId
from keysync.sources.filters import SkippedAccount
from keysync.sources.listing import ListedAccount


class Traits(NamedTuple):
    """The properties that many accounts share: a `ListedAccount` without its id, and with only the tags that entries use."""

    tags: tuple[tuple[str, str], ...]
    modes: frozenset[str] | None
    pool_mode: str
    state: str


@dataclass(slots=True, eq=False)
class DiscoveredAccount:
    """One account: the parts of its id, its traits, and whether it is `mine`, in the shard of this process.

    `entry` is the index of the entry that was applied last, -1 for none. `secrets` are then the secrets that the account would
    write, as `conflicts.secret_numbers` encodes them. `result` is what the entry made of it; None if it is not `mine`.
    """

    subscription: str
    group: str
    name: str
    traits: Traits
    mine: bool
    entry: int = -1
    secrets: bytes = b""
    result: Account | SkippedAccount | None = None

    @property
    def listed(self) -> ListedAccount:
        """The account as a listing shows it."""
        account_id = AccountId(self.subscription, self.group, self.name)
        return ListedAccount(
            account_id, dict(self.traits.tags), self.traits.modes, self.traits.pool_mode, self.traits.state
        )

    def with_traits(self, traits: Traits) -> DiscoveredAccount:
        """The same account with other traits, to which no entry was applied yet. The id keeps its spelling."""
        return replace(self, traits=traits, entry=-1, secrets=b"", result=None)
