"""Circuit breakers for vaults and credentials: while one is open, one call at a time probes it."""

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

# No reply of the vault itself: whatever is asked of it next goes the same way.
_UNREACHABLE: Final[frozenset[FailureKind]] = frozenset(
    {"dns", "tls", "connection", "timeout", "invalid_response", "challenge"}
)
_WHOLE_VAULT_CODES: Final = ("ForbiddenByFirewall", "ForbiddenByConnection")
_PROXY_STATUS: Final = frozenset({407, 408})
# Entra's `error` (RFC 6749, 5.2 and Microsoft's own), where its description bears no AADSTS code.
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
    """Whether the failure speaks of the whole vault: it cannot be reached, it is ill, it lets nobody in from here.

    A 403 or 404 of one secret does not, a role that is lacking does not (it can be given for a single secret), nor does
    429, which its Retry-After is for; nor a token that Entra refused, which says nothing of the vault.
    """
    if counts_against_credential(record):
        return False
    status = record.http_status
    if status is not None and (status >= 500 or status in _PROXY_STATUS):
        return True
    # 401 with a token in hand: the vault trusts another tenant or audience, whatever the secret.
    return record.kind in _UNREACHABLE or record.kind == "authentication" or record.has_code(*_WHOLE_VAULT_CODES)


def counts_against_credential(record: FailureRecord) -> bool:
    """Whether the failure speaks of the credential: there is no token to be had with it.

    A token endpoint that cannot be reached looks like any host that cannot, so it counts against the vault that was
    asked for; a service that refuses a good token (401 without an error of Entra's) is of another tenant, and other
    accounts of the same credential may be well.
    """
    if record.kind == "credential_unavailable":
        return True
    if record.kind != "authentication":
        return False
    # The SDK makes 401 of a service such a record; azure-identity makes one of whatever the token endpoint said.
    return record.http_status != 401 or _is_from_entra(record)


def _is_from_entra(record: FailureRecord) -> bool:
    error = record.cloud_error
    if error is None:
        return False
    return error.target in _OAUTH_ERRORS or any(code.startswith("AADSTS") for code in error.codes())


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens, and for how long; seconds.

    `threshold` failures in a row open it: 5, since each of the calls has been repeated by then. It stays open for a
    time drawn evenly from nothing to `base`, doubled with each probe that failed, `cap` at most: 2 minutes, as lateness
    is an outage. `probe_seconds` is when a probe of which nothing was heard counts as lost, so that another may go.
    """

    threshold: int = 5
    base: float = 5.0
    cap: float = 120.0
    probe_seconds: float = 60.0

    def longest_open(self, opened: int) -> float:
        """The upper end of what is drawn when it opens for the `opened`-th time in a row."""
        return min(self.cap, self.base * 2.0 ** min(opened - 1, 64))


@dataclass(frozen=True, slots=True)
class BreakerDecision:
    """Whether a call may be made; `retry_at` (monotonic seconds) is when to ask again where it may not.

    `probe` is the number of the one call that a half-open breaker lets through: hand it back with the outcome. `probing`
    says that such a call is out: `wait_for_probe` waits for its end.
    """

    allowed: bool
    retry_at: float | None = None
    probe: int | None = None
    probing: bool = False


@dataclass(slots=True)
class _Breaker:
    failures: int = 0  # in a row, while closed
    opened: int = 0  # times in a row; 0 is closed
    until: float = 0.0  # open until then, or the probe's time is up
    probe: int | None = None  # out right now
    last: FailureRecord | None = None  # the latest that counted


class Breakers:
    """One breaker a key; ``vault:NAME`` and ``credential:ID`` say what a failure has to speak of to count."""

    def __init__(self, monotonic: Callable[[], float], random: Random, policy: BreakerPolicy | None = None) -> None:
        self._monotonic = monotonic
        self._random = random
        self._policy = policy or BreakerPolicy()
        self._breakers: dict[str, _Breaker] = {}
        self._probes = 0
        self._heard: dict[str, asyncio.Event] = {}

    def allow(self, key: str) -> BreakerDecision:
        """Whether a call may be made now. Where it may, tell of its end: `success`, `failure` or `cancelled`."""
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
        """Waits until something is known of the probe that is out, or its time is up; then ask `allow` again.

        Whoever is refused while it is out would have to wait for its next run, though the vault may be well.
        """
        breaker = self._breakers.get(key)
        if breaker is None or breaker.probe is None:
            return
        heard = self._heard.setdefault(key, asyncio.Event())
        with suppress(TimeoutError):
            async with asyncio.timeout(breaker.until - self._monotonic()):
                await heard.wait()

    def success(self, key: str) -> None:
        """A call got through, whoever made it: the breaker closes."""
        self._breakers.pop(key, None)
        self._hear(key)

    def failure(self, key: str, record: FailureRecord, probe: int | None = None) -> None:
        """A call failed; `probe` is what `allow` gave it, None for a call made while the breaker was closed.

        A failure of one thing only shows, where the service itself replied, that the whole is well.
        """
        counts = counts_against_vault if key.startswith("vault:") else counts_against_credential
        if counts(record):
            self._count(key, record, probe)
        elif _shows_health(key, record):
            self.success(key)
        else:
            self.cancelled(key, probe)

    def cancelled(self, key: str, probe: int | None = None) -> None:
        """A call ended without a word on the whole (it was cancelled, or never sent): another may probe at once."""
        breaker = self._breakers.get(key)
        if breaker is not None and probe is not None and breaker.probe == probe:
            breaker.probe, breaker.until = None, self._monotonic()
            self._hear(key)

    def last(self, key: str) -> FailureRecord | None:
        """The latest failure that counted against `key`, None while it is well."""
        breaker = self._breakers.get(key)
        return breaker.last if breaker is not None else None

    def retry_now(self) -> None:
        """Closes every breaker: somebody has mended something, and wants all of it tried."""
        self._breakers.clear()
        for key in tuple(self._heard):
            self._hear(key)

    def keep(self, keys: Iterable[str]) -> None:
        """Forgets every other key, as after a reload."""
        kept = set(keys)
        self._breakers = {key: breaker for key, breaker in self._breakers.items() if key in kept}
        for key in self._heard.keys() - kept:
            self._hear(key)

    def states(self) -> dict[str, BreakerState]:
        """Every key that has failed since it last was well."""
        now = self._monotonic()
        return {key: _state_of(breaker, now) for key, breaker in self._breakers.items()}

    def _count(self, key: str, record: FailureRecord, probe: int | None) -> None:
        breaker = self._breakers.setdefault(key, _Breaker())
        breaker.last = record
        if breaker.opened:
            # A straggler that was sent before it opened says nothing new: only the probe's failure opens it again.
            if probe is not None and breaker.probe == probe:
                self._open(breaker)
                self._hear(key)
            return
        breaker.failures += 1
        if breaker.failures >= self._policy.threshold:
            self._open(breaker)

    def _hear(self, key: str) -> None:
        heard = self._heard.pop(key, None)
        if heard is not None:
            heard.set()

    def _open(self, breaker: _Breaker) -> None:
        breaker.opened += 1
        breaker.probe = None
        breaker.until = self._monotonic() + self._random.uniform(0.0, self._policy.longest_open(breaker.opened))


def _state_of(breaker: _Breaker, now: float) -> BreakerState:
    if not breaker.opened:
        return BreakerState("closed", breaker.failures, None)
    half_open = breaker.probe is not None or now >= breaker.until
    return BreakerState("half_open" if half_open else "open", breaker.failures, breaker.until)


def _shows_health(key: str, record: FailureRecord) -> bool:
    if record.http_status in {None, 429} or record.kind not in {"cloud_error", "authentication"}:
        return False
    # A vault replied about one secret; and whoever judged a request at all had taken its token.
    return not (key.startswith("vault:") and counts_against_credential(record))


class BreakerAdmission:
    """Lets a call through where all of its breakers do; tells each of them how the call ended.

    `monotonic` is the breakers' clock in seconds, `now` the wall clock, for what a person reads.
    """

    def __init__(
        self, breakers: Breakers, keys: Sequence[str], monotonic: Callable[[], float], now: Callable[[], datetime]
    ) -> None:
        self._breakers = breakers
        self._keys = tuple(keys)
        self._monotonic = monotonic
        self._now = now

    async def admit(self) -> BreakerPermit:
        """A ticket for one call, once the call that probes a breaker, if any does, has told how it stands.

        Raises CallFailed, with the failure that opened the breaker, where none may be made.
        """
        probes: dict[str, int | None] = {}
        try:
            for key in self._keys:
                probes[key] = await self._admitted(key)
        except BaseException:
            for key, probe in probes.items():
                self._breakers.cancelled(key, probe)
            raise
        return BreakerPermit(self._breakers, probes)

    async def _admitted(self, key: str) -> int | None:
        while (verdict := self._breakers.allow(key)).probing:
            await self._breakers.wait_for_probe(key)
        if not verdict.allowed:
            raise CallFailed(self._refusal(key, verdict.retry_at or 0.0))
        return verdict.probe

    def _refusal(self, key: str, retry_at: float) -> FailureRecord:
        moment = self._now() + timedelta(seconds=max(0.0, retry_at - self._monotonic()))
        told = f"{key.replace(':', ' ', 1)} failed again and again and is not asked before {moment:%H:%M:%S} UTC"
        last = self._breakers.last(key)
        if last is None:
            return FailureRecord(kind="connection", summary=told)
        return replace(last, summary=f"{told} (last: {last.summary})", ambiguous=False, retry_after=None)


@dataclass(frozen=True, slots=True)
class BreakerPermit:
    """One call that was let through, with the probes that it makes."""

    breakers: Breakers
    probes: dict[str, int | None]

    def finished(self, record: FailureRecord | None) -> None:
        """Closes the breakers, or counts the failure against those that it speaks of."""
        for key, probe in self.probes.items():
            if record is None:
                self.breakers.success(key)
            else:
                self.breakers.failure(key, record, probe)

    def cancelled(self) -> None:
        """Lets another call probe."""
        for key, probe in self.probes.items():
            self.breakers.cancelled(key, probe)
