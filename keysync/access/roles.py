"""Role definitions and assignments as Azure's own command line takes them, and as JSON."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from keysync.access.permissions import ROLES, Grant, Identity, Role, RoleKey, covering, permissions_of
from keysync.config.settings import CloudMapping, Config
from keysync.report.console import to_json

# What a filter of az and of Resource Manager takes without harm; a name has 512 characters at most.
_NAME_REFUSED: Final = re.compile(r"[^0-9a-zA-Z ._()-]+")
_LONGEST_OWNER: Final = 64
_MARK: Final = 8  # hexadecimal digits
MOST_SCOPES: Final = 2000
"""Assignable scopes that a role may have (learn.microsoft.com/azure/role-based-access-control/custom-roles)."""

# Names of vaults are labels of a domain of their cloud; another host is a private name, or a test double.
_VAULT_DOMAINS: Final = ("vault.azure.net", "vault.usgovcloudapi.net", "vault.azure.cn")
_POLICY_ORDER: Final = ("get", "list", "set", "recover", "delete")


@dataclass(frozen=True, slots=True)
class Principal:
    """An identity with what is known of it: `variable` of the script holds its object id, unless `object_id` is given."""

    identity: Identity
    variable: str
    object_id: str | None = None

    @property
    def told(self) -> str:
        """Which one it is, without anything secret."""
        known = {"client id": self.identity.client_id, "tenant": self.identity.tenant}
        more = "".join(f", {name} {value}" for name, value in known.items() if value)
        return f"{self.identity.place} ({self.identity.credential.type}{more})"


@dataclass(frozen=True, slots=True)
class VaultPlace:
    """A vault. `variable` of the script holds its ARM id; `azure_name` is None where the URL does not tell it."""

    url: str
    names: tuple[str, ...]
    variable: str
    azure_name: str | None

    @property
    def find(self) -> tuple[str, ...] | None:
        """The command that prints its ARM id."""
        if self.azure_name is None:
            return None
        return ("az", "keyvault", "show", "--name", self.azure_name, "--query", "id", "--output", "tsv")


@dataclass(frozen=True, slots=True)
class Definition:
    """A custom role in one tenant (None: the one that az is in). `groups` are ARM ids, `vaults` URLs whose groups count too."""

    key: RoleKey
    name: str
    tenant: str | None
    groups: tuple[str, ...]
    vaults: tuple[str, ...]

    @property
    def role(self) -> Role:
        """What it permits."""
        return ROLES[self.key]

    def body(self, scopes: Sequence[str]) -> dict[str, Any]:
        """The definition as `az role definition create` takes it, assignable at `scopes`."""
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
    """All that `keysync role` tells. `cloud` is the name that az has for it, None for one that az does not know."""

    cloud: str | None
    principals: tuple[Principal, ...]
    vaults: tuple[VaultPlace, ...]
    definitions: tuple[Definition, ...]
    grants: tuple[Grant, ...]
    notes: tuple[str, ...]

    def principal(self, identity: Identity) -> Principal:
        """What is known of an identity."""
        return next(one for one in self.principals if one.identity == identity)

    def vault(self, url: str) -> VaultPlace:
        """What is known of a vault."""
        return next(one for one in self.vaults if one.url == url)

    def definition(self, grant: Grant) -> Definition:
        """The role of a grant."""
        wanted = (grant.role, grant.identity.tenant)
        return next(one for one in self.definitions if (one.key, one.tenant) == wanted)

    def policies(self, vault: VaultPlace) -> dict[Principal, tuple[str, ...]]:
        """What an access policy of the vault grants in place of its roles, by principal."""
        found: dict[Principal, set[str]] = {}
        for grant in self.grants:
            if grant.scope == vault.url:
                found.setdefault(self.principal(grant.identity), set()).update(ROLES[grant.role].policy)
        return {one: tuple(sorted(granted, key=_POLICY_ORDER.index)) for one, granted in found.items()}


_CLOUDS: Final = {"public": "AzureCloud", "usgovernment": "AzureUSGovernment", "china": "AzureChinaCloud"}


def plan_roles(config: Config, object_ids: Sequence[str] = ()) -> RolePlan:
    """What `config` needs; `object_ids` are of its identities, in the order in which they are told."""
    grants = permissions_of(config)
    identities = tuple(dict.fromkeys(grant.identity for grant in grants))
    principals = tuple(
        Principal(one, f"PRINCIPAL_ID_{number}" if number > 1 else "PRINCIPAL_ID", given)
        for number, (one, given) in enumerate(_padded(identities, object_ids), 1)
    )
    urls = dict.fromkeys(grant.scope for grant in grants if grant.is_vault)
    vaults = tuple(_place(config, url, number) for number, url in enumerate(urls, 1))
    return RolePlan(
        cloud=None if isinstance(config.cloud, CloudMapping) else _CLOUDS[config.cloud],
        principals=principals,
        vaults=vaults,
        definitions=_definitions(config.owner, grants),
        grants=grants,
        notes=tuple(_notes(config, grants)),
    )


def _padded(identities: Sequence[Identity], object_ids: Sequence[str]) -> Iterable[tuple[Identity, str | None]]:
    return zip(identities, [*object_ids, *[None] * (len(identities) - len(object_ids))], strict=True)


# Key Vault's own rule, so that no name is taken for an option.
_VAULT_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{1,22}[A-Za-z0-9]")


def _place(config: Config, url: str, number: int) -> VaultPlace:
    names = tuple(name for name, vault in config.vaults.items() if vault.url == url)
    label, _, domain = urlsplit(url).netloc.partition(".")
    return VaultPlace(
        url, names, f"VAULT_ID_{number}", label if domain in _VAULT_DOMAINS and _VAULT_NAME.fullmatch(label) else None
    )


def _definitions(owner: str | None, grants: Sequence[Grant]) -> tuple[Definition, ...]:
    tenants = sorted({grant.identity.tenant for grant in grants}, key=lambda tenant: tenant or "")
    found = []
    for tenant in tenants:
        for key in ROLES:
            scopes = [grant.scope for grant in grants if (grant.role, grant.identity.tenant) == (key, tenant)]
            if scopes:
                vaults = tuple(dict.fromkeys(scope for scope in scopes if not scope.startswith("/")))
                groups = _assignable(scope for scope in scopes if scope.startswith("/"))
                name = _name(ROLES[key].title, owner, (*groups, *vaults), tenant if len(tenants) > 1 else None)
                found.append(Definition(key, name, tenant, groups, vaults))
    return tuple(found)


def _assignable(scopes: Iterable[str]) -> tuple[str, ...]:
    """Groups and subscriptions for ARM ids: a role cannot be made for a single resource."""
    groups = covering(scope.partition("/providers/")[0] for scope in scopes)
    if len(groups) <= MOST_SCOPES:
        return groups
    return covering("/".join(group.split("/")[:3]) for group in groups)


def _name(title: str, owner: str | None, scopes: Iterable[str], tenant: str | None) -> str:
    """A name that no other installation's role has: by its owner, else by what the role is for.

    Names are unique in a tenant, and making a role anew under the name of another's would take that one's scopes away.
    """
    if owner is None:
        marks = [_digest("\n".join(sorted(scope.lower() for scope in scopes)))]
    else:
        plain = _NAME_REFUSED.sub("-", owner)[:_LONGEST_OWNER].strip()
        marks = [plain] if plain == owner else [plain, _digest(owner)]
    marks += [f"tenant {tenant}"] if tenant else []
    return f"keysync {title} ({' '.join(mark for mark in marks if mark)})"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_MARK]


def _notes(config: Config, grants: Sequence[Grant]) -> Iterable[str]:
    if config.read_only:
        yield "read_only is in force: nothing here lets keysync write."
    if config.owner is None:
        yield "There is no `owner`: the names of the roles change with what they are for. Set one to keep them."
    if config.discover:
        yield (
            "`discover` finds accounts by listing: its roles hold for every Batch account of the group or subscription, also "
            "for those that its filters leave out."
        )
    if any(grant.role == "see_accounts" for grant in grants):
        yield (
            "An orphan whose subscription the configuration no longer names stays until the identity may see Batch accounts there "
            "too."
        )
    if any(grant.is_vault for grant in grants):
        yield "A role counts on a vault that takes roles (Azure RBAC). On one that takes access policies, a policy grants the same."


def to_dict(plan: RolePlan) -> dict[str, Any]:
    """The JSON of `keysync role --output json`. In braces stands what the configuration does not say: a vault's group."""
    return {
        "cloud": plan.cloud,
        "identities": [_identity(one) for one in plan.principals],
        "vaults": [_vault(plan, one) for one in plan.vaults],
        "roles": [_role(one) for one in plan.definitions],
        "assignments": [_assignment(plan, one) for one in plan.grants],
        "notes": list(plan.notes),
    }


def render(plan: RolePlan) -> str:
    """The JSON as text, with a newline at its end."""
    return to_json(to_dict(plan)) + "\n"


def _identity(principal: Principal) -> Mapping[str, Any]:
    identity = principal.identity
    return {
        "identity": identity.place,
        "type": identity.credential.type,
        "client_id": identity.client_id,
        "tenant_id": identity.tenant,
        "principal_id": principal.object_id,
        "principal_type": identity.principal_type,
    }


def _vault(plan: RolePlan, vault: VaultPlace) -> Mapping[str, Any]:
    policies = [
        {"identity": principal.identity.place, "secret_permissions": list(granted)}
        for principal, granted in plan.policies(vault).items()
    ]
    return {
        "vaults": list(vault.names),
        "url": vault.url,
        "find_id": list(vault.find) if vault.find else None,
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
        "identity": grant.identity.place,
        "role": plan.definition(grant).name,
        "scope": None if grant.is_vault else grant.scope,
        "vault": grant.scope if grant.is_vault else None,
    }
