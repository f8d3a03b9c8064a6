"""The provider Microsoft.Authorization: role definitions, role assignments and deny assignments, which take effect.

learn.microsoft.com/rest/api/authorization. The codes of its errors are from learn.microsoft.com/azure/role-based-access-control/troubleshooting
and from public issues of az and Terraform.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar

from keysync.emulator.conditions import parse
from keysync.emulator.directory import Directory
from keysync.emulator.faults import Operation
from keysync.emulator.roles import AUTHORIZATION, RoleAssignment, RoleDefinition, Roles, is_within
from keysync.emulator.services.arm import ArmOperation, ArmRequest
from keysync.emulator.services.arm_paging import page_of
from keysync.emulator.services.gateway import Gateway
from keysync.emulator.services.role_bodies import (
    assignment_body,
    definition_body,
    denial_body,
    parse_definition,
)
from keysync.emulator.wire import Json, Refused, Reply, as_object, error, json_body

_VERSIONS = (
    "2015-05-01-preview", "2015-07-01", "2016-07-01", "2017-10-01-preview", "2018-01-01-preview", "2018-07-01-preview", "2018-07-01",
    "2018-09-01-preview", "2020-03-01-preview", "2020-04-01-preview", "2020-08-01-preview", "2020-10-01-preview", "2022-01-01-preview",
    "2022-04-01", "2022-05-01-preview", "2024-07-01-preview",
)  # fmt: skip
_OPERATIONS: dict[tuple[str, str, bool], tuple[Operation, str]] = {
    ("GET", "roledefinitions", False): ("listRoleDefinitions", "roleDefinitions/read"),
    ("GET", "roledefinitions", True): ("getRoleDefinition", "roleDefinitions/read"),
    ("PUT", "roledefinitions", True): ("setRoleDefinition", "roleDefinitions/write"),
    ("DELETE", "roledefinitions", True): ("deleteRoleDefinition", "roleDefinitions/delete"),
    ("GET", "roleassignments", False): ("listRoleAssignments", "roleAssignments/read"),
    ("GET", "roleassignments", True): ("getRoleAssignment", "roleAssignments/read"),
    ("PUT", "roleassignments", True): ("setRoleAssignment", "roleAssignments/write"),
    ("DELETE", "roleassignments", True): ("deleteRoleAssignment", "roleAssignments/delete"),
    ("GET", "denyassignments", False): ("listDenyAssignments", "denyAssignments/read"),
}
_AND = re.compile(r"\s+and\s+", re.IGNORECASE)


class Authorization:
    """The operations of Microsoft.Authorization on `roles`."""

    namespace: ClassVar[str] = AUTHORIZATION
    versions: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(
        ("roleDefinitions", "roleAssignments", "denyAssignments"), _VERSIONS
    )

    def __init__(self, roles: Roles, directory: Directory, gateway: Gateway, *, page_size: int) -> None:
        self._roles = roles
        self._directory = directory
        self._gateway = gateway
        self._page_size = page_size

    def find(self, request: ArmRequest) -> ArmOperation | None:
        """The operation that a request is for, None if there is none."""
        name = request.path[1] if len(request.path) == 2 else ""
        found = _OPERATIONS.get((request.call.method, request.words[0] if request.words else "", bool(name)))
        if found is None or len(request.path) > 2:
            return None
        handlers: dict[str, Callable[[], Reply]] = {
            "listRoleDefinitions": partial(self._list_definitions, request),
            "getRoleDefinition": partial(self._get_definition, request, name),
            "setRoleDefinition": partial(self._set_definition, request, name),
            "deleteRoleDefinition": partial(self._delete_definition, request, name),
            "listRoleAssignments": partial(self._list_assignments, request),
            "getRoleAssignment": partial(self._get_assignment, request, name),
            "setRoleAssignment": partial(self._set_assignment, request, name),
            "deleteRoleAssignment": partial(self._delete_assignment, request),
            "listDenyAssignments": partial(self._list_denials, request),
        }
        operation, action = found
        scope = request.scope_id or "/"
        return ArmOperation(operation, name or scope, handlers[operation], f"{AUTHORIZATION}/{action}", scope)

    # Definitions

    def _list_definitions(self, request: ArmRequest) -> Reply:
        found = self._roles.definitions(request.scope_id)
        for term in _terms(request):
            if match := re.fullmatch(r"roleName eq '((?:[^']|'')*)'", term, re.IGNORECASE):
                name = match[1].replace("''", "'").lower()
                found = [role for role in found if role.name.lower() == name]
            elif match := re.fullmatch(r"type eq '(\w+)'", term, re.IGNORECASE):
                found = [role for role in found if role.built_in == (match[1].lower() == "builtinrole")]
            elif term.lower() != "atscopeandbelow()":
                raise _wrong_filter(term)
        return page_of(request, found, partial(_definition_body, request), self._page_size)

    def _definition(self, role_id: str) -> RoleDefinition:
        role = self._roles.definition(role_id)
        if role is None:
            message = f"The specified role definition with ID '{role_id}' does not exist."
            raise Refused(error(404, "RoleDefinitionDoesNotExist", message))
        return role

    def _get_definition(self, request: ArmRequest, role_id: str) -> Reply:
        return Reply(200, _definition_body(request, self._definition(role_id)))

    def _set_definition(self, request: ArmRequest, role_id: str) -> Reply:
        role = parse_definition(role_id, json_body(request.call))
        existing = self._roles.definition(role_id)
        if role is None or (existing is not None and existing.built_in):
            return error(400, "BadRequestFormat", "The request was incorrectly formatted.")
        for scope in role.assignable_scopes:
            self._gateway.check_access(request.call, f"{AUTHORIZATION}/roleDefinitions/write", scope)
        if any(
            other.name.lower() == role.name.lower() and other.role_id != role.role_id
            for other in self._roles.definitions("/")
        ):
            message = "Custom role with same name already exists in this directory. Use a different name."
            return error(409, "RoleDefinitionWithSameNameExists", message)
        role.created_by = self._gateway.token(request.call).object_id
        return Reply(201, _definition_body(request, self._roles.define(role)))

    def _delete_definition(self, request: ArmRequest, role_id: str) -> Reply:
        role = self._roles.definition(role_id)
        if role is None:
            return Reply(204)
        if role.built_in:
            return error(400, "BadRequestFormat", "A built-in role cannot be deleted.")
        if any(assignment.role_id == role.role_id for assignment in self._roles.assignments()):
            message = "There are existing role assignments referencing role (code: RoleDefinitionHasAssignments)."
            return error(400, "RoleDefinitionHasAssignments", message)
        self._roles.remove_definition(role_id)
        return Reply(200, _definition_body(request, role))

    # Assignments

    def _list_assignments(self, request: ArmRequest) -> Reply:
        scope = request.scope_id
        found = [
            each for each in self._roles.assignments() if is_within(scope, each.scope) or is_within(each.scope, scope)
        ]
        for term in _terms(request):
            if term.lower() == "atscope()":
                found = [each for each in found if is_within(scope, each.scope)]
            elif match := re.fullmatch(r"(?:principalId eq |assignedTo\()'([^']*)'\)?", term, re.IGNORECASE):
                found = [each for each in found if each.principal_id.lower() == match[1].lower()]
            else:
                raise _wrong_filter(term)
        return page_of(request, found, assignment_body, self._page_size)

    def _get_assignment(self, request: ArmRequest, name: str) -> Reply:
        assignment = self._roles.assignment(request.resource_id)
        if assignment is None:
            message = f"The role assignment '{name}' is not found."
            return error(404, "RoleAssignmentNotFound", message)
        return Reply(200, assignment_body(assignment))

    def _set_assignment(self, request: ArmRequest, name: str) -> Reply:
        properties = as_object(json_body(request.call).get("properties")) or {}
        principal, role_id = properties.get("principalId"), properties.get("roleDefinitionId")
        if not isinstance(principal, str) or not isinstance(role_id, str):
            return error(400, "BadRequestFormat", "The request was incorrectly formatted.")
        role = self._definition(role_id.rpartition("/")[2])
        kind = self._principal_type(principal, properties.get("principalType"))
        condition, description = properties.get("condition"), properties.get("description")
        assignment = RoleAssignment(
            name.lower(),
            request.scope_id or "/",
            role.role_id,
            principal,
            kind,
            condition=_checked_condition(condition),
            description=None if description is None else str(description),
            created_by=self._gateway.token(request.call).object_id,
        )
        self._check_new(assignment)
        return Reply(201, assignment_body(self._roles.assign(assignment)))

    def _principal_type(self, principal: str, asked: object) -> str:
        """The type in the request; without one the principal must exist already."""
        identity = self._directory.by_object(principal)
        if identity is not None:
            return identity.principal_type
        if isinstance(asked, str) and asked:
            return asked
        message = (
            f"Principal {principal.replace('-', '')} does not exist in the directory {self._directory.home}. Check that you "
            "have the correct principal ID. If you are creating this principal and then immediately assigning a role, this "
            "error might be related to a replication delay. In this case, set the role assignment principalType property to a "
            "value, such as ServicePrincipal, User, or Group.  See https://aka.ms/docs-principaltype"
        )
        raise Refused(error(400, "PrincipalNotFound", message))

    def _check_new(self, new: RoleAssignment) -> None:
        """Raises Refused if there is the same assignment with another name, or if the role is not for this scope."""
        for each in self._roles.assignments():
            same = (each.scope.lower(), each.role_id, each.principal_id.lower())
            if same == (new.scope.lower(), new.role_id, new.principal_id.lower()) and each.id.lower() != new.id.lower():
                message = f"The role assignment already exists. The ID of the existing role assignment is {each.assignment_id.replace('-', '')}."
                raise Refused(error(409, "RoleAssignmentExists", message))
        role = self._definition(new.role_id)
        if not any(is_within(new.scope, scope) for scope in role.assignable_scopes):
            message = f"The role definition '{role.name}' cannot be assigned at the scope '{new.scope}'."
            raise Refused(error(400, "InvalidRoleAssignmentScope", f"{message} (The emulator invents this code.)"))

    def _delete_assignment(self, request: ArmRequest) -> Reply:
        removed = self._roles.unassign(request.resource_id)
        return Reply(204) if removed is None else Reply(200, assignment_body(removed))

    def _list_denials(self, request: ArmRequest) -> Reply:
        scope = request.scope_id
        found = [each for each in self._roles.denied if is_within(scope, each.scope) or is_within(each.scope, scope)]
        return page_of(request, found, denial_body, self._page_size)


def _definition_body(request: ArmRequest, role: RoleDefinition) -> Json:
    return definition_body(role, request.subscription)


def _checked_condition(condition: object) -> str | None:
    """The condition of a request. Raises Refused if it is none."""
    if condition in {None, ""}:
        return None
    try:
        parse(str(condition))
    except ValueError as failure:
        message = f"The request was incorrectly formatted: {failure}."
        raise Refused(error(400, "BadRequestFormat", message)) from None
    return str(condition)


def _terms(request: ArmRequest) -> list[str]:
    """The terms of ``$filter``, which are joined by ``and``."""
    text = request.call.query.get("$filter", "").strip()
    return _AND.split(text) if text else []


def _wrong_filter(term: str) -> Refused:
    return Refused(error(400, "UnsupportedQuery", f"The filter '{term}' is not supported."))
