"""The least privileges that a configuration needs: which identity needs which role at which scope.

A role is a fixed set of actions (`ROLES`). A test compares them with the requests that sync runs and `check` send to Azure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Literal, NamedTuple, TypeAlias

from keysync.config.credentials import Credential
from keysync.config.model import Account, Config, Discover
from keysync.names import fold

_VaultRole: TypeAlias = Literal["read_secrets", "sync_secrets", "recover_secrets", "disable", "delete"]
RoleKey: TypeAlias = _VaultRole | Literal["batch_keys", "subscriptions", "see_accounts"]

_READ_ACCOUNTS: Final = "Microsoft.Batch/batchAccounts/read"
_LIST_KEYS: Final = "Microsoft.Batch/batchAccounts/listKeys/action"
_SECRETS: Final = "Microsoft.KeyVault/vaults/secrets/"
_READ: Final = (f"{_SECRETS}getSecret/action", f"{_SECRETS}readMetadata/action")
_UPDATE: Final = (f"{_SECRETS}update/action",)
_WRITE: Final = (*_READ, f"{_SECRETS}setSecret/action", *_UPDATE)
_RECOVER: Final = (*_WRITE, f"{_SECRETS}recover/action")


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


# fmt: off
ROLES: Final[dict[RoleKey, Role]] = {
    "batch_keys": Role("Batch keys", "Reads Batch accounts and lists their keys.", (_READ_ACCOUNTS, _LIST_KEYS)),
    "subscriptions": Role(
        "subscriptions", "Reads subscriptions, so that Resource Graph shows those without Batch accounts.",
        ("Microsoft.Resources/subscriptions/read",),
    ),
    "read_secrets": Role("read secrets", "Reads secrets to compare them with keys.", (), _READ, "get list"),
    "sync_secrets": Role("sync secrets", "Writes keys to secrets.", (), _WRITE, "get list set"),
    "recover_secrets": Role(
        "sync and recover secrets", "Writes keys to secrets and recovers deleted secrets.",
        (), _RECOVER, "get list set recover",
    ),
    "see_accounts": Role(
        "see Batch accounts", "Checks whether a Batch account exists before its secret is removed.",
        (_READ_ACCOUNTS,), for_orphans=True,
    ),
    "disable": Role(
        "disable orphans", "Disables secrets whose account is gone.", (), _UPDATE, "set", for_orphans=True,
    ),
    "delete": Role(
        "delete orphans", "Deletes secrets whose account is gone. They can be recovered.",
        (), (f"{_SECRETS}delete",), "delete", for_orphans=True,
    ),
}
# fmt: on
"""All roles, in the order of the output."""

# An identity with one of the other roles at the same scope does not need the role.
_INCLUDED_IN: Final[dict[RoleKey, tuple[RoleKey, ...]]] = {
    "see_accounts": ("batch_keys",),
    "read_secrets": ("sync_secrets", "recover_secrets"),
    "disable": ("sync_secrets", "recover_secrets"),
}


@dataclass(frozen=True, slots=True)
class Identity:
    """An identity that signs in. `config_key` is the first key of the configuration with its credential."""

    config_key: str
    credential: Credential

    @property
    def tenant(self) -> str | None:
        """Its tenant in lower case; None if the configuration does not name it."""
        return (getattr(self.credential, "tenant_id", None) or "").lower() or None

    @property
    def client_id(self) -> str | None:
        """The client id of the application or managed identity; None if the configuration does not name it."""
        return getattr(self.credential, "client_id", None) or None

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


class _Need(NamedTuple):
    """`credential` (None for the general one), which `config_key` sets, needs `role` at `scope`."""

    config_key: str
    credential: Credential | None
    role: RoleKey
    scope: str


def permissions_of(config: Config) -> tuple[Grant, ...]:
    """The grants that `config` needs, by identity: equal credentials are one. No scope repeats, nor lies within another
    scope of the same role.
    """
    identities = {config.credential: Identity("credential", config.credential)}
    scopes: defaultdict[tuple[Identity, RoleKey], list[str]] = defaultdict(list)
    for need in (*_batch_needs(config), *_vault_needs(config)):
        credential = need.credential or config.credential
        identity = identities.setdefault(credential, Identity(f"{need.config_key}.credential", credential))
        scopes[identity, need.role].append(need.scope)
    return tuple(
        Grant(identity, role, scope)
        for identity in identities.values()
        for role in ROLES
        for scope in covering(scopes[identity, role])
        if not any(scope in scopes[identity, other] for other in _INCLUDED_IN.get(role, ()))
    )


def _batch_needs(config: Config) -> Iterator[_Need]:
    """Reading keys, also of read-only accounts, whose keys are compared; and the proof that an account is gone."""
    subscriptions: dict[str, _Need] = {}
    for index, account in enumerate(config.accounts):
        need = _Need(f"accounts[{index}]", account.credential, "batch_keys", account.resource_id)
        subscriptions.setdefault(f"/subscriptions/{account.subscription_id}", need)
        yield need
    for index, entry in enumerate(config.discover):
        for subscription in [f"/subscriptions/{scope}" for scope in entry.scopes]:
            need = _Need(f"discover[{index}]", entry.credential, "batch_keys", subscription)
            groups = [f"{subscription}/resourceGroups/{group}" for group in entry.resource_groups]
            yield from (need._replace(scope=scope) for scope in groups or [subscription])
            if entry.via == "resource_graph":
                # It silently omits what an identity may not see, so keysync also queries the subscriptions.
                yield need._replace(role="subscriptions")
            subscriptions.setdefault(subscription, need)
    # Before keysync removes an orphan it gets the account and lists its subscription, even if only accounts are configured.
    # `ClientFactory.subscription` chooses the credential alike.
    for subscription, need in subscriptions.items() if config.orphans != "keep" else ():
        yield need._replace(role="see_accounts", scope=subscription)


def _vault_needs(config: Config) -> Iterator[_Need]:
    """Access to each vault that accounts use. The search for orphans covers all vaults, each by its first name."""
    writing: RoleKey = "sync_secrets" if config.recover == "report" else "recover_secrets"
    urls: set[str] = set()
    for name, vault in config.vaults.items():
        need = _Need(f"vaults.{name}", vault.credential, "read_secrets", vault.url)
        searched = config.orphans != "keep" and vault.url not in urls
        urls.add(vault.url)
        if searched or any(_users(config, name)):
            yield need._replace(role=writing) if is_written(config, name) else need
        if config.orphans != "keep" and searched and not (config.read_only or vault.read_only):
            yield need._replace(role=config.orphans)


def covering(scopes: Iterable[str]) -> tuple[str, ...]:
    """`scopes` in their order, without duplicates and without scopes within another. Ids are compared without case."""
    unique: dict[str, str] = {}
    for scope in scopes:
        unique.setdefault(fold(scope), scope)
    within = (any(str(parent) in unique for parent in PurePosixPath(folded).parents) for folded in unique)
    return tuple(scope for scope, is_within in zip(unique.values(), within, strict=True) if not is_within)


def is_written(config: Config, vault: str) -> bool:
    """Whether keysync ever writes keys to the vault of that name."""
    read_only = config.read_only or config.vaults[vault].read_only
    return not read_only and any(not user.read_only for user in _users(config, vault))


def _users(config: Config, vault: str) -> Iterator[Account | Discover]:
    """The accounts and entries that may write to a vault. A tag of an account may name any vault."""
    yield from (account for account in config.accounts if vault in account.vaults)
    yield from (entry for entry in config.discover if vault in entry.vaults or entry.vaults_by_tag is not None)
