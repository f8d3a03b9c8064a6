from collections.abc import Awaitable, Callable
from datetime import tzinfo

from apscheduler.triggers.base import BaseTrigger

class AsyncIOScheduler:
    def __init__(self, *, timezone: tzinfo) -> None: ...
    def start(self) -> None: ...
    def shutdown(self, wait: bool = True) -> None: ...
    def add_job(
        self,
        func: Callable[[], Awaitable[None]],
        trigger: BaseTrigger,
        *,
        id: str,
        replace_existing: bool,
        max_instances: int,
        coalesce: bool,
        misfire_grace_time: int | None,
    ) -> object: ...
