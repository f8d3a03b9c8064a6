from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, tzinfo
from typing import Any

from apscheduler.job import Job
from apscheduler.triggers.base import BaseTrigger

class AsyncIOScheduler:
    def __init__(self, *, timezone: tzinfo) -> None: ...
    def start(self) -> None: ...
    def shutdown(self, wait: bool = True) -> None: ...
    def wakeup(self) -> None: ...
    def get_jobs(self) -> list[Job]: ...
    def add_job(
        self,
        func: Callable[..., Awaitable[None]],
        trigger: BaseTrigger,
        *,
        args: Sequence[Any],
        next_run_time: datetime,
        max_instances: int,
        coalesce: bool,
        misfire_grace_time: int | None,
    ) -> Job: ...
