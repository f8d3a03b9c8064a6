"""How keysync signs in, and to which cloud: the part of the model under `cloud` and `credential`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from keysync.config import formats
from keysync.config.rules import FromEnvironment, Invalid, Problem, Rule, Select, Strict, expected, missing
from keysync.files import secret_text
from keysync.json_values import as_mapping


@dataclass(frozen=True, slots=True)
class CloudMapping(Strict):
    """A cloud without a name in keysync, such as Azure Stack Hub or a test double."""

    authority: formats.HttpsUrl
    """The endpoint that issues tokens, such as https://login.microsoftonline.com."""
    resource_manager: formats.HttpsUrl
    """The endpoint of Azure Resource Manager, such as https://management.azure.com."""
    resource_manager_scope: formats.Text | None = None
    """The scope of tokens for it. Default: its endpoint with /.default."""
    ca_bundle: Path | None = None
    """A PEM file with certificate authorities to trust in addition to the system's. A relative path starts at the
    folder of this file."""


Cloud: TypeAlias = Annotated[
    Literal["public", "usgovernment", "china"] | CloudMapping,
    Select(lambda value: int(isinstance(value, (dict, CloudMapping)))),
]
"""A cloud by its name or by its endpoints."""


@dataclass(frozen=True, slots=True)
class EnvironmentVariable:
    """The environment variable that holds a secret, so that the configuration contains only its name."""

    name: str

    def read(self) -> str:
        """The current value, empty if the variable is not set. Callers wrap it in a `SecretValue` at once."""
        return secret_text(os.environ.get(self.name, ""))


def from_environment(expectation: str, file_key: str) -> Rule:
    """Accepts a secret only from an environment variable. `expectation` and `file_key` are for messages."""

    def parse(value: object) -> EnvironmentVariable:
        if isinstance(value, EnvironmentVariable):
            return value
        if not isinstance(value, FromEnvironment) or value.variable is None:
            hint = f"write ${{NAME}} for an environment variable, or use {file_key}"
            raise Invalid(Problem("the file must not contain a secret", hint))
        if value == "":
            raise Invalid(Problem(f"the environment variable is empty, expected {expectation}"))
        return EnvironmentVariable(value.variable)

    return Rule(parse=parse, schema={"type": "string", "pattern": r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultCredential(Strict):
    """DefaultAzureCredential of azure-identity: environment, workload identity, managed identity, developer tools."""

    type: Literal["default"] = "default"
    """Tries each credential that the machine offers. AZURE_TOKEN_CREDENTIALS limits them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentCredential(Strict):
    """A service principal from AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET or AZURE_CLIENT_CERTIFICATE_PATH."""

    type: Literal["environment"] = "environment"
    """Reads everything from the AZURE_* variables of the Azure SDKs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadIdentityCredential(Strict):
    """The federated token of a Kubernetes service account."""

    type: Literal["workload_identity"] = "workload_identity"
    """Uses the token that Kubernetes mounts into the pod."""
    tenant_id: formats.Identifier | None = None
    """The tenant. Default: AZURE_TENANT_ID."""
    client_id: formats.Identifier | None = None
    """The application. Default: AZURE_CLIENT_ID."""
    token_file: Path | None = None
    """The mounted token. Default: AZURE_FEDERATED_TOKEN_FILE."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedIdentityCredential(Strict):
    """The managed identity of the machine that keysync runs on."""

    type: Literal["managed_identity"] = "managed_identity"
    """Uses the managed identity of the machine, container or app."""
    client_id: formats.Identifier | None = None
    """The client id of a user-assigned identity. Default: the system-assigned identity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSecretCredential(Strict):
    """A service principal with a client secret. Set exactly one of `client_secret_file` and `client_secret`."""

    type: Literal["client_secret"] = "client_secret"  # nosec B105  # the name of a kind
    """A service principal with a client secret."""
    tenant_id: formats.Identifier
    """The tenant of the service principal."""
    client_id: formats.Identifier
    """The application of the service principal."""
    client_secret_file: Path | None = None
    """A mounted file with the secret."""
    client_secret: Annotated[EnvironmentVariable, from_environment("a client secret", "client_secret_file")] | None = (
        None
    )
    """${NAME} of an environment variable with the secret, never the secret itself."""

    def __post_init__(self) -> None:
        """Raises Invalid unless there is exactly one secret."""
        if (self.client_secret_file is None) == (self.client_secret is None):
            raise Invalid(Problem("expected exactly one of client_secret_file and client_secret"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificateCredential(Strict):
    """A service principal with a certificate and its private key in one PEM or PKCS#12 file."""

    type: Literal["client_certificate"] = "client_certificate"
    """A service principal with a certificate."""
    tenant_id: formats.Identifier
    """The tenant of the service principal."""
    client_id: formats.Identifier
    """The application of the service principal."""
    certificate_file: Path
    """A mounted PEM or PKCS#12 file with the certificate and its private key."""
    password_file: Path | None = None
    """A mounted file with the password of the private key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureCliCredential(Strict):
    """The account that is signed in with `az login`, for a workstation."""

    type: Literal["azure_cli"] = "azure_cli"
    """Uses the account that is signed in with `az login`."""
    tenant_id: formats.Identifier | None = None
    """The tenant. Default: the current tenant of `az`."""


_TYPES = (
    "default", "environment", "workload_identity", "managed_identity", "client_secret", "client_certificate", "azure_cli"
)  # fmt: skip


def _credential_index(value: object) -> int:
    mapping = as_mapping(value)
    kind: object = getattr(value, "type", None) if mapping is None else mapping.get("type")
    if kind in _TYPES:
        return _TYPES.index(kind)
    if mapping is None:
        raise expected("a mapping such as {type: default}")
    if "type" not in mapping:
        raise Invalid(missing("type"))
    guess = formats.nearest(str(kind), _TYPES)
    hint = f"did you mean '{guess}'?" if guess else None
    raise Invalid(Problem("one of " + ", ".join(_TYPES), hint, at=("type",), is_expectation=True))


Credential: TypeAlias = Annotated[
    DefaultCredential
    | EnvironmentCredential
    | WorkloadIdentityCredential
    | ManagedIdentityCredential
    | ClientSecretCredential
    | ClientCertificateCredential
    | AzureCliCredential,
    Select(_credential_index),
]
"""How keysync signs in; `type` selects the alternative, in the order of `_TYPES`."""
