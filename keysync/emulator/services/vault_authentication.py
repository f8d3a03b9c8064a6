"""The challenge of a vault, and the checks of the token that a caller sends."""

from __future__ import annotations

from collections.abc import Callable

from keysync.emulator.services.entra import BadToken, Entra, Token
from keysync.emulator.vault import Vault
from keysync.emulator.wire import Call, Refused, Reply, error

_PUBLIC_AUDIENCE = "https://vault.azure.net"


class VaultAuthentication:
    """Reads the tokens of callers. `authority` is the URL of Entra, `clock` its time in seconds since 1970."""

    def __init__(self, vault: Vault, entra: Entra, clock: Callable[[], float], authority: str) -> None:
        self._vault = vault
        self._entra = entra
        self._clock = clock
        self._authority = authority

    def token(self, call: Call) -> Token:
        """The token of the caller. Raises Refused with a challenge if there is none, or if it is not for this vault."""
        if call.bearer is None:
            raise self._challenge(call, "AKV10000: Request is missing a Bearer or PoP token.")
        try:
            token = self._entra.read(call.bearer)
        except BadToken:
            raise self._challenge(call, "AKV10001: The token is malformed or its signature is not valid.") from None
        if token.tenant_id.lower() != self._vault.tenant_id.lower():
            raise self._challenge(call, f"AKV10032: Invalid issuer: the vault belongs to {self._vault.tenant_id}.")
        if token.audience.rstrip("/") not in {call.base, _resource(call), _PUBLIC_AUDIENCE}:
            message = f"AKV10022: Invalid audience: expected {_resource(call)}, found {token.audience}."
            raise self._challenge(call, message)
        if token.expires <= self._clock():
            raise self._challenge(call, "AKV10001: The token has expired.")
        return token

    def _challenge(self, call: Call, message: str) -> Refused:
        challenge = f'Bearer authorization="{self._authority}/{self._vault.tenant_id}", resource="{_resource(call)}"'
        reply: Reply = error(401, "Unauthorized", message, headers={"WWW-Authenticate": challenge})
        return Refused(reply)


def _resource(call: Call) -> str:
    """The resource of the challenge: the parent domain of the vault's host.

    Azure's is https://vault.azure.net. The SDKs refuse a challenge whose resource is no parent domain of the called host.
    The same rule gives 127.0.0.1 a resource that this check accepts. `localhost` has no parent domain, so a client that
    calls it must turn the check off (`verify_challenge_resource`).
    """
    scheme, _, host = call.base.partition("://")
    return f"{scheme}://{host.partition('.')[2] or host}"
