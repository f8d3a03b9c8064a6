"""What a configuration needs to be allowed: which identity needs which role at which scope, and no more.

A role is a fixed set of actions (`ROLES`); what calls for each of them is what the runs and the doctor really ask of Azure, and a test
compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final, Literal, TypeAlias

from keysync.config.settings import Account, Config, Credential, Discover
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
    """A set of permissions. `actions` are of Resource Manager, `data_actions` of Key Vault; a role has one kind of them.

    `policy` is what an access policy of a vault grants for the same; `for_orphans` says that only the removal of orphans needs it.
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
        "Reads subscriptions, so that Resource Graph shows one without Batch accounts.",
        ("Microsoft.Resources/subscriptions/read",),
    ),
    "read_secrets": Role(
        "read secrets",
        "Compares secrets with keys, and writes none.",
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
        "Writes keys to secrets, and recovers deleted ones.",
        data_actions=(*_READ, *_WRITE, f"{_SECRETS}recover/action"),
        policy=("get", "list", "set", "recover"),
    ),
    "see_accounts": Role(
        "see Batch accounts",
        "Tells whether a Batch account is gone, before a secret of it is removed.",
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
        "Deletes secrets whose account is gone; they can be recovered.",
        data_actions=(f"{_SECRETS}delete",),
        policy=("delete",),
        for_orphans=True,
    ),
}
"""Every role that there is, in the order in which they are told."""

_MORE_AND_MORE: Final[tuple[RoleKey, ...]] = ("read_secrets", "sync_secrets", "recover_secrets")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who signs in. `place` is the key of the configuration that says so first; `tenant` None where it does not say."""

    place: str
    credential: Credential

    @property
    def tenant(self) -> str | None:
        """The tenant that it is of, in lower case."""
        tenant: str | None = getattr(self.credential, "tenant_id", None)
        return tenant.lower() if tenant else None

    @property
    def client_id(self) -> str | None:
        """The application or managed identity, where the configuration names it."""
        client_id: str | None = getattr(self.credential, "client_id", None)
        return client_id

    @property
    def principal_type(self) -> PrincipalType:
        """As role assignments call it; `az login` is mostly done by a person."""
        return "User" if self.credential.type == "azure_cli" else "ServicePrincipal"


@dataclass(frozen=True, slots=True)
class Grant:
    """One role for one identity. `scope` is an ARM id, or the URL of a vault, whose ARM id no configuration knows."""

    identity: Identity
    role: RoleKey
    scope: str

    @property
    def is_vault(self) -> bool:
        """Whether `scope` is the URL of a vault."""
        return not self.scope.startswith("/")


def permissions_of(config: Config) -> tuple[Grant, ...]:
    """What `config` needs, identity by identity, each role and scope once and none within another of the same role."""
    who = _Identities(config)
    batch = list(_batch_keys(config, who))
    wanted = [*batch, *_graph(config, who), *_vaults(config, who), *_proof(config, who, batch)]
    scopes: dict[tuple[Identity, RoleKey], list[str]] = {}
    for grant in wanted:
        scopes.setdefault((grant.identity, grant.role), []).append(grant.scope)
    return tuple(
        Grant(identity, role, scope)
        for identity in who.known
        for role in ROLES
        for scope in covering(scopes.get((identity, role), ()))
    )


def covering(scopes: Iterable[str]) -> tuple[str, ...]:
    """`scopes` without those that are within another or said twice, in their order; ids are compared without case."""
    spelt: dict[str, str] = {}
    for scope in scopes:
        spelt.setdefault(fold(scope), scope)
    return tuple(scope for lowered, scope in spelt.items() if not any(above in spelt for above in _above(lowered)))


def _above(scope: str) -> Iterator[str]:
    """The ids that an ARM id is within; a vault's URL is within none."""
    while scope.startswith("/") and (scope := scope.rpartition("/")[0]):
        yield scope


class _Identities:
    """Whom the configuration names: credentials that say the same are one identity."""

    def __init__(self, config: Config) -> None:
        self._general = config.credential
        self._known: dict[Credential, Identity] = {}
        self.of(None, "credential")

    def of(self, credential: Credential | None, place: str) -> Identity:
        """The identity of a credential that stands at `place`, or the general one for None."""
        wanted = credential or self._general
        return self._known.setdefault(wanted, Identity(place, wanted))

    @property
    def known(self) -> tuple[Identity, ...]:
        """All so far, the general one first."""
        return tuple(self._known.values())


def _batch_keys(config: Config, who: _Identities) -> Iterator[Grant]:
    """Read-only accounts too: their keys are compared."""
    for index, account in enumerate(config.accounts):
        yield Grant(who.of(account.credential, f"accounts[{index}].credential"), "batch_keys", account.resource_id)
    for index, entry in enumerate(config.discover):
        for scope in _listed(entry):
            yield Grant(who.of(entry.credential, f"discover[{index}].credential"), "batch_keys", scope)


def _listed(entry: Discover) -> Iterator[str]:
    for subscription in entry.scopes:
        whole = _subscription(subscription)
        yield from (
            (f"{whole}/resourceGroups/{group}" for group in entry.resource_groups)
            if entry.resource_groups
            else (whole,)
        )


def _subscription(subscription_id: str) -> str:
    return f"/subscriptions/{subscription_id}"


def _graph(config: Config, who: _Identities) -> Iterator[Grant]:
    """Resource Graph leaves out without a word what an identity may not see, so it is asked for the subscriptions too."""
    for index, entry in enumerate(config.discover):
        for subscription in entry.scopes if entry.via == "resource_graph" else ():
            identity = who.of(entry.credential, f"discover[{index}].credential")
            yield Grant(identity, "subscriptions", _subscription(subscription))


def _vaults(config: Config, who: _Identities) -> Iterator[Grant]:
    strongest: dict[tuple[Identity, str], int] = {}
    removed: list[Grant] = []
    searched = orphan_vaults(config)
    for name, vault in config.vaults.items():
        users = tuple(_users(config, name))
        if not users and name not in searched:
            continue
        identity, written = who.of(vault.credential, f"vaults.{name}.credential"), is_written(config, name)
        role = 0 if not written else 1 if config.recover == "report" else 2
        strongest[identity, vault.url] = max(role, strongest.get((identity, vault.url), 0))
        if name in searched and config.orphans != "keep" and not (config.read_only or vault.read_only):
            removed.append(Grant(identity, config.orphans, vault.url))
    for (identity, url), role in strongest.items():
        yield Grant(identity, _MORE_AND_MORE[role], url)
    # Whoever syncs secrets may disable them.
    yield from (one for one in removed if one.role == "delete" or not strongest[one.identity, one.scope])


def is_written(config: Config, vault: str) -> bool:
    """Whether keys are ever written to the vault of that name."""
    observed = config.read_only or config.vaults[vault].read_only
    return not observed and any(not user.read_only for user in _users(config, vault))


def orphan_vaults(config: Config) -> frozenset[str]:
    """The vaults that are searched for orphans: all, each by the first of its names."""
    if config.orphans == "keep":
        return frozenset()
    first: dict[str, str] = {}
    for name, vault in config.vaults.items():
        first.setdefault(vault.url, name)
    return frozenset(first.values())


def _users(config: Config, vault: str) -> Iterator[Account | Discover]:
    """What may write to a vault; a tag of an account may name any of them."""
    yield from (account for account in config.accounts if vault in account.vaults)
    yield from (entry for entry in config.discover if vault in entry.vaults or entry.vaults_by_tag is not None)


def _proof(config: Config, who: _Identities, batch: Iterable[Grant]) -> Iterator[Grant]:
    """Before an orphan goes its account is looked up and its subscription listed, also where the configuration names single accounts."""
    if config.orphans == "keep":
        return
    listing = {(grant.identity, grant.scope) for grant in batch}
    named = chain((one.subscription_id for one in config.accounts), *(entry.scopes for entry in config.discover))
    for subscription in dict.fromkeys(named):
        # The same choice as of the client that asks: a listed account's, else an entry's.
        listed = (
            (one.credential, f"accounts[{at}]")
            for at, one in enumerate(config.accounts)
            if one.subscription_id == subscription
        )
        found = (
            (one.credential, f"discover[{at}]") for at, one in enumerate(config.discover) if subscription in one.scopes
        )
        credential, place = next(chain(listed, found))
        grant = Grant(who.of(credential, f"{place}.credential"), "see_accounts", _subscription(subscription))
        if (grant.identity, grant.scope) not in listing:
            yield grant
