"""Who may do what: the decision about each action, from roles, deny assignments and access policies."""

from __future__ import annotations

from dataclasses import dataclass

from keysync.emulator.conditions import Attributes
from keysync.emulator.directory import Directory
from keysync.emulator.roles import DenyAssignment, Roles, is_within
from keysync.emulator.tokens import Token
from keysync.emulator.vault import Vault


@dataclass(frozen=True)
class Decision:
    """Whether an action is allowed. If a role allows it, but a deny assignment does not, `denied_by` has that one."""

    allowed: bool
    denied_by: DenyAssignment | None = None


_ALLOWED, _NO_ROLE = Decision(True), Decision(False)


class Access:
    """Decides for the callers of all services."""

    def __init__(self, roles: Roles, directory: Directory) -> None:
        self._roles = roles
        self.directory = directory

    def decide(
        self, token: Token, action: str, scope: str, *, data: bool = False, attributes: Attributes | None = None
    ) -> Decision:
        """Whether the caller may carry out `action` at `scope`, an ARM id. With `data` it is an action on data.

        `attributes` are what conditions of role assignments compare.
        """
        principal = token.object_id
        identity = self.directory.by_object(principal)
        if not (identity is not None and identity.unrestricted) and not any(
            is_within(scope, assignment.scope) and assignment.applies(action, attributes or {})
            for assignment in self._roles.in_force(principal)
            if self._contains(assignment.role_id, action, data=data)
        ):
            return _NO_ROLE
        for denial in self._roles.denied:
            if denial.denies(principal, action, scope, data=data):
                return Decision(False, denial)
        return _ALLOWED

    def _contains(self, role_id: str, action: str, *, data: bool) -> bool:
        role = self._roles.definition(role_id)
        return role is not None and any(part.contain(action, data=data) for part in role.permissions)

    def sees(self, token: Token, scope: str) -> bool:
        """Whether the caller has any role at `scope`, above it or in it, as it needs to see a subscription in lists."""
        identity = self.directory.by_object(token.object_id)
        if identity is not None and identity.unrestricted:
            return True
        scopes = [assignment.scope for assignment in self._roles.in_force(token.object_id)]
        return any(is_within(scope, each) or is_within(each, scope) for each in scopes)

    def entries(self, vault: Vault) -> list[tuple[str, list[str]]]:
        """The entries of a vault's access policies: the object id of each identity, and its secret permissions."""
        policies = [] if isinstance(vault.access_policies, bool) else vault.access_policies
        return [
            (identity.object_id, list(policy.secrets))
            for policy in policies
            for identity in self.directory.identities
            if identity.name == policy.identity
        ]

    def may_use(self, token: Token, vault: Vault, permission: str, *, on_behalf_of: bool = False) -> bool:
        """Whether the access policies of a vault allow a secret permission. A vault without entries allows everything.

        With `on_behalf_of`: whether they would allow it in the name of a user.
        """
        if isinstance(vault.access_policies, bool):
            return True
        identity = self.directory.by_object(token.object_id)
        return identity is not None and any(
            policy.identity.lower() == identity.name.lower() and not {permission, "all"}.isdisjoint(policy.secrets)
            for policy in vault.access_policies
            if policy.on_behalf_of == on_behalf_of
        )
