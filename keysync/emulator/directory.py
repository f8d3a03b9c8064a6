"""The directory: the identities of the data file, by client id, object id and name, and the tenants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from keysync.emulator.identity_data import IdentityData


class Directory:
    """The tenants and identities. An identity without a tenant exists in all of them."""

    def __init__(self, identities: list[IdentityData], home: str, tenants: Iterable[str]) -> None:
        self.identities = identities
        self.home = home
        self._by_object = {identity.object_id.lower(): identity for identity in identities}
        self._tenants = {tenant.lower(): tenant for tenant in tenants}
        self._tenants.update(
            (identity.tenant_id.lower(), identity.tenant_id) for identity in identities if identity.tenant_id
        )

    def tenant(self, name: str) -> str | None:
        """The tenant of this name in its own spelling. ``common`` and ``organizations`` are the home tenant."""
        return self.home if name in {"common", "organizations"} else self._tenants.get(name.lower())

    def tenant_of(self, identity: IdentityData) -> str:
        """The tenant in which a user or a managed identity signs in."""
        return identity.tenant_id or self.home

    def application(self, client_id: str, tenant: str) -> IdentityData | None:
        """The application with a client id, if it exists in the tenant."""
        for identity in self._of("application"):
            if identity.client_id.lower() == client_id.lower() and self._exists_in(identity, tenant):
                return identity
        return None

    def user(self, name: str | None = None) -> IdentityData | None:
        """The user with a sign-in name; the first user for no name or an unknown one."""
        users = list(self._of("user"))
        named = (user for user in users if name and user.user_principal_name.lower() == name.lower())
        return next(named, users[0] if users else None)

    def managed_identity(self, wanted: str | None) -> IdentityData | None:
        """The managed identity with a client id or an object id; the first one for None.

        Without any in the data, an unrestricted application takes its place.
        """
        candidates = [*self._of("managed_identity")] or [each for each in self._of("application") if each.unrestricted]
        for identity in candidates:
            if wanted is None or wanted.lower() in {identity.client_id.lower(), identity.object_id.lower()}:
                return identity
        return None

    def by_object(self, object_id: str) -> IdentityData | None:
        """The identity with an object id."""
        return self._by_object.get(object_id.lower())

    def _of(self, kind: str) -> Iterator[IdentityData]:
        return (identity for identity in self.identities if identity.type == kind)

    def _exists_in(self, identity: IdentityData, tenant: str) -> bool:
        return identity.tenant_id is None or identity.tenant_id.lower() == tenant.lower()
