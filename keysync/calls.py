"""What every layer may know of a call to Azure, without an Azure SDK. `keysync.azure.retry` makes the calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

BreakerPhase = Literal["closed", "open", "half_open"]

ACCOUNT_TIMEOUT_HINT: Final = (
    "Azure answers slowly or throttles its calls (keysync_azure_throttled_total counts that): try `keysync check`, and raise "
    "timeouts.account if the network or retries need more time"
)
"""How to fix an account, or a listing, that took longer than `timeouts.account` although no single call failed."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One kind of call. `service` and `name` label it in metrics."""

    service: str
    name: str
    repeatable: bool = True
    """Whether it may be sent twice without harm."""
    changes: bool = False
    """Whether it changes Azure. A change is sent only while the ReadBarrier allows it."""


@dataclass(frozen=True, slots=True)
class ReadBarrier:
    """Allows changes until `until`, in seconds of `clock`. With `once`, each change may be sent only once."""

    until: float
    clock: Callable[[], float]
    once: bool = False

    def allows(self, attempt: int) -> bool:
        """Whether `attempt` (from 1) may be sent now."""
        return self.clock() <= self.until and not (self.once and attempt > 1)


READ_BARRIER: Final[ContextVar[ReadBarrier | None]] = ContextVar("read_barrier", default=None)
"""The barrier for the changes of the current task; None allows all."""

CallObserver: TypeAlias = Callable[[Operation, str], None]
"""Called after each attempt, with the HTTP status, or the kind of the failure if there was no reply."""


@dataclass(frozen=True, slots=True)
class BreakerState:
    """A circuit breaker as the status page shows it. `retry_at` (monotonic seconds) is None while it is closed."""

    state: BreakerPhase
    failures: int
    retry_at: float | None


class BreakerStates(Protocol):
    """The circuit breakers, for the daemon. `retry_now` closes all of them, `keep` forgets those of all other keys."""

    def states(self) -> Mapping[str, BreakerState]:
        """The breakers that have counted a failure since their last success, by ``vault:NAME`` or ``credential:ID``."""
        ...

    def retry_now(self) -> None: ...
    def keep(self, keys: Iterable[str]) -> None: ...
