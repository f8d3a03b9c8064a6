"""The identities, roles and access policies of the data file."""

from __future__ import annotations

import secrets
import uuid
from pathlib import Path
from typing import Literal

from cryptography import x509
from pydantic import BaseModel, ConfigDict, Field, field_validator

from keysync.emulator.conditions import parse
from keysync.emulator.faults import invalid

GUID = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
IdentityType = Literal["application", "managed_identity", "user"]
SecretPermission = Literal["get", "list", "set", "delete", "recover", "backup", "restore", "purge", "all"]
"""A permission of an access policy (learn.microsoft.com/azure/key-vault/general/assign-access-policy)."""

_NAMESPACE = uuid.UUID("6b657973-796e-4000-8000-000000000000")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RoleData(_Model):
    """A role of an identity.

    `role` is the name of a built-in role or of one of `role_definitions`. `scope` is an ARM id, ``/`` for everything, or the
    name of an account or a vault of the data file. `condition` is in the language of Azure's conditions, version 2.0.
    """

    role: str
    scope: str = "/"
    condition: str | None = None

    @field_validator("condition")
    @classmethod
    def _is_a_condition(cls, condition: str | None) -> str | None:
        if condition is not None:
            try:
                parse(condition)
            except ValueError as error:
                raise invalid(str(error)) from error
        return condition


class FederatedData(_Model):
    """A federated credential: an assertion with these claims signs the application in. Signatures are not checked."""

    issuer: str
    subject: str
    audience: str = "api://AzureADTokenExchange"


class IdentityData(_Model):
    """An application, a managed identity or a user. The ids come from the name by default.

    An application signs in with its `client_secret`, one of its `certificates` (PEM, as text or in a file) or a `federated`
    assertion; without any of them it gets a random secret. `client_secret_expires` is in seconds since 1970. `unrestricted`:
    it may do everything, without a role. `any_assertion`: any assertion signs it in that has not expired.
    """

    name: str = Field(min_length=1)
    type: IdentityType = "application"
    client_id: str = Field(default="", pattern=f"^$|{GUID}")
    object_id: str = Field(default="", pattern=f"^$|{GUID}")
    tenant_id: str | None = None
    client_secret: str | None = None
    client_secret_expires: int | None = None
    certificates: list[str] = []
    federated: list[FederatedData] = []
    roles: list[RoleData] = []
    unrestricted: bool = False
    any_assertion: bool = False

    def model_post_init(self, _context: object) -> None:
        """Makes ids that stay the same from one start to the next."""
        self.client_id = self.client_id or str(uuid.uuid5(_NAMESPACE, f"client {self.name}"))
        self.object_id = self.object_id or str(uuid.uuid5(_NAMESPACE, f"object {self.name}"))
        if self.type == "application" and not (self.client_secret or self.certificates or self.federated):
            self.client_secret = secrets.token_urlsafe(30)

    @field_validator("certificates")
    @classmethod
    def _are_certificates(cls, certificates: list[str]) -> list[str]:
        return [_pem(certificate) for certificate in certificates]

    @property
    def user_principal_name(self) -> str:
        """The sign-in name of a user."""
        return self.name if "@" in self.name else f"{self.name.replace(' ', '.').lower()}@keysync.localhost"

    def sign_in(self) -> dict[str, str]:
        """The ids, and the secret if it has one, for the ready file."""
        ids = {"type": self.type, "client_id": self.client_id, "object_id": self.object_id}
        return ids if self.client_secret is None else {**ids, "client_secret": self.client_secret}

    @property
    def principal_type(self) -> str:
        """Its type in role assignments."""
        return "User" if self.type == "user" else "ServicePrincipal"


class PermissionsData(_Model):
    """Actions with ``*`` as a wildcard."""

    actions: list[str] = []
    not_actions: list[str] = []
    data_actions: list[str] = []
    not_data_actions: list[str] = []


class RoleDefinitionData(PermissionsData):
    """A custom role. It can be assigned everywhere by default."""

    name: str = Field(min_length=1)
    description: str = ""
    assignable_scopes: list[str] = ["/"]


class DenyAssignmentData(PermissionsData):
    """Denies actions, by default all, to `identities` (names; all by default) except `excluded`, whatever their roles."""

    id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    name: str = "Deny assignment created by Deployment Stack"
    scope: str = "/"
    identities: list[str] = []
    excluded: list[str] = []

    def model_post_init(self, _context: object) -> None:
        """Without actions it denies all of them."""
        if not (self.actions or self.data_actions):
            self.actions, self.data_actions = ["*"], ["*"]


class AccessPolicyData(_Model):
    """The secret permissions of an identity in a vault with access policies.

    `on_behalf_of`: they are for an application that acts on behalf of a user, and not for the identity alone.
    """

    identity: str
    secrets: list[SecretPermission]
    on_behalf_of: bool = False


def _pem(certificate: str) -> str:
    if not certificate.lstrip().startswith("-----BEGIN"):
        try:
            certificate = Path(certificate).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            raise _invalid("neither a certificate in PEM nor a readable file with one") from None
    try:
        x509.load_pem_x509_certificate(certificate.encode("ascii", "replace"))
    except ValueError:
        raise _invalid("the text is no certificate in PEM") from None
    return certificate


def _invalid(message: str) -> ValueError:
    from keysync.config.rules import Invalid, Problem  # noqa: PLC0415  # needed only for an error

    return Invalid(Problem(message, "for example the file that `openssl req -x509` writes with -out"))
