from collections.abc import Callable

from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

class Config:
    def __init__(
        self,
        lock: LeaseLock,
        lease_duration: int,
        renew_deadline: float,
        retry_period: float,
        onstarted_leading: Callable[[], None],
        onstopped_leading: Callable[[], None],
    ) -> None: ...
