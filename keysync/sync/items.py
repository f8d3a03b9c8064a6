"""From the configuration to the items of a run: work items, policies and limits."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache

from keysync.config.model import Account, Config, Vault
from keysync.config.operation import Limits
from keysync.names import fold
from keysync.sources.interface import KeySource, SingleFlightSource
from keysync.sync.model import Adoption, Item, ItemPolicy, ItemRef


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


@dataclass(frozen=True, slots=True, eq=False)
class WorkItem:
    """One account in one vault: the source of its keys, and the items to keep in sync there.

    An account with several vaults has a work item for each, so that a vault that hangs does not delay the others.
    `group`: throttling key (the subscription); each group has its own slots.
    """

    account: str
    source: KeySource
    items: tuple[Item, ...]
    group: Hashable = None


def work_items_of(
    config: Config,
    accounts: Sequence[Account],
    selection: Selection,
    source_of: Callable[[Account], KeySource],
    content_type: str | None = None,
) -> list[WorkItem]:
    """The work items of `accounts`. One with several vaults has one shared source, so that its keys are requested once.

    `content_type`: of new secrets, unless the configuration has one.
    """

    @cache  # items with the same settings share their policy
    def policy_of(vault: str, read_only: bool, adopt: bool) -> ItemPolicy:
        settings = config.vaults[vault]
        return ItemPolicy(
            tags=settings.tags,
            content_type=settings.content_type,
            new_content_type=content_type,
            expires_after=settings.expires_after,
            owner=config.owner,
            adopt=selection.adopt or ("untagged" if adopt else "never"),
            enable=config.disabled == "enable",
            recover=config.recover == "owned",
            read_only=config.read_only or settings.read_only or read_only,
            changes_per_day=limits_of(config, settings).changes_per_day,
            vault_url=settings.url,
            options=selection.options,
        )

    made: list[WorkItem] = []
    for account in accounts:
        per_vault: list[tuple[Item, ...]] = []
        for vault in account.vaults:
            policy = policy_of(vault, account.read_only, config.adopt if account.adopt is None else account.adopt)
            refs = [ItemRef(account.resource_id, key, vault, name) for key, name in account.secret_names().items()]
            items = tuple(Item(ref, policy) for ref in refs if selection.includes(ref))
            per_vault += [items] if items else []
        if per_vault:
            source = source_of(account)
            source = SingleFlightSource(source, callers=len(per_vault)) if len(per_vault) > 1 else source
            group = fold(account.subscription_id)
            made += [WorkItem(account.resource_id, source, items, group) for items in per_vault]
    return made


def limits_of(config: Config, vault: Vault) -> Limits:
    """The limits of `vault`: its own where set, else the general ones."""
    own = {} if vault.limits is None else {each.name: getattr(vault.limits, each.name) for each in fields(vault.limits)}
    return replace(config.limits, **{name: limit for name, limit in own.items() if limit is not None})
