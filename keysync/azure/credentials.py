"""Credentials of the configuration as azure-identity's aio credentials, with one token request at a time."""

from __future__ import annotations

import asyncio
import hmac
import os
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from random import uniform
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import structlog
from azure.core.credentials import AccessToken, AccessTokenInfo, TokenRequestOptions
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import CredentialUnavailableError
from azure.identity import aio as identity

from keysync.azure.certificate import UNREADABLE, expiry_of
from keysync.azure.clouds import Endpoints
from keysync.azure.sign_in import UNKNOWN, SignIn, sign_in_of
from keysync.azure.transport import SharedTransport
from keysync.config import settings
from keysync.errors import UsageError
from keysync.files import check_regular, read_small, secret_text
from keysync.secret.redact import Redactor
from keysync.secret.value import SecretValue

_TOKEN_VARIABLE: Final = "AZURE_FEDERATED_TOKEN_FILE"  # noqa: S105  # nosec B105  # a name
# Files that azure-identity reads, by the type of credential.
_FILE_VARIABLES: Final = {
    "default": (_TOKEN_VARIABLE, "AZURE_CLIENT_CERTIFICATE_PATH"),
    "environment": ("AZURE_CLIENT_CERTIFICATE_PATH",),
    "workload_identity": (_TOKEN_VARIABLE,),
}
_Key: TypeAlias = tuple[tuple[str, ...], str | None, str | None, bool]
_EARLY: Final = 300.0
# A metadata service that is being updated answers 404 or 410, for up to 70 seconds.
# learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token#error-handling
_BEING_UPDATED: Final = frozenset({404, 410})
_PATIENCE: Final = 70.0
_LONGEST_PAUSE: Final = 16.0
# Entra's refusals of an assertion that a newer one may cure: not within its time range (700024), invalid or revoked (50013),
# or signed with a key that Entra does not know yet or any more (700027).
# learn.microsoft.com/entra/identity-platform/reference-error-codes
_ASSERTION_REFUSED: Final = re.compile(r"AADSTS(?:700024|700027|50013)\b")
# What a workload identity needs, by key of the configuration, and the variable that Kubernetes's webhook sets.
_MOUNTED: Final = {"tenant_id": "AZURE_TENANT_ID", "client_id": "AZURE_CLIENT_ID", "token_file": _TOKEN_VARIABLE}
# What azure-identity takes from the environment and a reply could repeat.
_SECRET_VARIABLES: Final = (
    "AZURE_CLIENT_SECRET",
    "AZURE_CLIENT_CERTIFICATE_PASSWORD",
    "AZURE_PASSWORD",
    "IDENTITY_HEADER",
    "MSI_SECRET",
)


class SingleFlightCredential:
    """Makes one token request for each scope and tenant, however many callers want the token at that moment.

    azure-identity's aio credentials make a request for each concurrent cold caller, and a VM's metadata service answers
    429 near five a second. A token is kept until five minutes before its end, until its `refresh_on`, or until a service
    refuses it. `build` makes the SDK's credential, whose own caches keep a refused token or assertion (MSAL's a token until
    it expires, WorkloadIdentityCredential a token file for ten minutes) and cannot be emptied: a refusal replaces it.
    A request has `timeout` seconds; one that is answered as by a metadata service which is being updated is repeated for
    `patience` seconds on top.
    """

    def __init__(
        self,
        build: Callable[[], Any],
        name: str,
        *,
        timeout: float = 30.0,
        patience: float = 0.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        expires_at: datetime | None = None,
        token_file: Path | None = None,
        sign_in: SignIn = UNKNOWN,
    ) -> None:
        self._build = build
        self._patience = patience
        self._sleep = sleep
        self._inner = build()
        self._refused = False
        self._token_file = token_file
        self.name = name
        self.sign_in = sign_in
        self.expires_at = expires_at
        """When what it signs in with expires, where that can be told."""
        self._timeout = timeout
        self._tokens: dict[_Key, AccessTokenInfo] = {}
        self._flights: dict[_Key, asyncio.Task[AccessTokenInfo]] = {}

    async def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo:
        """The token for `scopes`, from memory or through the one request under way.

        Raises what azure-identity raises: ClientAuthenticationError, CredentialUnavailableError.
        """
        wanted: TokenRequestOptions = options or {}
        key = (scopes, wanted.get("tenant_id"), wanted.get("claims"), bool(wanted.get("enable_cae")))
        token = self._tokens.get(key)
        if token is not None and not _stale(token):
            return token
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._request(key, scopes, wanted), name=f"token {self.name}")
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        # Shielded: one impatient caller must not take the token from the others.
        return await asyncio.shield(flight)

    async def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,
        **_: object,
    ) -> AccessToken:
        """The older protocol of azure-core, by way of `get_token_info`."""
        options: TokenRequestOptions = {"enable_cae": enable_cae}
        if claims:
            options["claims"] = claims
        if tenant_id:
            options["tenant_id"] = tenant_id
        token = await self.get_token_info(*scopes, options=options)
        return AccessToken(token.token, token.expires_on)

    async def _request(self, key: _Key, scopes: tuple[str, ...], options: TokenRequestOptions) -> AccessTokenInfo:
        # A deadline of its own: all who wait share this request, so a hung one would fail every later attempt too.
        try:
            async with asyncio.timeout(self._timeout + self._patience):
                token = await self._patiently(scopes, options)
        except Exception as error:
            vars(error).update(sign_in=self.sign_in, credential=self.name)  # for its record and its hint
            raise
        # A token for claims is good for calls without claims too, and the one before it was refused.
        self._tokens[_without_claims(key)] = token
        return token

    def reject(self, token: str) -> None:
        """Drops `token`, which a service refused with 401: the next call to want one makes a new request for it."""
        dropped = [key for key, known in self._tokens.items() if hmac.compare_digest(known.token, token)]
        for key in dropped:
            del self._tokens[key]
        if dropped:
            self._refused = True
            log: Any = structlog.get_logger("keysync")
            log.info("credential.token_rejected", credential=self.name)

    async def _patiently(self, scopes: tuple[str, ...], options: TokenRequestOptions) -> AccessTokenInfo:
        waited, cap = 0.0, 1.0
        while True:
            try:
                return await self._renewed(scopes, options)
            except ClientAuthenticationError as error:
                if error.status_code not in _BEING_UPDATED or waited >= self._patience:
                    raise
            pause = min(uniform(0.0, cap), self._patience - waited)  # noqa: S311  # nosec B311  # no secret
            waited, cap = waited + pause, min(2 * cap, _LONGEST_PAUSE)
            await self._sleep(pause)

    async def _renewed(self, scopes: tuple[str, ...], options: TokenRequestOptions) -> AccessTokenInfo:
        """A token from a credential that has not been refused; asks a second time where a new assertion may help."""
        if self._refused:
            await self._renew()
        try:
            return await self._ask(scopes, options)
        except ClientAuthenticationError as error:
            if not _ASSERTION_REFUSED.search(str(error)):
                raise
            # The file was read up to ten minutes ago, and may have been replaced since.
            await self._renew()
        try:
            return await self._ask(scopes, options)
        except ClientAuthenticationError:
            self._refused = True
            raise

    async def _renew(self) -> None:
        self._refused, old = False, self._inner
        self._inner = self._build()
        await old.close()

    async def _ask(self, scopes: tuple[str, ...], options: TokenRequestOptions) -> AccessTokenInfo:
        # The SDK reads it on the event loop, where a FIFO would block everything.
        wrong = None if self._token_file is None else _irregular(self._token_file)
        if wrong:
            raise CredentialUnavailableError(f"the token file {self._token_file}: {wrong}")
        if hasattr(self._inner, "get_token_info"):
            token: AccessTokenInfo = await self._inner.get_token_info(*scopes, options=options)
            return token
        plain = await self._inner.get_token(*scopes, **options)
        return AccessTokenInfo(plain.token, plain.expires_on)

    def _landed(self, key: _Key, flight: asyncio.Task[AccessTokenInfo]) -> None:
        self._flights.pop(key, None)
        if not flight.cancelled():
            flight.exception()  # retrieved here, since every caller may have gone

    async def close(self) -> None:
        """Ends a request that nobody waits for any more, then closes the SDK's credential."""
        for flight in tuple(self._flights.values()):
            flight.cancel()
        await asyncio.gather(*self._flights.values(), return_exceptions=True)
        await self._inner.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.close()


def _without_claims(key: _Key) -> _Key:
    scopes, tenant_id, _, enable_cae = key
    return scopes, tenant_id, None, enable_cae


def _stale(token: AccessTokenInfo) -> bool:
    now = time.time()
    return token.expires_on - now < _EARLY or (token.refresh_on is not None and token.refresh_on <= now)


class Credentials:
    """Opens each configured credential once, on the stack handed in, and hands the same one to all who name it."""

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
        self._opened: dict[settings.Credential, SingleFlightCredential] = {}
        # The scrubber holds values weakly; these live as long as the credentials do.
        self._kept: list[SecretValue] = []
        for name in _SECRET_VARIABLES:
            if name in os.environ:
                # azure-identity takes it from there as it is.
                os.environ[name] = self._keep(secret_text(os.environ[name]))

    async def open(self, wanted: settings.Credential) -> SingleFlightCredential:
        """The credential for `wanted`. Raises UsageError where a file or a variable that it needs cannot be read."""
        if wanted not in self._opened:
            check_environment(wanted)
            # Numbered from the second of a kind on, as the log, the doctor and the breakers tell them apart by it.
            same = sum(known.type == wanted.type for known in self._opened)
            name = f"{wanted.type} {same + 1}" if same else wanted.type
            certificate = self._certificate(wanted)
            credential = self._single_flight(
                wanted, self._builder(wanted, certificate), name, expires_at=_expiry(wanted, **certificate)
            )
            self._opened[wanted] = await self._stack.enter_async_context(credential)
        return self._opened[wanted]

    @property
    def opened(self) -> tuple[SingleFlightCredential, ...]:
        """Those opened so far, each once."""
        return tuple(self._opened.values())

    def _single_flight(
        self,
        wanted: settings.Credential,
        build: Callable[[], Any],
        name: str,
        *,
        expires_at: datetime | None,
    ) -> SingleFlightCredential:
        try:
            patience = _PATIENCE if isinstance(wanted, settings.ManagedIdentityCredential) else 0.0
            return SingleFlightCredential(
                build,
                name,
                timeout=self._timeout,
                patience=patience,
                expires_at=expires_at,
                token_file=_token_file(wanted),
                sign_in=sign_in_of(wanted),
            )
        except (*UNREADABLE, OSError) as error:
            # The SDK checks what it is given, such as a tenant's name or a file that a variable names.
            file = wanted.certificate_file if isinstance(wanted, settings.ClientCertificateCredential) else None
            what = f"certificate_file: {file}" if file else wanted.type
            raise UsageError(f"credential: {what}: {error}") from error

    def _builder(self, wanted: settings.Credential, certificate: dict[str, Any]) -> Callable[[], Any]:
        """A function that makes the SDK's credential; it may be called again. Lambdas, since a `partial` prints its arguments."""
        common = self._common()
        match wanted:
            case settings.DefaultCredential():
                # A developer's own tools answer last and only if nothing else does.
                return lambda: identity.DefaultAzureCredential(exclude_interactive_browser_credential=True, **common)
            case settings.EnvironmentCredential():
                return lambda: identity.EnvironmentCredential(**common)
            case settings.WorkloadIdentityCredential():
                return _workload_identity(wanted, common)
            case settings.ManagedIdentityCredential():
                given = _set({"client_id": wanted.client_id})
                return lambda: identity.ManagedIdentityCredential(**given, **self._managed())
            case settings.ClientSecretCredential():
                secret = self._secret(wanted)
                return lambda: identity.ClientSecretCredential(wanted.tenant_id, wanted.client_id, secret, **common)
            case settings.ClientCertificateCredential():
                return lambda: identity.CertificateCredential(
                    wanted.tenant_id, wanted.client_id, **certificate, **common
                )
            case settings.AzureCliCredential():
                return lambda: identity.AzureCliCredential(**_set({"tenant_id": wanted.tenant_id}))

    def _common(self) -> dict[str, Any]:
        return {
            "authority": self._endpoints.authority,
            "disable_instance_discovery": not self._endpoints.known,
            # A vault's challenge names its tenant; which tenants may be asked is decided by the configuration.
            "additionally_allowed_tenants": ["*"],
            "transport": self._transport,
            "retry_total": 0,
        }

    def _managed(self) -> dict[str, Any]:
        return {"transport": self._transport, "retry_total": 0}

    def _secret(self, wanted: settings.ClientSecretCredential) -> str:
        if wanted.client_secret is not None:
            return self._keep(wanted.client_secret.read())
        text = _text(wanted.client_secret_file, "client_secret_file")
        if not text:
            raise UsageError(f"credential: client_secret_file: {wanted.client_secret_file} is empty")
        return self._keep(text)

    def _certificate(self, wanted: settings.Credential) -> dict[str, Any]:
        """What azure-identity calls a certificate and its password, read once; empty for what signs in without."""
        if not isinstance(wanted, settings.ClientCertificateCredential):
            return {}
        given: dict[str, Any] = {"certificate_data": _read(wanted.certificate_file, "certificate_file")}
        if wanted.password_file is not None:
            given["password"] = self._keep(_text(wanted.password_file, "password_file"))
        return given

    def _keep(self, text: str) -> str:
        """`text`, which from now on is masked wherever a service or an SDK repeats it."""
        self._kept.append(self._redactor.remember(SecretValue(text)))
        return text


def _workload_identity(wanted: settings.WorkloadIdentityCredential, common: dict[str, Any]) -> Callable[[], Any]:
    """A credential that reads its token file for each request.

    The SDK's WorkloadIdentityCredential keeps the content for ten minutes, sends an empty one, and does not say which file
    is missing. Raises UsageError where configuration and environment leave something out.
    """
    given = {
        "tenant_id": wanted.tenant_id or os.environ.get("AZURE_TENANT_ID"),
        "client_id": wanted.client_id or os.environ.get("AZURE_CLIENT_ID"),
        "token_file": str(wanted.token_file or os.environ.get(_TOKEN_VARIABLE, "")),
    }
    missing = [f"{key} (or {variable})" for key, variable in _MOUNTED.items() if not given[key]]
    if missing:
        raise UsageError(
            f"credential: workload_identity: {', '.join(missing)} is not set; set what is missing, or choose another `type` "
            "under `credential`"
        )
    place = "token_file: " if wanted.token_file else f"{_TOKEN_VARIABLE}="
    return lambda: identity.ClientAssertionCredential(
        given["tenant_id"] or "",
        given["client_id"] or "",
        lambda: _assertion(place, Path(given["token_file"] or "")),
        **common,
    )


def _assertion(place: str, path: Path) -> str:
    try:
        text = secret_text(read_small(path))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        # Without its cause: the text of a decoding error shows the bytes.
        raise CredentialUnavailableError(f"workload_identity: {place}{path}: the file cannot be read ({why})") from None
    if not text:
        raise CredentialUnavailableError(f"workload_identity: {place}{path}: the file is empty")
    return text


def _expiry(
    wanted: settings.Credential, certificate_data: bytes | None = None, password: str | None = None
) -> datetime | None:
    """When a certificate expires. What else one signs in with does not tell, or is renewed by itself."""
    if certificate_data is not None:
        return expiry_of(certificate_data, password.encode() if password else None)
    if isinstance(wanted, settings.EnvironmentCredential) and not os.environ.get("AZURE_CLIENT_SECRET"):
        return _expiry_in_environment()
    return None


def _expiry_in_environment() -> datetime | None:
    path, password = (
        os.environ.get("AZURE_CLIENT_CERTIFICATE_PATH"),
        os.environ.get("AZURE_CLIENT_CERTIFICATE_PASSWORD"),
    )
    try:
        return expiry_of(read_small(Path(path)), password.encode() if password else None) if path else None
    except OSError:
        return None  # azure-identity says so when it is asked for a token


def check_environment(wanted: settings.Credential) -> None:
    """Raises UsageError with what a credential finds in the environment too late: variables or files that it cannot use."""
    if isinstance(wanted, settings.WorkloadIdentityCredential):
        _check_mounted_token(wanted)
    if isinstance(wanted, settings.EnvironmentCredential):
        _check_variables()
    for name in _FILE_VARIABLES.get(wanted.type, ()):
        path = os.environ.get(name)
        wrong = _irregular(Path(path)) if path else None
        if wrong:
            raise UsageError(f"credential: {wanted.type}: {name}={path}: {wrong}")


def _token_file(wanted: settings.Credential) -> Path | None:
    """The file that azure-identity itself reads again and again while it signs in as `wanted`."""
    named = os.environ.get(_TOKEN_VARIABLE) if isinstance(wanted, settings.DefaultCredential) else None
    return Path(named) if named else None


def _irregular(path: Path) -> str | None:
    """What `path` leads to where it is no regular file. A missing file is None: the SDK reports that itself."""
    try:
        check_regular(path)
    except OSError as error:
        return error.strerror if path.exists() else None
    return None


def _check_mounted_token(wanted: settings.WorkloadIdentityCredential) -> None:
    """The file that a variable names; one of the configuration was looked for when that was read."""
    path = os.environ.get(_TOKEN_VARIABLE)
    if wanted.token_file is None and path and not os.access(path, os.R_OK):
        why = "cannot be read" if Path(path).exists() else "there is no such file"
        raise UsageError(
            f"credential: workload_identity: {_TOKEN_VARIABLE}={path}: {why}; name the token that Kubernetes mounts (its webhook sets the "
            "variable), or choose another `type` under `credential`"
        )


def _check_variables() -> None:
    proofs = ("AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH")
    missing = [name for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID") if not os.environ.get(name)]
    if not any(os.environ.get(name) for name in proofs):
        missing.append(f"{proofs[0]} (or {proofs[1]})")
    elif os.environ.get(proofs[0]) == "":
        # azure-identity goes by whether it is set.
        raise UsageError(f"credential: environment: {proofs[0]} is set and empty; unset it to sign in with {proofs[1]}")
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        told = f"credential: environment: {', '.join(missing)} {verb} not set"
        raise UsageError(f"{told}; set what is missing, or choose another `type` under `credential`")


def _set(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _read(path: Path | None, key: str) -> bytes:
    try:
        return read_small(path) if path else b""
    except OSError as error:
        raise UsageError(f"credential: {key}: {path} cannot be read ({error.strerror})") from error


def _text(path: Path | None, key: str) -> str:
    try:
        return secret_text(_read(path, key))
    except UnicodeDecodeError:
        # Without its cause, which shows the bytes.
        raise UsageError(f"credential: {key}: {path} is not text in UTF-8") from None
