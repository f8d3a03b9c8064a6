"""Entra ID: discovery, and tokens for a client secret, a federated assertion or a managed identity."""

from __future__ import annotations

import base64
import re
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.types import Options

from keysync.emulator.data import OBJECT_ID, EmulatorData
from keysync.emulator.wire import Call, Json, Refused, Reply, Route

_KEY_ID = "keysync-emulator"
_MAX_CACHED_TOKENS = 10_000


@cache
def _signing_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(frozen=True)
class Token:
    """The claims of a token with a valid signature."""

    audience: str
    tenant_id: str
    client_id: str
    object_id: str
    expires: float


class BadToken(Exception):
    """The token was revoked, was not signed by this server, or is not a token."""


class Entra:
    """The directory of all tenants in the data."""

    def __init__(self, data: EmulatorData, tenants: Iterable[str], clock: Callable[[], float]) -> None:
        self._data = data
        self._tenants = {tenant.lower(): tenant for tenant in tenants}
        self._clock = clock
        self._cached: dict[str, Token] = {}
        self._revoked: set[str] = set()
        self._issued: list[str] = []

    def issue(self, tenant_id: str, audience: str, issuer: str) -> str:
        """A signed access token for the service principal."""
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
        """Revoke every token issued so far."""
        self._revoked.update(self._issued)
        self._issued.clear()

    def read(self, token: str) -> Token:
        """The claims of a token. The called service checks audience, tenant and expiry. Raises BadToken."""
        if token in self._revoked:
            raise BadToken("revoked")
        cached = self._cached.get(token)
        if cached is not None:
            return cached
        # Expiry is measured by the emulator's clock, so the service checks it and not the library.
        options: Options = {"verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False}
        try:
            claims = jwt.decode(token, _signing_key().public_key(), algorithms=["RS256"], options=options)
            content = Token(claims["aud"], claims["tid"], claims["appid"], claims["oid"], float(claims["exp"]))
        except (jwt.PyJWTError, KeyError, TypeError) as failure:
            raise BadToken(str(failure)) from failure
        if len(self._cached) >= _MAX_CACHED_TOKENS:
            self._cached.clear()
        self._cached[token] = content
        return content

    def route(self, call: Call) -> Route | None:
        """How to serve a call, None if it is not for Entra."""
        parts = [part.lower() for part in call.segments]
        if parts[1:] in (["oauth2", "v2.0", "token"], ["oauth2", "token"]) and call.method == "POST":
            return Route("token", parts[0], lambda: self._token(call, parts[0], v2="v2.0" in parts), service="entra")
        run: Callable[[], Reply]
        if parts[-2:] == [".well-known", "openid-configuration"]:
            run = partial(self._discovery, call, parts[0], v2="v2.0" in parts)
        elif parts[1:] == ["discovery", "instance"]:
            run = partial(self._instance, call)
        elif parts[1:] in (["discovery", "v2.0", "keys"], ["discovery", "keys"]):
            run = self._keys
        else:
            return None
        return Route("discovery", parts[0], run, service="entra")

    def _tenant(self, call: Call, name: str) -> str:
        if name not in self._tenants:
            message = (
                f"Tenant '{name}' not found. Check to make sure you have the correct tenant ID and are signing "
                "into the correct cloud."
            )
            raise Refused(self.error(400, "AADSTS90002", message, call))
        return self._tenants[name]

    def _discovery(self, call: Call, name: str, *, v2: bool) -> Reply:
        shared = name in {"common", "organizations"}
        tenant = name if shared else self._tenant(call, name)
        root = f"{call.base}/{tenant}"
        version = "/v2.0" if v2 else ""
        return Reply(
            200,
            {
                "issuer": f"{root}{version}" if not shared else f"{call.base}/{{tenantid}}{version}",
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
        scope = form.get("scope" if v2 else "resource", "")
        if not scope or (v2 and not scope.split()[0].endswith("/.default")):
            message = "The required field 'scope' is missing or does not end in '/.default'."
            raise Refused(self.error(400, "AADSTS90014", message, call))
        audience = scope.split()[0].removesuffix("/.default") if v2 else scope
        lifetime = self._data.token_lifetime
        content: Json = {
            "token_type": "Bearer",  # nosec B105  # the type of a token
            "expires_in": lifetime if v2 else str(lifetime),
            "ext_expires_in": lifetime if v2 else str(lifetime),
            "access_token": self.issue(tenant, audience, f"{call.base}/{tenant}/"),
        }
        if not v2:
            content.update(resource=scope, expires_on=str(int(self._clock()) + lifetime))
        return Reply(200, content, {"Cache-Control": "no-store"})

    def _check_client(self, call: Call, form: dict[str, str], tenant: str) -> None:
        grant, client = form.get("grant_type", ""), form.get("client_id", "")
        if grant != "client_credentials":
            message = f"The app requested an unsupported grant type '{grant}'."
            raise Refused(self.error(400, "AADSTS70003", message, call))
        if client.lower() != self._data.client_id.lower():
            message = (
                f"Application with identifier '{client}' was not found in the directory '{tenant}'. This can happen "
                "if the application has not been installed by the administrator of the tenant or consented to by any "
                "user in the tenant. You may have sent your authentication request to the wrong tenant."
            )
            raise Refused(self.error(400, "AADSTS700016", message, call))
        if form.get("client_assertion"):
            self._check_assertion(call, form["client_assertion"])
            return
        if not form.get("client_secret"):
            message = (
                "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type."
            )
            raise Refused(self.error(401, "AADSTS7000216", message, call))
        if form["client_secret"] != self._data.client_secret:
            message = (
                "Invalid client secret provided. Ensure the secret being sent in the request is the client secret "
                f"value, not the client secret ID, for a secret added to app '{client}'."
            )
            raise Refused(self.error(401, "AADSTS7000215", message, call))

    def _check_assertion(self, call: Call, assertion: str) -> None:
        """Refuse an expired assertion. Nothing else is checked: neither the signature, nor other claims, nor that it is a JWT."""
        try:
            claims = jwt.decode(assertion, options={"verify_signature": False, "verify_exp": False})
        except jwt.PyJWTError:
            return
        if float(claims.get("exp", "inf")) <= self._clock():
            raise Refused(self.error(401, "AADSTS700024", None, call))

    def error(self, status: int, code: str, message: str | None, call: Call) -> Reply:
        """An error of the token endpoint. `code` is an AADSTS code or an OAuth error code."""
        if not code.startswith("AADSTS"):
            oauth, description = code, message or ""
            match = re.match(r"AADSTS(\d+)", description)
            number = match[1] if match else ""
        else:
            oauth = _OAUTH_ERRORS.get(code, "server_error" if status >= 500 else "invalid_request")
            description = f"{code}: {message or _MESSAGES.get(code, _NO_MESSAGE)}"
            number = code.removeprefix("AADSTS")
        stamp = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(self._clock()))
        trace, correlation = str(uuid.uuid4()), call.headers.get("client-request-id") or str(uuid.uuid4())
        description += f" Trace ID: {trace} Correlation ID: {correlation} Timestamp: {stamp}"
        body: Json = {
            "error": oauth,
            "error_description": description,
            "error_codes": [int(number)] if number.isdigit() else [],
            "timestamp": stamp,
            "trace_id": trace,
            "correlation_id": correlation,
        }
        if number.isdigit():
            body["error_uri"] = f"{call.base}/error?code={number}"
        return Reply(status, body)

    def managed_identity(self, call: Call, header: str) -> Reply:
        """The reply of a managed identity's token endpoint, as in App Service. `header` is the expected X-IDENTITY-HEADER."""
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
                "token_type": "Bearer",  # nosec B105  # the type of a token
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

_NO_MESSAGE = "The request could not be processed."
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
