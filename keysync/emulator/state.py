"""The state of the emulator: subscriptions, accounts with their keys, vaults. Knows nothing of HTTP; the clock is an
argument.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from keysync.emulator.backup_cipher import BackupCipher
from keysync.emulator.built_in_roles import built_in_roles
from keysync.emulator.data import AccountData, EmulatorData, SubscriptionData, new_account_key
from keysync.emulator.events import EventGrid
from keysync.emulator.queues import Queues
from keysync.emulator.resource_actions import regeneration_of
from keysync.emulator.roles import Roles, custom_role, data_assignments, deny_assignment
from keysync.emulator.subscriptions import Lock, ResourceGroup, Subscription
from keysync.emulator.throttle import Clock
from keysync.emulator.vault import Vault

REMEMBER_DELETED_SECONDS = 30.0
"""How long Resource Manager still knows a deleted account, and so asks Batch for it."""


@dataclass
class Account:
    """A Batch account. `endpoint` is the host, with a port if needed, of its data plane.

    `properties` are the further ones that clients set, such as networkProfile, and `identity` is the account's own. `modified`
    is the time of the last change in seconds since 1970, and `change` what clients did: `--state` keeps that.
    """

    subscription_id: str
    resource_group: str
    name: str
    location: str
    tags: dict[str, str]
    authentication_modes: list[str]
    pool_allocation_mode: str
    provisioning_state: str
    lock: str | None
    denied: frozenset[str]
    tenant_id: str
    primary: str = field(repr=False)
    secondary: str = field(repr=False)
    key_delay: float
    jobs: list[str]
    pools: list[str]
    clock: Clock = field(repr=False)
    created: float
    endpoint: str
    modified: float
    properties: dict[str, object]
    identity: dict[str, object]
    change: Literal["none", "updated", "created"] = "none"
    _replaced: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]], repr=False)

    @property
    def group_id(self) -> str:
        """ARM id of the resource group."""
        return f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"

    @property
    def id(self) -> str:
        """ARM id of the account."""
        return f"{self.group_id}/providers/Microsoft.Batch/batchAccounts/{self.name}"

    @property
    def has_shared_keys(self) -> bool:
        """Whether `listKeys` can return the keys of this account."""
        return "SharedKey" in self.authentication_modes and self.pool_allocation_mode == "BatchService"

    def regenerate(self, key_name: str) -> None:
        """Replace the ``Primary`` or ``Secondary`` key. Raises ValueError for another name."""
        if key_name == "Primary":
            old, self.primary = self.primary, new_account_key()
        elif key_name == "Secondary":
            old, self.secondary = self.secondary, new_account_key()
        else:
            raise ValueError(f"no such key: {key_name!r}; there are Primary and Secondary")
        if self.key_delay:
            self._replaced = [*self._replaced, (old, self.clock() + self.key_delay)]

    def accepted_keys(self) -> list[str]:
        """The keys that the data plane accepts now: both keys, and replaced ones until `key_delay` has passed."""
        now = self.clock()
        self._replaced = [(key, until) for key, until in self._replaced if now < until]
        return [self.primary, self.secondary, *(key for key, _ in self._replaced)]


class State:
    """All subscriptions, accounts and vaults."""

    def __init__(self, data: EmulatorData, clock: Clock) -> None:
        self.clock = clock
        self.tenant_id = data.tenant_id
        self.backups = BackupCipher()
        self.batch_endpoint = ""
        self.accounts: dict[str, Account] = {}
        self._by_name: dict[str, Account] = {}
        self.by_group: dict[tuple[str, str], list[Account]] = {}
        self.by_subscription: dict[str, list[Account]] = {}
        self.subscriptions: dict[str, Subscription] = {}
        self.groups: dict[tuple[str, str], ResourceGroup] = {}
        self._deleted: dict[str, float] = {}
        self._vaults = {vault.name.lower(): Vault(vault, data.tenant_id, clock) for vault in data.vaults}
        for subscription in data.subscriptions:
            self._add_subscription(subscription)
        for group in data.resource_groups:
            self._add_group(ResourceGroup(group.subscription_id, group.name, group.location, dict(group.tags)))
        for account in data.accounts:
            self.add_account(account)
        for vault in self.vaults:
            self._add_group(ResourceGroup(vault.subscription_id, vault.resource_group, vault.location, {}))
        self.api_versions = {name.lower(): tuple(versions) for name, versions in data.api_versions.items()}
        self.locks = [Lock(lock.scope, lock.level) for lock in data.locks]
        for queue in data.queues:
            self._add_group(ResourceGroup(str(queue.subscription_id), str(queue.resource_group), queue.location, {}))
        self.queues = Queues(data.queues, clock())
        self.roles = self._roles(data)
        self.events = EventGrid(self.queues, data.queues, self.roles, clock)

    def _roles(self, data: EmulatorData) -> Roles:
        """The roles and assignments of the data. Those assignments are in force at once."""
        roles = Roles(self.clock, built_in_roles(), delay=data.role_delay)
        scopes = {vault.name.lower(): vault.id for vault in self.vaults}
        scopes |= {queue.name: queue.id for queue in data.queues}
        scopes |= {account.name.lower(): account.id for account in self.accounts.values()}
        for definition in data.role_definitions:
            roles.define(custom_role(definition))
        for identity in data.principals:
            for assignment in data_assignments(identity, roles, scopes):
                roles.assign(assignment, at_once=True)
        ids = {identity.name.lower(): identity.object_id.lower() for identity in data.principals}
        roles.denied = [deny_assignment(each, scopes, ids) for each in data.deny_assignments]
        return roles

    def add_account(self, data: AccountData) -> None:
        """Add an account, as if it had just been created."""
        account = self.new_account(data)
        if data.deleted:
            self._add_group(ResourceGroup(data.subscription_id, data.resource_group, data.location, {}))
            self._deleted[account.id.lower()] = math.inf
        else:
            self.add(account)

    def new_account(self, data: AccountData) -> Account:
        """An account that does not exist yet: `add` adds it."""
        account = _account_of(data, self.tenant_id, self.clock)
        if self.batch_endpoint:
            account.endpoint = self.batch_endpoint
        return account

    def add(self, account: Account) -> None:
        """Add an account, and its resource group and subscription unless they exist."""
        self._deleted.pop(account.id.lower(), None)
        self.accounts[account.id.lower()] = account
        self._by_name.setdefault(account.name.lower(), account)
        self._add_group(ResourceGroup(account.subscription_id, account.resource_group, account.location, {}))
        subscription, group = account.subscription_id.lower(), account.resource_group.lower()
        self.by_group[subscription, group].append(account)
        self.by_subscription[subscription].append(account)

    def _add_subscription(self, data: SubscriptionData) -> None:
        self.by_subscription.setdefault(data.id.lower(), [])
        self.subscriptions[data.id.lower()] = Subscription(
            data.id,
            data.name or f"emulated {data.id[-4:]}",
            data.state,
            {namespace.lower() for namespace in data.unregistered},
            data.providers_blocked,
        )

    def _add_group(self, group: ResourceGroup) -> None:
        """Add a resource group and its subscription, unless they exist."""
        subscription = group.subscription_id.lower()
        if subscription not in self.subscriptions:
            self._add_subscription(SubscriptionData(id=group.subscription_id))
        self.groups.setdefault((subscription, group.name.lower()), group)
        self.by_group.setdefault((subscription, group.name.lower()), [])

    def delete(self, account: Account) -> None:
        """Delete an account. Resource Manager still knows it for some seconds."""
        self.forget(account)
        self._deleted[account.id.lower()] = self.clock() + REMEMBER_DELETED_SECONDS

    def is_remembered(self, account_id: str) -> bool:
        """Whether Resource Manager still knows this deleted account."""
        return self.clock() < self._deleted.get(account_id.lower(), 0.0)

    @property
    def deleted_accounts(self) -> list[str]:
        """ARM ids, in lower case, of the accounts that were deleted."""
        return list(self._deleted)

    def forget(self, account: Account) -> None:
        """Remove an account, as if it had never existed."""
        del self.accounts[account.id.lower()]
        if self._by_name.get(account.name.lower()) is account:
            del self._by_name[account.name.lower()]
        subscription = account.subscription_id.lower()
        self.by_subscription[subscription].remove(account)
        self.by_group[subscription, account.resource_group.lower()].remove(account)

    def locked_scopes(self, scope: str, *, deletes: bool) -> list[str]:
        """The scopes whose locks refuse a write, or with `deletes` a deletion, on an ARM id."""
        account = self.accounts.get(scope.lower())
        own = [Lock(account.id, account.lock)] if account is not None and account.lock else []
        return [lock.scope for lock in (*self.locks, *own) if lock.refuses(scope, deletes=deletes)]

    def set_batch_endpoint(self, host: str) -> None:
        """Set the endpoint of every account, also of accounts that are added later."""
        self.batch_endpoint = host
        for account in self.accounts.values():
            account.endpoint = host

    @property
    def vaults(self) -> list[Vault]:
        """Every vault."""
        return list(self._vaults.values())

    def vault(self, name: str) -> Vault:
        """The vault of this name. Raises KeyError if there is none."""
        return self._vaults[name.lower()]

    def account(self, name: str) -> Account:
        """The first account of this name. Raises KeyError if there is none."""
        return self._by_name[name.lower()]

    def move(self, account_name: str, resource_group: str) -> None:
        """Move an account to another resource group, as Resource Manager does: its id changes, its keys do not."""
        account = self.account(account_name)
        self.forget(account)
        account.resource_group = resource_group
        self.add(account)

    def keys(self, account_name: str) -> tuple[str, str]:
        """The primary and the secondary key."""
        account = self.account(account_name)
        return account.primary, account.secondary

    def regenerate(self, account_name: str, key_name: str) -> None:
        """Replace the ``Primary`` or ``Secondary`` key, as another client would: Event Grid reports it."""
        account = self.account(account_name)
        account.regenerate(key_name)
        self.events.publish(regeneration_of(account))

    def tenant_of(self, subscription_id: str) -> str:
        """The tenant of a subscription: that of its first account, else the default."""
        accounts = self.by_subscription.get(subscription_id.lower())
        return accounts[0].tenant_id if accounts else self.tenant_id

    def tenants(self) -> set[str]:
        """The tenants of all accounts and vaults, and the default one."""
        accounts = {account.tenant_id for account in self.accounts.values()}
        return {self.tenant_id, *accounts, *(vault.tenant_id for vault in self.vaults)}


def _account_of(data: AccountData, tenant_id: str, clock: Clock) -> Account:
    modes: list[str] = list(data.allowed_authentication_modes)
    if data.fault == "shared_key_disabled":
        modes = [mode for mode in modes if mode != "SharedKey"]
    denied: list[str] = list(data.denied) if isinstance(data.denied, list) else []
    if data.denied is True or data.fault == "role_missing":
        denied = ["listKeys", "regenerateKeys"]
    return Account(
        subscription_id=data.subscription_id,
        resource_group=data.resource_group,
        name=data.name,
        location=data.location,
        tags=dict(data.tags),
        authentication_modes=modes,
        pool_allocation_mode=data.pool_allocation_mode,
        provisioning_state=data.provisioning_state,
        lock="ReadOnly" if data.fault == "locked" else data.lock,
        denied=frozenset(denied),
        tenant_id=data.tenant_id or tenant_id,
        primary=data.primary,
        secondary=data.secondary,
        key_delay=data.key_delay,
        jobs=list(data.jobs),
        pools=list(data.pools),
        clock=clock,
        created=clock(),
        endpoint=f"{data.name}.{data.location}.batch.azure.com",
        modified=clock(),
        properties=_properties(data),
        identity={"type": "None"},
    )


def _properties(data: AccountData) -> dict[str, object]:
    properties: dict[str, object] = {
        "publicNetworkAccess": data.public_network_access,
        "encryption": {"keySource": "Microsoft.Batch"},
    }
    if data.pool_allocation_mode == "UserSubscription":
        vault = f"batch-{data.name}"[:24]
        group = f"/subscriptions/{data.subscription_id}/resourceGroups/{data.resource_group}"
        arm_id = f"{group}/providers/Microsoft.KeyVault/vaults/{vault}"
        properties["keyVaultReference"] = {"id": arm_id, "url": f"https://{vault}.vault.azure.net/"}
    return properties
