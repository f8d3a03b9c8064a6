"""Breakers refuse calls with the failure that opened them, and learn from the results of admitted calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeAlias

import pytest

from keysync.azure.circuit_breaker import BreakerPermit, BreakerPolicy, Breakers
from keysync.failures import CallFailed, CloudError, FailureRecord
from tests.support.virtual_clock import VirtualClock, seeded

NOW = datetime(2026, 11, 24, 5, 22, tzinfo=UTC)
VAULT, CREDENTIAL = "vault:main", "credential:environment"
DOWN = FailureRecord("dns", "no such host", hint="check the name")
WRONG_SECRET = FailureRecord(
    "authentication", "AADSTS7000215", 401, CloudError("AADSTS7000215", "bad", target="invalid_client"), hint="renew it"
)
DENIED = FailureRecord("cloud_error", "no role", 403, CloudError("Forbidden", "no"))


Admit: TypeAlias = Callable[[], Awaitable[BreakerPermit]]


class Stage:
    """Breakers on a virtual clock, with the admission of a vault and its credential."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.breakers = Breakers(self.clock.monotonic, seeded(), BreakerPolicy(), lambda: NOW)
        self.admit = self.admission_for(VAULT, CREDENTIAL)

    def admission_for(self, *keys: str) -> Admit:
        return partial(self.breakers.admit, *keys)

    async def fail(self, record: FailureRecord, times: int = 5, admit: Admit | None = None) -> None:
        for permit in [await (admit or self.admit)() for _ in range(times)]:
            permit.finished(record)

    def state(self, key: str) -> str:
        breaker = self.breakers.states().get(key)
        return breaker.state if breaker is not None else "closed"

    async def refusal(self, admit: Admit | None = None) -> FailureRecord:
        with pytest.raises(CallFailed) as caught:
            await (admit or self.admit)()
        return caught.value.record

    def wait(self, key: str) -> None:
        """Until the breaker allows a probe."""
        retry_at = self.breakers.states()[key].retry_at
        assert retry_at is not None
        self.clock.time = retry_at


async def test_a_refusal_has_the_failure_that_opened_the_breaker():
    """With the time of the next call, and kind, hint and status of the last failure."""
    stage = Stage()
    await stage.fail(DOWN)
    record = await stage.refusal()
    retry_at = stage.breakers.states()[VAULT].retry_at
    assert retry_at is not None
    moment = NOW + timedelta(seconds=retry_at - stage.clock.time)
    assert record.summary == (
        f"vault main failed repeatedly and is not called before {moment:%H:%M:%S} UTC (last: no such host)"
    )
    assert (record.kind, record.hint, record.http_status) == ("dns", "check the name", None)


async def test_a_refusal_is_not_ambiguous_and_has_no_retry_after():
    """No request was sent."""
    stage = Stage()
    await stage.fail(FailureRecord("timeout", "no answer", retry_after=1200.0, ambiguous=True))
    record = await stage.refusal()
    assert (record.ambiguous, record.retry_after) == (False, None)


async def test_a_refusal_for_the_credential_names_the_credential():
    """Also for an account without failures, and after another failure of the vault."""
    stage = Stage()
    early = await stage.admit()
    await stage.fail(WRONG_SECRET, admit=stage.admission_for(CREDENTIAL))
    early.finished(FailureRecord("throttled", "HTTP 429", 429))
    for admit in (stage.admit, stage.admission_for(CREDENTIAL)):
        record = await stage.refusal(admit)
        assert record.summary.startswith("credential environment failed repeatedly")
        assert (record.kind, record.hint) == ("authentication", "renew it")


async def test_vault_and_credential_fail_separately():
    """A failed sign-in does not count against the vault, nor an unreachable vault against the credential."""
    stage = Stage()
    await stage.fail(WRONG_SECRET)
    assert (stage.state(VAULT), stage.state(CREDENTIAL)) == ("closed", "open")
    stage = Stage()
    await stage.fail(DOWN)
    assert (stage.state(VAULT), stage.state(CREDENTIAL)) == ("open", "closed")
    assert isinstance(await stage.admission_for(CREDENTIAL)(), BreakerPermit)
    assert isinstance(await stage.admission_for("vault:other", CREDENTIAL)(), BreakerPermit)


async def test_failures_of_single_secrets_open_no_breaker():
    """A hundred secrets without read permission are a hundred separate failures."""
    stage = Stage()
    await stage.fail(DENIED, 100)
    assert stage.breakers.states() == {}


async def test_a_successful_probe_closes_the_breaker():
    """Then all calls are admitted."""
    stage = Stage()
    await stage.fail(DOWN)
    stage.wait(VAULT)
    probe = await stage.admit()
    assert stage.state(VAULT) == "half_open"
    probe.finished(None)
    assert stage.breakers.states() == {}
    (await stage.admit()).finished(None)


async def test_a_failed_probe_opens_the_breaker_again():
    """Later refusals have the failure of the probe."""
    stage = Stage()
    await stage.fail(DOWN)
    stage.wait(VAULT)
    (await stage.admit()).finished(FailureRecord("tls", "expired certificate"))
    assert stage.state(VAULT) == "open"
    assert (await stage.refusal()).kind == "tls"


async def test_a_cancelled_probe_allows_another():
    """A cancelled call shows nothing about the vault."""
    stage = Stage()
    await stage.fail(DOWN)
    stage.wait(VAULT)
    (await stage.admit()).cancelled()
    (await stage.admit()).finished(None)
    assert stage.state(VAULT) == "closed"


@pytest.mark.parametrize("vault_first", [True, False])
async def test_a_call_refused_by_one_breaker_releases_the_probe_of_another(vault_first: bool):
    """In either order of the breakers."""
    stage = Stage()
    await stage.fail(DOWN)
    stage.wait(VAULT)
    await stage.fail(WRONG_SECRET, admit=stage.admission_for(CREDENTIAL))
    keys: Any = (VAULT, CREDENTIAL) if vault_first else (CREDENTIAL, VAULT)
    assert (await stage.refusal(stage.admission_for(*keys))).kind == "authentication"
    stage.breakers.check = lambda: None
    permit = await stage.admission_for(VAULT)()
    assert permit.probes[VAULT] is not None


async def test_retry_now_admits_all_calls_at_once():
    """After SIGUSR1 or a reload all calls are admitted, not only a probe."""
    stage = Stage()
    await stage.fail(DOWN)
    await stage.fail(WRONG_SECRET, admit=stage.admission_for(CREDENTIAL))
    stage.breakers.retry_now()
    for permit in [await stage.admit() for _ in range(10)]:
        permit.finished(None)
    assert stage.breakers.states() == {}


async def test_a_process_that_may_make_no_call_releases_the_probe():
    """A replica that has lost the lead. The breaker learns that no call was made."""
    stage = Stage()
    await stage.fail(DOWN)
    stage.wait(VAULT)

    def refuse() -> None:
        raise CallFailed(FailureRecord("timeout", "no longer leads"))

    stage.breakers.check = refuse
    assert (await stage.refusal()).summary == "no longer leads"
    stage.breakers.check = lambda: None
    permit = await stage.admission_for(VAULT)()
    assert permit.probes[VAULT] is not None
