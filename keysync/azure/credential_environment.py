"""Checks the environment variables and files that a credential reads, before the first token request."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from keysync.config import model
from keysync.errors import UsageError
from keysync.files import irregular_reason

TOKEN_FILE_VARIABLE: Final = "AZURE_FEDERATED_TOKEN_FILE"  # noqa: S105  # nosec B105  # a name
# The variables with files that azure-identity reads, by the type of the credential.
_FILE_VARIABLES: Final = {
    "default": (TOKEN_FILE_VARIABLE, "AZURE_CLIENT_CERTIFICATE_PATH"),
    "environment": ("AZURE_CLIENT_CERTIFICATE_PATH",),
    "workload_identity": (TOKEN_FILE_VARIABLE,),
}


def check_environment(credential: model.Credential) -> None:
    """Raises UsageError if variables or files that `credential` reads are missing or unusable."""
    if isinstance(credential, model.WorkloadIdentityCredential):
        _check_mounted_token(credential)
    if isinstance(credential, model.EnvironmentCredential):
        _check_variables()
    for name in _FILE_VARIABLES.get(credential.type, ()):
        path = os.environ.get(name)
        problem = irregular_reason(Path(path)) if path else None
        if problem:
            raise UsageError(f"credential: {credential.type}: {name}={path}: {problem}")


def token_file_of(credential: model.Credential) -> Path | None:
    """The token file that azure-identity itself reads, repeatedly, for `credential`; None if it reads none."""
    path = os.environ.get(TOKEN_FILE_VARIABLE) if isinstance(credential, model.DefaultCredential) else None
    return Path(path) if path else None


def _check_mounted_token(credential: model.WorkloadIdentityCredential) -> None:
    """Checks the token file in the variable. Loading the configuration has checked one that is named there."""
    path = os.environ.get(TOKEN_FILE_VARIABLE)
    if credential.token_file is None and path and not os.access(path, os.R_OK):
        problem = "cannot be read" if Path(path).exists() else "there is no such file"
        raise UsageError(
            f"credential: workload_identity: {TOKEN_FILE_VARIABLE}={path}: {problem}; name the token that Kubernetes mounts (its webhook sets the "
            "variable), or choose another `type` under `credential`"
        )


def _check_variables() -> None:
    proofs = ("AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH")
    missing = [name for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID") if not os.environ.get(name)]
    if not any(os.environ.get(name) for name in proofs):
        missing.append(f"{proofs[0]} (or {proofs[1]})")
    elif os.environ.get(proofs[0]) == "":
        # azure-identity uses the secret if the variable is set, even if it is empty.
        raise UsageError(f"credential: environment: {proofs[0]} is set and empty; unset it to sign in with {proofs[1]}")
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        message = f"credential: environment: {', '.join(missing)} {verb} not set"
        raise UsageError(f"{message}; set what is missing, or choose another `type` under `credential`")
