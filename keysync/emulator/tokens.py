"""Access tokens of Entra: signed, read back and revoked. Also the codes and refresh tokens of a user's sign-in."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.types import Options

from keysync.emulator.identity_data import IdentityData
from keysync.emulator.throttle import Clock

_KEY_ID = "keysync-emulator"
_MAX_CACHED_TOKENS = 10_000
_REFRESHED_FROM = 7_200
"""Entra names a time to refresh (`refresh_in`, half of the lifetime) for tokens that live at least this long."""


@cache
def _signing_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(frozen=True)
class Token:
    """The claims of a token with a valid signature. `user` is the sign-in name of a user, None for an application."""

    audience: str
    tenant_id: str
    client_id: str
    object_id: str
    expires: float
    user: str | None = None

    @property
    def issuer(self) -> str:
        """The issuer as services name it."""
        return issuer_of(self.tenant_id)

    @property
    def caller(self) -> str:
        """The caller as Resource Manager names it."""
        return self.user or self.client_id


class BadToken(Exception):
    """The token was revoked, was not signed by this server, or is not a token."""


def issuer_of(tenant_id: str) -> str:
    """The issuer of version 1.0 tokens, in every cloud."""
    return f"https://sts.windows.net/{tenant_id}/"


class Tokens:
    """The tokens of all tenants. `lifetime` is in seconds; `refresh_in` replaces Entra's rule for it."""

    def __init__(self, clock: Clock, *, lifetime: int, refresh_in: int | None) -> None:
        self._clock = clock
        self.lifetime = lifetime
        self._refresh_in = refresh_in
        self._cached: dict[str, Token] = {}
        self._revoked: set[str] = set()
        self._issued: list[str] = []

    @property
    def refresh_in(self) -> int | None:
        """After how many seconds a client should replace a token, None if the reply does not say."""
        if self._refresh_in is None and self.lifetime >= _REFRESHED_FROM:
            return self.lifetime // 2
        return self._refresh_in

    def issue(self, identity: IdentityData, tenant_id: str, audience: str, *, client_id: str | None = None) -> str:
        """A signed access token for `audience`. `client_id` is the application in which a user signs in."""
        is_user = identity.type == "user"
        claims: dict[str, object] = {
            "aud": audience,
            "iss": issuer_of(tenant_id),
            **self._validity(),
            "tid": tenant_id,
            "appid": client_id or identity.client_id,
            "appidacr": "1",
            "aio": uuid.uuid4().hex,
            "idp": issuer_of(tenant_id),
            "oid": identity.object_id,
            "sub": identity.object_id,
            "idtyp": "user" if is_user else "app",
            "ver": "1.0",
            "uti": uuid.uuid4().hex,
        }
        if is_user:
            claims |= {"upn": identity.user_principal_name, "name": identity.name, "scp": "user_impersonation"}
        token = _sign(claims)
        self._issued.append(token)
        return token

    def id_token(self, identity: IdentityData, tenant_id: str, issuer: str, extra: Mapping[str, str]) -> str:
        """The token about a user for the application itself (`aud` in `extra`)."""
        claims = {
            "iss": issuer,
            **self._validity(),
            "tid": tenant_id,
            "oid": identity.object_id,
            "sub": identity.object_id,
            "name": identity.name,
            "preferred_username": identity.user_principal_name,
            "ver": "2.0",
            **extra,
        }
        return _sign(claims)

    def _validity(self) -> dict[str, object]:
        now = int(self._clock())
        return {"iat": now, "nbf": now, "exp": now + self.lifetime}

    def seal(self, purpose: str, claims: Mapping[str, str]) -> str:
        """A code or refresh token that carries `claims`. No two are equal."""
        return _sign({"purpose": purpose, "jti": uuid.uuid4().hex, **claims})

    def unseal(self, purpose: str, sealed: str) -> dict[str, str]:
        """The claims of a code or refresh token. Raises BadToken for any other text."""
        claims = _verify(sealed)
        if claims.get("purpose") != purpose:
            raise BadToken(purpose)
        return {name: str(value) for name, value in claims.items()}

    def revoke(self) -> None:
        """Revoke every access token issued so far."""
        self._revoked.update(self._issued)
        self._issued.clear()

    def read(self, token: str) -> Token:
        """The claims of a token. The called service checks audience, tenant and expiry. Raises BadToken."""
        if token in self._revoked:
            raise BadToken("revoked")
        cached = self._cached.get(token)
        if cached is not None:
            return cached
        claims = _verify(token)
        try:
            user = claims.get("upn")
            content = Token(
                str(claims["aud"]), str(claims["tid"]), str(claims["appid"]), str(claims["oid"]),
                float(str(claims["exp"])), None if user is None else str(user),
            )  # fmt: skip
        except (KeyError, ValueError) as failure:
            raise BadToken(str(failure)) from failure
        if len(self._cached) >= _MAX_CACHED_TOKENS:
            self._cached.clear()
        self._cached[token] = content
        return content


def signing_keys() -> dict[str, object]:
    """The public keys as a JSON Web Key Set."""
    numbers = _signing_key().public_key().public_numbers()
    key = {"kty": "RSA", "use": "sig", "kid": _KEY_ID, "n": _base64url(numbers.n), "e": _base64url(numbers.e)}
    return {"keys": [key]}


def _sign(claims: Mapping[str, object]) -> str:
    return jwt.encode(dict(claims), _signing_key(), algorithm="RS256", headers={"kid": _KEY_ID})


def _verify(token: str) -> dict[str, object]:
    # Expiry is measured by the emulator's clock, so the service checks it and not the library.
    options: Options = {"verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False}
    try:
        claims: dict[str, object] = jwt.decode(
            token, _signing_key().public_key(), algorithms=["RS256"], options=options
        )
    except (jwt.PyJWTError, TypeError) as failure:
        raise BadToken(str(failure)) from failure
    return claims


def _base64url(number: int) -> str:
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
