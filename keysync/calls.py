"""Calls to Azure as every layer may see them: kinds of calls, what may hold a call back, and the state of a circuit breaker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from keysync.failures import FailureRecord

BreakerPhase = Literal["closed", "open", "half_open"]

ACCOUNT_TIMEOUT_HINT: Final = (
    "Azure answers slowly or makes its calls wait (keysync_azure_throttled_total counts that): try `keysync check`, and raise "
    "timeouts.account where the network or a retry needs longer"
)
"""What to do where not one call but a whole account, or a whole listing, outran `timeouts.account`."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One kind of call. `service` and `name` label it in metrics; `repeatable` says that sending it twice does no harm."""

    service: str
    name: str
    repeatable: bool = True
    changes: bool = False
    """Whether it changes what it is about: then it is sent only while the look that it rests on is fresh."""


@dataclass(frozen=True, slots=True)
class ReadBarrier:
    """Until when, by `clock` in seconds, changes may be sent; `once` says that each may be sent a single time only."""

    until: float
    clock: Callable[[], float]
    once: bool = False

    def allows(self, attempt: int) -> bool:
        """Whether `attempt` (from 1) may be sent now."""
        return self.clock() <= self.until and not (self.once and attempt > 1)


READ_BARRIER: Final[ContextVar[ReadBarrier | None]] = ContextVar("read_barrier", default=None)
"""What this task's changes rest on; None where nobody has looked and nobody asks."""


class CallObserver(Protocol):
    """Told of each attempt: its operation and the HTTP status, or the failure's kind where there was none."""

    def __call__(self, operation: Operation, status: str) -> None: ...


class CallPermit(Protocol):
    """One call that a guard has let through."""

    def finished(self, record: FailureRecord | None) -> None:
        """The call is over; `record` is None where it succeeded."""
        ...

    def cancelled(self) -> None:
        """The call was cancelled: nothing is known of it."""
        ...


class CallAdmission(Protocol):
    """Stands before the calls to one vault, or with one credential."""

    async def admit(self) -> CallPermit:
        """Lets one call through, perhaps after another has shown that it may. Raises CallFailed where none may be made now."""
        ...


@dataclass(frozen=True, slots=True)
class BreakerState:
    """A breaker as it is shown. `retry_at` (monotonic seconds) is None while it is closed."""

    state: BreakerPhase
    failures: int
    retry_at: float | None


class BreakerStates(Protocol):
    """The circuit breakers as the snapshot reads them."""

    def states(self) -> Mapping[str, BreakerState]:
        """The state of each breaker that counted a failure since its last success, by ``vault:NAME`` or ``credential:ID``."""
        ...
