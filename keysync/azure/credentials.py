"""Opens the configured credentials as azure-identity's aio credentials."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from azure.identity import CredentialUnavailableError
from azure.identity import aio as identity

from keysync.azure.certificate import UNREADABLE, expiry_of
from keysync.azure.clouds import Endpoints
from keysync.azure.credential_environment import TOKEN_FILE_VARIABLE, check_environment, token_file_of
from keysync.azure.sign_in import sign_in_of
from keysync.azure.single_flight_credential import SingleFlightCredential
from keysync.azure.transport import SharedTransport
from keysync.config import model
from keysync.errors import UsageError
from keysync.files import read_small, secret_text
from keysync.secret.redact import Redactor
from keysync.secret.value import SecretValue

_PATIENCE: Final = 70.0  # how long a metadata service may be updated, see `single_flight_credential`
# The settings of a workload identity, and the variables that the webhook in Kubernetes sets instead.
_WORKLOAD_IDENTITY_VARIABLES: Final = {
    "tenant_id": "AZURE_TENANT_ID",
    "client_id": "AZURE_CLIENT_ID",
    "token_file": TOKEN_FILE_VARIABLE,
}
# Variables with secrets that azure-identity reads, and that a reply could repeat.
_SECRET_VARIABLES: Final = (
    "AZURE_CLIENT_SECRET",
    "AZURE_CLIENT_CERTIFICATE_PASSWORD",
    "AZURE_PASSWORD",
    "IDENTITY_HEADER",
    "MSI_SECRET",
)


class Credentials:
    """Opens each configured credential once, on `stack`; all its users share it."""

    def __init__(
        self,
        stack: AsyncExitStack,
        endpoints: Endpoints,
        transport: SharedTransport,
        redactor: Redactor,
        *,
        timeout: float,
    ) -> None:
        self._stack = stack
        self._endpoints = endpoints
        self._transport = transport
        self._redactor = redactor
        self._timeout = timeout
        self._opened: dict[model.Credential, SingleFlightCredential] = {}
        # The redactor's references are weak; these keep the values for as long as the credentials exist.
        self._secrets: list[SecretValue] = []
        for name in _SECRET_VARIABLES:
            if name in os.environ:
                # azure-identity would use the variable with its white space.
                os.environ[name] = self._remember(secret_text(os.environ[name]))

    async def open(self, credential: model.Credential) -> SingleFlightCredential:
        """The opened `credential`. Raises UsageError if a file or variable that it needs is unusable."""
        if credential not in self._opened:
            check_environment(credential)
            # The second of a type gets a number, so that log, `check` and circuit breakers can distinguish them.
            of_same_type = sum(other.type == credential.type for other in self._opened)
            name = f"{credential.type} {of_same_type + 1}" if of_same_type else credential.type
            certificate = self._certificate(credential)
            opened = self._single_flight(
                credential, self._builder(credential, certificate), name, expires_at=_expiry(credential, **certificate)
            )
            self._opened[credential] = await self._stack.enter_async_context(opened)
        return self._opened[credential]

    @property
    def opened(self) -> tuple[SingleFlightCredential, ...]:
        """The credentials opened so far, each once."""
        return tuple(self._opened.values())

    def _single_flight(
        self,
        credential: model.Credential,
        build: Callable[[], Any],
        name: str,
        *,
        expires_at: datetime | None,
    ) -> SingleFlightCredential:
        try:
            patience = _PATIENCE if isinstance(credential, model.ManagedIdentityCredential) else 0.0
            return SingleFlightCredential(
                build,
                name,
                timeout=self._timeout,
                patience=patience,
                expires_at=expires_at,
                token_file=token_file_of(credential),
                sign_in=sign_in_of(credential),
            )
        except (*UNREADABLE, OSError) as error:
            # The SDK validates its arguments, such as a tenant's name, and files in variables.
            file = credential.certificate_file if isinstance(credential, model.ClientCertificateCredential) else None
            subject = f"certificate_file: {file}" if file else credential.type
            raise UsageError(f"credential: {subject}: {error}") from error

    def _builder(self, credential: model.Credential, certificate: dict[str, Any]) -> Callable[[], Any]:
        """A function that makes the SDK's credential, each time it is called. Lambdas, as a `partial` prints its arguments."""
        sdk_options = self._sdk_options()
        match credential:
            case model.DefaultCredential():
                # It tries the developer's own tools, such as az, last.
                return lambda: identity.DefaultAzureCredential(
                    exclude_interactive_browser_credential=True, **sdk_options
                )
            case model.EnvironmentCredential():
                return lambda: identity.EnvironmentCredential(**sdk_options)
            case model.WorkloadIdentityCredential():
                return _workload_identity(credential, sdk_options)
            case model.ManagedIdentityCredential():
                arguments = _without_none({"client_id": credential.client_id})
                return lambda: identity.ManagedIdentityCredential(**arguments, **self._managed_identity_options())
            case model.ClientSecretCredential():
                secret = self._secret(credential)
                return lambda: identity.ClientSecretCredential(
                    credential.tenant_id, credential.client_id, secret, **sdk_options
                )
            case model.ClientCertificateCredential():
                return lambda: identity.CertificateCredential(
                    credential.tenant_id, credential.client_id, **certificate, **sdk_options
                )
            case model.AzureCliCredential():
                return lambda: identity.AzureCliCredential(**_without_none({"tenant_id": credential.tenant_id}))

    def _sdk_options(self) -> dict[str, Any]:
        return {
            "authority": self._endpoints.authority,
            "disable_instance_discovery": not self._endpoints.known,
            # A vault's challenge names its tenant. The configuration decides which tenants are used.
            "additionally_allowed_tenants": ["*"],
            "transport": self._transport,
            "retry_total": 0,
        }

    def _managed_identity_options(self) -> dict[str, Any]:
        return {"transport": self._transport, "retry_total": 0}

    def _secret(self, credential: model.ClientSecretCredential) -> str:
        if credential.client_secret is not None:
            return self._remember(credential.client_secret.read())
        text = _text(credential.client_secret_file, "client_secret_file")
        if not text:
            raise UsageError(f"credential: client_secret_file: {credential.client_secret_file} is empty")
        return self._remember(text)

    def _certificate(self, credential: model.Credential) -> dict[str, Any]:
        """azure-identity's arguments for a certificate and its password, read once; empty for other types."""
        if not isinstance(credential, model.ClientCertificateCredential):
            return {}
        arguments: dict[str, Any] = {"certificate_data": _read(credential.certificate_file, "certificate_file")}
        if credential.password_file is not None:
            arguments["password"] = self._remember(_text(credential.password_file, "password_file"))
        return arguments

    def _remember(self, text: str) -> str:
        """Has the redactor mask `text` from now on, and returns it."""
        self._secrets.append(self._redactor.remember(SecretValue(text)))
        return text


def _workload_identity(credential: model.WorkloadIdentityCredential, sdk_options: dict[str, Any]) -> Callable[[], Any]:
    """A credential that reads its token file for each request.

    The SDK's WorkloadIdentityCredential caches the content for ten minutes, sends an empty one, and does not say which file is
    missing. Raises UsageError if configuration and environment do not have all settings.
    """
    arguments = {
        "tenant_id": credential.tenant_id or os.environ.get("AZURE_TENANT_ID"),
        "client_id": credential.client_id or os.environ.get("AZURE_CLIENT_ID"),
        "token_file": str(credential.token_file or os.environ.get(TOKEN_FILE_VARIABLE, "")),
    }
    missing = [f"{key} (or {variable})" for key, variable in _WORKLOAD_IDENTITY_VARIABLES.items() if not arguments[key]]
    if missing:
        raise UsageError(
            f"credential: workload_identity: {', '.join(missing)} is not set; set what is missing, or choose another `type` "
            "under `credential`"
        )
    source = "token_file: " if credential.token_file else f"{TOKEN_FILE_VARIABLE}="
    return lambda: identity.ClientAssertionCredential(
        arguments["tenant_id"] or "",
        arguments["client_id"] or "",
        lambda: _assertion(source, Path(arguments["token_file"] or "")),
        **sdk_options,
    )


def _assertion(source: str, path: Path) -> str:
    try:
        text = secret_text(read_small(path))
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        # Not chained: the message of a UnicodeDecodeError shows the bytes.
        raise CredentialUnavailableError(
            f"workload_identity: {source}{path}: the file cannot be read ({problem})"
        ) from None
    if not text:
        raise CredentialUnavailableError(f"workload_identity: {source}{path}: the file is empty")
    return text


def _expiry(
    credential: model.Credential, certificate_data: bytes | None = None, password: str | None = None
) -> datetime | None:
    """When the certificate of `credential` expires; None for other types, whose expiry is unknown or irrelevant."""
    if certificate_data is not None:
        return expiry_of(certificate_data, password.encode() if password else None)
    if isinstance(credential, model.EnvironmentCredential) and not os.environ.get("AZURE_CLIENT_SECRET"):
        return _expiry_in_environment()
    return None


def _expiry_in_environment() -> datetime | None:
    path = os.environ.get("AZURE_CLIENT_CERTIFICATE_PATH")
    password = os.environ.get("AZURE_CLIENT_CERTIFICATE_PASSWORD")
    try:
        return expiry_of(read_small(Path(path)), password.encode() if password else None) if path else None
    except OSError:
        return None  # azure-identity reports it at the first token request


def _without_none(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


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
