"""The roles as a script for a POSIX shell, to review and run. All values from the configuration are quoted."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
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


def render_script(plan: RolePlan) -> str:
    """The script. It reads PRINCIPAL_ID from the environment unless the plan has an object id."""
    tenants = list(dict.fromkeys(definition.tenant for definition in plan.definitions.values()))
    # az finds service principals and vaults only in the tenant that it is signed in to.
    looked_up = [each for each in plan.principals.values() if each.object_id is None and each.identity.client_id]
    parts = [_HEAD.format(version=__version__), *(["".join(map(_comment, plan.notes))] if plan.notes else [])]
    if plan.cloud is None:
        parts.append(_comment("az has no name for this cloud. First register it, set it and sign in to it."))
    elif plan.cloud != "AzureCloud":
        parts.append(f"az cloud set --name {plan.cloud}\n")
    parts += [*(_principal(each) for each in plan.principals.values() if each not in looked_up), _FUNCTIONS]
    for tenant in tenants:
        parts += [_tenant(tenant)] if len(tenants) > 1 and tenant else []
        grants = [grant for grant in plan.grants if grant.identity.tenant == tenant]
        parts += [_principal(each) for each in looked_up if each.identity.tenant == tenant]
        parts += [_vault(vault) for vault in plan.vaults.values() if any(grant.scope == vault.url for grant in grants)]
        definitions = [each for each in plan.definitions.values() if each.tenant == tenant]
        for orphans in (False, True):
            parts += _roles(plan, [each for each in definitions if each.role.for_orphans == orphans], grants)
    return "\n".join(parts)


def _comment(text: str) -> str:
    lines = wrap(text, _WIDTH - 2, break_on_hyphens=False, break_long_words=False)
    return "".join(f"# {line}\n" for line in lines)


def _principal(principal: Principal) -> str:
    name, identity = principal.variable, principal.identity
    known = {"client id": identity.client_id, "tenant": identity.tenant}
    details = "".join(f", {name} {value}" for name, value in known.items() if value)
    kind = "the user" if identity.principal_type == "User" else "its service principal"
    text = _comment(
        f"Identity: {identity.config_key} ({identity.credential.type}{details}). {name} is the object id of {kind}."
    )
    if principal.object_id is not None:
        return f"{text}{name}={shlex.quote(principal.object_id)}\n"
    if identity.client_id is not None:
        find = f"az ad sp show --id {shlex.quote(identity.client_id)} --query id --output tsv"
        return f'{text}{name}="${{{name}:-$({find})}}"\n'
    return f'{text}: "${{{name}:?set it to the object id of the identity at {identity.config_key}}}"\n'


def _tenant(tenant: str) -> str:
    # The quotes belong to the query; a tenant id contains none.
    query = f"[?tenantId=='{tenant}' || tenantDefaultDomain=='{tenant}'] | [0].id"
    find = f"az account list --query {shlex.quote(query)} --output tsv"
    comment = _comment(f"Tenant {tenant}. az must be signed in to it too.")
    return f'{comment}az account set --subscription "$({find})"\n'


def _vault(vault: VaultScope) -> str:
    name, known = vault.variable, f"Vault: {', '.join(vault.names)}, {vault.url}."
    if vault.find_command is None:
        text = _comment(f"{known} The URL has no name that az knows. {name} is its ARM id.")
        return f'{text}: "${{{name}:?set it to the ARM id of the vault}}"\n'
    text = _comment(f"{known} az looks for it in its current subscription; else set {name} to its ARM id.")
    text += f'{name}="${{{name}:-$({shlex.join(vault.find_command)})}}"\n'
    return f'{text}: "${{{name}:?was not found: set it to the ARM id of the vault}}"\n'


def _roles(plan: RolePlan, definitions: Sequence[Definition], grants: Iterable[Grant]) -> Iterator[str]:
    if any(definition.role.for_orphans for definition in definitions):
        yield _comment("Only for the removal of orphans (`orphans` in the configuration).")
    for definition in definitions:
        role = definition.role
        policy = f" Secret permissions of an access policy instead: {role.policy}." if role.policy else ""
        # The id of a vault's resource group is the part of the vault's id before the provider: quoted text with variables.
        groups = {f"\0{number}\0": plan.vaults[url].variable for number, url in enumerate(definition.vaults)}
        body = shlex.quote(json.dumps(definition.body([*definition.groups, *groups]), indent=2, ensure_ascii=False))
        for placeholder, variable in groups.items():
            body = body.replace(json.dumps(placeholder)[1:-1], f"'\"${{{variable}%%/providers/*}}\"'")
        yield f"# {role.description}{policy}\n{definition.key}=$(define {body})\n"
    matching = [grant for grant in grants if plan.definition(grant) in definitions]
    for identity, identity_grants in groupby(matching, key=lambda grant: grant.identity):
        assignee = f'"${plan.principals[identity].variable}" {identity.principal_type}'
        lines = ""
        for grant in identity_grants:
            scope = f'"${plan.vaults[grant.scope].variable}"' if grant.is_vault else shlex.quote(grant.scope)
            lines += f'assign {assignee} "${grant.role}" {scope}\n'
        yield lines
