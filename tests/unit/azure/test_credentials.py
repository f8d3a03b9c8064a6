"""One token request at a time, whoever asks."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from azure.core.credentials import AccessTokenInfo
from azure.core.exceptions import ClientAuthenticationError

from keysync.azure.credentials import SingleFlightCredential

SCOPE = "https://vault.azure.net/.default"


class Issuer:
    """Gives numbered tokens once `gate` is open; raises `failure` while it is set."""

    def __init__(self, lifetime: float = 3600, refresh_in: float | None = None) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self.lifetime, self.refresh_in = lifetime, refresh_in
        self.asked: list[tuple[tuple[str, ...], dict[str, Any]]] = []
        self.closed = False

    async def get_token_info(self, *scopes: str, options: Any = None) -> AccessTokenInfo:
        self.asked.append((scopes, dict(options or {})))
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        now = time.time()
        refresh = None if self.refresh_in is None else int(now + self.refresh_in)
        return AccessTokenInfo(f"token-{len(self.asked)}", int(now + self.lifetime), refresh_on=refresh)

    async def close(self) -> None:
        self.closed = True


async def test_many_callers_make_one_request():
    """Thirty that ask at once share one request and one token."""
    issuer = Issuer()
    async with SingleFlightCredential(lambda: issuer, "test") as credential:
        tokens = await asyncio.gather(*(credential.get_token_info(SCOPE) for _ in range(30)))
        assert {token.token for token in tokens} == {"token-1"}
        assert (await credential.get_token(SCOPE)).token == "token-1"
    assert len(issuer.asked) == 1
    assert issuer.closed


async def test_a_caller_that_leaves_takes_nothing_from_the_others():
    """The request goes on for those who still wait, even if the first to ask has gone."""
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
    assert len(issuer.asked) == 1


async def test_a_failure_reaches_all_and_is_not_kept():
    """All who waited learn of the failure; the next to ask makes a new request."""
    issuer = Issuer()
    issuer.failure = ClientAuthenticationError(message="no")
    async with SingleFlightCredential(lambda: issuer, "test") as credential:
        results = await asyncio.gather(*(credential.get_token_info(SCOPE) for _ in range(5)), return_exceptions=True)
        assert all(isinstance(result, ClientAuthenticationError) for result in results)
        assert len(issuer.asked) == 1
        issuer.failure = None
        assert (await credential.get_token_info(SCOPE)).token == "token-2"


async def test_each_scope_and_tenant_has_its_own_token():
    """A token of one tenant or scope is never given for another."""
    issuer = Issuer()
    async with SingleFlightCredential(lambda: issuer, "test") as credential:
        one = await credential.get_token(SCOPE, tenant_id="a")
        other = await credential.get_token(SCOPE, tenant_id="b")
        third = await credential.get_token("https://management.azure.com/.default", tenant_id="a")
        again = await credential.get_token(SCOPE, tenant_id="a")
    assert len({one.token, other.token, third.token}) == 3
    assert again.token == one.token
    assert issuer.asked[1][1]["tenant_id"] == "b"


@pytest.mark.parametrize(("lifetime", "refresh_in"), [(299, None), (3600, -1)], ids=["about to end", "to be refreshed"])
async def test_a_stale_token_is_replaced(lifetime: float, refresh_in: float | None):
    """Five minutes before its end, or from `refresh_on`, a token is asked for anew."""
    issuer = Issuer(lifetime, refresh_in)
    async with SingleFlightCredential(lambda: issuer, "test") as credential:
        assert (await credential.get_token_info(SCOPE)).token == "token-1"
        assert (await credential.get_token_info(SCOPE)).token == "token-2"


async def test_a_token_for_claims_is_not_kept():
    """A challenge with claims is answered with a fresh token each time."""
    issuer = Issuer()
    async with SingleFlightCredential(lambda: issuer, "test") as credential:
        one = await credential.get_token(SCOPE, claims="c")
        other = await credential.get_token(SCOPE, claims="c")
    assert one.token != other.token


async def test_closing_ends_a_request_that_nobody_waits_for():
    """A run that ends leaves no request behind."""
    issuer = Issuer()
    issuer.gate.clear()
    async with SingleFlightCredential(lambda: issuer, "test") as credential:
        task = asyncio.create_task(credential.get_token_info(SCOPE))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert issuer.closed
    assert not [other for other in asyncio.all_tasks() if other.get_name() == "token test"]


class MetadataService(Issuer):
    """Answers with `statuses`, one a request, and then with tokens."""

    def __init__(self, *statuses: int) -> None:
        super().__init__()
        self.statuses = list(statuses)

    async def get_token_info(self, *scopes: str, options: Any = None) -> AccessTokenInfo:
        if not self.statuses:
            return await super().get_token_info(*scopes, options=options)
        self.asked.append((scopes, {}))
        error = ClientAuthenticationError(message="not now")
        error.status_code = self.statuses.pop(0)
        raise error


async def test_a_metadata_service_that_is_being_updated_is_asked_again():
    """404 and 410 are repeated, with pauses, until it answers."""
    service, pauses = MetadataService(410, 404, 410), list[float]()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async with SingleFlightCredential(lambda: service, "test", patience=70.0, sleep=sleep) as credential:
        assert (await credential.get_token_info(SCOPE)).token == "token-4"
    assert len(pauses) == 3
    assert all(0.0 <= pause <= 4.0 for pause in pauses)


async def test_a_metadata_service_is_not_asked_for_ever():
    """After 70 seconds of pauses the failure is the caller's."""
    service, pauses = MetadataService(*[410] * 10_000), list[float]()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async with SingleFlightCredential(lambda: service, "test", patience=70.0, sleep=sleep) as credential:
        with pytest.raises(ClientAuthenticationError):
            await credential.get_token_info(SCOPE)
    assert sum(pauses) == pytest.approx(70.0)
    assert max(pauses) <= 16.0


@pytest.mark.parametrize(("patience", "status"), [(0.0, 410), (70.0, 400), (70.0, 403)])
async def test_other_refusals_are_not_repeated(patience: float, status: int):
    """No other credential is patient, and no other status says that waiting helps."""
    service = MetadataService(status)
    async with SingleFlightCredential(lambda: service, "test", patience=patience) as credential:
        with pytest.raises(ClientAuthenticationError):
            await credential.get_token_info(SCOPE)
    assert len(service.asked) == 1
