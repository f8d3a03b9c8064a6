"""SingleFlightCredential: one token request at a time, and cached tokens."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from azure.core.credentials import AccessTokenInfo
from azure.core.exceptions import ClientAuthenticationError

from keysync.azure.single_flight_credential import SingleFlightCredential

SCOPE = "https://vault.azure.net/.default"


class Issuer:
    """Returns numbered tokens once `gate` is set; raises `failure` if there is one."""

    def __init__(self, lifetime: float = 3600, refresh_in: float | None = None) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self.lifetime, self.refresh_in = lifetime, refresh_in
        self.requests: list[tuple[tuple[str, ...], dict[str, Any]]] = []
        self.closed = False

    async def get_token_info(self, *scopes: str, options: Any = None) -> AccessTokenInfo:
        self.requests.append((scopes, dict(options or {})))
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        now = time.time()
        refresh = None if self.refresh_in is None else int(now + self.refresh_in)
        return AccessTokenInfo(f"token-{len(self.requests)}", int(now + self.lifetime), refresh_on=refresh)

    async def close(self) -> None:
        self.closed = True


async def test_concurrent_callers_share_one_request():
    """They get the same token."""
    issuer = Issuer()
    async with SingleFlightCredential(lambda: issuer, "test") as credential:
        tokens = await asyncio.gather(*(credential.get_token_info(SCOPE) for _ in range(30)))
        assert {token.token for token in tokens} == {"token-1"}
        assert (await credential.get_token_info(SCOPE)).token == "token-1"
    assert len(issuer.requests) == 1
    assert issuer.closed


async def test_a_cancelled_caller_does_not_cancel_the_request():
    """It goes on for the other callers, even if the first one is cancelled."""
    issuer = Issuer()
    issuer.gate.clear()
    async with SingleFlightCredential(lambda: issuer, "test") as credential:
        tasks = [asyncio.create_task(credential.get_token_info(SCOPE)) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        issuer.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert [result.token for result in results[1:] if isinstance(result, AccessTokenInfo)] == ["token-1"] * 2
    assert len(issuer.requests) == 1


async def test_a_failure_is_raised_to_all_callers_and_not_cached():
    """The next caller makes a new request."""
    issuer = Issuer()
    issuer.failure = ClientAuthenticationError(message="no")
    async with SingleFlightCredential(lambda: issuer, "test") as credential:
        results = await asyncio.gather(*(credential.get_token_info(SCOPE) for _ in range(5)), return_exceptions=True)
        assert all(isinstance(result, ClientAuthenticationError) for result in results)
        assert len(issuer.requests) == 1
        issuer.failure = None
        assert (await credential.get_token_info(SCOPE)).token == "token-2"


async def test_each_scope_and_tenant_has_its_own_token():
    """A token of one tenant or scope is never used for another."""
    issuer = Issuer()
    async with SingleFlightCredential(lambda: issuer, "test") as credential:
        first = await credential.get_token_info(SCOPE, options={"tenant_id": "a"})
        second = await credential.get_token_info(SCOPE, options={"tenant_id": "b"})
        third = await credential.get_token_info("https://management.azure.com/.default", options={"tenant_id": "a"})
        again = await credential.get_token_info(SCOPE, options={"tenant_id": "a"})
    assert len({first.token, second.token, third.token}) == 3
    assert again.token == first.token
    assert issuer.requests[1][1]["tenant_id"] == "b"


@pytest.mark.parametrize(("lifetime", "refresh_in"), [(299, None), (3600, -1)], ids=["about to end", "to be refreshed"])
async def test_an_expiring_token_is_replaced(lifetime: float, refresh_in: float | None):
    """Five minutes before it expires, or from its `refresh_on`."""
    issuer = Issuer(lifetime, refresh_in)
    async with SingleFlightCredential(lambda: issuer, "test") as credential:
        assert (await credential.get_token_info(SCOPE)).token == "token-1"
        assert (await credential.get_token_info(SCOPE)).token == "token-2"


async def test_a_token_with_claims_is_not_reused():
    """Each challenge with claims needs a new token."""
    issuer = Issuer()
    async with SingleFlightCredential(lambda: issuer, "test") as credential:
        first = await credential.get_token_info(SCOPE, options={"claims": "c"})
        second = await credential.get_token_info(SCOPE, options={"claims": "c"})
    assert first.token != second.token


async def test_closing_cancels_current_requests():
    """Also one whose callers have all been cancelled."""
    issuer = Issuer()
    issuer.gate.clear()
    async with SingleFlightCredential(lambda: issuer, "test") as credential:
        task = asyncio.create_task(credential.get_token_info(SCOPE))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert issuer.closed
    assert not [second for second in asyncio.all_tasks() if second.get_name() == "token test"]
