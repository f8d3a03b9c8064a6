"""Roles as a shell script that a person reads and `sh` runs. All that comes from the configuration is quoted."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator
from itertools import groupby
from textwrap import wrap
from typing import Final

from keysync import __version__
from keysync.access.permissions import Grant
from keysync.access.roles import Definition, Principal, RolePlan, VaultPlace

_WIDTH: Final = 120
_HEAD: Final = """\
#!/bin/sh
# What keysync is to be allowed, as its configuration needs it and no more; printed by `keysync role`, version {version}.
#
# To do it: az has to be signed in as somebody who may write role definitions and role assignments at these scopes (Owner or
# User Access Administrator). Run again, it brings definitions up to date and leaves assignments that are there as they are;
# it takes nothing away that an earlier configuration needed. A new assignment takes minutes to be felt.
set -eu
"""
_FUNCTIONS: Final = """\
errors=$(mktemp)
trap 'rm -f "$errors"' EXIT

# define DEFINITION: brings the role of that name up to date, or makes it; prints its id.
define() {
    az role definition update --role-definition "$1" --query id --output tsv 2>"$errors" ||
        az role definition create --role-definition "$1" --query id --output tsv ||
        { cat "$errors" >&2; return 1; }
}

# assign PRINCIPAL TYPE ROLE SCOPE: tried for a minute, since a role that was just made is not known everywhere at once.
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
    """The script, for any POSIX shell; it takes PRINCIPAL_ID from the environment unless the plan has an object id."""
    tenants = list(dict.fromkeys(definition.tenant for definition in plan.definitions))
    asked = [one for one in plan.principals if not _is_found(one)]
    parts = [_HEAD.format(version=__version__), *_notes(plan), *_cloud(plan), *map(_principal, asked), _FUNCTIONS]
    for tenant in tenants:
        parts += [_tenant(tenant)] if len(tenants) > 1 and tenant else []
        # A service principal and a vault are found only by somebody who is in their tenant.
        parts += [_principal(one) for one in plan.principals if _is_found(one) and one.identity.tenant == tenant]
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
        yield _comment(
            "The cloud is one that az has no name for: it has to be registered, set and signed in to before this."
        )
    elif plan.cloud != "AzureCloud":
        yield f"az cloud set --name {plan.cloud}\n"


def _is_found(principal: Principal) -> bool:
    """Whether az can tell the object id by what the configuration says."""
    return principal.object_id is None and principal.identity.client_id is not None


def _principal(principal: Principal) -> str:
    name, identity = principal.variable, principal.identity
    kind = "the user" if identity.principal_type == "User" else "its service principal"
    text = _comment(f"Who: {principal.told}. {name} is the object id of {kind}.")
    if principal.object_id is not None:
        return f"{text}{name}={shlex.quote(principal.object_id)}\n"
    if identity.client_id is not None:
        find = f"az ad sp show --id {shlex.quote(identity.client_id)} --query id --output tsv"
        return f'{text}{name}="${{{name}:-$({find})}}"\n'
    return f'{text}: "${{{name}:?set it to the object id of the identity that {identity.place} means}}"\n'


def _tenant(tenant: str) -> str:
    # The quotes belong to the query; a tenant's id has none in it.
    query = f"[?tenantId=='{tenant}' || tenantDefaultDomain=='{tenant}'] | [0].id"
    find = _CURRENT.format(query=shlex.quote(query))
    return (
        _comment(f"In the tenant {tenant}, to which az has to be signed in as well.")
        + f'az account set --subscription "$({find})"\n'
    )


def _vault(plan: RolePlan, vault: VaultPlace) -> str:
    name, names = vault.variable, ", ".join(vault.names)
    if vault.find is not None:
        told = f"Where: the vault {names}, {vault.url}. It is looked for in the subscription that az is in; else set {name} to its ARM id."
        text = (
            _comment(told)
            + f'{name}="${{{name}:-$({shlex.join(vault.find)})}}"\n: "${{{name}:?was not found: set it to the ARM id of the vault}}"\n'
        )
    else:
        told = (
            f"Where: the vault {names}, {vault.url}, whose name in Azure this URL does not tell. {name} is its ARM id."
        )
        text = _comment(told) + f': "${{{name}:?is to be the ARM id of the vault}}"\n'
    if vault.azure_name is None:
        return text
    text += _comment("If it has access policies in place of roles, then instead of its assignments below:")
    for principal, granted in plan.policies(vault).items():
        command = ["az", "keyvault", "set-policy", "--name", vault.azure_name, "--object-id"]
        text += f'#   {shlex.join(command)} "${principal.variable}" --secret-permissions {" ".join(granted)}\n'
    return text


def _roles(plan: RolePlan, tenant: str | None, grants: Iterable[Grant], *, orphans: bool) -> Iterator[str]:
    definitions = [one for one in plan.definitions if one.tenant == tenant and one.role.for_orphans == orphans]
    if orphans and definitions:
        yield _comment("Only for the removal of orphans (`orphans` in the configuration):")
    for definition in definitions:
        yield f"# {definition.role.description}\n{definition.key}=$(define {_body(plan, definition)})\n"
    wanted = [grant for grant in grants if plan.definition(grant) in definitions]
    for identity, theirs in groupby(wanted, key=lambda grant: grant.identity):
        principal = plan.principal(identity)
        yield "".join(_assignment(plan, principal, grant) for grant in theirs)


def _body(plan: RolePlan, definition: Definition) -> str:
    """The definition as one word of the shell: quoted text, and in between what only the shell knows."""
    marks = {f"\0{number}\0": plan.vault(url).variable for number, url in enumerate(definition.vaults)}
    text = json.dumps(definition.body([*definition.groups, *marks]), indent=2, ensure_ascii=False)
    word = shlex.quote(text)
    for mark, variable in marks.items():
        # The resource group of a vault is what stands before the provider in its id.
        word = word.replace(json.dumps(mark)[1:-1], f"'\"${{{variable}%%/providers/*}}\"'")
    return word


def _assignment(plan: RolePlan, principal: Principal, grant: Grant) -> str:
    scope = f'"${plan.vault(grant.scope).variable}"' if grant.is_vault else shlex.quote(grant.scope)
    who = f'"${principal.variable}" {grant.identity.principal_type}'
    return f'assign {who} "${plan.definition(grant).key}" {scope}\n'
