"""What the embedded Azure holds: accounts with their keys, vaults with the versions of their secrets.

Nothing in here knows of HTTP; the clock is handed in.
"""

from __future__ import annotations

import bisect
import copy
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from keysync.emulator.data import AccountData, EmulatorData, SecretData, VaultData, new_account_key

Clock = Callable[[], float]

KEEP_DELETED_DAYS = 90


@dataclass
class Account:
    """A Batch account."""

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
        """Whether the keys of this account can be had at all."""
        return "SharedKey" in self.authentication_modes and self.pool_allocation_mode == "BatchService"

    def regenerate(self, key_name: str) -> None:
        """Replace one key; the old one is gone at once."""
        if key_name == "Primary":
            self.primary = new_account_key()
        elif key_name == "Secondary":
            self.secondary = new_account_key()
        else:
            raise ValueError(f"no such key: {key_name!r}; there are Primary and Secondary")


@dataclass
class SecretVersion:
    """One version of a secret; times are whole seconds since 1970."""

    version: str
    value: str = field(repr=False)
    content_type: str | None
    tags: dict[str, str]
    enabled: bool
    not_before: int | None
    expires: int | None
    created: int
    updated: int


@dataclass
class Secret:
    """A secret, its versions in the order in which they were made."""

    name: str
    managed: bool
    versions: list[SecretVersion]

    @property
    def latest(self) -> SecretVersion:
        """The version that a call without one gets."""
        return self.versions[-1]


@dataclass
class DeletedSecret:
    """A soft-deleted secret; `recovered_at` is when a recovery under way will be done."""

    secret: Secret
    deleted: int
    visible_at: float
    recovered_at: float | None = None


class SecretTable:
    """Secrets by name: without regard to case, and in the order of names, so that pages hold still."""

    def __init__(self) -> None:
        self._by_name: dict[str, Secret] = {}
        self._order: list[str] = []

    def get(self, name: str) -> Secret | None:
        """The secret of that name."""
        return self._by_name.get(name.lower())

    def put(self, secret: Secret) -> None:
        """Add a secret under its name."""
        key = secret.name.lower()
        if key not in self._by_name:
            bisect.insort(self._order, key)
        self._by_name[key] = secret

    def pop(self, name: str) -> Secret:
        """Take a secret out."""
        del self._order[bisect.bisect_left(self._order, name.lower())]
        return self._by_name.pop(name.lower())

    def page(self, after: str, size: int) -> tuple[list[Secret], str | None]:
        """Up to `size` secrets out of sync the name `after`, and the name to go on from, if there are more."""
        start = bisect.bisect_right(self._order, after) if after else 0
        keys = self._order[start : start + size]
        more = start + size < len(self._order)
        return [self._by_name[key] for key in keys], keys[-1] if more and keys else None

    def all(self) -> list[Secret]:
        """Every secret, by name."""
        return [self._by_name[key] for key in self._order]


class Vault:
    """A key vault. Methods raise `KeyError` for a name that is not there; what is allowed is for the caller to ask.

    `policy` and `read_only` may be changed at any time.
    """

    def __init__(self, data: VaultData, tenant_id: str, clock: Clock) -> None:
        self.name = data.name
        self.tenant_id = data.tenant_id or tenant_id
        self.denied = frozenset(data.denied)
        self.policy = data.policy
        self.read_only = data.read_only
        self.access_policies = data.access_policies
        self.api_versions = data.api_versions
        self.purge_protection = data.purge_protection
        self._recover_delay = data.recover_delay
        self._delete_delay = data.delete_delay
        self.clock_offset = data.clock_offset
        self._true_clock = clock
        self._stale: dict[str, tuple[Secret | None, int]] = {}
        self.table = SecretTable()
        self._deleted: dict[str, DeletedSecret] = {}
        now = int(self.now())
        for secret in data.secrets:
            self.table.put(_secret_of(secret, now))
        for secret in data.deleted:
            self._deleted[secret.name.lower()] = DeletedSecret(_secret_of(secret, now), now, now)

    def now(self) -> float:
        """The time by the vault's own clock, in seconds since 1970."""
        return self._true_clock() + self.clock_offset

    @property
    def secrets(self) -> Mapping[str, Sequence[SecretVersion]]:
        """The versions of every secret that is not deleted, by name."""
        self._settle()
        return {secret.name: secret.versions for secret in self.table.all()}

    def versions(self, name: str) -> list[SecretVersion]:
        """The versions of one secret, oldest first; none where there is no such secret."""
        secret = self.find(name)
        return [] if secret is None else list(secret.versions)

    def find(self, name: str) -> Secret | None:
        """The secret of that name, unless it is deleted."""
        self._settle()
        return self.table.get(name)

    def copy_of(self, name: str) -> Secret | None:
        """The secret as it is now, untouched by later changes."""
        return copy.deepcopy(self.find(name))

    def put_back(self, name: str, secret: Secret | None) -> None:
        """Make the secret what it was when it was copied."""
        if self.find(name) is not None:
            self.table.pop(name)
        if secret is not None:
            self.table.put(secret)

    def answer_from(self, name: str, secret: Secret | None, reads: int) -> None:
        """Let the next `reads` calls of `read` show `secret`."""
        self._stale[name.lower()] = secret, reads

    def is_answered_from_before(self, name: str) -> bool:
        """Whether the next `read` shows what `answer_from` said."""
        return name.lower() in self._stale

    def show_latest(self) -> None:
        """Let every `read` show what is there."""
        self._stale.clear()

    def read(self, name: str) -> Secret | None:
        """What a GET of the latest version shows: as `find`, unless `answer_from` says otherwise."""
        secret, left = self._stale.pop(name.lower(), (None, 0))
        if not left:
            return self.find(name)
        if left > 1:
            self._stale[name.lower()] = secret, left - 1
        return secret

    def page(self, after: str, size: int) -> tuple[list[Secret], str | None]:
        """Up to `size` secrets out of sync the name `after`, and the name to go on from, if there are more."""
        self._settle()
        return self.table.page(after, size)

    def find_deleted(self, name: str) -> DeletedSecret | None:
        """The deleted secret of that name, be it on its way in or out."""
        self._settle()
        return self._deleted.get(name.lower())

    def deleted_secrets(self) -> list[DeletedSecret]:
        """Every deleted secret that shows by now, by name."""
        self._settle()
        now = self.now()
        return [self._deleted[name] for name in sorted(self._deleted) if self._deleted[name].visible_at <= now]

    def add_version(
        self,
        name: str,
        value: str,
        *,
        content_type: str | None = None,
        tags: Mapping[str, str] | None = None,
        enabled: bool = True,
        not_before: int | None = None,
        expires: int | None = None,
    ) -> tuple[Secret, SecretVersion]:
        """Make a new version, and the secret with it where it is the first; nothing carries over from the last."""
        now = int(self.now())
        made = SecretVersion(
            version=uuid.uuid4().hex,
            value=value,
            content_type=content_type,
            tags=dict(tags or {}),
            enabled=enabled,
            not_before=not_before,
            expires=expires,
            created=now,
            updated=now,
        )
        secret = self.find(name)
        if secret is None:
            secret = Secret(name, managed=False, versions=[])
            self.table.put(secret)
        secret.versions.append(made)
        return secret, made

    def touch(self, version: SecretVersion) -> None:
        """Note that a version was changed."""
        version.updated = int(self.now())

    def delete(self, name: str) -> DeletedSecret:
        """Soft-delete a secret."""
        now = self.now()
        gone = DeletedSecret(self.table.pop(name), int(now), now + self._delete_delay)
        self._deleted[name.lower()] = gone
        return gone

    def recover(self, name: str) -> Secret:
        """Begin to bring a deleted secret back; it shows once the delay is over."""
        back = self._deleted[name.lower()]
        if back.recovered_at is None:
            back.recovered_at = self.now() + self._recover_delay
        self._settle()
        return back.secret

    def purge(self, name: str) -> None:
        """Remove a deleted secret for good."""
        del self._deleted[name.lower()]

    def is_visible(self, deleted: DeletedSecret) -> bool:
        """Whether the deletion has come through."""
        return deleted.visible_at <= self.now()

    def _settle(self) -> None:
        now = self.now()
        due = [key for key, gone in self._deleted.items() if gone.recovered_at is not None and gone.recovered_at <= now]
        for key in due:
            self.table.put(self._deleted.pop(key).secret)

    def export(self) -> tuple[list[Secret], list[DeletedSecret]]:
        """All that the vault holds."""
        self._settle()
        return self.table.all(), list(self._deleted.values())

    def restore(self, secrets: Iterable[Secret], deleted: Iterable[DeletedSecret]) -> None:
        """Put what was exported in place of all that the vault holds."""
        self.table = SecretTable()
        for secret in secrets:
            self.table.put(secret)
        self._deleted = {gone.secret.name.lower(): gone for gone in deleted}
        self._stale.clear()


class State:
    """All accounts and vaults."""

    def __init__(self, data: EmulatorData, clock: Clock) -> None:
        self.clock = clock
        self.tenant_id = data.tenant_id
        self.accounts: dict[str, Account] = {}
        self._by_name: dict[str, Account] = {}
        self.by_group: dict[tuple[str, str], list[Account]] = {}
        self.by_subscription: dict[str, list[Account]] = {sub.lower(): [] for sub in data.subscriptions}
        for told in data.accounts:
            self._add(_account_of(told, data.tenant_id))
        self._vaults = {told.name.lower(): Vault(told, data.tenant_id, clock) for told in data.vaults}

    def add_account(self, told: AccountData) -> None:
        """One more account, as if somebody had just made it."""
        self._add(_account_of(told, self.tenant_id))

    def _add(self, account: Account) -> None:
        self.accounts[account.id.lower()] = account
        self._by_name.setdefault(account.name.lower(), account)
        subscription, group = account.subscription_id.lower(), account.resource_group.lower()
        self.by_group.setdefault((subscription, group), []).append(account)
        self.by_subscription.setdefault(subscription, []).append(account)

    @property
    def vaults(self) -> list[Vault]:
        """Every vault."""
        return list(self._vaults.values())

    def vault(self, name: str) -> Vault:
        """The vault of that name."""
        return self._vaults[name.lower()]

    def account(self, name: str) -> Account:
        """The first account of that name."""
        return self._by_name[name.lower()]

    def move(self, account_name: str, resource_group: str) -> None:
        """Move an account to another resource group, as Resource Manager does: it has another id and the same keys."""
        account = self.account(account_name)
        del self.accounts[account.id.lower()]
        subscription = account.subscription_id.lower()
        self.by_subscription[subscription].remove(account)
        self.by_group[subscription, account.resource_group.lower()].remove(account)
        account.resource_group = resource_group
        self._add(account)

    def keys(self, account_name: str) -> tuple[str, str]:
        """The primary and the secondary key."""
        account = self.account(account_name)
        return account.primary, account.secondary

    def regenerate(self, account_name: str, key_name: str) -> None:
        """Replace the ``Primary`` or the ``Secondary`` key, as someone else with the right to would."""
        self.account(account_name).regenerate(key_name)

    def tenant_of(self, subscription_id: str) -> str:
        """The tenant that a subscription belongs to."""
        accounts = self.by_subscription.get(subscription_id.lower())
        return accounts[0].tenant_id if accounts else self.tenant_id

    def tenants(self) -> set[str]:
        """Every tenant that something belongs to."""
        found = {self.tenant_id}
        found.update(account.tenant_id for account in self.accounts.values())
        found.update(vault.tenant_id for vault in self.vaults)
        return found


def _account_of(data: AccountData, tenant_id: str) -> Account:
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
    )


def _secret_of(data: SecretData, now: int) -> Secret:
    created = data.created if data.created is not None else now
    version = SecretVersion(
        version=uuid.uuid4().hex,
        value=data.value,
        content_type=data.content_type,
        tags=dict(data.tags),
        enabled=data.enabled,
        not_before=data.not_before,
        expires=data.expires,
        created=created,
        updated=data.updated if data.updated is not None else created,
    )
    return Secret(data.name, managed=data.managed, versions=[version])
