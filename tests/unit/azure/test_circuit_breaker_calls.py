"""A call that may not be made says what would have become of it; one that may tells how it ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keysync.azure.circuit_breaker import BreakerAdmission, BreakerPermit, BreakerPolicy, Breakers
from keysync.failures import CallFailed, CloudError, FailureRecord
from tests.support.virtual_clock import VirtualClock, seeded

NOW = datetime(2026, 11, 24, 5, 22, tzinfo=UTC)
VAULT, CREDENTIAL = "vault:main", "credential:environment"
DOWN = FailureRecord("dns", "no such host", hint="look at the name")
WRONG_SECRET = FailureRecord(
    "authentication", "AADSTS7000215", 401, CloudError("AADSTS7000215", "bad", target="invalid_client"), hint="renew it"
)
DENIED = FailureRecord("cloud_error", "no role", 403, CloudError("Forbidden", "no"))


class Stage:
    """Breakers on a controlled clock, and a guard of a vault with its credential."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.breakers = Breakers(self.clock.monotonic, seeded(), BreakerPolicy())
        self.admission = self.admission_for(VAULT, CREDENTIAL)

    def admission_for(self, *keys: str) -> BreakerAdmission:
        return BreakerAdmission(self.breakers, keys, self.clock.monotonic, lambda: NOW)

    async def fail(self, record: FailureRecord, times: int = 5, admission: BreakerAdmission | None = None) -> None:
        for permit in [await (admission or self.admission).admit() for _ in range(times)]:
            permit.finished(record)

    def state(self, key: str) -> str:
        standing = self.breakers.states().get(key)
        return standing.state if standing is not None else "closed"

    async def refusal(self, admission: BreakerAdmission | None = None) -> FailureRecord:
        with pytest.raises(CallFailed) as caught:
            await (admission or self.admission).admit()
        return caught.value.record

    def wait(self, key: str) -> None:
        """Until the breaker lets a probe go."""
        retry_at = self.breakers.states()[key].retry_at
        assert retry_at is not None
        self.clock.time = retry_at


async def test_a_refusal_tells_the_failure_that_opened_the_breaker():
    """Who is refused, until when, and with kind, hint and status of the last failure."""
    stage = Stage()
    await stage.fail(DOWN)
    record = await stage.refusal()
    retry_at = stage.breakers.states()[VAULT].retry_at
    assert retry_at is not None
    moment = NOW + timedelta(seconds=retry_at - stage.clock.time)
    assert record.summary == (
        f"vault main failed again and again and is not asked before {moment:%H:%M:%S} UTC (last: no such host)"
    )
    assert (record.kind, record.hint, record.http_status) == ("dns", "look at the name", None)


async def test_a_refusal_is_no_failure_that_may_have_taken_effect_nor_a_wait_that_was_asked_for():
    """Nothing was sent, so both are left out of the record."""
    stage = Stage()
    await stage.fail(FailureRecord("timeout", "no answer", retry_after=1200.0, ambiguous=True))
    record = await stage.refusal()
    assert (record.ambiguous, record.retry_after) == (False, None)


async def test_a_refusal_by_the_credential_tells_of_the_credential():
    """Also to an account that had no failure of its own, and whatever else the vault said last."""
    stage = Stage()
    early = await stage.admission.admit()
    await stage.fail(WRONG_SECRET, admission=stage.admission_for(CREDENTIAL))
    early.finished(FailureRecord("throttled", "HTTP 429", 429))
    for admission in (stage.admission, stage.admission_for(CREDENTIAL)):
        record = await stage.refusal(admission)
        assert record.summary.startswith("credential environment failed again and again")
        assert (record.kind, record.hint) == ("authentication", "renew it")


async def test_a_failed_sign_in_says_nothing_against_the_vault():
    """And a vault that is down nothing against the credential: others with it go on."""
    stage = Stage()
    await stage.fail(WRONG_SECRET)
    assert (stage.state(VAULT), stage.state(CREDENTIAL)) == ("closed", "open")
    stage = Stage()
    await stage.fail(DOWN)
    assert (stage.state(VAULT), stage.state(CREDENTIAL)) == ("open", "closed")
    assert isinstance(await stage.admission_for(CREDENTIAL).admit(), BreakerPermit)
    assert isinstance(await stage.admission_for("vault:other", CREDENTIAL).admit(), BreakerPermit)


async def test_what_fails_alone_opens_nothing():
    """A hundred secrets that may not be read are a hundred failures of their own."""
    stage = Stage()
    await stage.fail(DENIED, 100)
    assert stage.breakers.states() == {}


async def test_a_probe_that_succeeds_closes_the_breaker():
    """One call goes first, and with it the breaker is well again."""
    stage = Stage()
    await stage.fail(DOWN)
    stage.wait(VAULT)
    probe = await stage.admission.admit()
    assert stage.state(VAULT) == "half_open"
    probe.finished(None)
    assert stage.breakers.states() == {}
    assert stage.breakers.last(VAULT) is None
    (await stage.admission.admit()).finished(None)


async def test_a_probe_that_fails_opens_it_again_and_is_the_last_failure():
    """The next to be refused learn what the probe met."""
    stage = Stage()
    await stage.fail(DOWN)
    stage.wait(VAULT)
    (await stage.admission.admit()).finished(FailureRecord("tls", "expired certificate"))
    assert stage.state(VAULT) == "open"
    assert (await stage.refusal()).kind == "tls"


async def test_a_probe_that_was_given_up_lets_another_go():
    """A call that was cancelled tells nothing."""
    stage = Stage()
    await stage.fail(DOWN)
    stage.wait(VAULT)
    (await stage.admission.admit()).cancelled()
    (await stage.admission.admit()).finished(None)
    assert stage.state(VAULT) == "closed"


@pytest.mark.parametrize("other", [True, False])
async def test_a_call_that_one_breaker_refuses_takes_no_probe_of_another(other: bool):
    """The probe of the one that would have let it through is given back."""
    stage = Stage()
    await stage.fail(DOWN)
    stage.wait(VAULT)
    await stage.fail(WRONG_SECRET, admission=stage.admission_for(CREDENTIAL))
    keys: Any = (VAULT, CREDENTIAL) if other else (CREDENTIAL, VAULT)
    assert (await stage.refusal(stage.admission_for(*keys))).kind == "authentication"
    assert stage.breakers.allow(VAULT).probe is not None


async def test_somebody_who_asks_has_everything_tried_at_once():
    """SIGUSR1 or a reload: all are let through, not one probe."""
    stage = Stage()
    await stage.fail(DOWN)
    await stage.fail(WRONG_SECRET, admission=stage.admission_for(CREDENTIAL))
    stage.breakers.retry_now()
    for permit in [await stage.admission.admit() for _ in range(10)]:
        permit.finished(None)
    assert stage.breakers.states() == {}
