"""The JSON of role definitions, role assignments and deny assignments in requests and replies."""

from __future__ import annotations

from datetime import UTC, datetime

from keysync.emulator.roles import AUTHORIZATION, DenyAssignment, Permissions, RoleAssignment, RoleDefinition
from keysync.emulator.wire import Json, as_list, as_object

_LISTS = ("actions", "notActions", "dataActions", "notDataActions")


def definition_body(role: RoleDefinition, subscription: str) -> Json:
    """A role as the listing of a scope in `subscription` shows it; without one its id has no subscription."""
    return {
        "properties": {
            "roleName": role.name,
            "type": "BuiltInRole" if role.built_in else "CustomRole",
            "description": role.description,
            "assignableScopes": role.assignable_scopes,
            "permissions": [_permissions_body(each) for each in role.permissions],
            **_history(role.created, role.updated, role.created_by),
        },
        "id": definition_id(role.role_id, subscription),
        "type": f"{AUTHORIZATION}/roleDefinitions",
        "name": role.role_id,
    }


def definition_id(role_id: str, subscription: str) -> str:
    """ARM id of a role. Each subscription has its own id of the same role."""
    prefix = f"/subscriptions/{subscription}" if subscription else ""
    return f"{prefix}/providers/{AUTHORIZATION}/roleDefinitions/{role_id}"


def assignment_body(assignment: RoleAssignment) -> Json:
    """A role assignment."""
    parts = assignment.scope.split("/")
    return {
        "properties": {
            "roleDefinitionId": definition_id(assignment.role_id, parts[2] if len(parts) > 2 else ""),
            "principalId": assignment.principal_id,
            "principalType": assignment.principal_type,
            "scope": assignment.scope,
            "condition": assignment.condition,
            "conditionVersion": None if assignment.condition is None else "2.0",
            **_history(assignment.created, assignment.created, assignment.created_by),
            "delegatedManagedIdentityResourceId": None,
            "description": assignment.description,
        },
        "id": assignment.id,
        "type": f"{AUTHORIZATION}/roleAssignments",
        "name": assignment.assignment_id,
    }


def denial_body(denial: DenyAssignment) -> Json:
    """A deny assignment."""
    everyone = {"id": "00000000-0000-0000-0000-000000000000", "type": "SystemDefined"}
    principals = [{"id": each} for each in sorted(denial.principals)] or [everyone]
    return {
        "properties": {
            "denyAssignmentName": denial.name,
            "permissions": [_permissions_body(denial.permissions)],
            "scope": denial.scope,
            "doNotApplyToChildScopes": False,
            "principals": principals,
            "excludePrincipals": [{"id": each} for each in sorted(denial.excluded)],
            "isSystemProtected": True,
        },
        "id": f"{denial.scope.rstrip('/')}/providers/{AUTHORIZATION}/denyAssignments/{denial.deny_id}",
        "type": f"{AUTHORIZATION}/denyAssignments",
        "name": denial.deny_id,
    }


def parse_definition(role_id: str, body: Json) -> RoleDefinition | None:
    """The role in a request, None if the request has not the right form."""
    properties = as_object(body.get("properties")) or {}
    name, scopes = properties.get("roleName"), _texts(properties.get("assignableScopes"))
    permissions = [_parse_permissions(as_object(each)) for each in as_list(properties.get("permissions")) or []]
    if not isinstance(name, str) or not name or not scopes or not permissions or None in permissions:
        return None
    complete = [each for each in permissions if each is not None]
    return RoleDefinition(role_id.lower(), name, str(properties.get("description") or ""), complete, scopes)


def _parse_permissions(content: Json | None) -> Permissions | None:
    lists = [_texts((content or {}).get(name) or []) for name in _LISTS]
    if content is None or any(each is None for each in lists):
        return None
    return Permissions(*(tuple(each or ()) for each in lists))


def _texts(value: object) -> list[str] | None:
    """A list of texts, None for anything else."""
    items = as_list(value)
    texts = [each for each in items or [] if isinstance(each, str)]
    return None if items is None or len(texts) < len(items) else texts


def _permissions_body(permissions: Permissions) -> Json:
    lists = (permissions.actions, permissions.not_actions, permissions.data_actions, permissions.not_data_actions)
    return {name: list(each) for name, each in zip(_LISTS, lists, strict=True)}


def _history(created: float, updated: float, author: str) -> Json:
    times = {"createdOn": created, "updatedOn": updated}
    written: Json = {
        name: f"{datetime.fromtimestamp(when, UTC):%Y-%m-%dT%H:%M:%S.%f}0Z" for name, when in times.items()
    }
    return {**written, "createdBy": author or None, "updatedBy": author or None}
