"""The endpoints of each cloud, and the configured credentials as azure-identity's aio credentials."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from azure.identity import CredentialUnavailableError
from azure.identity import aio as identity
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import pkcs12

from keysync.azure.sign_in import WORKLOAD_IDENTITY, check_environment, sign_in_of
from keysync.azure.single_flight_credential import SingleFlightCredential
from keysync.azure.transport import SharedTransport
from keysync.config import credentials
from keysync.config.credentials import Cloud, CloudMapping
from keysync.errors import UsageError
from keysync.files import read_secret, read_small, secret_text
from keysync.secret.redact import Redactor
from keysync.secret.value import SecretValue

_CLOUDS: Final = {
    "public": ("login.microsoftonline.com", "management.azure.com", "management.azure.com"),
    "usgovernment": ("login.microsoftonline.us", "management.usgovcloudapi.net", "management.core.usgovcloudapi.net"),
    "china": ("login.chinacloudapi.cn", "management.chinacloudapi.cn", "management.chinacloudapi.cn"),
}
# The SDK repeats a request for this long while a metadata service is being updated (404 or 410 for up to 70 seconds).
# learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token#error-handling
_UPDATE_SECONDS: Final = 75.0
# Variables with secrets that azure-identity reads, and that a reply could repeat.
_SECRET_VARIABLES: Final = (
    "AZURE_CLIENT_SECRET",
    "AZURE_CLIENT_CERTIFICATE_PASSWORD",
    "AZURE_PASSWORD",
    "IDENTITY_HEADER",
    "MSI_SECRET",
)
# The exceptions of cryptography for a file that is not a certificate, or of an unsupported kind.
_UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The endpoints of one cloud."""

    authority: str
    resource_manager: str
    resource_manager_scope: str
    """The scope of tokens for Resource Manager. In US Government its host is not that of the endpoint (source:
    azure-mgmt-core, `get_arm_endpoints`)."""

    ca_bundle: Path | None = None
    known: bool = True
    """Whether Entra publishes this authority. If not, the SDK skips instance discovery."""


def endpoints_of(cloud: Cloud) -> Endpoints:
    """The endpoints of a named cloud, or those in the configuration's mapping."""
    if not isinstance(cloud, CloudMapping):
        authority, resource_manager, scope = _CLOUDS[cloud]
        return Endpoints(f"https://{authority}", f"https://{resource_manager}", f"https://{scope}/.default")
    resource_manager = cloud.resource_manager.rstrip("/")
    return Endpoints(
        authority=cloud.authority.rstrip("/"),
        resource_manager=resource_manager,
        resource_manager_scope=cloud.resource_manager_scope or f"{resource_manager}/.default",
        ca_bundle=cloud.ca_bundle,
        known=False,
    )


@dataclass(slots=True)
class Credentials:
    """Opens each configured credential once, on `stack`; all its users share it. A token request has `timeout` seconds."""

    stack: AsyncExitStack
    endpoints: Endpoints
    transport: SharedTransport
    redactor: Redactor
    timeout: float
    opened: dict[credentials.Credential, SingleFlightCredential] = field(
        default_factory=dict[credentials.Credential, SingleFlightCredential]
    )
    """The credentials opened so far."""

    # The redactor's references are weak; these keep the values for as long as the credentials exist.
    _secrets: list[SecretValue] = field(default_factory=list[SecretValue])

    def __post_init__(self) -> None:
        for name in _SECRET_VARIABLES:
            if name in os.environ:
                # azure-identity would use the variable with its white space.
                os.environ[name] = self._remember(secret_text(os.environ[name]))

    async def open(self, credential: credentials.Credential) -> SingleFlightCredential:
        """The opened `credential`. Raises UsageError if a file or variable that it needs is unusable."""
        if credential not in self.opened:
            check_environment(credential)
            # The second of a type gets a number, so that log, `check` and circuit breakers can distinguish them.
            of_same_type = sum(other.type == credential.type for other in self.opened)
            name = f"{credential.type} {of_same_type + 1}" if of_same_type else credential.type
            build, expires_at = self._builder(credential)
            sign_in = replace(sign_in_of(credential), expires_at=expires_at)
            timeout = self.timeout + (_UPDATE_SECONDS if credential.type == "managed_identity" else 0.0)
            try:
                opened = SingleFlightCredential(build, name, sign_in, timeout=timeout)
            except (*_UNREADABLE, OSError) as error:
                # The SDK validates its arguments, such as a tenant's name, and files in variables.
                is_file = isinstance(credential, credentials.ClientCertificateCredential)
                raise UsageError(f"credential: {sign_in.proof if is_file else credential.type}: {error}") from error
            self.opened[credential] = await self.stack.enter_async_context(opened)
        return self.opened[credential]

    def _builder(self, credential: credentials.Credential) -> tuple[Callable[[], Any], datetime | None]:
        """A function that makes the SDK's credential each time it is called, and the expiry of its certificate.

        The expiry is None for other types: unknown or irrelevant. Lambdas, as a `partial` prints its arguments.
        """
        options: dict[str, Any] = {
            "transport": self.transport,
            "retry_total": 0,
            "authority": self.endpoints.authority,
            "disable_instance_discovery": not self.endpoints.known,
            # A vault's challenge names its tenant. The configuration decides which tenants are used.
            "additionally_allowed_tenants": ["*"],
        }
        match credential:
            case credentials.DefaultCredential():
                # It tries the developer's own tools, such as az, last.
                options["exclude_interactive_browser_credential"] = True
                return lambda: identity.DefaultAzureCredential(**options), None
            case credentials.EnvironmentCredential():
                return lambda: identity.EnvironmentCredential(**options), expiry_in_environment()
            case credentials.WorkloadIdentityCredential():
                return _workload_identity(credential, options), None
            case credentials.ManagedIdentityCredential(client_id=client):
                return lambda: identity.ManagedIdentityCredential(client_id=client, transport=self.transport), None
            case credentials.ClientSecretCredential(tenant_id=tenant, client_id=client, client_secret_file=file):
                secret = credential.client_secret.read() if credential.client_secret else ""
                if file is not None:
                    secret = read_secret(file, "credential: client_secret_file")
                self._remember(secret)
                return lambda: identity.ClientSecretCredential(tenant, client, secret, **options), None
            case credentials.ClientCertificateCredential(tenant_id=tenant, client_id=client):
                data = options["certificate_data"] = _read(credential.certificate_file, "certificate_file")
                password: str | None = None
                if credential.password_file is not None:
                    password = options["password"] = self._remember(_text(credential.password_file, "password_file"))
                return lambda: identity.CertificateCredential(tenant, client, **options), expiry_of(data, password)
            case credentials.AzureCliCredential(tenant_id=tenant):
                return lambda: identity.AzureCliCredential(tenant_id=tenant or ""), None

    def _remember(self, text: str) -> str:
        """Has the redactor mask `text` from now on, and returns it."""
        self._secrets.append(self.redactor.remember(SecretValue(text)))
        return text


def _workload_identity(
    credential: credentials.WorkloadIdentityCredential, options: dict[str, Any]
) -> Callable[[], Any]:
    """A credential that reads its token file for each request.

    The SDK's WorkloadIdentityCredential caches the content for ten minutes, sends an empty one, and does not say which file is
    missing.
    """
    tenant, client, file = (
        str(getattr(credential, key) or os.environ[variable]) for key, variable in WORKLOAD_IDENTITY.items()
    )
    key = "token_file" if credential.token_file else WORKLOAD_IDENTITY["token_file"]

    def assertion() -> str:
        try:
            return read_secret(Path(file), f"workload_identity: {key}")
        except UsageError as error:
            raise CredentialUnavailableError(str(error)) from None

    return lambda: identity.ClientAssertionCredential(tenant, client, assertion, **options)


def expiry_of(data: bytes, password: str | None) -> datetime | None:
    """When the certificate in a PEM or PKCS#12 file expires, in UTC; None if it cannot be read.

    In a PEM file the first certificate counts, as azure-identity signs in with that.
    """
    try:
        if b"-----BEGIN" in data:
            return x509.load_pem_x509_certificate(data).not_valid_after_utc
        certificate = pkcs12.load_key_and_certificates(data, password.encode() if password else None)[1]
    except _UNREADABLE:
        return None
    return None if certificate is None else certificate.not_valid_after_utc


def expiry_in_environment() -> datetime | None:
    """When the certificate in the variables of azure-identity expires, unless a secret takes precedence over it."""
    path = os.environ.get("AZURE_CLIENT_CERTIFICATE_PATH")
    if os.environ.get("AZURE_CLIENT_SECRET") or not path:
        return None
    try:
        return expiry_of(read_small(Path(path)), os.environ.get("AZURE_CLIENT_CERTIFICATE_PASSWORD"))
    except OSError:
        return None  # azure-identity reports it at the first token request


def _read(path: Path | None, key: str) -> bytes:
    try:
        return read_small(path) if path else b""
    except OSError as error:
        raise UsageError(f"credential: {key}: {path} cannot be read ({error.strerror})") from error


def _text(path: Path | None, key: str) -> str:
    try:
        return secret_text(_read(path, key))
    except UnicodeDecodeError:
        # Not chained: the message of a UnicodeDecodeError shows the bytes.
        raise UsageError(f"credential: {key}: {path} is not UTF-8 text") from None
