"""A breaker opens for failures of a whole vault or credential, and lets one call at a time probe it."""

from __future__ import annotations

import asyncio

import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import CredentialUnavailableError
from hypothesis import given
from hypothesis import strategies as st

from keysync.azure.circuit_breaker import (
    BreakerPermit,
    BreakerPolicy,
    Breakers,
    Probe,
    counts_against_credential,
    counts_against_vault,
)
from keysync.azure.errors import AzureFailureTranslator
from keysync.calls import BreakerState
from keysync.failures import CallFailed, CloudError, FailureKind, FailureRecord
from keysync.secret.redact import Redactor
from tests.support.replies import Reply
from tests.support.virtual_clock import VirtualClock, seeded

VAULT, CREDENTIAL = "vault:main", "credential:default"


def record(
    kind: FailureKind, status: int | None = None, code: str | None = None, inner: str | None = None
) -> FailureRecord:
    error = CloudError(code, "m", innererror={"code": inner} if inner else None) if code else None
    return FailureRecord(kind, "s", status, error)


def authentication_failure(status: int, body: object) -> FailureRecord:
    """The record of a refusal by the token endpoint, or by a service that refuses the token."""
    error = ClientAuthenticationError(response=Reply(status, body))
    return AzureFailureTranslator(Redactor()).record(error, operation="getSecret", scope="scope")


def record_of(error: Exception) -> FailureRecord:
    return AzureFailureTranslator(Redactor()).record(error, operation="getSecret", scope="scope")


DOWN = record("connection")
SECRET_MISSING = record("cloud_error", 404, "SecretNotFound")
ENTRA = {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."}

WHOLE_VAULT = {
    "dns": record("dns"),
    "tls": record("tls"),
    "connection": DOWN,
    "timeout": record("timeout"),
    "proxy page": record("invalid_response", 200),
    "challenge": record("challenge"),
    "500": record("cloud_error", 500, "InternalServerError"),
    "502": record("http_error", 502),
    "503 that asks to wait long": record("throttled", 503),
    "407": record("http_error", 407),
    "408": record("http_error", 408),
    "firewall": record("cloud_error", 403, "Forbidden", "ForbiddenByFirewall"),
    "private": record("cloud_error", 403, "Forbidden", "ForbiddenByConnection"),
    "other tenant": authentication_failure(
        401, {"error": {"code": "Unauthorized", "message": "AKV10032: Invalid issuer."}}
    ),
}
CREDENTIAL_ONLY = {
    "entra 401": authentication_failure(401, ENTRA),
    "entra 400": authentication_failure(400, {"error": "invalid_grant", "error_description": "AADSTS700024: expired"}),
    "entra 401 without a number": authentication_failure(401, {"error": "invalid_client", "error_description": "no"}),
    "entra 503": authentication_failure(503, "down"),
    "no reply": record_of(ClientAuthenticationError("DefaultAzureCredential failed to retrieve a token")),
    "unavailable": record_of(CredentialUnavailableError("no managed identity")),
}
NEITHER = {
    "secret": SECRET_MISSING,
    "role": record("cloud_error", 403, "Forbidden", "ForbiddenByRbac"),
    "policy": record("cloud_error", 403, "Forbidden", "ForbiddenByPolicy"),
    "disabled": record("cloud_error", 403, "Forbidden", "SecretDisabled"),
    "plain 403": record("http_error", 403),
    "plain 404": record("http_error", 404),
    "deleted": record("cloud_error", 409, "Conflict", "ObjectIsDeletedButRecoverable"),
    "throttled": record("throttled", 429, "TooManyRequests"),
    "account": record("cloud_error", 403, "AuthorizationFailed"),
    "shared key": record("shared_key_disabled", 403),
    "bug": record("internal"),
}


@pytest.mark.parametrize("name", WHOLE_VAULT)
def test_failures_of_a_whole_vault_count_against_it(name: str):
    """A call for another secret would fail in the same way."""
    assert counts_against_vault(WHOLE_VAULT[name])
    assert not counts_against_credential(WHOLE_VAULT[name])


@pytest.mark.parametrize("name", CREDENTIAL_ONLY)
def test_failures_to_get_a_token_count_against_the_credential(name: str):
    """They say nothing about the vault."""
    assert counts_against_credential(CREDENTIAL_ONLY[name])
    assert not counts_against_vault(CREDENTIAL_ONLY[name])


@pytest.mark.parametrize("name", NEITHER)
def test_failures_of_one_secret_or_account_do_not_count(name: str):
    """Nor does throttling."""
    assert not counts_against_vault(NEITHER[name])
    assert not counts_against_credential(NEITHER[name])


def test_a_token_refused_by_a_service_does_not_count_against_the_credential():
    """A subscription of another tenant must not stop the other accounts of the credential."""
    refused_token = authentication_failure(
        401, {"error": {"code": "InvalidAuthenticationTokenTenant", "message": "wrong issuer"}}
    )
    assert not counts_against_credential(refused_token)


class World:
    def __init__(self, seed: int = 1, **bounds: float) -> None:
        self.clock = VirtualClock()
        self.breakers = Breakers(self.clock.monotonic, seeded(seed), BreakerPolicy(**bounds))  # type: ignore[arg-type]

    def fail(self, times: int, failure: FailureRecord = DOWN, key: str = VAULT) -> None:
        for _ in range(times):
            self.breakers.failure(key, failure)

    def open_breaker(self, key: str = VAULT) -> float:
        """Fails until the breaker opens; returns for how long."""
        self.fail(5, key=key)
        return self.until(key) - self.clock.time

    def until(self, key: str = VAULT) -> float:
        retry_at = self.breakers.states()[key].retry_at
        assert retry_at is not None
        return retry_at

    async def allow(self, key: str = VAULT) -> BreakerPermit | None:
        """The permit of a call; None if it is refused, or would have to wait for a probe."""
        call = asyncio.create_task(self.breakers.admit(key))
        await asyncio.sleep(0)
        call.cancel()
        try:
            return await call
        except (CallFailed, asyncio.CancelledError):
            return None

    async def probe(self, key: str = VAULT) -> Probe:
        """Waits until a probe is allowed, and starts it."""
        self.clock.time = self.until(key)
        return probe_of(await self.allow(key))


def probe_of(permit: BreakerPermit | None) -> Probe:
    assert permit is not None
    (probe,) = permit.probes.values()
    assert probe is not None
    return probe


def is_closed(permit: BreakerPermit | None) -> bool:
    """Whether a call was admitted, and not as a probe."""
    return permit is not None and list(permit.probes.values()) == [None]


async def test_a_breaker_opens_at_the_threshold():
    """Not after four failures, but after five."""
    world = World()
    world.fail(4)
    assert is_closed(await world.allow())
    assert world.breakers.states() == {VAULT: BreakerState("closed", 4, None)}
    world.fail(1)
    until = world.until()
    assert await world.allow() is None
    assert world.clock.time < until <= world.clock.time + 5.0
    assert world.breakers.states() == {VAULT: BreakerState("open", 5, until)}
    assert is_closed(await world.allow("vault:other"))


async def test_only_failures_in_a_row_count():
    """A success, or a reply about one secret, resets the count."""
    world = World()
    for succeed in (lambda: world.breakers.success(VAULT), lambda: world.fail(1, SECRET_MISSING)):
        world.fail(4)
        succeed()
        world.fail(4)
        assert is_closed(await world.allow())
        world.breakers.success(VAULT)


@pytest.mark.parametrize("name", ["throttled", "bug", "plain 403"])
def test_unrelated_failures_neither_count_nor_reset(name: str):
    """A 429 shows neither a healthy vault nor an unreachable one."""
    world = World()
    world.fail(4)
    world.fail(9, NEITHER[name])
    assert world.breakers.states()[VAULT] == BreakerState("closed", 4, None)
    world.fail(4, CREDENTIAL_ONLY["entra 401"])
    assert world.breakers.states()[VAULT] == BreakerState("closed", 4, None)


async def test_a_403_of_a_service_resets_the_credential():
    """A 403 of Resource Manager means that it accepted the token."""
    world = World()
    world.fail(4, CREDENTIAL_ONLY["entra 401"], CREDENTIAL)
    world.fail(1, NEITHER["account"], CREDENTIAL)
    assert world.breakers.states() == {}
    world.fail(5, CREDENTIAL_ONLY["entra 401"], CREDENTIAL)
    assert await world.allow(CREDENTIAL) is None


async def test_one_probe_at_a_time():
    """After the open time one call is allowed, and no other until it has ended."""
    world = World()
    world.open_breaker()
    await world.probe()
    assert [await world.allow() for _ in range(100)] == [None] * 100
    assert world.breakers.states()[VAULT] == BreakerState("half_open", 5, world.clock.time + 60.0)
    world.breakers.success(VAULT)
    assert is_closed(await world.allow())


async def test_a_failed_probe_opens_the_breaker_for_longer():
    """Each failed probe doubles the limit up to the cap; a success resets it to 5 s."""
    policy = BreakerPolicy()
    assert [policy.max_open_seconds(n) for n in (1, 2, 3, 4, 5, 6, 5000)] == [5.0, 10.0, 20.0, 40.0, 80.0, 120.0, 120.0]
    world = World()
    assert world.open_breaker() <= 5.0
    waits = []
    for n in range(2, 30):
        world.breakers.failure(VAULT, DOWN, await world.probe())
        assert await world.allow() is None
        waits.append(world.until() - world.clock.time)
        assert waits[-1] <= policy.max_open_seconds(n)
    assert max(waits) > 60.0
    await world.probe()
    world.breakers.success(VAULT)
    assert world.open_breaker() <= 5.0


async def test_late_failures_do_not_extend_the_open_time():
    """Calls from before the breaker opened may fail later, also during a probe."""
    world = World()
    world.open_breaker()
    until = world.until()
    world.fail(60)
    assert world.until() == until
    probe = await world.probe()
    world.fail(60)
    assert world.breakers.states()[VAULT].state == "half_open"
    world.breakers.failure(VAULT, SECRET_MISSING, probe)
    assert world.breakers.states() == {}


async def test_a_cancelled_or_lost_probe_allows_another():
    """At once after a cancelled probe, after a minute for a lost one."""
    world = World()
    world.open_breaker()
    first = await world.probe()
    world.breakers.cancelled(VAULT, first)
    second = probe_of(await world.allow())
    world.breakers.cancelled(VAULT, first)
    assert await world.allow() is None
    world.clock.time += 60.0
    third = probe_of(await world.allow())
    world.breakers.failure(VAULT, DOWN, second)
    assert world.breakers.states()[VAULT].state == "half_open"
    world.breakers.failure(VAULT, record("internal"), third)
    assert probe_of(await world.allow())
    world.breakers.cancelled("vault:unknown", third)


def test_a_reload_forgets_other_keys():
    """A vault that is removed and added again begins with a closed breaker."""
    world = World()
    world.open_breaker()
    world.open_breaker("vault:other")
    world.breakers.keep([VAULT])
    assert set(world.breakers.states()) == {VAULT}


@given(
    st.lists(
        st.tuples(st.sampled_from(["allow", "ok", "down", "missing", "probe down", "wait"]), st.floats(0, 200)),
        max_size=80,
    )
)
async def test_there_is_at_most_one_probe_and_always_a_next_one(events: list[tuple[str, float]]):
    """In any sequence of events, a call is allowed within the cap or a lost probe's minute, and never two unless closed."""
    world, probe = World(), None
    for event, seconds in events:
        state = world.breakers.states().get(VAULT, BreakerState("closed", 0, None))
        match event:
            case "allow":
                permit = await world.allow()
                if permit is None:
                    assert state.retry_at is not None
                    assert world.clock.time < state.retry_at <= world.clock.time + 120.0
                elif state.state == "closed":
                    assert is_closed(permit)
                else:
                    probe = probe_of(permit)
                    assert await world.allow() is None
            case "ok":
                world.breakers.success(VAULT)
                assert is_closed(await world.allow())
            case "wait":
                world.clock.time += seconds
            case _:
                failure = SECRET_MISSING if event == "missing" else DOWN
                world.breakers.failure(VAULT, failure, probe if event == "probe down" else None)
