"""Where the parts of a credential come from, in the words that a hint uses."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from keysync.config import settings

_TENANT: Final = "`tenant_id` of the credential"
_CLIENT: Final = "`client_id` of the credential"


@dataclass(frozen=True, slots=True)
class SignIn:
    """The type of a credential, and the key or the variable that gives its tenant, its application, and its proof.

    The proof is a client secret, a certificate or a federated token.
    """

    type: str
    tenant: str = _TENANT
    client: str = _CLIENT
    proof: str = "the credential"


UNKNOWN: Final = SignIn(
    "",
    tenant=f"{_TENANT} (or AZURE_TENANT_ID)",
    client=f"{_CLIENT} (or AZURE_CLIENT_ID)",
    proof="`client_secret_file` of the credential (or AZURE_CLIENT_SECRET)",
)
"""For a failure that no credential of the configuration raised."""


def sign_in_of(credential: settings.Credential) -> SignIn:
    """Where the parts of `credential` come from, by the environment of this process."""
    match credential:
        case settings.DefaultCredential() | settings.EnvironmentCredential():
            return SignIn(credential.type, "AZURE_TENANT_ID", "AZURE_CLIENT_ID", _proof_in_environment())
        case settings.WorkloadIdentityCredential(token_file=file):
            tenant = _TENANT if credential.tenant_id else "AZURE_TENANT_ID"
            client = _CLIENT if credential.client_id else "AZURE_CLIENT_ID"
            name = "AZURE_FEDERATED_TOKEN_FILE"
            proof = f"token_file: {file}" if file else f"{name}={os.environ.get(name, '')}"
            return SignIn(credential.type, tenant, client, proof)
        case settings.ClientSecretCredential(client_secret_file=file, client_secret=variable):
            return SignIn(credential.type, proof=f"client_secret_file: {file}" if variable is None else variable.name)
        case settings.ClientCertificateCredential(certificate_file=file):
            return SignIn(credential.type, proof=f"certificate_file: {file}")
        case _:
            return SignIn(credential.type)


def _proof_in_environment() -> str:
    path = os.environ.get("AZURE_CLIENT_CERTIFICATE_PATH")
    if path and not os.environ.get("AZURE_CLIENT_SECRET"):
        return f"AZURE_CLIENT_CERTIFICATE_PATH={path}"
    return "AZURE_CLIENT_SECRET"
