"""From the configuration to the items of a run: work items, policies, limits, and the secret names that are served."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, overload

from keysync.config.model import Account, Config, Vault
from keysync.names import fold
from keysync.sources.interface import KeySource
from keysync.sources.single_flight import SingleFlightSource
from keysync.sync.limits import EffectiveLimits
from keysync.sync.model import Adoption, Item, ItemPolicy, ItemRef

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Selection:
    """What the command line selects.

    `adopt` replaces the setting of the configuration, and then a run covers only unmanaged secrets. `accounts` (names or ARM ids)
    and `secrets` (vault/name, lower case) limit the run to these; empty means all. `accept`: the checksum of a plan that may
    exceed the limits. `options`: options to repeat in suggested commands (-c, --account, --shard).
    """

    adopt: Adoption | None = None
    secrets: frozenset[str] = frozenset()
    options: str = ""
    accounts: tuple[str, ...] = ()
    dry_run: bool = False
    accept: str | None = None

    @property
    def names_nothing(self) -> bool:
        """Whether neither accounts nor secrets are named."""
        return not self.accounts and not self.secrets

    def includes(self, ref: ItemRef) -> bool:
        """Whether the run covers the secret of `ref`."""
        return not self.secrets or fold(f"{ref.vault}/{ref.secret}") in self.secrets


@dataclass(frozen=True, slots=True)
class ItemFactory:
    """Creates the items of accounts. Items with the same settings share their policy."""

    config: Config
    selection: Selection
    _policies: dict[tuple[str, bool, bool | None], ItemPolicy] = field(
        default_factory=dict[tuple[str, bool, bool | None], ItemPolicy]
    )

    def serves(self, account: Account, vault: str) -> bool:
        """Whether `account` has items in `vault`."""
        return not self.selection.secrets or bool(self.items(account, vault))

    def items(self, account: Account, vault: str) -> tuple[Item, ...]:
        """The items of `account` in `vault`."""
        names, resource_id = account.secret_names(), account.resource_id
        settings = (vault, account.read_only, account.adopt)
        policy = self._policies.get(settings)
        if policy is None:
            policy = self._policies[settings] = self._policy(account, vault)
        refs = [ItemRef(resource_id, key, vault, name) for key, name in names.items()]
        return tuple(Item(ref, policy) for ref in refs if self.selection.includes(ref))

    def _policy(self, account: Account, vault: str) -> ItemPolicy:
        config, settings = self.config, self.config.vaults[vault]
        adopt = config.adopt if account.adopt is None else account.adopt
        return ItemPolicy(
            tags=settings.tags,
            content_type=settings.content_type,
            expires_after=settings.expires_after,
            owner=config.owner,
            adopt=self.selection.adopt or ("untagged" if adopt else "never"),
            enable=config.disabled == "enable",
            recover=config.recover == "owned",
            read_only=config.read_only or settings.read_only or account.read_only,
            changes_per_day=_limit(settings, "changes_per_day", config.limits.changes_per_day),
            vault_url=settings.url,
            options=self.selection.options,
        )


@dataclass(frozen=True, slots=True)
class WorkItem:
    """One account in one vault: the source of its keys, and the items to keep in sync there.

    An account with several vaults has a work item for each, so that a vault that hangs does not delay the others.
    `group`: throttling key (the subscription); each group has its own slots.
    """

    account: str
    source: KeySource
    items: tuple[Item, ...]
    group: Hashable = None


class WorkItems(Sequence[WorkItem]):
    """The work items of `accounts`. Each is created when it is accessed, since a run needs only a few at a time.

    An account with several vaults has one shared source, so that its keys are requested once.
    """

    def __init__(
        self, accounts: Sequence[Account], factory: ItemFactory, source_of: Callable[[Account], KeySource]
    ) -> None:
        self._factory = factory
        self._source_of = source_of
        # Two parallel lists: a list of pairs would need more memory than both.
        self._accounts: list[Account] = []
        self._vaults: list[str] = []
        self._shared: dict[str, KeySource] = {}
        for account in accounts:
            vaults = [vault for vault in account.vaults if factory.serves(account, vault)]
            self._accounts += [account] * len(vaults)
            self._vaults += vaults
            if len(vaults) > 1:
                self._shared[account.key] = SingleFlightSource(source_of(account), callers=len(vaults))

    def __len__(self) -> int:
        return len(self._accounts)

    @overload
    def __getitem__(self, index: int) -> WorkItem: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[WorkItem]: ...
    def __getitem__(self, index: int | slice) -> WorkItem | Sequence[WorkItem]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        account, vault = self._accounts[index], self._vaults[index]
        source = self._shared.get(account.key) or self._source_of(account)
        return WorkItem(account.resource_id, source, self._factory.items(account, vault), fold(account.subscription_id))


def limits_of(config: Config, vault: Vault) -> EffectiveLimits:
    """The limits of `vault`: its own where set, else the general ones."""
    general = config.limits
    return EffectiveLimits(
        creates=_limit(vault, "creates", general.creates),
        update_percent=_limit(vault, "update_percent", general.update_percent),
        removal_percent=_limit(vault, "removal_percent", general.removal_percent),
    )


def _limit(vault: Vault, name: str, general: T) -> T:
    own: T | None = getattr(vault.limits, name) if vault.limits is not None else None
    return general if own is None else own


def served_names(config: Config, accounts: Sequence[Account]) -> dict[str, frozenset[str]]:
    """The secret names (lower case) that `accounts` write, by vault. Two vaults with the same URL have the same names."""
    by_url: dict[str, set[str]] = {}
    for account in accounts:
        for vault in account.vaults:
            names = by_url.setdefault(config.vaults[vault].url, set())
            names |= {fold(name) for name in account.secret_names().values()}
    return {name: frozenset(by_url.get(vault.url, ())) for name, vault in config.vaults.items()}


def one_each(config: Config, targets: Mapping[str, T]) -> dict[str, T]:
    """`targets` without duplicates: each URL once."""
    first: dict[str, str] = {}
    for name in targets:
        first.setdefault(config.vaults[name].url, name)
    return {name: targets[name] for name in first.values()}
