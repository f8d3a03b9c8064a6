"""The least privileges that a configuration needs: which identity needs which role at which scope.

A role is a fixed set of actions (`ROLES`). A test compares them with the requests that sync runs and `check` send to Azure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final, Literal, TypeAlias

from keysync.config.credentials import Credential
from keysync.config.model import Account, Config, Discover
from keysync.names import fold

RoleKey: TypeAlias = Literal[
    "batch_keys",
    "subscriptions",
    "read_secrets",
    "sync_secrets",
    "recover_secrets",
    "see_accounts",
    "disable",
    "delete",
]
PrincipalType: TypeAlias = Literal["ServicePrincipal", "User"]

_SECRETS: Final = "Microsoft.KeyVault/vaults/secrets/"
_READ: Final = (f"{_SECRETS}getSecret/action", f"{_SECRETS}readMetadata/action")
_WRITE: Final = (f"{_SECRETS}setSecret/action", f"{_SECRETS}update/action")


@dataclass(frozen=True, slots=True)
class Role:
    """A set of permissions. A role has either `actions` of Resource Manager or `data_actions` of Key Vault.

    `policy` holds the equivalent permissions of a vault's access policy. `for_orphans`: only the removal of orphans needs it.
    """

    title: str
    description: str
    actions: tuple[str, ...] = ()
    data_actions: tuple[str, ...] = ()
    policy: tuple[str, ...] = ()
    for_orphans: bool = False


ROLES: Final[dict[RoleKey, Role]] = {
    "batch_keys": Role(
        "Batch keys",
        "Reads Batch accounts and lists their keys.",
        ("Microsoft.Batch/batchAccounts/read", "Microsoft.Batch/batchAccounts/listKeys/action"),
    ),
    "subscriptions": Role(
        "subscriptions",
        "Reads subscriptions, so that Resource Graph shows those without Batch accounts.",
        ("Microsoft.Resources/subscriptions/read",),
    ),
    "read_secrets": Role(
        "read secrets",
        "Reads secrets to compare them with keys.",
        data_actions=_READ,
        policy=("get", "list"),
    ),
    "sync_secrets": Role(
        "sync secrets",
        "Writes keys to secrets.",
        data_actions=(*_READ, *_WRITE),
        policy=("get", "list", "set"),
    ),
    "recover_secrets": Role(
        "sync and recover secrets",
        "Writes keys to secrets and recovers deleted secrets.",
        data_actions=(*_READ, *_WRITE, f"{_SECRETS}recover/action"),
        policy=("get", "list", "set", "recover"),
    ),
    "see_accounts": Role(
        "see Batch accounts",
        "Checks whether a Batch account exists before its secret is removed.",
        ("Microsoft.Batch/batchAccounts/read",),
        for_orphans=True,
    ),
    "disable": Role(
        "disable orphans",
        "Disables secrets whose account is gone.",
        data_actions=(f"{_SECRETS}update/action",),
        policy=("set",),
        for_orphans=True,
    ),
    "delete": Role(
        "delete orphans",
        "Deletes secrets whose account is gone. They can be recovered.",
        data_actions=(f"{_SECRETS}delete",),
        policy=("delete",),
        for_orphans=True,
    ),
}
"""All roles, in the order of the output."""

_VAULT_ROLES: Final[tuple[RoleKey, ...]] = (
    "read_secrets",
    "sync_secrets",
    "recover_secrets",
)  # each includes the one before


@dataclass(frozen=True, slots=True)
class Identity:
    """An identity that signs in. `config_key` is the first key of the configuration with its credential."""

    config_key: str
    credential: Credential

    @property
    def tenant(self) -> str | None:
        """Its tenant in lower case; None if the configuration does not name it."""
        tenant: str | None = getattr(self.credential, "tenant_id", None)
        return tenant.lower() if tenant else None

    @property
    def client_id(self) -> str | None:
        """The client id of the application or managed identity; None if the configuration does not name it."""
        client_id: str | None = getattr(self.credential, "client_id", None)
        return client_id

    @property
    def principal_type(self) -> PrincipalType:
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
    identities = _Identities(config)
    batch = list(_batch_key_grants(config, identities))
    grants = [
        *batch,
        *_resource_graph_grants(config, identities),
        *_vault_grants(config, identities),
        *_orphan_check_grants(config, identities, batch),
    ]
    scopes: dict[tuple[Identity, RoleKey], list[str]] = {}
    for grant in grants:
        scopes.setdefault((grant.identity, grant.role), []).append(grant.scope)
    return tuple(
        Grant(identity, role, scope)
        for identity in identities.known
        for role in ROLES
        for scope in covering(scopes.get((identity, role), ()))
    )


def covering(scopes: Iterable[str]) -> tuple[str, ...]:
    """`scopes` in their order, without duplicates and without scopes within another. Ids are compared without case."""
    by_folded: dict[str, str] = {}
    for scope in scopes:
        by_folded.setdefault(fold(scope), scope)
    return tuple(
        scope for folded, scope in by_folded.items() if not any(parent in by_folded for parent in _parents(folded))
    )


def is_written(config: Config, vault: str) -> bool:
    """Whether keysync ever writes keys to the vault of that name."""
    read_only = config.read_only or config.vaults[vault].read_only
    return not read_only and any(not user.read_only for user in _users(config, vault))


def orphan_vaults(config: Config) -> frozenset[str]:
    """The names of the vaults that are searched for orphans: all, each by its first name. Empty for `orphans: keep`."""
    if config.orphans == "keep":
        return frozenset()
    first_names: dict[str, str] = {}
    for name, vault in config.vaults.items():
        first_names.setdefault(vault.url, name)
    return frozenset(first_names.values())


class _Identities:
    """The identities of a configuration. Equal credentials are one identity."""

    def __init__(self, config: Config) -> None:
        self._general = config.credential
        self._known: dict[Credential, Identity] = {}
        self.of(None, "credential")

    def of(self, credential: Credential | None, config_key: str) -> Identity:
        """The identity of the credential at `config_key`; the general identity for None."""
        effective = credential or self._general
        return self._known.setdefault(effective, Identity(config_key, effective))

    @property
    def known(self) -> tuple[Identity, ...]:
        """All identities so far, the general one first."""
        return tuple(self._known.values())


def _batch_key_grants(config: Config, identities: _Identities) -> Iterator[Grant]:
    """Includes read-only accounts: their keys are compared."""
    for index, account in enumerate(config.accounts):
        identity = identities.of(account.credential, f"accounts[{index}].credential")
        yield Grant(identity, "batch_keys", account.resource_id)
    for index, entry in enumerate(config.discover):
        for scope in _listed_scopes(entry):
            yield Grant(identities.of(entry.credential, f"discover[{index}].credential"), "batch_keys", scope)


def _resource_graph_grants(config: Config, identities: _Identities) -> Iterator[Grant]:
    """Resource Graph silently omits everything that an identity may not see, so keysync also queries the subscriptions."""
    for index, entry in enumerate(config.discover):
        for subscription in entry.scopes if entry.via == "resource_graph" else ():
            identity = identities.of(entry.credential, f"discover[{index}].credential")
            yield Grant(identity, "subscriptions", _subscription_scope(subscription))


def _vault_grants(config: Config, identities: _Identities) -> Iterator[Grant]:
    strongest: dict[tuple[Identity, str], int] = {}
    removals: list[Grant] = []
    searched = orphan_vaults(config)
    for name, vault in config.vaults.items():
        if name not in searched and not any(_users(config, name)):
            continue
        identity = identities.of(vault.credential, f"vaults.{name}.credential")
        level = 0 if not is_written(config, name) else 1 if config.recover == "report" else 2
        strongest[identity, vault.url] = max(level, strongest.get((identity, vault.url), 0))
        if name in searched and config.orphans != "keep" and not (config.read_only or vault.read_only):
            removals.append(Grant(identity, config.orphans, vault.url))
    for (identity, url), level in strongest.items():
        yield Grant(identity, _VAULT_ROLES[level], url)
    # A role that writes secrets includes the permission to disable them.
    yield from (grant for grant in removals if grant.role == "delete" or not strongest[grant.identity, grant.scope])


def _orphan_check_grants(config: Config, identities: _Identities, batch: Iterable[Grant]) -> Iterator[Grant]:
    """Before keysync removes an orphan it gets the account and lists its subscription, even if only accounts are configured."""
    if config.orphans == "keep":
        return
    readable = {(grant.identity, grant.scope) for grant in batch}
    of_accounts = (account.subscription_id for account in config.accounts)
    for subscription in dict.fromkeys(chain(of_accounts, *(entry.scopes for entry in config.discover))):
        identity = identities.of(*_subscription_credential(config, subscription))
        grant = Grant(identity, "see_accounts", _subscription_scope(subscription))
        if (grant.identity, grant.scope) not in readable:
            yield grant


def _subscription_credential(config: Config, subscription: str) -> tuple[Credential | None, str]:
    """The credential for requests about a subscription, and its key: an account's, else a `discover` entry's.

    The client that makes these requests chooses in the same order.
    """
    for index, account in enumerate(config.accounts):
        if account.subscription_id == subscription:
            return account.credential, f"accounts[{index}].credential"
    return next(
        (entry.credential, f"discover[{index}].credential")
        for index, entry in enumerate(config.discover)
        if subscription in entry.scopes
    )


def _users(config: Config, vault: str) -> Iterator[Account | Discover]:
    """The accounts and entries that may write to a vault. A tag of an account may name any vault."""
    yield from (account for account in config.accounts if vault in account.vaults)
    yield from (entry for entry in config.discover if vault in entry.vaults or entry.vaults_by_tag is not None)


def _listed_scopes(entry: Discover) -> Iterator[str]:
    for subscription in entry.scopes:
        scope = _subscription_scope(subscription)
        if entry.resource_groups:
            yield from (f"{scope}/resourceGroups/{group}" for group in entry.resource_groups)
        else:
            yield scope


def _subscription_scope(subscription_id: str) -> str:
    return f"/subscriptions/{subscription_id}"


def _parents(scope: str) -> Iterator[str]:
    """The ids that contain an ARM id. A vault's URL has none."""
    while scope.startswith("/") and (scope := scope.rpartition("/")[0]):
        yield scope
