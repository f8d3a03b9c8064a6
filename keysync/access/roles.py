"""Role definitions and assignments for the Azure CLI, and as JSON."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final
from urllib.parse import urlsplit

from keysync.access.permissions import ROLES, Grant, Identity, Role, RoleKey, covering, permissions_of
from keysync.config.credentials import CloudMapping
from keysync.config.model import Config
from keysync.report.console import to_json

# Characters that filters of az and of Resource Manager do not need to escape. A name has at most 512 characters.
_UNSAFE_IN_NAME: Final = re.compile(r"[^0-9a-zA-Z ._()-]+")
_MAX_OWNER_LENGTH: Final = 64
MAX_SCOPES: Final = 2000
"""The limit of assignable scopes of a role (learn.microsoft.com/azure/role-based-access-control/custom-roles)."""

# The first label of a vault's host is its name in these domains. Another host is a private name or a test double.
_VAULT_DOMAINS: Final = ("vault.azure.net", "vault.usgovcloudapi.net", "vault.azure.cn")
# The rule of Key Vault for names. A name that matches is no option of az.
_VAULT_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{1,22}[A-Za-z0-9]")
_CLOUDS: Final = {"public": "AzureCloud", "usgovernment": "AzureUSGovernment", "china": "AzureChinaCloud"}


@dataclass(frozen=True, slots=True)
class Principal:
    """An identity and its object id. The script reads the id from `variable` unless `object_id` is given."""

    identity: Identity
    variable: str
    object_id: str | None = None


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
    """The output of `keysync role`. `cloud` is the name of the cloud in az, None if az has no name for it.

    `vaults` are by URL, `definitions` by role and tenant.
    """

    cloud: str | None
    principals: Mapping[Identity, Principal]
    vaults: Mapping[str, VaultScope]
    definitions: Mapping[tuple[RoleKey, str | None], Definition]
    grants: tuple[Grant, ...]
    notes: tuple[str, ...]

    def definition(self, grant: Grant) -> Definition:
        """The definition of the role of `grant`."""
        return self.definitions[grant.role, grant.identity.tenant]


def plan_roles(config: Config, object_ids: Sequence[str] = ()) -> RolePlan:
    """The roles that `config` needs. `object_ids` belong to its identities in the order of the output; they may be fewer."""
    grants = permissions_of(config)
    principals: dict[Identity, Principal] = {}
    for number, identity in enumerate(dict.fromkeys(grant.identity for grant in grants)):
        variable = f"PRINCIPAL_ID_{number + 1}" if number else "PRINCIPAL_ID"
        principals[identity] = Principal(identity, variable, object_ids[number] if number < len(object_ids) else None)
    vaults: dict[str, VaultScope] = {}
    for number, url in enumerate(dict.fromkeys(grant.scope for grant in grants if grant.is_vault), 1):
        names = tuple(name for name, vault in config.vaults.items() if vault.url == url)
        label, _, domain = urlsplit(url).netloc.partition(".")
        azure_name = label if domain in _VAULT_DOMAINS and _VAULT_NAME.fullmatch(label) else None
        vaults[url] = VaultScope(url, names, f"VAULT_ID_{number}", azure_name)
    return RolePlan(
        cloud=None if isinstance(config.cloud, CloudMapping) else _CLOUDS[config.cloud],
        principals=principals,
        vaults=vaults,
        definitions={(each.key, each.tenant): each for each in _definitions(config.owner, grants)},
        grants=grants,
        notes=_notes(config, grants),
    )


def _definitions(owner: str | None, grants: Sequence[Grant]) -> Iterator[Definition]:
    tenants = sorted({grant.identity.tenant for grant in grants}, key=lambda tenant: tenant or "")
    for tenant, key in product(tenants, ROLES):
        scopes = [grant.scope for grant in grants if (grant.role, grant.identity.tenant) == (key, tenant)]
        if scopes:
            vaults = tuple(dict.fromkeys(scope for scope in scopes if not scope.startswith("/")))
            groups = _assignable(scope for scope in scopes if scope.startswith("/"))
            name = _name(ROLES[key].title, owner, (*groups, *vaults), tenant if len(tenants) > 1 else None)
            yield Definition(key, name, tenant, groups, vaults)


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
    plain = _UNSAFE_IN_NAME.sub("-", owner or "")[:_MAX_OWNER_LENGTH].strip()
    unique = "\n".join(sorted(scope.lower() for scope in scopes)) if owner is None else owner
    digest = "" if plain == owner else hashlib.sha256(unique.encode()).hexdigest()[:8]
    return f"keysync {title} ({' '.join(filter(None, (plain, digest, tenant and f'tenant {tenant}')))})"


def _notes(config: Config, grants: Sequence[Grant]) -> tuple[str, ...]:
    notes = {
        "`read_only` is set: no role here lets keysync write.": config.read_only,
        "Without `owner` the names of the roles depend on their scopes. Set `owner` to keep the names.": config.owner
        is None,
        "`discover` lists accounts, so its roles apply to every Batch account of the resource group or subscription, including "
        "accounts that its filters exclude.": config.discover,
        "keysync keeps an orphan whose subscription is no longer in the configuration, until the identity may read Batch accounts "
        "there.": any(grant.role == "see_accounts" for grant in grants),
        "A role has an effect only on a vault with Azure RBAC. On a vault with access policies, use `az keyvault set-policy` with "
        "the secret permissions that are named for the role instead.": any(grant.is_vault for grant in grants),
    }
    return tuple(note for note, applies in notes.items() if applies)


def render_json(plan: RolePlan) -> str:
    """The JSON of `keysync role --output json`. The resource group of a vault is not known; a text in braces replaces it."""
    document = {
        "cloud": plan.cloud,
        "identities": [
            {
                "identity": identity.config_key,
                "type": identity.credential.type,
                "client_id": identity.client_id,
                "tenant_id": identity.tenant,
                "principal_id": principal.object_id,
                "principal_type": identity.principal_type,
            }
            for identity, principal in plan.principals.items()
        ],
        "vaults": [
            {"vaults": vault.names, "url": url, "find_id": vault.find_command} for url, vault in plan.vaults.items()
        ],
        "roles": [
            {
                "role": each.name,
                "tenant_id": each.tenant,
                "only_for_orphans": each.role.for_orphans,
                "definition": each.body([*each.groups, *(f"{{resource group of {url}}}" for url in each.vaults)]),
                "or_secret_permissions": each.role.policy.split(),
            }
            for each in plan.definitions.values()
        ],
        "assignments": [
            {
                "identity": grant.identity.config_key,
                "role": plan.definition(grant).name,
                "scope": None if grant.is_vault else grant.scope,
                "vault": grant.scope if grant.is_vault else None,
            }
            for grant in plan.grants
        ],
        "notes": plan.notes,
    }
    return to_json(document) + "\n"
