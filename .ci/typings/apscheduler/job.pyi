from datetime import datetime
from typing import Any

from apscheduler.triggers.base import BaseTrigger

class Job:
    args: tuple[Any, ...]
    trigger: BaseTrigger
    next_run_time: datetime
    def remove(self) -> None: ...
    def modify(self, *, next_run_time: datetime | None) -> Job: ...
