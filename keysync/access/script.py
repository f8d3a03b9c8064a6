"""The roles as a script for a POSIX shell, to review and run. All values from the configuration are quoted."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator
from itertools import groupby
from textwrap import wrap
from typing import Final

from keysync import __version__
from keysync.access.permissions import Grant
from keysync.access.roles import Definition, Principal, RolePlan, VaultScope

_WIDTH: Final = 120
_HEAD: Final = """\
#!/bin/sh
# Creates the least-privilege roles and assignments of a keysync configuration; printed by `keysync role`, version {version}.
#
# Sign in with az as an identity that may write role definitions and role assignments at these scopes (Owner or User Access
# Administrator). Run the script again to update the definitions; existing assignments stay. It removes nothing that an
# earlier configuration needed. A new assignment takes effect after some minutes.
set -eu
"""
_FUNCTIONS: Final = """\
errors=$(mktemp)
trap 'rm -f "$errors"' EXIT

# define DEFINITION: updates or creates the role of that name; prints its id.
define() {
    az role definition update --role-definition "$1" --query id --output tsv 2>"$errors" ||
        az role definition create --role-definition "$1" --query id --output tsv ||
        { cat "$errors" >&2; return 1; }
}

# assign PRINCIPAL TYPE ROLE SCOPE: retries for a minute, since Azure needs time to publish a new role.
assign() {
    tries=5
    until az role assignment create --assignee-object-id "$1" --assignee-principal-type "$2" \\
        --role "$3" --scope "$4" --output none; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep "${PAUSE:-15}"
    done
}
"""
_CURRENT: Final = "az account list --query {query} --output tsv"


def render_script(plan: RolePlan) -> str:
    """The script. It reads PRINCIPAL_ID from the environment unless the plan has an object id."""
    tenants = list(dict.fromkeys(definition.tenant for definition in plan.definitions))
    given = [principal for principal in plan.principals if not _is_looked_up(principal)]
    parts = [_HEAD.format(version=__version__), *_notes(plan), *_cloud(plan), *map(_principal, given), _FUNCTIONS]
    for tenant in tenants:
        parts += [_tenant(tenant)] if len(tenants) > 1 and tenant else []
        # az finds service principals and vaults only in the tenant that it is signed in to.
        looked_up = [principal for principal in plan.principals if _is_looked_up(principal)]
        parts += [_principal(principal) for principal in looked_up if principal.identity.tenant == tenant]
        grants = [grant for grant in plan.grants if grant.identity.tenant == tenant]
        parts += [_vault(plan, vault) for vault in plan.vaults if any(grant.scope == vault.url for grant in grants)]
        for orphans in (False, True):
            parts += _roles(plan, tenant, grants, orphans=orphans)
    return "\n".join(parts)


def _comment(text: str) -> str:
    lines = wrap(text, _WIDTH - 2, break_on_hyphens=False, break_long_words=False)
    return "".join(f"# {line}\n" for line in lines)


def _notes(plan: RolePlan) -> Iterator[str]:
    if plan.notes:
        yield "".join(_comment(note) for note in plan.notes)


def _cloud(plan: RolePlan) -> Iterator[str]:
    if plan.cloud is None:
        yield _comment("az has no name for this cloud. First register it, set it and sign in to it.")
    elif plan.cloud != "AzureCloud":
        yield f"az cloud set --name {plan.cloud}\n"


def _is_looked_up(principal: Principal) -> bool:
    """Whether az can look up the object id by the client id."""
    return principal.object_id is None and principal.identity.client_id is not None


def _principal(principal: Principal) -> str:
    name, identity = principal.variable, principal.identity
    kind = "the user" if identity.principal_type == "User" else "its service principal"
    text = _comment(f"Identity: {principal.description}. {name} is the object id of {kind}.")
    if principal.object_id is not None:
        return f"{text}{name}={shlex.quote(principal.object_id)}\n"
    if identity.client_id is not None:
        find = f"az ad sp show --id {shlex.quote(identity.client_id)} --query id --output tsv"
        return f'{text}{name}="${{{name}:-$({find})}}"\n'
    return f'{text}: "${{{name}:?set it to the object id of the identity at {identity.config_key}}}"\n'


def _tenant(tenant: str) -> str:
    # The quotes belong to the query; a tenant id contains none.
    query = f"[?tenantId=='{tenant}' || tenantDefaultDomain=='{tenant}'] | [0].id"
    find = _CURRENT.format(query=shlex.quote(query))
    return (
        _comment(f"Tenant {tenant}. az must be signed in to it too.") + f'az account set --subscription "$({find})"\n'
    )


def _vault(plan: RolePlan, vault: VaultScope) -> str:
    name, names = vault.variable, ", ".join(vault.names)
    if vault.find_command is not None:
        text = _comment(
            f"Vault: {names}, {vault.url}. az looks for it in its current subscription; else set {name} to its ARM id."
        )
        text += f'{name}="${{{name}:-$({shlex.join(vault.find_command)})}}"\n'
        text += f': "${{{name}:?was not found: set it to the ARM id of the vault}}"\n'
    else:
        text = _comment(f"Vault: {names}, {vault.url}. The URL has no name that az knows. {name} is its ARM id.")
        text += f': "${{{name}:?set it to the ARM id of the vault}}"\n'
    return text + _access_policies(plan, vault)


def _access_policies(plan: RolePlan, vault: VaultScope) -> str:
    if vault.azure_name is None:
        return ""
    text = _comment("If the vault has access policies instead of Azure RBAC, replace its assignments below by:")
    for principal, permissions in plan.policies(vault).items():
        command = ["az", "keyvault", "set-policy", "--name", vault.azure_name, "--object-id"]
        text += f'#   {shlex.join(command)} "${principal.variable}" --secret-permissions {" ".join(permissions)}\n'
    return text


def _roles(plan: RolePlan, tenant: str | None, grants: Iterable[Grant], *, orphans: bool) -> Iterator[str]:
    of_tenant = (definition for definition in plan.definitions if definition.tenant == tenant)
    definitions = [definition for definition in of_tenant if definition.role.for_orphans == orphans]
    if orphans and definitions:
        yield _comment("Only for the removal of orphans (`orphans` in the configuration).")
    for definition in definitions:
        yield f"# {definition.role.description}\n{definition.key}=$(define {_body(plan, definition)})\n"
    matching = [grant for grant in grants if plan.definition(grant) in definitions]
    for identity, identity_grants in groupby(matching, key=lambda grant: grant.identity):
        principal = plan.principal(identity)
        yield "".join(_assignment(plan, principal, grant) for grant in identity_grants)


def _body(plan: RolePlan, definition: Definition) -> str:
    """The definition as one word of the shell: quoted text with variables for the resource groups of vaults."""
    placeholders = {f"\0{number}\0": plan.vault(url).variable for number, url in enumerate(definition.vaults)}
    text = json.dumps(definition.body([*definition.groups, *placeholders]), indent=2, ensure_ascii=False)
    word = shlex.quote(text)
    for placeholder, variable in placeholders.items():
        # The id of the resource group is the part of the vault's id before the provider.
        word = word.replace(json.dumps(placeholder)[1:-1], f"'\"${{{variable}%%/providers/*}}\"'")
    return word


def _assignment(plan: RolePlan, principal: Principal, grant: Grant) -> str:
    scope = f'"${plan.vault(grant.scope).variable}"' if grant.is_vault else shlex.quote(grant.scope)
    assignee = f'"${principal.variable}" {grant.identity.principal_type}'
    return f'assign {assignee} "${plan.definition(grant).key}" {scope}\n'
