"""Resource Graph queries and their rate limit."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysync.emulator.services import resource_graph
from keysync.sources.list_resource_graph import Quota, accounts_query, literal


@given(st.text(max_size=40))
def test_a_literal_cannot_end_early(text: str) -> None:
    """No text can become a part of the query."""
    quoted = literal(text)
    assert resource_graph._STEP.findall(f"where a =~ {quoted} | limit 1")[0] == f"where a =~ {quoted} "
    assert "\n" not in quoted


def test_group_names_are_literals() -> None:
    """Names that look like KQL are names."""
    assert "where" not in accounts_query([]).split("|")[2]
    query = accounts_query(["rg-west", "a') | union secrets | where (b in ('"])
    assert "in~ ('rg-west', 'a\\') | union secrets | where (b in (\\'')" in query


class Time:
    """A clock that a sleep moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def spent(after: str, remaining: str = "0") -> dict[str, str]:
    return {"x-ms-user-quota-remaining": remaining, "x-ms-user-quota-resets-after": after}


@pytest.mark.parametrize(
    ("headers", "slept"),
    [
        (spent("00:00:05"), [5.0]),
        (spent("00:00:03.25"), [3.0]),
        (spent("00:00:00"), []),
        (spent("99:00:00"), [60.0]),
        (spent("00:00:05", "3"), []),
        (spent("soon"), []),
        ({}, []),
    ],
)
async def test_only_a_used_up_quota_causes_a_wait(headers: dict[str, str], slept: list[float]) -> None:
    """For the time that the service says, at most a minute."""
    time = Time()
    quota = Quota(time.sleep, time.monotonic)
    async with quota.turn():
        quota.note(headers)
    for _ in range(2):
        async with quota.turn():
            pass
    assert time.slept == slept


async def test_queries_of_one_identity_run_one_at_a_time() -> None:
    """So a throttled query delays the others, instead of all being throttled."""
    quota, inside, most = Quota(), 0, 0

    async def ask() -> None:
        nonlocal inside, most
        async with quota.turn():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(ask() for _ in range(5)))
    assert most == 1
