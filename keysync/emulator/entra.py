"""Entra ID: discovery, tokens for a client secret, a federated assertion or a managed identity, and their check."""

from __future__ import annotations

import base64
import re
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.types import Options

from keysync.emulator.data import OBJECT_ID, EmulatorData
from keysync.emulator.wire import Call, Json, Refused, Reply, Route

_KEY_ID = "keysync-emulator"
_CHECKED_AT_MOST = 10_000


@cache
def _signing_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(frozen=True)
class Token:
    """What a token says, once its signature was found good."""

    audience: str
    tenant_id: str
    client_id: str
    object_id: str
    expires: float


class BadToken(Exception):  # says what the token is
    """The token was not signed here, or is no token."""


class Entra:
    """The directory of all tenants that the data names."""

    def __init__(self, data: EmulatorData, tenants: Iterable[str], clock: Callable[[], float]) -> None:
        self._data = data
        self._tenants = {tenant.lower(): tenant for tenant in tenants}
        self._clock = clock
        self._checked: dict[str, Token] = {}
        self._revoked: set[str] = set()
        self._issued: list[str] = []

    def issue(self, tenant_id: str, audience: str, issuer: str) -> str:
        """A signed access token of the service principal."""
        now = int(self._clock())
        claims = {
            "aud": audience,
            "iss": issuer,
            "iat": now,
            "nbf": now,
            "exp": now + self._data.token_lifetime,
            "tid": tenant_id,
            "appid": self._data.client_id,
            "oid": OBJECT_ID,
            "sub": OBJECT_ID,
            "idtyp": "app",
            "ver": "1.0",
            "jti": uuid.uuid4().hex,
        }
        token = jwt.encode(claims, _signing_key(), algorithm="RS256", headers={"kid": _KEY_ID})
        self._issued.append(token)
        return token

    def revoke(self) -> None:
        """Every token issued so far is refused from now on, although it has not expired."""
        self._revoked.update(self._issued)
        self._issued.clear()

    def read(self, token: str) -> Token:
        """The content of a token; whether it fits the call is for the service to say."""
        if token in self._revoked:
            raise BadToken("revoked")
        known = self._checked.get(token)
        if known is not None:
            return known
        # Expiry goes by the emulator's own clock, so it is compared by the service and not by the library.
        options: Options = {"verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False}
        try:
            claims = jwt.decode(token, _signing_key().public_key(), algorithms=["RS256"], options=options)
            read = Token(claims["aud"], claims["tid"], claims["appid"], claims["oid"], float(claims["exp"]))
        except (jwt.PyJWTError, KeyError, TypeError) as wrong:
            raise BadToken(str(wrong)) from wrong
        if len(self._checked) >= _CHECKED_AT_MOST:
            self._checked.clear()
        self._checked[token] = read
        return read

    def route(self, call: Call) -> Route | None:
        """The operation of Entra that a call is about, if it is about one."""
        parts = [part.lower() for part in call.segments]
        if parts[1:] in (["oauth2", "v2.0", "token"], ["oauth2", "token"]) and call.method == "POST":
            return Route("token", parts[0], lambda: self._token(call, parts[0], v2="v2.0" in parts), service="entra")
        if parts[-2:] == [".well-known", "openid-configuration"]:
            run = lambda: self._discovery(call, parts[0], v2="v2.0" in parts)  # noqa: E731
        elif parts[1:] == ["discovery", "instance"]:
            run = lambda: self._instance(call)  # noqa: E731
        elif parts[1:] in (["discovery", "v2.0", "keys"], ["discovery", "keys"]):
            run = self._keys
        else:
            return None
        return Route("discovery", parts[0], run, service="entra")

    def _tenant(self, call: Call, name: str) -> str:
        if name not in self._tenants:
            told = (
                f"Tenant '{name}' not found. Check to make sure you have the correct tenant ID and are signing "
                "into the correct cloud."
            )
            raise Refused(self.error(400, "AADSTS90002", told, call))
        return self._tenants[name]

    def _discovery(self, call: Call, name: str, *, v2: bool) -> Reply:
        known = name in {"common", "organizations"}
        tenant = name if known else self._tenant(call, name)
        root = f"{call.base}/{tenant}"
        version = "/v2.0" if v2 else ""
        return Reply(
            200,
            {
                "issuer": f"{root}{version}" if not known else f"{call.base}/{{tenantid}}{version}",
                "authorization_endpoint": f"{root}/oauth2{version}/authorize",
                "token_endpoint": f"{root}/oauth2{version}/token",
                "device_authorization_endpoint": f"{root}/oauth2{version}/devicecode",
                "jwks_uri": f"{root}/discovery{version}/keys",
                "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
                "response_types_supported": ["code"],
                "subject_types_supported": ["pairwise"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "tenant_region_scope": "EU",
                "cloud_instance_name": call.base.removeprefix("https://"),
            },
        )

    def _instance(self, call: Call) -> Reply:
        host = call.base.removeprefix("https://")
        return Reply(
            200,
            {
                "tenant_discovery_endpoint": f"{call.base}/{self._data.tenant_id}/v2.0/.well-known/openid-configuration",
                "api-version": "1.1",
                "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
            },
        )

    def _keys(self) -> Reply:
        numbers = _signing_key().public_key().public_numbers()
        return Reply(
            200,
            {
                "keys": [
                    {
                        "kty": "RSA",
                        "use": "sig",
                        "kid": _KEY_ID,
                        "n": _base64url(numbers.n),
                        "e": _base64url(numbers.e),
                    }
                ]
            },
        )

    def _token(self, call: Call, name: str, *, v2: bool) -> Reply:
        tenant = self._tenant(call, name)
        form = {key: values[-1] for key, values in parse_qs(call.body.decode("utf-8", "replace")).items()}
        self._check_client(call, form, tenant)
        wanted = form.get("scope" if v2 else "resource", "")
        if not wanted or (v2 and not wanted.split()[0].endswith("/.default")):
            missing = "The required field 'scope' is missing or does not end in '/.default'."
            raise Refused(self.error(400, "AADSTS90014", missing, call))
        audience = wanted.split()[0].removesuffix("/.default") if v2 else wanted
        lifetime = self._data.token_lifetime
        told: Json = {
            "token_type": "Bearer",  # nosec B105  # the kind of a token
            "expires_in": lifetime if v2 else str(lifetime),
            "ext_expires_in": lifetime if v2 else str(lifetime),
            "access_token": self.issue(tenant, audience, f"{call.base}/{tenant}/"),
        }
        if not v2:
            told.update(resource=wanted, expires_on=str(int(self._clock()) + lifetime))
        return Reply(200, told, {"Cache-Control": "no-store"})

    def _check_client(self, call: Call, form: dict[str, str], tenant: str) -> None:
        grant, client = form.get("grant_type", ""), form.get("client_id", "")
        if grant != "client_credentials":
            told = f"The app requested an unsupported grant type '{grant}'."
            raise Refused(self.error(400, "AADSTS70003", told, call))
        if client.lower() != self._data.client_id.lower():
            told = (
                f"Application with identifier '{client}' was not found in the directory '{tenant}'. This can happen "
                "if the application has not been installed by the administrator of the tenant or consented to by any "
                "user in the tenant. You may have sent your authentication request to the wrong tenant."
            )
            raise Refused(self.error(400, "AADSTS700016", told, call))
        if form.get("client_assertion"):
            self._check_assertion(call, form["client_assertion"])
            return
        if not form.get("client_secret"):
            told = (
                "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type."
            )
            raise Refused(self.error(401, "AADSTS7000216", told, call))
        if form["client_secret"] != self._data.client_secret:
            told = (
                "Invalid client secret provided. Ensure the secret being sent in the request is the client secret "
                f"value, not the client secret ID, for a secret added to app '{client}'."
            )
            raise Refused(self.error(401, "AADSTS7000215", told, call))

    def _check_assertion(self, call: Call, assertion: str) -> None:
        """Refuses an assertion that has expired; its signature and its claims are not checked, nor that it is a JWT."""
        try:
            claims = jwt.decode(assertion, options={"verify_signature": False, "verify_exp": False})
        except jwt.PyJWTError:
            return
        if float(claims.get("exp", "inf")) <= self._clock():
            raise Refused(self.error(401, "AADSTS700024", None, call))

    def error(self, status: int, code: str, message: str | None, call: Call) -> Reply:
        """An error as the token endpoint tells it; `code` is one of AADSTS, or an OAuth error of its own."""
        if not code.startswith("AADSTS"):
            oauth, described = code, message or ""
            found = re.match(r"AADSTS(\d+)", described)
            number = found[1] if found else ""
        else:
            oauth = _OAUTH_ERRORS.get(code, "server_error" if status >= 500 else "invalid_request")
            described, number = f"{code}: {message or _MESSAGES.get(code, _UNTOLD)}", code.removeprefix("AADSTS")
        stamp = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(self._clock()))
        trace, correlation = str(uuid.uuid4()), call.headers.get("client-request-id") or str(uuid.uuid4())
        described += f" Trace ID: {trace} Correlation ID: {correlation} Timestamp: {stamp}"
        body: Json = {
            "error": oauth,
            "error_description": described,
            "error_codes": [int(number)] if number.isdigit() else [],
            "timestamp": stamp,
            "trace_id": trace,
            "correlation_id": correlation,
        }
        if number.isdigit():
            body["error_uri"] = f"{call.base}/error?code={number}"
        return Reply(status, body)

    def managed_identity(self, call: Call, header: str) -> Reply:
        """The endpoint of a managed identity, as App Service has it."""
        if call.headers.get("X-IDENTITY-HEADER") != header:
            return Reply(401, {"statusCode": 401, "message": "The X-IDENTITY-HEADER is missing or wrong."})
        resource = call.query.get("resource", "")
        if not resource or not call.query.get("api-version"):
            return Reply(400, {"statusCode": 400, "message": "Both resource and api-version are needed."})
        client = call.query.get("client_id", self._data.client_id)
        if client.lower() != self._data.client_id.lower():
            return Reply(400, {"statusCode": 400, "message": "No User Assigned or Delegated Managed Identity found."})
        tenant = self._data.tenant_id
        return Reply(
            200,
            {
                "access_token": self.issue(tenant, resource, f"{call.base}/{tenant}/"),
                "expires_on": str(int(self._clock()) + self._data.token_lifetime),
                "resource": resource,
                "token_type": "Bearer",  # nosec B105  # the kind of a token
                "client_id": client,
            },
        )


_OAUTH_ERRORS = {
    "AADSTS7000215": "invalid_client",
    "AADSTS7000216": "invalid_client",
    "AADSTS7000222": "invalid_client",
    "AADSTS700016": "unauthorized_client",
    "AADSTS70003": "unsupported_grant_type",
    "AADSTS700024": "invalid_client",
    "AADSTS70021": "invalid_request",
    "AADSTS90033": "temporarily_unavailable",
}

_UNTOLD = "The request could not be processed."
_MESSAGES = {
    "AADSTS7000215": "Invalid client secret provided.",
    "AADSTS7000222": (
        "The provided client secret keys for the app are expired. Visit the Azure portal to create new keys for your "
        "app, or consider using certificate credentials for added security."
    ),
    "AADSTS700024": "Client assertion is not within its valid time range.",
    "AADSTS70021": "No matching federated identity record found for presented assertion.",
    "AADSTS90033": "A transient error has occurred. Please try again.",
}


def _base64url(number: int) -> str:
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
