"""Circuit breakers before the calls to a vault and with a credential."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from keysync.azure.errors import AzureFailure, FailureRecord
from keysync.daemon.breaker import Breakers


class BreakerGuard:
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

    async def admit(self) -> BreakerTicket:
        """A ticket for one call, once the call that probes a breaker, if any does, has told how it stands.

        Raises AzureFailure, with the failure that opened the breaker, where none may be made.
        """
        probes: dict[str, int | None] = {}
        try:
            for key in self._keys:
                probes[key] = await self._admitted(key)
        except BaseException:
            for key, probe in probes.items():
                self._breakers.gave_up(key, probe)
            raise
        return BreakerTicket(self._breakers, probes)

    async def _admitted(self, key: str) -> int | None:
        while (verdict := self._breakers.allow(key)).probing:
            await self._breakers.probed(key)
        if not verdict.allowed:
            raise AzureFailure(self._refusal(key, verdict.retry_at or 0.0))
        return verdict.probe

    def _refusal(self, key: str, retry_at: float) -> FailureRecord:
        moment = self._now() + timedelta(seconds=max(0.0, retry_at - self._monotonic()))
        told = f"{key.replace(':', ' ', 1)} failed again and again and is not asked before {moment:%H:%M:%S} UTC"
        last = self._breakers.last(key)
        if last is None:
            return FailureRecord(kind="connection", summary=told)
        return replace(last, summary=f"{told} (last: {last.summary})", ambiguous=False, retry_after=None)


@dataclass(frozen=True, slots=True)
class BreakerTicket:
    """One call that was let through, with the probes that it makes."""

    breakers: Breakers
    probes: dict[str, int | None]

    def ended(self, record: FailureRecord | None) -> None:
        """Closes the breakers, or counts the failure against those that it speaks of."""
        for key, probe in self.probes.items():
            if record is None:
                self.breakers.success(key)
            else:
                self.breakers.failure(key, record, probe)

    def gave_up(self) -> None:
        """Lets another call probe."""
        for key, probe in self.probes.items():
            self.breakers.gave_up(key, probe)
