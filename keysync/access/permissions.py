"""The least privileges that a configuration needs: which identity needs which role at which scope.

A role is a fixed set of actions (`ROLES`). A test compares them with the requests that sync runs and `check` send to Azure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from keysync.config.credentials import Credential
from keysync.config.model import Account, Config, Discover
from keysync.names import fold

_VaultRole: TypeAlias = Literal["read_secrets", "sync_secrets", "recover_secrets", "disable", "delete"]
RoleKey: TypeAlias = _VaultRole | Literal["batch_keys", "subscriptions", "see_accounts"]

_READ_ACCOUNTS: Final = "Microsoft.Batch/batchAccounts/read"
_LIST_KEYS: Final = "Microsoft.Batch/batchAccounts/listKeys/action"
_SECRETS: Final = "Microsoft.KeyVault/vaults/secrets/"
_READ: Final = (f"{_SECRETS}getSecret/action", f"{_SECRETS}readMetadata/action")
_WRITE: Final = (*_READ, f"{_SECRETS}setSecret/action", f"{_SECRETS}update/action")


@dataclass(frozen=True, slots=True)
class Role:
    """A set of permissions. A role has either `actions` of Resource Manager or `data_actions` of Key Vault.

    `policy`: the equivalent permissions of a vault's access policy. `for_orphans`: only the removal of orphans needs it.
    """

    title: str
    description: str
    actions: tuple[str, ...] = ()
    data_actions: tuple[str, ...] = ()
    policy: str = ""
    for_orphans: bool = False


ROLES: Final[dict[RoleKey, Role]] = {
    "batch_keys": Role("Batch keys", "Reads Batch accounts and lists their keys.", (_READ_ACCOUNTS, _LIST_KEYS)),
    "subscriptions": Role(
        "subscriptions",
        "Reads subscriptions, so that Resource Graph shows those without Batch accounts.",
        ("Microsoft.Resources/subscriptions/read",),
    ),
    "read_secrets": Role("read secrets", "Reads secrets to compare them with keys.", (), _READ, "get list"),
    "sync_secrets": Role("sync secrets", "Writes keys to secrets.", (), _WRITE, "get list set"),
    "recover_secrets": Role(
        "sync and recover secrets",
        "Writes keys to secrets and recovers deleted secrets.",
        (),
        (*_WRITE, f"{_SECRETS}recover/action"),
        "get list set recover",
    ),
    "see_accounts": Role(
        "see Batch accounts",
        "Checks whether a Batch account exists before its secret is removed.",
        (_READ_ACCOUNTS,),
        for_orphans=True,
    ),
    "disable": Role(
        "disable orphans",
        "Disables secrets whose account is gone.",
        (),
        (f"{_SECRETS}update/action",),
        "set",
        for_orphans=True,
    ),
    "delete": Role(
        "delete orphans",
        "Deletes secrets whose account is gone. They can be recovered.",
        (),
        (f"{_SECRETS}delete",),
        "delete",
        for_orphans=True,
    ),
}
"""All roles, in the order of the output."""


@dataclass(frozen=True, slots=True)
class Identity:
    """An identity that signs in. `config_key` is the first key of the configuration with its credential."""

    config_key: str
    credential: Credential

    @property
    def tenant(self) -> str | None:
        """Its tenant in lower case; None if the configuration does not name it."""
        return str(getattr(self.credential, "tenant_id", None) or "").lower() or None

    @property
    def client_id(self) -> str | None:
        """The client id of the application or managed identity; None if the configuration does not name it."""
        return str(getattr(self.credential, "client_id", None) or "") or None

    @property
    def principal_type(self) -> str:
        """The principal type of role assignments. A person usually runs `az login`."""
        return "User" if self.credential.type == "azure_cli" else "ServicePrincipal"


@dataclass(frozen=True, slots=True)
class Grant:
    """One role for one identity. `scope` is an ARM id or the URL of a vault, since the configuration has no ARM ids of vaults."""

    identity: Identity
    role: RoleKey
    scope: str

    @property
    def is_vault(self) -> bool:
        """Whether `scope` is the URL of a vault."""
        return not self.scope.startswith("/")


def permissions_of(config: Config) -> tuple[Grant, ...]:
    """The grants that `config` needs, by identity. No scope repeats, nor lies within another scope of the same role."""
    needs = _Needs(config)
    needs.add_batch()
    needs.add_vaults()
    return tuple(
        Grant(identity, role, scope)
        for identity in needs.identities.values()
        for role in ROLES
        for scope in covering(needs.scopes[identity, role])
    )


def covering(scopes: Iterable[str]) -> tuple[str, ...]:
    """`scopes` in their order, without duplicates and without scopes within another. Ids are compared without case."""
    by_folded: dict[str, str] = {}
    for scope in scopes:
        by_folded.setdefault(fold(scope), scope)
    return tuple(
        scope for folded, scope in by_folded.items() if not any(parent in by_folded for parent in _parents(folded))
    )


def _parents(scope: str) -> Iterator[str]:
    """The ids that contain an ARM id. A vault's URL has none."""
    while scope.startswith("/") and (scope := scope.rpartition("/")[0]):
        yield scope


def is_written(config: Config, vault: str) -> bool:
    """Whether keysync ever writes keys to the vault of that name."""
    read_only = config.read_only or config.vaults[vault].read_only
    return not read_only and any(not user.read_only for user in _users(config, vault))


def _users(config: Config, vault: str) -> Iterator[Account | Discover]:
    """The accounts and entries that may write to a vault. A tag of an account may name any vault."""
    yield from (account for account in config.accounts if vault in account.vaults)
    yield from (entry for entry in config.discover if vault in entry.vaults or entry.vaults_by_tag is not None)


class _Needs:
    """Collects identities, equal credentials being one, and the scopes that each needs for a role."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.identities = {config.credential: Identity("credential", config.credential)}
        self.scopes: defaultdict[tuple[Identity, RoleKey], list[str]] = defaultdict(list)

    def _identity(self, credential: Credential | None, config_key: str) -> Identity:
        """The identity of the credential under `config_key`; the general identity for None."""
        effective = credential or self._config.credential
        return self.identities.setdefault(effective, Identity(f"{config_key}.credential", effective))

    def add_batch(self) -> None:
        """Reading keys, also of read-only accounts, whose keys are compared; and the proof that an account is gone."""
        subscriptions: dict[str, Identity] = {}
        for index, account in enumerate(self._config.accounts):
            identity = self._identity(account.credential, f"accounts[{index}]")
            self.scopes[identity, "batch_keys"].append(account.resource_id)
            subscriptions.setdefault(f"/subscriptions/{account.subscription_id}", identity)
        for index, entry in enumerate(self._config.discover):
            identity = self._identity(entry.credential, f"discover[{index}]")
            for subscription in [f"/subscriptions/{scope}" for scope in entry.scopes]:
                groups = [f"{subscription}/resourceGroups/{group}" for group in entry.resource_groups]
                self.scopes[identity, "batch_keys"] += groups or [subscription]
                if entry.via == "resource_graph":
                    # It silently omits what an identity may not see, so keysync also queries the subscriptions.
                    self.scopes[identity, "subscriptions"].append(subscription)
                subscriptions.setdefault(subscription, identity)
        # Before keysync removes an orphan it gets the account and lists its subscription, even if only accounts are configured.
        # `ClientFactory.subscription` chooses the credential alike.
        for subscription, identity in subscriptions.items() if self._config.orphans != "keep" else ():
            if subscription not in self.scopes[identity, "batch_keys"]:
                self.scopes[identity, "see_accounts"].append(subscription)

    def add_vaults(self) -> None:
        """Access to each vault that accounts use. The search for orphans covers all vaults, each by its first name."""
        config, mode = self._config, self._config.orphans
        strongest: dict[tuple[Identity, str], RoleKey] = {}
        removals: list[tuple[Identity, str]] = []
        urls: set[str] = set()
        for name, vault in config.vaults.items():
            searched = mode != "keep" and vault.url not in urls
            urls.add(vault.url)
            if not searched and not any(_users(config, name)):
                continue
            identity = self._identity(vault.credential, f"vaults.{name}")
            role: RoleKey = "sync_secrets" if config.recover == "report" else "recover_secrets"
            if is_written(config, name):
                strongest[identity, vault.url] = role
            strongest.setdefault((identity, vault.url), "read_secrets")
            if searched and not (config.read_only or vault.read_only):
                removals.append((identity, vault.url))
        for (identity, url), role in strongest.items():
            self.scopes[identity, role].append(url)
        for identity, url in removals:
            # A role that writes secrets includes the permission to disable them.
            if mode == "delete" or (mode == "disable" and strongest[identity, url] == "read_secrets"):
                self.scopes[identity, mode].append(url)
