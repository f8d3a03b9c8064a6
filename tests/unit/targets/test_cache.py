"""What need not be read again: only what was read for certain, and shows no change since."""

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
from keysync.targets import list_validation as survey_module
from keysync.targets.cache import PAGE, SecretCache, max_pages
from keysync.targets.interface import SecretProperties, StoredSecret
from keysync.targets.list_validation import ListingValidation, Pages

NOW = datetime(2026, 11, 24, 5, 22, tzinfo=UTC)
TAGS = {"managed-by": "keysync"}
STORED = StoredSecret("v1", Fingerprinter().of(SecretValue("x")), TAGS, "text/plain")
LISTED = SecretProperties("Name", TAGS, content_type="text/plain", updated=NOW)


class Clock:
    """Monotonic seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def cache(clock: Clock | None = None, verify: float = 3600.0) -> SecretCache:
    return SecretCache(verify, clock or Clock(), uniform=lambda _low, high: high)


def kept(answered: datetime | None = NOW + timedelta(seconds=2), **more: Any) -> SecretCache:
    made = cache(**more)
    made.keep("name", STORED, NOW, answered)
    return made


def is_stored(recalled: StoredSecret | None) -> bool:
    """Whether it tells of the secret what was read."""
    return all(getattr(recalled, one.name) == getattr(STORED, one.name) for one in fields(StoredSecret))


def test_what_shows_no_change_need_not_be_read():
    """The same name in any case, with the same time, tags, content type and expiry."""
    assert is_stored(kept().confirmed(LISTED))


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
def test_whatever_has_changed_is_read(change: dict[str, Any]):
    """Each field that a listing shows, on its own."""
    assert kept().confirmed(replace(LISTED, **change)) is None


@pytest.mark.parametrize("seconds", [None, -1, 0, 1])
def test_what_was_read_in_the_second_of_an_update_is_read_again(seconds: int | None):
    """Another update may have followed within that second, and would not show; nor is a service trusted that tells no time."""
    answered = None if seconds is None else NOW + timedelta(seconds=seconds)
    assert not kept(answered).is_usable("name")


def test_each_value_is_read_again_once_in_a_while():
    """Whatever a listing shows."""
    clock = Clock()
    known = kept(clock=clock)
    clock.now += 3599
    assert known.is_usable("NAME")
    clock.now += 1
    assert not known.is_usable("name")
    assert not kept(verify=0.0).is_usable("name")


def test_what_is_being_read_or_was_forgotten_is_not_recalled():
    """A read that fails leaves nothing behind that could be taken for its answer."""
    known = kept()
    known.forget("NAME")
    assert known.confirmed(LISTED) is None


@given(st.integers(0, 50_000), st.floats(0.001, 5.0))
def test_a_listing_always_saves_requests(ours: int, page_seconds: float):
    """It never has as many pages as there are secrets to read."""
    assert max_pages(ours, page_seconds) < max(ours, 1)


def test_a_listing_is_chosen_by_numbers():
    """A vault of our own secrets is listed; a few of them among thousands are read one by one."""
    latency = 0.04
    assert max_pages(100, latency) >= 100 / PAGE
    assert max_pages(20_000, latency) >= 20_000 / PAGE
    assert max_pages(8, latency) < 4000 / PAGE
    assert max_pages(1, latency) == 0


class Vault:
    """Pages of a listing, counted, each of which may wait or fail."""

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
    known, listed = cache(), [replace(LISTED, name=f"s{number}") for number in range(count)]
    for each in listed:
        known.keep(each.name, STORED, NOW, NOW + timedelta(seconds=9))
    return known, listed


def survey(known: SecretCache, vault: Vault, names: Sequence[str], pages: Pages | None = None) -> ListingValidation:
    return ListingValidation(names, known, pages or Pages(), vault.fetch, Clock())


async def test_a_listing_spares_the_reads_of_what_it_shows():
    """All but the one that has changed, and the one that is not there."""
    known, listed = fleet(10)
    listed[3] = replace(listed[3], updated=NOW + timedelta(seconds=1))
    vault = Vault(listed[:5], listed[5:9])
    look = survey(known, vault, [f"s{number}" for number in range(10)])
    excluded = [number for number in range(10) if await look.confirmed(f"s{number}") is not None]
    assert excluded == [0, 1, 2, 4, 5, 6, 7, 8]
    await look.close()


async def test_what_is_read_again_after_it_was_shown_is_not_recalled():
    """Somebody else is looking at it, and may see more than the listing did."""
    known, listed = fleet(2)
    look = survey(known, Vault(listed), ["s0", "s1"])
    assert await look.confirmed("s0") is not None
    known.forget("s1")
    assert await look.confirmed("s1") is None
    await look.close()


async def test_nobody_waits_for_a_later_page():
    """What the first page shows is known before the second has come."""
    known, listed = fleet(4)
    vault = Vault(listed[:2], listed[2:])
    vault.gates[1] = asyncio.Event()
    look = survey(known, vault, ["s0", "s1", "s2", "s3"])
    assert await look.confirmed("s0") is not None
    waiting = asyncio.create_task(look.confirmed("s3"))
    await asyncio.sleep(0)
    assert not waiting.done()
    vault.gates[1].set()
    assert await waiting is not None
    await look.close()


async def test_a_page_that_fails_has_the_rest_read():
    """And what it had shown before stands."""
    known, listed = fleet(4)
    vault = Vault(listed[:2], listed[2:])
    vault.fail_at = 1
    look = survey(known, vault, ["s0", "s1", "s2", "s3"])
    assert [await look.confirmed(f"s{number}") is not None for number in range(4)] == [True, True, False, False]
    await look.close()


async def test_a_listing_that_grows_too_long_is_given_up_and_not_begun_again():
    """Our few secrets among many pages of others' are read one by one from the next pass on."""
    known, listed = fleet(3)
    strangers = [replace(LISTED, name="stranger")]
    vault, pages = Vault(*[strangers] * 50, listed), Pages()
    look = survey(known, vault, ["s0", "s1", "s2"], pages)
    assert await look.confirmed("s0") is None
    assert vault.fetched == 2
    await look.close()
    again = survey(known, vault, ["s0", "s1", "s2"], pages)
    assert await again.confirmed("s0") is None
    assert vault.fetched == 2
    await again.close()


async def test_what_this_process_never_read_is_not_looked_for():
    """A first run lists nothing: it has to read every value anyway."""
    vault = Vault([LISTED])
    look = survey(cache(), vault, ["name", "other"])
    assert await look.confirmed("name") is None
    assert vault.fetched == 0
    await look.close()


async def test_a_listing_ends_with_its_run():
    """No task is left behind."""
    known, listed = fleet(4)
    vault = Vault(listed)
    vault.gates[0] = asyncio.Event()
    look = survey(known, vault, ["s0", "s1", "s2"])
    await asyncio.sleep(0)
    await look.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_whoever_waits_for_a_page_is_woken_when_the_listing_fails():
    """All of them, and each reads for himself."""
    known, listed = fleet(6)
    vault = Vault(listed[:2], listed[2:])
    vault.gates[1] = asyncio.Event()
    vault.fail_at = 1
    look = survey(known, vault, [f"s{number}" for number in range(6)])
    asking = [asyncio.create_task(look.confirmed(f"S{number}")) for number in range(6)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert [one.done() for one in asking] == [True, True, False, False, False, False]
    vault.gates[1].set()
    assert [one is not None for one in await asyncio.gather(*asking)] == [True, True, False, False, False, False]
    await look.close()


async def test_a_listing_that_hangs_is_given_up_for_all_who_wait(monkeypatch: pytest.MonkeyPatch):
    """Two wait for one name too; and the next run does not list."""
    monkeypatch.setattr(survey_module, "_MIN_WAIT", 0.01)
    known, listed = fleet(6)
    vault, pages = Vault(listed), Pages()
    pages.seconds = 0.0
    vault.gates[0] = asyncio.Event()
    look = survey(known, vault, [f"s{number}" for number in range(6)], pages)
    assert await asyncio.gather(look.confirmed("s1"), look.confirmed("s1"), look.confirmed("s2")) == [None] * 3
    await look.close()
    assert not pages.may_try()
