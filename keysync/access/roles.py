"""Role definitions and assignments for the Azure CLI, and as JSON."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from keysync.access.permissions import ROLES, Grant, Identity, Role, RoleKey, covering, permissions_of
from keysync.config.credentials import CloudMapping
from keysync.config.model import Config
from keysync.report.console import to_json

# Characters that filters of az and of Resource Manager do not need to escape. A name has at most 512 characters.
_UNSAFE_IN_NAME: Final = re.compile(r"[^0-9a-zA-Z ._()-]+")
_MAX_OWNER_LENGTH: Final = 64
_DIGEST_LENGTH: Final = 8  # hexadecimal digits
MAX_SCOPES: Final = 2000
"""The limit of assignable scopes of a role (learn.microsoft.com/azure/role-based-access-control/custom-roles)."""

# The first label of a vault's host is its name in these domains. Another host is a private name or a test double.
_VAULT_DOMAINS: Final = ("vault.azure.net", "vault.usgovcloudapi.net", "vault.azure.cn")
_POLICY_ORDER: Final = ("get", "list", "set", "recover", "delete")


@dataclass(frozen=True, slots=True)
class Principal:
    """An identity and its object id. The script reads the id from `variable` unless `object_id` is given."""

    identity: Identity
    variable: str
    object_id: str | None = None

    @property
    def description(self) -> str:
        """Its configuration key, type, client id and tenant, without anything secret."""
        known = {"client id": self.identity.client_id, "tenant": self.identity.tenant}
        details = "".join(f", {name} {value}" for name, value in known.items() if value)
        return f"{self.identity.config_key} ({self.identity.credential.type}{details})"


@dataclass(frozen=True, slots=True)
class VaultScope:
    """A vault as a scope of assignments. The script has its ARM id in `variable`.

    `names` are its names in the configuration. `azure_name` is its name in Azure, None if the URL does not contain it.
    """

    url: str
    names: tuple[str, ...]
    variable: str
    azure_name: str | None

    @property
    def find_command(self) -> tuple[str, ...] | None:
        """The command that prints its ARM id; None without `azure_name`."""
        if self.azure_name is None:
            return None
        return ("az", "keyvault", "show", "--name", self.azure_name, "--query", "id", "--output", "tsv")


@dataclass(frozen=True, slots=True)
class Definition:
    """A custom role in one tenant; None is the current tenant of az.

    It is assignable in `groups`, ARM ids of resource groups or subscriptions, and in the resource groups of `vaults`, URLs.
    """

    key: RoleKey
    name: str
    tenant: str | None
    groups: tuple[str, ...]
    vaults: tuple[str, ...]

    @property
    def role(self) -> Role:
        """Its permissions."""
        return ROLES[self.key]

    def body(self, scopes: Sequence[str]) -> dict[str, Any]:
        """The definition for `az role definition create`, assignable at `scopes`."""
        return {
            "Name": self.name,
            "IsCustom": True,
            "Description": f"keysync: {self.role.description}",
            "Actions": list(self.role.actions),
            "NotActions": [],
            "DataActions": list(self.role.data_actions),
            "NotDataActions": [],
            "AssignableScopes": list(scopes),
        }


@dataclass(frozen=True, slots=True)
class RolePlan:
    """The output of `keysync role`. `cloud` is the name of the cloud in az, None if az has no name for it."""

    cloud: str | None
    principals: tuple[Principal, ...]
    vaults: tuple[VaultScope, ...]
    definitions: tuple[Definition, ...]
    grants: tuple[Grant, ...]
    notes: tuple[str, ...]

    def principal(self, identity: Identity) -> Principal:
        """The principal of `identity`."""
        return next(principal for principal in self.principals if principal.identity == identity)

    def vault(self, url: str) -> VaultScope:
        """The vault with `url`."""
        return next(vault for vault in self.vaults if vault.url == url)

    def definition(self, grant: Grant) -> Definition:
        """The definition of the role of `grant`."""
        key = (grant.role, grant.identity.tenant)
        return next(definition for definition in self.definitions if (definition.key, definition.tenant) == key)

    def policies(self, vault: VaultScope) -> dict[Principal, tuple[str, ...]]:
        """The permissions of an access policy that replaces the roles of the vault, by principal."""
        permissions: dict[Principal, set[str]] = {}
        for grant in self.grants:
            if grant.scope == vault.url:
                permissions.setdefault(self.principal(grant.identity), set()).update(ROLES[grant.role].policy)
        return {
            principal: tuple(sorted(granted, key=_POLICY_ORDER.index)) for principal, granted in permissions.items()
        }


_CLOUDS: Final = {"public": "AzureCloud", "usgovernment": "AzureUSGovernment", "china": "AzureChinaCloud"}


def plan_roles(config: Config, object_ids: Sequence[str] = ()) -> RolePlan:
    """The roles that `config` needs. `object_ids` belong to its identities in the order of the output; they may be fewer."""
    grants = permissions_of(config)
    identities = tuple(dict.fromkeys(grant.identity for grant in grants))
    padded_ids = [*object_ids, *[None] * (len(identities) - len(object_ids))]
    principals = tuple(
        Principal(identity, f"PRINCIPAL_ID_{number}" if number > 1 else "PRINCIPAL_ID", object_id)
        for number, (identity, object_id) in enumerate(zip(identities, padded_ids, strict=True), 1)
    )
    urls = dict.fromkeys(grant.scope for grant in grants if grant.is_vault)
    vaults = tuple(_vault_scope(config, url, number) for number, url in enumerate(urls, 1))
    return RolePlan(
        cloud=None if isinstance(config.cloud, CloudMapping) else _CLOUDS[config.cloud],
        principals=principals,
        vaults=vaults,
        definitions=_definitions(config.owner, grants),
        grants=grants,
        notes=tuple(_notes(config, grants)),
    )


# The rule of Key Vault for names. A name that matches is no option of az.
_VAULT_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{1,22}[A-Za-z0-9]")


def _vault_scope(config: Config, url: str, number: int) -> VaultScope:
    names = tuple(name for name, vault in config.vaults.items() if vault.url == url)
    label, _, domain = urlsplit(url).netloc.partition(".")
    azure_name = label if domain in _VAULT_DOMAINS and _VAULT_NAME.fullmatch(label) else None
    return VaultScope(url, names, f"VAULT_ID_{number}", azure_name)


def _definitions(owner: str | None, grants: Sequence[Grant]) -> tuple[Definition, ...]:
    tenants = sorted({grant.identity.tenant for grant in grants}, key=lambda tenant: tenant or "")
    definitions: list[Definition] = []
    for tenant in tenants:
        for key in ROLES:
            scopes = [grant.scope for grant in grants if (grant.role, grant.identity.tenant) == (key, tenant)]
            if scopes:
                vaults = tuple(dict.fromkeys(scope for scope in scopes if not scope.startswith("/")))
                groups = _assignable(scope for scope in scopes if scope.startswith("/"))
                name = _name(ROLES[key].title, owner, (*groups, *vaults), tenant if len(tenants) > 1 else None)
                definitions.append(Definition(key, name, tenant, groups, vaults))
    return tuple(definitions)


def _assignable(scopes: Iterable[str]) -> tuple[str, ...]:
    """The resource groups or subscriptions of ARM ids, since a role is not assignable at a single resource."""
    groups = covering(scope.partition("/providers/")[0] for scope in scopes)
    if len(groups) <= MAX_SCOPES:
        return groups
    return covering("/".join(group.split("/")[:3]) for group in groups)


def _name(title: str, owner: str | None, scopes: Iterable[str], tenant: str | None) -> str:
    """A name that no role of another installation has. It contains the owner, or else a digest of the scopes.

    Names are unique in a tenant. Two installations that share a name would overwrite each other's scopes.
    """
    if owner is None:
        suffixes = [_digest("\n".join(sorted(scope.lower() for scope in scopes)))]
    else:
        plain = _UNSAFE_IN_NAME.sub("-", owner)[:_MAX_OWNER_LENGTH].strip()
        suffixes = [plain] if plain == owner else [plain, _digest(owner)]
    suffixes += [f"tenant {tenant}"] if tenant else []
    return f"keysync {title} ({' '.join(suffix for suffix in suffixes if suffix)})"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]


def _notes(config: Config, grants: Sequence[Grant]) -> Iterable[str]:
    if config.read_only:
        yield "`read_only` is set: no role here lets keysync write."
    if config.owner is None:
        yield "Without `owner` the names of the roles depend on their scopes. Set `owner` to keep the names."
    if config.discover:
        yield (
            "`discover` lists accounts, so its roles apply to every Batch account of the resource group or subscription, "
            "including accounts that its filters exclude."
        )
    if any(grant.role == "see_accounts" for grant in grants):
        yield (
            "keysync keeps an orphan whose subscription is no longer in the configuration, until the identity may read Batch "
            "accounts there."
        )
    if any(grant.is_vault for grant in grants):
        yield "A role has an effect only on a vault with Azure RBAC. On a vault with access policies, use an access policy instead."


def to_dict(plan: RolePlan) -> dict[str, Any]:
    """The JSON of `keysync role --output json`. The resource group of a vault is not known; a text in braces replaces it."""
    return {
        "cloud": plan.cloud,
        "identities": [_identity(principal) for principal in plan.principals],
        "vaults": [_vault(plan, vault) for vault in plan.vaults],
        "roles": [_role(definition) for definition in plan.definitions],
        "assignments": [_assignment(plan, grant) for grant in plan.grants],
        "notes": list(plan.notes),
    }


def render_json(plan: RolePlan) -> str:
    """The JSON as text that ends with a newline."""
    return to_json(to_dict(plan)) + "\n"


def _identity(principal: Principal) -> Mapping[str, Any]:
    identity = principal.identity
    return {
        "identity": identity.config_key,
        "type": identity.credential.type,
        "client_id": identity.client_id,
        "tenant_id": identity.tenant,
        "principal_id": principal.object_id,
        "principal_type": identity.principal_type,
    }


def _vault(plan: RolePlan, vault: VaultScope) -> Mapping[str, Any]:
    policies = [
        {"identity": principal.identity.config_key, "secret_permissions": list(granted)}
        for principal, granted in plan.policies(vault).items()
    ]
    return {
        "vaults": list(vault.names),
        "url": vault.url,
        "find_id": list(vault.find_command) if vault.find_command else None,
        "or_access_policies": policies,
    }


def _role(definition: Definition) -> Mapping[str, Any]:
    unknown = [f"{{resource group of {url}}}" for url in definition.vaults]
    return {
        "role": definition.name,
        "tenant_id": definition.tenant,
        "only_for_orphans": definition.role.for_orphans,
        "definition": definition.body([*definition.groups, *unknown]),
    }


def _assignment(plan: RolePlan, grant: Grant) -> Mapping[str, Any]:
    return {
        "identity": grant.identity.config_key,
        "role": plan.definition(grant).name,
        "scope": None if grant.is_vault else grant.scope,
        "vault": grant.scope if grant.is_vault else None,
    }
