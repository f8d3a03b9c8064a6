"""A credential that makes one token request at a time, however many calls need the token."""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import structlog
from azure.core.credentials import AccessTokenInfo, TokenRequestOptions
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import CredentialUnavailableError

from keysync.azure.sign_in import UNKNOWN, SignIn
from keysync.files import irregular_reason

_Key: TypeAlias = tuple[tuple[str, ...], str | None, str | None, bool]
_RENEW_BEFORE_EXPIRY: Final = 300.0
# Errors of Entra that a newer assertion may fix: outside its validity (700024), invalid or revoked (50013), or signed with a key
# that Entra does not know yet or no longer (700027).
# learn.microsoft.com/entra/identity-platform/reference-error-codes
_ASSERTION_REFUSED: Final = re.compile(r"AADSTS(?:700024|700027|50013)\b")


class SingleFlightCredential:
    """Makes one token request at a time for each scope and tenant; concurrent callers share it. Caches the tokens.

    Without it, azure-identity's aio credentials make a request for each concurrent caller, and a VM's metadata service replies
    429 at about five requests per second. A token is cached until five minutes before it expires, until its `refresh_on`, or
    until a service refuses it.

    `build` makes the SDK's credential. The SDK's own caches keep a refused token (MSAL, until it expires) or assertion
    (WorkloadIdentityCredential, for ten minutes) and cannot be cleared, so a refusal replaces the SDK's credential.

    A request has `timeout` seconds.
    """

    def __init__(
        self, build: Callable[[], Any], name: str, sign_in: SignIn = UNKNOWN, *, timeout: float = 30.0
    ) -> None:
        self.name = name
        self.sign_in = sign_in
        self.expires_at = sign_in.expires_at
        self._build = build
        self._timeout = timeout
        self._sdk_credential = build()
        self._rebuild_needed = False
        self._tokens: dict[_Key, AccessTokenInfo] = {}
        self._requests: dict[_Key, asyncio.Task[AccessTokenInfo]] = {}

    async def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo:
        """The token for `scopes`, from the cache or from the current request.

        Raises what azure-identity raises: ClientAuthenticationError, CredentialUnavailableError.
        """
        requested: TokenRequestOptions = options or {}
        key = (scopes, requested.get("tenant_id"), requested.get("claims"), bool(requested.get("enable_cae")))
        token = self._tokens.get(key)
        if token is not None and not _needs_renewal(token):
            return token
        request = self._requests.get(key)
        if request is None:
            request = asyncio.create_task(self._single_request(key, scopes, requested), name=f"token {self.name}")
            self._requests[key] = request
            request.add_done_callback(lambda done: self._request_done(key, done))
        # Shielded: a cancelled caller must not cancel the request of the others.
        return await asyncio.shield(request)

    def _request_done(self, key: _Key, request: asyncio.Task[AccessTokenInfo]) -> None:
        del self._requests[key]
        if not request.cancelled():
            request.exception()  # retrieved here, as all callers may have been cancelled

    def reject(self, token: str) -> None:
        """Removes `token` from the cache after a service has refused it with 401. The next call requests a new one."""
        kept = {key: cached for key, cached in self._tokens.items() if not hmac.compare_digest(cached.token, token)}
        if len(kept) < len(self._tokens):
            self._tokens, self._rebuild_needed = kept, True
            log: Any = structlog.get_logger("keysync")
            log.info("credential.token_rejected", credential=self.name)

    async def _single_request(
        self, key: _Key, scopes: tuple[str, ...], options: TokenRequestOptions
    ) -> AccessTokenInfo:
        # With its own deadline: callers share this request, so a hanging one would fail every later attempt too.
        try:
            async with asyncio.timeout(self._timeout):
                token = await self._token(scopes, options)
        except Exception as error:
            vars(error).update(sign_in=self.sign_in, credential=self.name)  # for the failure record and its hint
            raise
        # A token with claims is also valid for calls without claims, and replaces a refused token.
        scopes, tenant_id, _, enable_cae = key
        self._tokens[scopes, tenant_id, None, enable_cae] = token
        return token

    async def _token(self, scopes: tuple[str, ...], options: TokenRequestOptions) -> AccessTokenInfo:
        """A token of an SDK credential without refused tokens; makes another request for a refused assertion."""
        assertion_refused = False
        while True:
            if self._rebuild_needed:
                self._rebuild_needed, old = False, self._sdk_credential
                self._sdk_credential = self._build()
                await old.close()
            try:
                return await self._request_token(scopes, options)
            except ClientAuthenticationError as error:
                if not _ASSERTION_REFUSED.search(str(error)):
                    raise
                # The SDK read the file up to ten minutes ago; it may have been replaced since.
                self._rebuild_needed = True
                if assertion_refused:
                    raise
                assertion_refused = True

    async def _request_token(self, scopes: tuple[str, ...], options: TokenRequestOptions) -> AccessTokenInfo:
        # The SDK reads the file on the event loop, so a FIFO would block everything.
        file = self.sign_in.token_file
        if file is not None and (problem := irregular_reason(file)):
            raise CredentialUnavailableError(f"the token file {file}: {problem}")
        token: AccessTokenInfo = await self._sdk_credential.get_token_info(*scopes, options=options)
        return token

    async def close(self) -> None:
        """Cancels the current requests, then closes the SDK's credential."""
        for request in tuple(self._requests.values()):
            request.cancel()
        await asyncio.gather(*self._requests.values(), return_exceptions=True)
        await self._sdk_credential.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.close()


def _needs_renewal(token: AccessTokenInfo) -> bool:
    now = time.time()
    return token.expires_on - now < _RENEW_BEFORE_EXPIRY or (token.refresh_on is not None and token.refresh_on <= now)
