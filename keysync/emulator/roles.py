"""Role definitions, role assignments and deny assignments: the state of Azure's role-based access control."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Final

from keysync.emulator.conditions import Attributes, parse
from keysync.emulator.identity_data import (
    DenyAssignmentData,
    IdentityData,
    PermissionsData,
    RoleDefinitionData,
)
from keysync.emulator.throttle import Clock

AUTHORIZATION: Final = "Microsoft.Authorization"


def is_within(scope: str, parent: str) -> bool:
    """Whether the ARM id `scope` is `parent` or lies in it. ``/`` contains everything."""
    inner, outer = scope.lower().rstrip("/"), parent.lower().rstrip("/")
    return inner == outer or inner.startswith(f"{outer}/")


@cache
def _pattern(action: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, action.lower().split("*"))))


@dataclass(frozen=True)
class Permissions:
    """Allowed actions, less the excluded ones. ``*`` stands for any text."""

    actions: tuple[str, ...] = ()
    not_actions: tuple[str, ...] = ()
    data_actions: tuple[str, ...] = ()
    not_data_actions: tuple[str, ...] = ()

    @classmethod
    def of(cls, data: PermissionsData) -> Permissions:
        """The permissions in the data file."""
        lists = (data.actions, data.not_actions, data.data_actions, data.not_data_actions)
        return cls(*(tuple(each) for each in lists))

    def contain(self, action: str, *, data: bool) -> bool:
        """Whether an action, with `data` an action on data, is among them."""
        lists = (self.data_actions, self.not_data_actions) if data else (self.actions, self.not_actions)
        allowed, excluded = (any(_pattern(each).fullmatch(action.lower()) for each in patterns) for patterns in lists)
        return allowed and not excluded


@dataclass
class RoleDefinition:
    """A role. `role_id` is a GUID; times are seconds since 1970."""

    role_id: str
    name: str
    description: str
    permissions: list[Permissions]
    assignable_scopes: list[str]
    built_in: bool = False
    created: float = 0.0
    updated: float = 0.0
    created_by: str = ""


@dataclass
class RoleAssignment:
    """A role of a principal at a scope. It is felt from `begins` until `ends`, in seconds since 1970."""

    assignment_id: str
    scope: str
    role_id: str
    principal_id: str
    principal_type: str
    condition: str | None = None
    description: str | None = None
    created: float = 0.0
    created_by: str = ""
    begins: float = 0.0
    ends: float | None = None

    @property
    def id(self) -> str:
        """ARM id of the assignment."""
        return f"{self.scope.rstrip('/')}/providers/{AUTHORIZATION}/roleAssignments/{self.assignment_id}"

    def applies(self, action: str, attributes: Attributes) -> bool:
        """Whether its condition allows the action."""
        return self.condition is None or parse(self.condition)(action, attributes)


@dataclass(frozen=True)
class DenyAssignment:
    """Denies actions whatever the roles are. No `principals`: everyone is denied."""

    deny_id: str
    name: str
    scope: str
    permissions: Permissions
    principals: frozenset[str]
    excluded: frozenset[str]

    def denies(self, principal: str, action: str, scope: str, *, data: bool) -> bool:
        """Whether it denies the action to a principal."""
        principal = principal.lower()
        meant = principal not in self.excluded and (not self.principals or principal in self.principals)
        return meant and is_within(scope, self.scope) and self.permissions.contain(action, data=data)


@dataclass
class SavedRoles:
    """The part that can change, as it is saved."""

    definitions: list[RoleDefinition] = field(default_factory=list[RoleDefinition])
    assignments: list[RoleAssignment] = field(default_factory=list[RoleAssignment])


class Roles:
    """All roles and assignments. A change of an assignment is felt after `delay` seconds, as in Azure."""

    def __init__(self, clock: Clock, built_in: Iterable[RoleDefinition], *, delay: float) -> None:
        self._clock = clock
        self.delay = delay
        self._definitions = {role.role_id: role for role in built_in}
        self._assignments: dict[str, RoleAssignment] = {}
        self._ending: list[RoleAssignment] = []
        self.denied: list[DenyAssignment] = []

    # Definitions

    def definitions(self, scope: str) -> list[RoleDefinition]:
        """The roles that can be assigned at `scope` or, for custom roles, below it."""
        return [role for role in self._definitions.values() if self._is_visible(role, scope)]

    @staticmethod
    def _is_visible(role: RoleDefinition, scope: str) -> bool:
        return any(is_within(scope, each) or is_within(each, scope) for each in role.assignable_scopes)

    def definition(self, role_id: str) -> RoleDefinition | None:
        """The role with this GUID, if there is one."""
        return self._definitions.get(role_id.lower())

    def define(self, role: RoleDefinition) -> RoleDefinition:
        """Add a role, or replace the one with its id."""
        now, before = self._clock(), self._definitions.get(role.role_id)
        role.created, role.updated = (now if before is None else before.created), now
        self._definitions[role.role_id] = role
        return role

    def remove_definition(self, role_id: str) -> RoleDefinition | None:
        """Remove a role and return it."""
        return self._definitions.pop(role_id.lower(), None)

    # Assignments

    def assignments(self) -> list[RoleAssignment]:
        """Every assignment, also one that is not yet felt."""
        return list(self._assignments.values())

    def assignment(self, full_id: str) -> RoleAssignment | None:
        """The assignment with this ARM id, if there is one."""
        return self._assignments.get(full_id.lower())

    def assign(self, assignment: RoleAssignment, *, at_once: bool = False) -> RoleAssignment:
        """Add an assignment, or replace the one with its id."""
        now = self._clock()
        assignment.created, assignment.begins = now, now if at_once else now + self.delay
        before = self.unassign(assignment.id)
        if before is not None:
            assignment.created = before.created
        self._assignments[assignment.id.lower()] = assignment
        return assignment

    def unassign(self, full_id: str) -> RoleAssignment | None:
        """Remove an assignment and return it."""
        removed = self._assignments.pop(full_id.lower(), None)
        if removed is not None:
            removed.ends = self._clock() + self.delay
            self._ending.append(removed)
        return removed

    def in_force(self, principal: str) -> Iterator[RoleAssignment]:
        """The assignments of a principal that are felt now."""
        now = self._clock()
        self._ending = [ending for ending in self._ending if ending.ends is not None and ending.ends > now]
        for assignment in (*self._assignments.values(), *self._ending):
            if assignment.principal_id.lower() == principal.lower() and assignment.begins <= now:
                yield assignment

    def allowing(self, principal: str, action: str, scope: str) -> tuple[RoleAssignment, RoleDefinition] | None:
        """The first assignment, with its role, by which a principal may carry out an action at `scope`."""
        for assignment in self.in_force(principal):
            role = self.definition(assignment.role_id)
            if role is None or not is_within(scope, assignment.scope) or not assignment.applies(action, {}):
                continue
            if any(part.contain(action, data=False) for part in role.permissions):
                return assignment, role
        return None

    # Storage

    def export(self) -> SavedRoles:
        """The custom roles and the assignments."""
        return SavedRoles([role for role in self._definitions.values() if not role.built_in], self.assignments())

    def restore(self, saved: SavedRoles) -> None:
        """Replace the custom roles and the assignments."""
        self._definitions = {name: role for name, role in self._definitions.items() if role.built_in}
        self._definitions.update((role.role_id, role) for role in saved.definitions)
        self._assignments = {assignment.id.lower(): assignment for assignment in saved.assignments}


def custom_role(data: RoleDefinitionData) -> RoleDefinition:
    """A role of the data file, with an id that stays the same from one start to the next."""
    role_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"keysync role {data.name}"))
    return RoleDefinition(role_id, data.name, data.description, [Permissions.of(data)], data.assignable_scopes)


def deny_assignment(
    data: DenyAssignmentData, scopes: Mapping[str, str], object_ids: Mapping[str, str]
) -> DenyAssignment:
    """A deny assignment of the data file. `scopes` are by the names of accounts and vaults, `object_ids` by those of identities."""
    return DenyAssignment(
        deny_id=data.id,
        name=data.name,
        scope=scopes.get(data.scope.lower(), data.scope),
        permissions=Permissions.of(data),
        principals=frozenset(object_ids[name.lower()] for name in data.identities),
        excluded=frozenset(object_ids[name.lower()] for name in data.excluded),
    )


def data_assignments(identity: IdentityData, roles: Roles, scopes: Mapping[str, str]) -> Iterator[RoleAssignment]:
    """The role assignments of an identity in the data file. `scopes` are ARM ids by the names of accounts and vaults."""
    by_name = {role.name.lower(): role.role_id for role in roles.definitions("/")}
    for role in identity.roles:
        scope = scopes.get(role.scope.lower(), role.scope)
        name = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{identity.object_id} {role.role} {scope} {role.condition}"))
        role_id = by_name[role.role.lower()]
        yield RoleAssignment(name, scope, role_id, identity.object_id, identity.principal_type, role.condition)
