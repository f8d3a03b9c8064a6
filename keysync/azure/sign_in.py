"""The settings, variables and files that a credential signs in with: checks them, and names them for hints."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from keysync.config import credentials
from keysync.errors import UsageError
from keysync.files import irregular_reason

WORKLOAD_IDENTITY: Final = {
    "tenant_id": "AZURE_TENANT_ID",
    "client_id": "AZURE_CLIENT_ID",
    "token_file": "AZURE_FEDERATED_TOKEN_FILE",  # nosec B105  # the name of a variable
}
"""The variable for each setting of a workload identity, set by the webhook in Kubernetes."""

_TOKEN_FILE: Final = WORKLOAD_IDENTITY["token_file"]
_CERTIFICATE: Final = "AZURE_CLIENT_CERTIFICATE_PATH"
_SECRET: Final = "AZURE_CLIENT_SECRET"  # noqa: S105  # nosec B105  # a name
# The variables with files that azure-identity reads, by the type of the credential.
_FILE_VARIABLES: Final = {
    "default": (_TOKEN_FILE, _CERTIFICATE),
    "environment": (_CERTIFICATE,),
    "workload_identity": (_TOKEN_FILE,),
}
_TENANT: Final = "`tenant_id` of the credential"
_CLIENT: Final = "`client_id` of the credential"
_OTHER_TYPE: Final = "or choose another `type` under `credential`"


@dataclass(frozen=True, slots=True)
class SignIn:
    """The type of a credential, and the names of the settings or variables that it signs in with."""

    type: str
    tenant: str = _TENANT
    client: str = _CLIENT
    proof: str = "the credential"
    """The source of its client secret, certificate or federated token."""

    token_file: Path | None = None
    """The file that azure-identity itself reads, repeatedly."""

    expires_at: datetime | None = None
    """When its certificate expires; None if it has none, or its expiry is unknown."""


UNKNOWN: Final = SignIn(
    "",
    tenant=f"{_TENANT} (or AZURE_TENANT_ID)",
    client=f"{_CLIENT} (or AZURE_CLIENT_ID)",
    proof="`client_secret_file` of the credential (or AZURE_CLIENT_SECRET)",
)
"""For a failure that was not raised by a configured credential."""


def sign_in_of(credential: credentials.Credential) -> SignIn:
    """The settings of `credential`, or the environment variables it uses instead."""
    token_file = os.environ.get(_TOKEN_FILE, "")
    match credential:
        case credentials.DefaultCredential() | credentials.EnvironmentCredential():
            certificate = os.environ.get(_CERTIFICATE)
            proof = f"{_CERTIFICATE}={certificate}" if certificate and not os.environ.get(_SECRET) else _SECRET
            file = Path(token_file) if token_file and credential.type == "default" else None
            return SignIn(credential.type, "AZURE_TENANT_ID", "AZURE_CLIENT_ID", proof, file)
        case credentials.WorkloadIdentityCredential(token_file=configured):
            tenant = _TENANT if credential.tenant_id else "AZURE_TENANT_ID"
            client = _CLIENT if credential.client_id else "AZURE_CLIENT_ID"
            proof = f"token_file: {configured}" if configured else f"{_TOKEN_FILE}={token_file}"
            return SignIn(credential.type, tenant, client, proof)
        case credentials.ClientSecretCredential(client_secret_file=file, client_secret=variable):
            return SignIn(credential.type, proof=f"client_secret_file: {file}" if variable is None else variable.name)
        case credentials.ClientCertificateCredential(certificate_file=file):
            return SignIn(credential.type, proof=f"certificate_file: {file}")
        case _:
            return SignIn(credential.type)


def check_environment(credential: credentials.Credential) -> None:
    """Raises UsageError if variables or files that `credential` reads are missing or unusable."""
    prefix, environ, missing = f"credential: {credential.type}: ", os.environ, list[str]()
    match credential:
        case credentials.EnvironmentCredential():
            missing = [name for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID") if not environ.get(name)]
            if not environ.get(_SECRET) and not environ.get(_CERTIFICATE):
                missing.append(f"{_SECRET} (or {_CERTIFICATE})")
            elif environ.get(_SECRET) == "":
                # azure-identity uses the secret if the variable is set, even if it is empty.
                raise UsageError(f"{prefix}{_SECRET} is set and empty; unset it to sign in with {_CERTIFICATE}")
        case credentials.WorkloadIdentityCredential():
            given = {key: getattr(credential, key) or environ.get(name) for key, name in WORKLOAD_IDENTITY.items()}
            missing = [f"{key} (or {WORKLOAD_IDENTITY[key]})" for key, value in given.items() if not value]
            # Loading the configuration has checked a token file that is named there.
            path = "" if credential.token_file else environ.get(_TOKEN_FILE, "")
            if path and not os.access(path, os.R_OK):
                problem = "cannot be read" if Path(path).exists() else "there is no such file"
                raise UsageError(
                    f"{prefix}{_TOKEN_FILE}={path}: {problem}; name the token that Kubernetes mounts (its webhook sets "
                    f"the variable), {_OTHER_TYPE}"
                )
        case _:
            pass
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise UsageError(f"{prefix}{', '.join(missing)} {verb} not set; set what is missing, {_OTHER_TYPE}")
    for name in _FILE_VARIABLES.get(credential.type, ()):
        path = environ.get(name, "")
        if path and (reason := irregular_reason(Path(path))):
            raise UsageError(f"{prefix}{name}={path}: {reason}")
