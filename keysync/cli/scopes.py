"""What a pass collects: a scope for each account and vault, made when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

from keysync.cli.coverage import Catalogue
from keysync.config.formats import fold
from keysync.config.settings import Account
from keysync.sources.interface import KeySource
from keysync.sources.single_flight import OncePerPass
from keysync.sync.collect import AccountScope


class Scopes(Sequence[AccountScope]):
    """The scopes of `accounts`. Each is made anew whenever it is asked for: of many thousands a pass needs few at a time.

    An account that serves several vaults is asked for its keys once all the same: what asks it, by `source_of`, is kept.
    """

    def __init__(
        self, accounts: Sequence[Account], catalogue: Catalogue, source_of: Callable[[Account], KeySource]
    ) -> None:
        self._catalogue = catalogue
        self._source_of = source_of
        # Two lists side by side: a pair for each would be more than both.
        self._accounts: list[Account] = []
        self._vaults: list[str] = []
        self._shared: dict[str, KeySource] = {}
        for account in accounts:
            served = [vault for vault in account.vaults if catalogue.serves(account, vault)]
            self._accounts += [account] * len(served)
            self._vaults += served
            if len(served) > 1:
                self._shared[account.key] = OncePerPass(source_of(account), askers=len(served))

    def __len__(self) -> int:
        return len(self._accounts)

    @overload
    def __getitem__(self, at: int) -> AccountScope: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[AccountScope]: ...
    def __getitem__(self, at: int | slice) -> AccountScope | Sequence[AccountScope]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        account, vault = self._accounts[at], self._vaults[at]
        source = self._shared.get(account.key) or self._source_of(account)
        items = self._catalogue.items(account, vault)
        return AccountScope(account.resource_id, source, items, group=fold(account.subscription_id))
