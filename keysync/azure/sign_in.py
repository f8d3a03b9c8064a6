"""Names, for hints, the settings and variables that a credential signs in with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from keysync.config import model

_TENANT: Final = "`tenant_id` of the credential"
_CLIENT: Final = "`client_id` of the credential"


@dataclass(frozen=True, slots=True)
class SignIn:
    """The type of a credential, and the names of the settings or variables that it signs in with."""

    type: str
    tenant: str = _TENANT
    client: str = _CLIENT
    proof: str = "the credential"
    """The source of its client secret, certificate or federated token."""


UNKNOWN: Final = SignIn(
    "",
    tenant=f"{_TENANT} (or AZURE_TENANT_ID)",
    client=f"{_CLIENT} (or AZURE_CLIENT_ID)",
    proof="`client_secret_file` of the credential (or AZURE_CLIENT_SECRET)",
)
"""For a failure that was not raised by a configured credential."""


def sign_in_of(credential: model.Credential) -> SignIn:
    """The settings of `credential`, or the environment variables it uses instead."""
    match credential:
        case model.DefaultCredential() | model.EnvironmentCredential():
            return SignIn(credential.type, "AZURE_TENANT_ID", "AZURE_CLIENT_ID", _proof_in_environment())
        case model.WorkloadIdentityCredential(token_file=file):
            tenant = _TENANT if credential.tenant_id else "AZURE_TENANT_ID"
            client = _CLIENT if credential.client_id else "AZURE_CLIENT_ID"
            name = "AZURE_FEDERATED_TOKEN_FILE"
            proof = f"token_file: {file}" if file else f"{name}={os.environ.get(name, '')}"
            return SignIn(credential.type, tenant, client, proof)
        case model.ClientSecretCredential(client_secret_file=file, client_secret=variable):
            return SignIn(credential.type, proof=f"client_secret_file: {file}" if variable is None else variable.name)
        case model.ClientCertificateCredential(certificate_file=file):
            return SignIn(credential.type, proof=f"certificate_file: {file}")
        case _:
            return SignIn(credential.type)


def _proof_in_environment() -> str:
    path = os.environ.get("AZURE_CLIENT_CERTIFICATE_PATH")
    if path and not os.environ.get("AZURE_CLIENT_SECRET"):
        return f"AZURE_CLIENT_CERTIFICATE_PATH={path}"
    return "AZURE_CLIENT_SECRET"
