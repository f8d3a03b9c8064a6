"""From the configuration to what a run is about: items, limits, and which names of a vault are served."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, overload

from keysync.config.settings import Account, Config, Vault
from keysync.names import fold
from keysync.sources.interface import KEY_NAMES, KeySource
from keysync.sources.single_flight import SingleFlightSource
from keysync.sync.model import Adoption, Item, ItemPolicy, ItemRef

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EffectiveLimits:
    """The limits in force in one vault."""

    creates: int
    update_percent: int
    removal_percent: int


@dataclass(frozen=True, slots=True)
class Selection:
    """What the command line asks beside the configuration.

    `adopt` takes the place of what the configuration says of it; `secrets` (vault/name, lower case) are those that it is about,
    all if empty; `options`, such as ``-c FILE``, go into the commands that are told.
    """

    adopt: Adoption | None = None
    secrets: frozenset[str] = frozenset()
    options: str = ""

    def is_about(self, ref: ItemRef) -> bool:
        """Whether the run is about the secret of `ref`."""
        return not self.secrets or fold(f"{ref.vault}/{ref.secret}") in self.secrets


@dataclass(frozen=True, slots=True)
class ItemFactory:
    """What accounts should serve under `config`. Items of one vault share their terms, unless their accounts differ."""

    config: Config
    asked: Selection
    _policies: dict[tuple[str, bool, bool | None], ItemPolicy] = field(default_factory=dict)

    def serves(self, account: Account, vault: str) -> bool:
        """Whether `account` serves anything in `vault`."""
        return not self.asked.secrets or bool(self.items(account, vault))

    def items(self, account: Account, vault: str) -> tuple[Item, ...]:
        """What `account` should serve in `vault`."""
        policy, names, resource_id = self._of(account, vault), account.secret_names(), account.resource_id
        refs = [ItemRef(resource_id, key, vault, names[key]) for key in KEY_NAMES if key in names]
        return tuple(Item(ref, policy) for ref in refs if self.asked.is_about(ref))

    def _of(self, account: Account, vault: str) -> ItemPolicy:
        place = (vault, account.read_only, account.adopt)
        if place not in self._policies:
            self._policies[place] = _policies(self.config, account, vault, self.asked)
        return self._policies[place]


def _policies(config: Config, account: Account, vault: str, asked: Selection) -> ItemPolicy:
    settings = config.vaults[vault]
    configured = config.adopt if account.adopt is None else account.adopt
    return ItemPolicy(
        tags=settings.tags,
        content_type=settings.content_type,
        expires_after=settings.expires_after,
        owner=config.owner,
        adopt=asked.adopt or ("unmarked" if configured else "never"),
        enable=config.disabled == "enable",
        recover=config.recover == "owned",
        read_only=config.read_only or settings.read_only or account.read_only,
        changes_per_day=_own(settings, "changes_per_day", config.limits.changes_per_day),
        vault_url=settings.url,
        options=asked.options,
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
            served = [vault for vault in account.vaults if factory.serves(account, vault)]
            self._accounts += [account] * len(served)
            self._vaults += served
            if len(served) > 1:
                self._shared[account.key] = SingleFlightSource(source_of(account), callers=len(served))

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
    """The limits in force in `vault`."""
    general = config.limits
    return EffectiveLimits(
        creates=_own(vault, "creates", general.creates),
        update_percent=_own(vault, "update_percent", general.update_percent),
        removal_percent=_own(vault, "removal_percent", general.removal_percent),
    )


def _own(vault: Vault, limit: str, general: T) -> T:
    """A limit of one vault, which wins over the general one where it is set."""
    own: T | None = getattr(vault.limits, limit) if vault.limits is not None else None
    return general if own is None else own


def served_names(config: Config, accounts: Sequence[Account]) -> dict[str, frozenset[str]]:
    """By vault, the names (lower case) that are written there for `accounts`, under whichever name it has the vault."""
    by_url: dict[str, set[str]] = {}
    for account in accounts:
        for vault in account.vaults:
            names = by_url.setdefault(config.vaults[vault].url, set())
            names |= {fold(name) for name in account.secret_names().values()}
    return {name: frozenset(by_url.get(vault.url, ())) for name, vault in config.vaults.items()}


def one_each(config: Config, targets: Mapping[str, T]) -> dict[str, T]:
    """The vaults, each once though it may stand in the configuration under two names."""
    first: dict[str, str] = {}
    for name in targets:
        first.setdefault(config.vaults[name].url, name)
    return {name: targets[name] for name in first.values()}


def read_only_accounts(accounts: Sequence[Account]) -> frozenset[str]:
    """Those, by ARM id in lower case, for which nothing is written."""
    return frozenset(account.key for account in accounts if account.read_only)


def read_only_vaults(config: Config) -> frozenset[str]:
    """The vaults to which nothing is written."""
    return frozenset(name for name, vault in config.vaults.items() if config.read_only or vault.read_only)
