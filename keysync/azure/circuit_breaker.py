"""Circuit breakers for vaults and credentials.

A breaker opens after several failures in a row. While it is open, calls fail at once; from time to time one call is let
through as a probe, and closes the breaker if it succeeds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random
from typing import Final

from keysync.calls import BreakerState
from keysync.failures import CallFailed, FailureKind, FailureRecord

# Failures without a reply of the vault itself: any other call to it would fail in the same way.
_UNREACHABLE: Final[frozenset[FailureKind]] = frozenset(
    {"dns", "tls", "connection", "timeout", "invalid_response", "challenge"}
)
_WHOLE_VAULT_CODES: Final = ("ForbiddenByFirewall", "ForbiddenByConnection")
_PROXY_STATUS: Final = frozenset({407, 408})
# Entra's `error` values (RFC 6749, 5.2, and Microsoft's own), for descriptions without an AADSTS code.
_OAUTH_ERRORS: Final = frozenset(
    {
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_resource",
        "invalid_scope",
        "temporarily_unavailable",
        "unauthorized_client",
        "unsupported_grant_type",
    }
)


def counts_against_vault(record: FailureRecord) -> bool:
    """Whether the failure concerns the whole vault: it is unreachable, has an internal error, or its firewall refuses this address.

    A 403 or 404 of one secret does not count, nor does a missing role, which can be assigned for a single secret. 429 does not
    count: Retry-After handles it. A token that Entra refused does not count: it says nothing about the vault.
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
    if record.kind == "credential_unavailable":
        return True
    if record.kind != "authentication":
        return False
    # Both raise this error: the SDK for a 401 of a service, azure-identity for any error of the token endpoint.
    return record.http_status != 401 or _is_from_entra(record)


def _is_from_entra(record: FailureRecord) -> bool:
    error = record.cloud_error
    if error is None:
        return False
    return error.target in _OAUTH_ERRORS or any(code.startswith("AADSTS") for code in error.codes())


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


@dataclass(frozen=True, slots=True)
class BreakerDecision:
    """Whether a call may be made."""

    allowed: bool
    retry_at: float | None = None
    """If the call is not allowed: when to ask again, in monotonic seconds."""

    probe: int | None = None
    """If this call is the probe: its number, to be passed on with its result."""

    probing: bool = False
    """Whether another call is probing now; `wait_for_probe` waits for its result."""


@dataclass(slots=True)
class _Breaker:
    failures: int = 0  # in a row, while closed
    opened: int = 0  # times in a row; 0 while closed
    until: float = 0.0  # the end of the open time or, during a probe, of the probe's time
    probe: int | None = None  # the number of the current probe
    last: FailureRecord | None = None  # the latest failure that counted


class Breakers:
    """One breaker per key: ``vault:NAME`` counts the failures of a vault, ``credential:ID`` those of a credential."""

    def __init__(self, monotonic: Callable[[], float], random: Random, policy: BreakerPolicy | None = None) -> None:
        self._monotonic = monotonic
        self._random = random
        self._policy = policy or BreakerPolicy()
        self._breakers: dict[str, _Breaker] = {}
        self._probes = 0
        self._probe_ended: dict[str, asyncio.Event] = {}

    def allow(self, key: str) -> BreakerDecision:
        """Whether a call may be made now. After an allowed call, report its end: `success`, `failure` or `cancelled`."""
        breaker = self._breakers.get(key)
        if breaker is None or not breaker.opened:
            return BreakerDecision(allowed=True)
        now = self._monotonic()
        if now < breaker.until:
            return BreakerDecision(allowed=False, retry_at=breaker.until, probing=breaker.probe is not None)
        self._probes += 1
        breaker.probe = self._probes
        breaker.until = now + self._policy.probe_seconds
        return BreakerDecision(allowed=True, probe=breaker.probe)

    async def wait_for_probe(self, key: str) -> None:
        """Waits until the current probe has a result or its time is up; then call `allow` again.

        A call that is refused during the probe would have to wait for the next run, although the vault may be healthy.
        """
        breaker = self._breakers.get(key)
        if breaker is None or breaker.probe is None:
            return
        ended = self._probe_ended.setdefault(key, asyncio.Event())
        with suppress(TimeoutError):
            async with asyncio.timeout(breaker.until - self._monotonic()):
                await ended.wait()

    def success(self, key: str) -> None:
        """A call succeeded: the breaker closes."""
        self._breakers.pop(key, None)
        self._wake_waiters(key)

    def failure(self, key: str, record: FailureRecord, probe: int | None = None) -> None:
        """A call failed. `probe` is that of its decision: None for a call made while the breaker was closed.

        A failure that concerns only one secret or account counts as a success: the service itself has replied.
        """
        counts = counts_against_vault if key.startswith("vault:") else counts_against_credential
        if counts(record):
            self._count(key, record, probe)
        elif _proves_healthy(key, record):
            self.success(key)
        else:
            self.cancelled(key, probe)

    def cancelled(self, key: str, probe: int | None = None) -> None:
        """A call was cancelled or never sent, so the vault's or credential's health is unknown: another call may probe at once."""
        breaker = self._breakers.get(key)
        if breaker is not None and probe is not None and breaker.probe == probe:
            breaker.probe, breaker.until = None, self._monotonic()
            self._wake_waiters(key)

    def last(self, key: str) -> FailureRecord | None:
        """The latest failure that counted against `key`; None after a success."""
        breaker = self._breakers.get(key)
        return breaker.last if breaker is not None else None

    def retry_now(self) -> None:
        """Closes every breaker, as after a reload or SIGUSR1: an operator may have fixed the cause."""
        self._breakers.clear()
        for key in tuple(self._probe_ended):
            self._wake_waiters(key)

    def keep(self, keys: Iterable[str]) -> None:
        """Forgets all keys but `keys`, as after a reload."""
        kept = set(keys)
        self._breakers = {key: breaker for key, breaker in self._breakers.items() if key in kept}
        for key in self._probe_ended.keys() - kept:
            self._wake_waiters(key)

    def states(self) -> dict[str, BreakerState]:
        """The state of each breaker that has counted a failure since its last success."""
        now = self._monotonic()
        return {key: _state_of(breaker, now) for key, breaker in self._breakers.items()}

    def _count(self, key: str, record: FailureRecord, probe: int | None) -> None:
        breaker = self._breakers.setdefault(key, _Breaker())
        breaker.last = record
        if breaker.opened:
            # A call from before the breaker opened tells nothing new: only a failed probe opens it again.
            if probe is not None and breaker.probe == probe:
                self._open(breaker)
                self._wake_waiters(key)
            return
        breaker.failures += 1
        if breaker.failures >= self._policy.threshold:
            self._open(breaker)

    def _wake_waiters(self, key: str) -> None:
        ended = self._probe_ended.pop(key, None)
        if ended is not None:
            ended.set()

    def _open(self, breaker: _Breaker) -> None:
        breaker.opened += 1
        breaker.probe = None
        breaker.until = self._monotonic() + self._random.uniform(0.0, self._policy.max_open_seconds(breaker.opened))


def _state_of(breaker: _Breaker, now: float) -> BreakerState:
    if not breaker.opened:
        return BreakerState("closed", breaker.failures, None)
    half_open = breaker.probe is not None or now >= breaker.until
    return BreakerState("half_open" if half_open else "open", breaker.failures, breaker.until)


def _proves_healthy(key: str, record: FailureRecord) -> bool:
    if record.http_status in {None, 429} or record.kind not in {"cloud_error", "authentication"}:
        return False
    # The vault replied about one secret. A service that replied at all had accepted the token.
    return not (key.startswith("vault:") and counts_against_credential(record))


class BreakerAdmission:
    """Admits a call if all of its breakers allow it, and reports the result to each of them.

    `monotonic` is the breakers' clock in seconds; `now` is the wall clock, for messages.
    """

    def __init__(
        self, breakers: Breakers, keys: Sequence[str], monotonic: Callable[[], float], now: Callable[[], datetime]
    ) -> None:
        self._breakers = breakers
        self._keys = tuple(keys)
        self._monotonic = monotonic
        self._now = now

    async def admit(self) -> BreakerPermit:
        """A permit for one call. Waits for the current probe of a breaker, if any.

        Raises CallFailed with the failure that opened the breaker if the call may not be made.
        """
        probes: dict[str, int | None] = {}
        try:
            for key in self._keys:
                probes[key] = await self._probe_for(key)
        except BaseException:
            for key, probe in probes.items():
                self._breakers.cancelled(key, probe)
            raise
        return BreakerPermit(self._breakers, probes)

    async def _probe_for(self, key: str) -> int | None:
        while (decision := self._breakers.allow(key)).probing:
            await self._breakers.wait_for_probe(key)
        if not decision.allowed:
            raise CallFailed(self._refusal(key, decision.retry_at or 0.0))
        return decision.probe

    def _refusal(self, key: str, retry_at: float) -> FailureRecord:
        moment = self._now() + timedelta(seconds=max(0.0, retry_at - self._monotonic()))
        message = f"{key.replace(':', ' ', 1)} failed repeatedly and is not called before {moment:%H:%M:%S} UTC"
        last = self._breakers.last(key)
        if last is None:
            return FailureRecord(kind="connection", summary=message)
        return replace(last, summary=f"{message} (last: {last.summary})", ambiguous=False, retry_after=None)


@dataclass(frozen=True, slots=True)
class BreakerPermit:
    """Permission for one call. `probes` has the number of the call's probe, or None, for each breaker."""

    breakers: Breakers
    probes: dict[str, int | None]

    def finished(self, record: FailureRecord | None) -> None:
        """Reports the result of the call to each breaker."""
        for key, probe in self.probes.items():
            if record is None:
                self.breakers.success(key)
            else:
                self.breakers.failure(key, record, probe)

    def cancelled(self) -> None:
        """Allows another call to probe."""
        for key, probe in self.probes.items():
            self.breakers.cancelled(key, probe)
