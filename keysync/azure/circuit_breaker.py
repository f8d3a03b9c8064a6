"""Circuit breakers for vaults and credentials.

A breaker opens after several failures in a row. While it is open, calls fail at once; from time to time one call is let
through as a probe, and closes the breaker if it succeeds.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

from keysync.calls import BreakerPhase, BreakerState
from keysync.failures import CallFailed, FailureKind, FailureRecord

# Failures without a reply of the vault itself: any other call to it would fail in the same way.
_UNREACHABLE: Final[frozenset[FailureKind]] = frozenset(
    {"dns", "tls", "connection", "timeout", "invalid_response", "challenge"}
)
_WHOLE_VAULT_CODES: Final = ("ForbiddenByFirewall", "ForbiddenByConnection")
_PROXY_STATUS: Final = frozenset({407, 408})
# Entra's `error` values (RFC 6749, 5.2, and Microsoft's own), for descriptions without an AADSTS code.
_OAUTH_ERROR: Final = re.compile(
    "invalid_(client|grant|request|resource|scope)|temporarily_unavailable|unauthorized_client|unsupported_grant_type"
)


def counts_against_vault(record: FailureRecord) -> bool:
    """Whether the failure concerns the whole vault: it is unreachable, has an internal error, or its firewall refuses this address.

    A 403 or 404 of one secret or a missing role does not count, nor does 429, as Retry-After handles it, nor a token that Entra
    refused.
    """
    if counts_against_credential(record):
        return False
    status = record.http_status
    if status is not None and (status >= 500 or status in _PROXY_STATUS):
        return True
    # 401 with a token: the vault trusts another tenant or audience, so every secret gets the same reply.
    return record.kind in _UNREACHABLE or record.kind == "authentication" or record.has_code(*_WHOLE_VAULT_CODES)


def counts_against_credential(record: FailureRecord) -> bool:
    """Whether the failure concerns the credential: it gets no token.

    An unreachable token endpoint looks like any other unreachable host, so it counts against the vault. A service that
    refuses a token of Entra (401 without an error of Entra) belongs to another tenant; other accounts may accept the token.
    """
    if record.kind != "authentication":
        return record.kind == "credential_unavailable"
    # Both raise this error: the SDK for a 401 of a service, azure-identity for any error of the token endpoint.
    target = (record.cloud_error.target if record.cloud_error else None) or ""
    of_entra = _OAUTH_ERROR.fullmatch(target) or any(code.startswith("AADSTS") for code in record.codes)
    return record.http_status != 401 or bool(of_entra)


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens, and for how long, in seconds.

    `threshold` failures in a row open it: 5 are enough, since each of these calls has been retried. It stays open for a random
    time up to `base`. Each failed probe doubles that limit, up to `cap`: 2 minutes, as late secrets are an outage. A probe
    without a result counts as lost after `probe_seconds`; then another call may probe.
    """

    threshold: int = 5
    base: float = 5.0
    cap: float = 120.0
    probe_seconds: float = 60.0

    def max_open_seconds(self, opened: int) -> float:
        """The longest time that it stays open when it opens for the `opened`-th time in a row, in seconds."""
        return min(self.cap, self.base * 2.0 ** min(opened - 1, 64))


Probe = asyncio.Event
"""A call that tests whether the breaker may close; set once it has a result."""


@dataclass(slots=True)
class _Breaker:
    failures: int = 0  # in a row, while closed
    opened: int = 0  # times in a row; 0 while closed
    until: float = 0.0  # the end of the open time or, during a probe, of the probe's time
    probe: Probe | None = None  # the current one
    last: FailureRecord | None = None  # the latest failure that counted

    def end_probe(self) -> None:
        """Wakes the calls that wait for the result of the probe, if there is one."""
        if self.probe is not None:
            self.probe.set()
            self.probe = None


@dataclass(slots=True)
class Breakers:
    """One breaker per key: ``vault:NAME`` counts the failures of a vault, ``credential:ID`` those of a credential.

    `monotonic` is the clock in seconds; `now` is the wall clock, for messages. `check` raises CallFailed if this process may make
    no call at all, as it no longer leads.
    """

    monotonic: Callable[[], float]
    random: Random
    policy: BreakerPolicy = BreakerPolicy()
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    check: Callable[[], None] = lambda: None
    _breakers: dict[str, _Breaker] = field(default_factory=dict[str, _Breaker])

    async def admit(self, *keys: str) -> BreakerPermit:
        """A permit for one call that concerns all `keys`. Waits for the result of a current probe.

        A call that is refused during the probe would have to wait for the next run, although the vault may be healthy.
        Raises CallFailed with the failure that opened a breaker if the call may not be made, and what `check` raises.
        """
        permit = BreakerPermit(self, {})
        try:
            for key in keys:
                permit.probes[key] = await self._wait(key)
            self.check()
        except BaseException:
            permit.cancelled()
            raise
        return permit

    async def _wait(self, key: str) -> Probe | None:
        """Waits until a call may be made; returns its probe, if it is one."""
        while (breaker := self._breakers.get(key)) is not None and breaker.opened:
            now = self.monotonic()
            if now >= breaker.until:
                breaker.probe, breaker.until = Probe(), now + self.policy.probe_seconds
                return breaker.probe
            if breaker.probe is None:
                raise CallFailed(self._refusal(key, breaker, breaker.until - now))
            with suppress(TimeoutError):
                async with asyncio.timeout(breaker.until - now):
                    await breaker.probe.wait()
        return None

    def _refusal(self, key: str, breaker: _Breaker, seconds: float) -> FailureRecord:
        moment = self.now() + timedelta(seconds=seconds)
        message = f"{key.replace(':', ' ', 1)} failed repeatedly and is not called before {moment:%H:%M:%S} UTC"
        last = breaker.last or FailureRecord(kind="connection", summary="unknown")
        return replace(last, summary=f"{message} (last: {last.summary})", ambiguous=False, retry_after=None)

    def success(self, key: str) -> None:
        """A call succeeded: the breaker closes."""
        breaker = self._breakers.pop(key, None)
        if breaker is not None:
            breaker.end_probe()

    def failure(self, key: str, record: FailureRecord, probe: Probe | None = None) -> None:
        """A call failed. `probe` is that of its permit: None for a call made while the breaker was closed.

        A failure that concerns only one secret or account counts as a success: the service itself has replied, and had accepted
        the token.
        """
        is_vault = key.startswith("vault:")
        replied = record.http_status not in {None, 429} and record.kind in {"cloud_error", "authentication"}
        if counts_against_vault(record) if is_vault else counts_against_credential(record):
            self._count(key, record, probe)
        elif replied and not (is_vault and counts_against_credential(record)):
            self.success(key)
        else:
            self.cancelled(key, probe)

    def cancelled(self, key: str, probe: Probe | None = None) -> None:
        """A call was cancelled or never sent, so the vault's or credential's health is unknown: another call may probe at once."""
        breaker = self._breakers.get(key)
        if breaker is not None and probe is not None and breaker.probe is probe:
            breaker.until = self.monotonic()
            breaker.end_probe()

    def _count(self, key: str, record: FailureRecord, probe: Probe | None) -> None:
        breaker = self._breakers.setdefault(key, _Breaker())
        breaker.last = record
        if breaker.opened:
            # A call from before the breaker opened tells nothing new: only a failed probe opens it again.
            if probe is None or breaker.probe is not probe:
                return
        else:
            breaker.failures += 1
            if breaker.failures < self.policy.threshold:
                return
        breaker.opened += 1
        breaker.until = self.monotonic() + self.random.uniform(0.0, self.policy.max_open_seconds(breaker.opened))
        breaker.end_probe()

    def retry_now(self) -> None:
        """Closes every breaker, as after a reload or SIGUSR1: an operator may have fixed the cause."""
        self.keep(())

    def keep(self, keys: Iterable[str]) -> None:
        """Forgets all keys but `keys`, as after a reload."""
        for key in self._breakers.keys() - set(keys):
            self.success(key)

    def states(self) -> dict[str, BreakerState]:
        """The state of each breaker that has counted a failure since its last success."""
        now = self.monotonic()
        states: dict[str, BreakerState] = {}
        for key, breaker in self._breakers.items():
            half_open = breaker.probe is not None or now >= breaker.until
            phase: BreakerPhase = "closed" if not breaker.opened else "half_open" if half_open else "open"
            states[key] = BreakerState(phase, breaker.failures, breaker.until if breaker.opened else None)
        return states


@dataclass(frozen=True, slots=True)
class BreakerPermit:
    """Permission for one call. Its holder reports how the call ended, once. `probes` has its probe, or None, for each breaker."""

    breakers: Breakers
    probes: dict[str, Probe | None]

    def finished(self, record: FailureRecord | None) -> None:
        """The call ended; `record` is None if it succeeded."""
        for key, probe in self.probes.items():
            if record is None:
                self.breakers.success(key)
            else:
                self.breakers.failure(key, record, probe)

    def cancelled(self) -> None:
        """The call was cancelled before it had any result: another call may probe."""
        for key, probe in self.probes.items():
            self.breakers.cancelled(key, probe)
