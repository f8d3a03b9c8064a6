"""The cache returns a secret only if a listing confirms that it is unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysync.failures import CallFailed, FailureRecord
from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.value import SecretValue
from keysync.targets import cache as cache_module
from keysync.targets.cache import PAGE, ListValidation, SecretCache, max_pages
from keysync.targets.interface import SecretProperties, StoredSecret

NOW = datetime(2026, 11, 24, 5, 22, tzinfo=UTC)
TAGS = {"managed-by": "keysync"}
STORED = StoredSecret("v1", Fingerprinter().of(SecretValue("x")), TAGS, "text/plain")
LISTED = SecretProperties("Name", TAGS, content_type="text/plain", updated=NOW)


class Clock:
    """A monotonic clock in seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def empty_cache(clock: Clock | None = None, verify: float = 3600.0) -> SecretCache:
    return SecretCache(verify, clock or Clock(), uniform=lambda _low, high: high)


def cache_with_secret(answered: datetime | None = NOW + timedelta(seconds=2), **more: Any) -> SecretCache:
    cache = empty_cache(**more)
    cache.keep("name", STORED, NOW, answered)
    return cache


def is_stored(cached: StoredSecret | None) -> bool:
    """Whether the cached secret equals the stored one in every field."""
    return all(getattr(cached, item.name) == getattr(STORED, item.name) for item in fields(StoredSecret))


def test_an_unchanged_secret_is_confirmed():
    """Same name in any case, same time, tags, content type and expiry."""
    assert is_stored(cache_with_secret().confirmed(LISTED))


@pytest.mark.parametrize(
    "change",
    [
        {"updated": NOW + timedelta(seconds=1)},
        {"updated": NOW - timedelta(seconds=1)},
        {"updated": None},
        {"tags": {}},
        {"tags": {**TAGS, "x": "y"}},
        {"enabled": False},
        {"managed": True},
        {"content_type": None},
        {"expires": NOW},
        {"name": "another"},
    ],
    ids=str,
)
def test_a_changed_secret_is_not_confirmed(change: dict[str, Any]):
    """Each field that a listing shows counts on its own."""
    assert cache_with_secret().confirmed(replace(LISTED, **change)) is None


@pytest.mark.parametrize("seconds", [None, -1, 0, 1])
def test_a_secret_read_in_the_second_of_an_update_is_not_cached(seconds: int | None):
    """Another update in that second would not show. Without the service's time, nothing is cached either."""
    answered = None if seconds is None else NOW + timedelta(seconds=seconds)
    assert not cache_with_secret(answered).is_usable("name")


def test_a_cached_secret_expires():
    """Even if listings show no change."""
    clock = Clock()
    cache = cache_with_secret(clock=clock)
    clock.now += 3599
    assert cache.is_usable("NAME")
    clock.now += 1
    assert not cache.is_usable("name")
    assert not cache_with_secret(verify=0.0).is_usable("name")


def test_a_forgotten_secret_is_not_confirmed():
    """So a failed read leaves nothing in the cache."""
    cache = cache_with_secret()
    cache.forget("NAME")
    assert cache.confirmed(LISTED) is None


@given(st.integers(0, 50_000), st.floats(0.001, 5.0))
def test_a_listing_always_saves_requests(ours: int, page_seconds: float):
    """It never has as many pages as there are secrets to read."""
    assert max_pages(ours, page_seconds) < max(ours, 1)


def test_a_listing_is_chosen_by_numbers():
    """A vault with mostly managed secrets is listed; a few among thousands are read one by one."""
    latency = 0.04
    assert max_pages(100, latency) >= 100 / PAGE
    assert max_pages(20_000, latency) >= 20_000 / PAGE
    assert max_pages(8, latency) < 4000 / PAGE
    assert max_pages(1, latency) == 0


class Vault:
    """A vault that counts the pages of its listing; each page may wait or fail."""

    def __init__(self, *pages: Sequence[SecretProperties]) -> None:
        self.pages = pages
        self.fetched = 0
        self.fail_at: int | None = None
        self.gates: dict[int, asyncio.Event] = {}

    async def fetch(self) -> AsyncIterator[Sequence[SecretProperties]]:
        for number, page in enumerate(self.pages):
            if number in self.gates:
                await self.gates[number].wait()
            if number == self.fail_at:
                raise CallFailed(FailureRecord(kind="timeout", summary="no answer"))
            self.fetched += 1
            yield page


def fleet(count: int) -> tuple[SecretCache, list[SecretProperties]]:
    cache, listed = empty_cache(), [replace(LISTED, name=f"s{number}") for number in range(count)]
    for secret in listed:
        cache.keep(secret.name, STORED, NOW, NOW + timedelta(seconds=9))
    return cache, listed


def validation_of(cache: SecretCache, vault: Vault, names: Sequence[str]) -> ListValidation:
    return ListValidation(names, cache, vault.fetch)


async def test_a_listing_saves_the_reads_of_unchanged_secrets():
    """A changed secret and a missing one must be read."""
    cache, listed = fleet(10)
    listed[3] = replace(listed[3], updated=NOW + timedelta(seconds=1))
    vault = Vault(listed[:5], listed[5:9])
    validation = validation_of(cache, vault, [f"s{number}" for number in range(10)])
    confirmed = [number for number in range(10) if await validation.confirmed(f"s{number}") is not None]
    assert confirmed == [0, 1, 2, 4, 5, 6, 7, 8]
    await validation.close()


async def test_a_secret_that_is_being_read_is_not_confirmed():
    """Another caller reads it and may see a later version than the listing."""
    cache, listed = fleet(2)
    validation = validation_of(cache, Vault(listed), ["s0", "s1"])
    assert await validation.confirmed("s0") is not None
    cache.forget("s1")
    assert await validation.confirmed("s1") is None
    await validation.close()


async def test_a_caller_waits_only_for_the_page_with_its_name():
    """Secrets of the first page are confirmed before the second page arrives."""
    cache, listed = fleet(4)
    vault = Vault(listed[:2], listed[2:])
    vault.gates[1] = asyncio.Event()
    validation = validation_of(cache, vault, ["s0", "s1", "s2", "s3"])
    assert await validation.confirmed("s0") is not None
    waiting = asyncio.create_task(validation.confirmed("s3"))
    await asyncio.sleep(0)
    assert not waiting.done()
    vault.gates[1].set()
    assert await waiting is not None
    await validation.close()


async def test_after_a_failed_page_the_rest_is_read():
    """Secrets of earlier pages stay confirmed."""
    cache, listed = fleet(4)
    vault = Vault(listed[:2], listed[2:])
    vault.fail_at = 1
    validation = validation_of(cache, vault, ["s0", "s1", "s2", "s3"])
    assert [await validation.confirmed(f"s{number}") is not None for number in range(4)] == [True, True, False, False]
    await validation.close()


async def test_a_listing_that_is_too_long_stops_and_is_not_repeated():
    """A few managed secrets among many other pages are read one by one from the next run on."""
    cache, listed = fleet(3)
    others = [replace(LISTED, name="other")]
    vault = Vault(*[others] * 50, listed)
    validation = validation_of(cache, vault, ["s0", "s1", "s2"])
    assert await validation.confirmed("s0") is None
    assert vault.fetched == 2
    await validation.close()
    again = validation_of(cache, vault, ["s0", "s1", "s2"])
    assert await again.confirmed("s0") is None
    assert vault.fetched == 2
    await again.close()


async def test_nothing_is_listed_for_an_empty_cache():
    """The first run reads every value, so it does not list."""
    vault = Vault([LISTED])
    validation = validation_of(empty_cache(), vault, ["name", "other"])
    assert await validation.confirmed("name") is None
    assert vault.fetched == 0
    await validation.close()


async def test_a_listing_ends_with_its_run():
    """No task is left behind."""
    cache, listed = fleet(4)
    vault = Vault(listed)
    vault.gates[0] = asyncio.Event()
    validation = validation_of(cache, vault, ["s0", "s1", "s2"])
    await asyncio.sleep(0)
    await validation.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_failed_listing_wakes_all_waiting_callers():
    """Each of them then reads its secret."""
    cache, listed = fleet(6)
    vault = Vault(listed[:2], listed[2:])
    vault.gates[1] = asyncio.Event()
    vault.fail_at = 1
    validation = validation_of(cache, vault, [f"s{number}" for number in range(6)])
    tasks = [asyncio.create_task(validation.confirmed(f"S{number}")) for number in range(6)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert [item.done() for item in tasks] == [True, True, False, False, False, False]
    vault.gates[1].set()
    assert [item is not None for item in await asyncio.gather(*tasks)] == [True, True, False, False, False, False]
    await validation.close()


async def test_a_hung_listing_is_stopped_for_all_callers(monkeypatch: pytest.MonkeyPatch):
    """Also for two callers with one name."""
    monkeypatch.setattr(cache_module, "_MIN_WAIT", 0.01)
    cache, listed = fleet(6)
    cache.page_seconds = 0.0
    vault = Vault(listed)
    vault.gates[0] = asyncio.Event()
    validation = validation_of(cache, vault, [f"s{number}" for number in range(6)])
    names = ("s1", "s1", "s2")
    assert await asyncio.gather(*map(validation.confirmed, names)) == [None] * 3
    await validation.close()
