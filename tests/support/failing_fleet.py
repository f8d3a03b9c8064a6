"""A fleet with one of each failure that needs no test step, for tests of monitoring."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

W = TypeVar("W")


def make_failing_fleet(make_world: Callable[..., W], *, retry_after: int, **settings: object) -> W:
    """Accounts that are in sync, denied, throttled for `retry_after` seconds, and refused; a run every second."""
    throttled = {"operation": "listKeys", "kind": "status", "status": 429, "code": "TooManyRequests"}
    world = make_world(
        "alpha",
        {"name": "norole", "fault": "role_missing"},
        {"name": "busy", "fault": {**throttled, "retry_after": str(retry_after)}},
        "handmade",
        vaults=({"name": "main", "secrets": [{"name": "handmade-primary-key", "value": "made by hand"}]}, "other"),
    )
    world.configure(  # type: ignore[attr-defined]  # a world of tests/system/conftest.py
        [{"name": "alpha", "vaults": ["main", "other"]}, "norole", "busy", "handmade"],
        schedule={"every": "1s"},
        listen="127.0.0.1:0",
        **settings,
    )
    return world
