"""What fails as a whole is asked by one call at a time; what fails alone stops nobody else."""

from __future__ import annotations

import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import CredentialUnavailableError
from hypothesis import given
from hypothesis import strategies as st

from keysync.azure.circuit_breaker import (
    BreakerDecision,
    BreakerPolicy,
    Breakers,
    counts_against_credential,
    counts_against_vault,
)
from keysync.azure.errors import AzureFailureTranslator
from keysync.calls import BreakerState
from keysync.failures import CloudError, FailureKind, FailureRecord
from keysync.secret.redact import Redactor
from tests.support.replies import Reply
from tests.support.virtual_clock import VirtualClock, seeded

VAULT, CREDENTIAL = "vault:main", "credential:default"


def record(
    kind: FailureKind, status: int | None = None, code: str | None = None, inner: str | None = None
) -> FailureRecord:
    error = CloudError(code, "m", innererror={"code": inner} if inner else None) if code else None
    return FailureRecord(kind, "s", status, error)


def signing_in(status: int, body: object) -> FailureRecord:
    """What a refusal of the token endpoint, or of a service that was shown a token, becomes."""
    error = ClientAuthenticationError(response=Reply(status, body))
    return AzureFailureTranslator(Redactor()).record(error, operation="getSecret", scope="scope")


def of(error: Exception) -> FailureRecord:
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
    "other tenant": signing_in(401, {"error": {"code": "Unauthorized", "message": "AKV10032: Invalid issuer."}}),
}
CREDENTIAL_ONLY = {
    "entra 401": signing_in(401, ENTRA),
    "entra 400": signing_in(400, {"error": "invalid_grant", "error_description": "AADSTS700024: expired"}),
    "entra 401 without a number": signing_in(401, {"error": "invalid_client", "error_description": "no"}),
    "entra 503": signing_in(503, "down"),
    "no reply": of(ClientAuthenticationError("DefaultAzureCredential failed to retrieve a token")),
    "unavailable": of(CredentialUnavailableError("no managed identity")),
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
def test_what_speaks_of_a_whole_vault(name: str):
    """The next secret of that vault would meet the same."""
    assert counts_against_vault(WHOLE_VAULT[name])
    assert not counts_against_credential(WHOLE_VAULT[name])


@pytest.mark.parametrize("name", CREDENTIAL_ONLY)
def test_what_speaks_of_a_credential(name: str):
    """There is no token, wherever it was to be used; of the vault that says nothing."""
    assert counts_against_credential(CREDENTIAL_ONLY[name])
    assert not counts_against_vault(CREDENTIAL_ONLY[name])


@pytest.mark.parametrize("name", NEITHER)
def test_what_speaks_of_one_thing_only(name: str):
    """One secret, one account, or a wait that was asked for."""
    assert not counts_against_vault(NEITHER[name])
    assert not counts_against_credential(NEITHER[name])


def test_a_service_of_another_tenant_is_not_the_credential():
    """One subscription of another tenant must not take the credential from all other accounts."""
    wrong = signing_in(401, {"error": {"code": "InvalidAuthenticationTokenTenant", "message": "wrong issuer"}})
    assert not counts_against_credential(wrong)


class World:
    def __init__(self, seed: int = 1, **bounds: float) -> None:
        self.clock = VirtualClock()
        self.breakers = Breakers(self.clock.monotonic, seeded(seed), BreakerPolicy(**bounds))  # type: ignore[arg-type]

    def fail(self, times: int, failure: FailureRecord = DOWN, key: str = VAULT) -> None:
        for _ in range(times):
            self.breakers.failure(key, failure)

    def opened(self, key: str = VAULT) -> float:
        """Fails until it opens; how long it is open."""
        self.fail(5, key=key)
        return self.until(key) - self.clock.time

    def until(self, key: str = VAULT) -> float:
        retry_at = self.breakers.states()[key].retry_at
        assert retry_at is not None
        return retry_at

    def probe(self, key: str = VAULT) -> BreakerDecision:
        """Waits until a probe may go, and sends it."""
        self.clock.time = self.until(key)
        verdict = self.breakers.allow(key)
        assert verdict.allowed
        assert verdict.probe is not None
        return verdict


def test_it_opens_at_the_threshold_and_not_before():
    """Four failures are a bad moment, five are a vault that is down."""
    world = World()
    world.fail(4)
    assert world.breakers.allow(VAULT) == BreakerDecision(allowed=True)
    assert world.breakers.states() == {VAULT: BreakerState("closed", 4, None)}
    world.fail(1)
    until = world.until()
    assert world.breakers.allow(VAULT) == BreakerDecision(allowed=False, retry_at=until)
    assert world.clock.time < until <= world.clock.time + 5.0
    assert world.breakers.states() == {VAULT: BreakerState("open", 5, until)}
    assert world.breakers.allow("vault:other") == BreakerDecision(allowed=True)


def test_only_failures_in_a_row_count():
    """A success, or a reply about one secret, shows that the vault is well."""
    world = World()
    for well in (lambda: world.breakers.success(VAULT), lambda: world.fail(1, SECRET_MISSING)):
        world.fail(4)
        well()
        world.fail(4)
        assert world.breakers.allow(VAULT).allowed
        world.breakers.success(VAULT)


@pytest.mark.parametrize("name", ["throttled", "bug", "plain 403"])
def test_what_says_nothing_neither_counts_nor_resets(name: str):
    """A 429 is no sign of health, and none of a vault that is down."""
    world = World()
    world.fail(4)
    world.fail(9, NEITHER[name])
    assert world.breakers.states()[VAULT] == BreakerState("closed", 4, None)
    world.fail(4, CREDENTIAL_ONLY["entra 401"])
    assert world.breakers.states()[VAULT] == BreakerState("closed", 4, None)


def test_a_credential_is_well_when_a_service_judged_the_request():
    """403 of Resource Manager means that the token was good."""
    world = World()
    world.fail(4, CREDENTIAL_ONLY["entra 401"], CREDENTIAL)
    world.fail(1, NEITHER["account"], CREDENTIAL)
    assert world.breakers.states() == {}
    world.fail(5, CREDENTIAL_ONLY["entra 401"], CREDENTIAL)
    assert not world.breakers.allow(CREDENTIAL).allowed


def test_one_probe_at_a_time():
    """When the time is up one call goes, and nobody else until it has ended."""
    world = World()
    world.opened()
    verdict = world.probe()
    refused = [world.breakers.allow(VAULT) for _ in range(100)]
    assert refused == [BreakerDecision(allowed=False, retry_at=world.clock.time + 60.0, probing=True)] * 100
    assert world.breakers.states()[VAULT].state == "half_open"
    world.breakers.success(VAULT)
    assert world.breakers.allow(VAULT) == BreakerDecision(allowed=True)
    assert verdict.probe is not None


def test_a_failed_probe_opens_again_for_longer():
    """The upper end doubles with each failed probe up to the cap, and begins from 5 s after a success."""
    policy = BreakerPolicy()
    assert [policy.longest_open(n) for n in (1, 2, 3, 4, 5, 6, 5000)] == [5.0, 10.0, 20.0, 40.0, 80.0, 120.0, 120.0]
    world = World()
    assert world.opened() <= 5.0
    waits = []
    for n in range(2, 30):
        world.breakers.failure(VAULT, DOWN, world.probe().probe)
        assert not world.breakers.allow(VAULT).allowed
        waits.append(world.until() - world.clock.time)
        assert waits[-1] <= policy.longest_open(n)
    assert max(waits) > 60.0
    world.probe()
    world.breakers.success(VAULT)
    assert world.opened() <= 5.0


def test_stragglers_do_not_open_it_further():
    """Sixty calls that were under way when it opened say nothing new when they fail, also while a probe is out."""
    world = World()
    world.opened()
    until = world.until()
    world.fail(60)
    assert world.until() == until
    verdict = world.probe()
    world.fail(60)
    assert world.breakers.states()[VAULT].state == "half_open"
    world.breakers.failure(VAULT, SECRET_MISSING, verdict.probe)
    assert world.breakers.states() == {}


def test_a_probe_without_a_word_lets_another_go():
    """A probe that was cancelled gives its turn back; one that is lost loses it after a minute."""
    world = World()
    world.opened()
    first = world.probe()
    world.breakers.cancelled(VAULT, first.probe)
    second = world.breakers.allow(VAULT)
    assert second.allowed
    world.breakers.cancelled(VAULT, first.probe)
    assert not world.breakers.allow(VAULT).allowed
    world.clock.time += 60.0
    third = world.breakers.allow(VAULT)
    assert third.allowed
    world.breakers.failure(VAULT, DOWN, second.probe)
    assert world.breakers.states()[VAULT].state == "half_open"
    world.breakers.failure(VAULT, record("internal"), third.probe)
    assert world.breakers.allow(VAULT).allowed
    world.breakers.cancelled("vault:unknown", 7)


def test_a_reload_forgets_other_keys():
    """A vault that is gone and comes back begins closed."""
    world = World()
    world.opened()
    world.opened("vault:other")
    world.breakers.keep([VAULT])
    assert set(world.breakers.states()) == {VAULT}


@given(
    st.lists(
        st.tuples(st.sampled_from(["allow", "ok", "down", "missing", "probe down", "wait"]), st.floats(0, 200)),
        max_size=80,
    )
)
def test_no_course_of_events_lets_two_probes_out_or_shuts_for_ever(events: list[tuple[str, float]]):
    """At any time a call may go within the cap, or the lost probe's minute; and never two while it is not closed."""
    world, probe = World(), None
    for event, seconds in events:
        state = world.breakers.states().get(VAULT, BreakerState("closed", 0, None)).state
        match event:
            case "allow":
                verdict = world.breakers.allow(VAULT)
                assert verdict.allowed == (state == "closed" or verdict.probe is not None)
                assert verdict.allowed or verdict.retry_at is not None
                assert verdict.allowed or world.clock.time < (verdict.retry_at or 0.0) <= world.clock.time + 120.0
                if verdict.allowed and state != "closed":
                    assert not world.breakers.allow(VAULT).allowed
                    probe = verdict.probe
            case "ok":
                world.breakers.success(VAULT)
                assert world.breakers.allow(VAULT) == BreakerDecision(allowed=True)
            case "wait":
                world.clock.time += seconds
            case _:
                failure = SECRET_MISSING if event == "missing" else DOWN
                world.breakers.failure(VAULT, failure, probe if event == "probe down" else None)
