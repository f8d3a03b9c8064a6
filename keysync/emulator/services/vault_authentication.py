"""The challenge of a vault, and the checks of the token that a caller sends."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Final

from keysync.emulator.challenge_data import CLOUDS
from keysync.emulator.services.entra import Entra
from keysync.emulator.tokens import BadToken, Token, issuer_of
from keysync.emulator.vault import Vault
from keysync.emulator.wire import Call, Refused, Reply, error

_PUBLIC_AUDIENCE: Final = "https://vault.azure.net"
_MICROSOFT_TENANT: Final = "f8cdef31-a31e-4b4a-93e4-5f571e91255a"
"""The tenant of Microsoft's own services, whose tokens every vault accepts."""


class VaultAuthentication:
    """Reads the tokens of callers. `authority` is the URL of Entra, `clock` its time in seconds since 1970."""

    def __init__(self, vault: Vault, entra: Entra, clock: Callable[[], float], authority: str) -> None:
        self._vault = vault
        self._entra = entra
        self._clock = clock
        self._authority = authority
        self._first_seen: dict[str, int] = {}

    def token(self, call: Call) -> Token:
        """The token of the caller. Raises Refused with a challenge if there is none, or if it is not for this vault."""
        if call.bearer is None:
            raise self._challenge(call, self._no_token())
        try:
            token = self._entra.read(call.bearer)
        except BadToken:  # as in Azure-Samples/azuresandbox#362
            message = "AKV10046: Unable to resolve the key used for signature validation."
            raise self._challenge(call, message) from None
        self._check(call, token)
        if self._first_seen.setdefault(call.bearer, self._vault.token_epoch) < self._vault.token_epoch:
            raise self._claims_challenge()
        return token

    def _check(self, call: Call, token: Token) -> None:
        tenant = self._vault.tenant_id
        if token.tenant_id.lower() != tenant.lower():
            expected = ", ".join(issuer_of(each) for each in (tenant, _MICROSOFT_TENANT))
            message = f"AKV10032: Invalid issuer. Expected one of {expected}, found {token.issuer}."
            raise self._challenge(call, message)
        resource = self._resource(call)
        if token.audience.rstrip("/") not in {call.base, _parent_domain(call), resource, _PUBLIC_AUDIENCE}:
            message = f"AKV10022: Invalid audience. Expected {resource}, found: {token.audience}."
            raise self._challenge(call, message)
        if token.expires <= self._clock():  # as in Azure/azure-sdk-for-python#12368
            raise self._challenge(call, "Error validating token: IDX10223")

    def _no_token(self) -> str:
        kinds = "Bearer or PoP" if self._vault.challenge.cloud in {"usgov", "china"} else "Bearer, PoP, or MTLS_POP"
        return f"AKV10000: Request is missing a {kinds} token."

    def _challenge(self, call: Call, message: str) -> Refused:
        form = self._vault.challenge
        tenant = f"{self._login_authority()}/{self._vault.tenant_id}"
        header = f'{form.scheme} {form.parameter}="{tenant}", resource="{self._resource(call)}"'
        headers = {"WWW-Authenticate": header}
        return Refused(error(401, "Unauthorized", message, headers=headers) if form.body else Reply(401, None, headers))

    def _claims_challenge(self) -> Refused:
        """The challenge of continuous access evaluation: the caller has to ask Entra for a token with these claims."""
        claims = {"access_token": {"nbf": {"essential": True, "value": str(int(self._clock()))}}}
        encoded = base64.b64encode(json.dumps(claims).encode()).decode()
        header = (
            f'Bearer realm="", authorization_uri="{self._login_authority()}/common/oauth2/authorize", '
            f'error="insufficient_claims", claims="{encoded}"'
        )
        return Refused(error(401, "Unauthorized", "AKV10000", headers={"WWW-Authenticate": header}))

    def _login_authority(self) -> str:
        form = self._vault.challenge
        return form.authority or (self._authority if form.cloud == "emulator" else CLOUDS[form.cloud][0])

    def _resource(self, call: Call) -> str:
        form = self._vault.challenge
        return form.resource or (_parent_domain(call) if form.cloud == "emulator" else CLOUDS[form.cloud][1])


def _parent_domain(call: Call) -> str:
    """The resource of the emulator's own challenge: the parent domain of the vault's host.

    Azure's is https://vault.azure.net. The SDKs refuse a challenge whose resource is no parent domain of the called host.
    The same rule gives 127.0.0.1 a resource that this check accepts. `localhost` has no parent domain, so a client that
    calls it must turn the check off (`verify_challenge_resource`).
    """
    scheme, _, host = call.base.partition("://")
    return f"{scheme}://{host.partition('.')[2] or host}"
