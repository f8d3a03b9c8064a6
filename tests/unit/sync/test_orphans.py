"""Orphans: nothing is disabled or deleted without our mark, our owner and the proof that its account is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keysync.failures import CallFailed, FailureRecord
from keysync.sync.model import Plan, Result
from keysync.sync.orphans import MissingCounters, OrphanSearch, Presence, is_ours_for, orphans_among, removal
from keysync.sync.ownership import KEY, KEYSYNC, MANAGED_BY, OWNER, SOURCE, own_tags
from keysync.sync.write import ApplyInputs
from keysync.targets.interface import Absent, Disabled, Observation, SecretProperties, SoftDeleted
from tests.support.looks import item, stored
from tests.support.memory import MemoryDirectory
from tests.support.runs import GROUP, Limits, World, key, outcomes, ref

Mode = Literal["disable", "delete"]
DENIED = CallFailed(FailureRecord(kind="cloud_error", summary="HTTP 403: Forbidden", http_status=403))
GONE = f"{GROUP}/gone"
MARK = own_tags(item(account="gone", owner="mine"))
NAME = ref("gone").secret
NO_LIMIT = {"main": Limits(removal_percent=100), "spare": Limits(removal_percent=100)}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, True),
        ({SOURCE: GONE.upper()}, True),
        ({"cost": "7"}, True),
        ({OWNER: "them"}, False),
        ({OWNER: None}, False),
        ({MANAGED_BY: "terraform"}, False),
        ({MANAGED_BY: None}, False),
        ({SOURCE: None}, False),
        ({SOURCE: ""}, False),
        ({KEY: None}, False),
        ({KEY: "tertiary"}, False),
    ],
)
def test_an_orphan_bears_the_whole_mark(change: dict[str, str | None], found: bool) -> None:
    """A secret is an orphan only with `managed-by: keysync`, our owner, a source and a key."""
    tags = {name: value for name, value in (MARK | change).items() if value is not None}
    refs = orphans_among([SecretProperties("left", tags)], "main", {"served"}, "mine")
    assert [one.secret for one in refs] == (["left"] if found else [])


@pytest.mark.parametrize(("name", "managed"), [("served", False), ("SERVED", False), ("left", True)])
def test_what_is_served_or_a_certificates_is_no_orphan(name: str, managed: bool) -> None:
    """A name that the configuration writes, in whatever case, and one that a certificate owns are never orphans."""
    assert orphans_among([SecretProperties(name, MARK, managed=managed)], "main", {"served"}, "mine") == ()


@pytest.mark.parametrize("name", [MANAGED_BY, SOURCE, KEY, OWNER])
def test_a_mark_that_changed_makes_it_somebody_elses(name: str) -> None:
    """Any one tag of the mark that is another or missing means that the orphan is not ours."""
    assert is_ours_for(MARK, ref("gone"), "mine")
    assert not is_ours_for(MARK | {name: "x"}, ref("gone"), "mine")
    assert not is_ours_for({tag: value for tag, value in MARK.items() if tag != name}, ref("gone"), "mine")


@pytest.mark.parametrize("mode", ["disable", "delete"])
@pytest.mark.parametrize("disabled", [False, True])
@pytest.mark.parametrize(
    ("presence", "streak", "expected"),
    [
        ("gone", None, "held"),
        ("gone", 0, "skipped"),
        ("gone", 2, "skipped"),
        ("gone", 3, "done"),
        ("gone", 9, "done"),
        ("there", None, "held"),
        ("there", 0, "held"),
        ("there", 9, "held"),
    ],
)
def test_a_removal_takes_three_runs_or_a_person(
    presence: Presence, streak: int | None, expected: str, mode: Mode, disabled: bool
) -> None:
    """A gone account waits for three runs of the daemon in a row; one-off runs and lost mappings wait for `--accept`."""
    observation: Observation = Disabled("v1", MARK) if disabled else stored("gone", MARK)
    change = removal(ref("gone"), observation, mode, presence, streak)
    if disabled and mode == "disable":
        assert change is None
        return
    assert change is not None
    assert (change.verdict, change.before, change.managed) == ("orphaned", "v1", True)
    assert change.kind == ("skipped" if expected == "skipped" else mode)
    assert (change.needs_accept is not None) == (expected == "held")
    assert f"{streak} of the 3 consecutive runs" in (change.reason or "") or expected != "skipped"


@pytest.mark.parametrize("mode", ["disable", "delete"])
@pytest.mark.parametrize(
    "observation",
    [Absent(), SoftDeleted(MARK), Disabled(None, MARK), Disabled("v1", MARK, managed=True), stored("gone", MARK, managed=True)],
    ids=["absent", "deleted", "version unknown", "certificate, disabled", "certificate"],
)  # fmt: skip
def test_there_is_nothing_to_remove_of_what_is_gone_or_a_certificates(observation: Observation, mode: Mode) -> None:
    """What is absent, deleted, of unknown version or a certificate's stays as it is, whatever the proof."""
    assert removal(ref("gone"), observation, mode, "gone", 9) is None


def test_a_streak_starts_over_with_any_run_that_proved_nothing() -> None:
    """Runs count only in a row, and an account's id counts without case."""
    streaks = MissingCounters()
    assert streaks.of(GONE) == 0
    for _ in range(2):
        streaks.note([GONE, GONE.upper()])
    assert streaks.of(GONE.lower()) == 2
    streaks.note([f"{GROUP}/other"])
    assert (streaks.of(GONE), streaks.of(f"{GROUP}/other")) == (0, 1)
    streaks.note([GONE])
    assert (streaks.of(GONE), streaks.of(f"{GROUP}/other")) == (1, 0)
    streaks.note([])
    assert streaks.of(GONE) == 0


class Left:
    """A world with one orphan in main, whose account is gone, and the daemon's runs over it."""

    def __init__(self, *, mode: Mode = "delete", vaults: tuple[str, ...] = ("main",), **tags: str) -> None:
        self.world = World("alpha", vaults=vaults)
        self.world.items["alpha"] = {"owner": "mine"}
        self.world.vault.put(NAME, key("gone"), MARK | tags)
        self.directory = MemoryDirectory(GONE)
        self.streaks = MissingCounters()
        self.mode: Mode = mode

    def search(self, **options: Any) -> OrphanSearch:
        """The daemon's search."""
        return self.world.orphans(self.directory, mode=self.mode, **{"streaks": self.streaks, **options})

    async def runs(self, count: int, **options: Any) -> list[str]:
        """What became of the orphan in each of `count` runs; ``-`` where it is not in the report."""
        return [await self.one(**options) for _ in range(count)]

    async def one(self, **options: Any) -> str:
        report = await self.world.run(orphans=self.search(**options), limits=NO_LIMIT)
        return outcomes(report.results).get(NAME, "-")


@pytest.mark.parametrize(("mode", "done"), [("disable", "disabled"), ("delete", "deleted")])
async def test_the_daemon_removes_in_the_third_run(mode: Mode, done: str) -> None:
    """Two runs tell how long it takes, the third does it, and then there is nothing left to tell."""
    left = Left(mode=mode)
    assert await left.runs(4) == ["skipped", "skipped", done, "-"]
    assert left.world.writes()[-1] == f"{mode} {NAME}"
    versions = left.world.vault.deleted[NAME] if mode == "delete" else left.world.vault.history_of[NAME]
    assert [version.enabled for version in versions] == [mode == "delete"]


async def test_a_run_says_whether_it_has_searched() -> None:
    """Only then does it tell anything that it found no orphan: not without a search, and not where one failed."""
    left = Left()
    assert (await left.world.run(orphans=left.search(), limits=NO_LIMIT)).orphans_searched
    assert not (await left.world.run(limits=NO_LIMIT)).orphans_searched
    assert not (
        await left.world.run(orphans=replace(left.search(), skip_reason="not listed"), limits=NO_LIMIT)
    ).orphans_searched


async def test_a_one_off_run_removes_nothing_unasked() -> None:
    """However often it runs, it takes `--accept` of the plan that was shown."""
    left = Left()
    for _ in range(4):
        report = await left.world.run(orphans=left.search(streaks=None), limits=NO_LIMIT)
    assert outcomes(report.results)[NAME] == "skipped"
    assert f"To delete it: keysync sync --accept {report.checksum}" in (_told(report.results).reason or "")
    accepted = await left.world.run(orphans=left.search(streaks=None), accept=report.checksum)
    assert outcomes(accepted.results)[NAME] == "deleted"


async def test_a_lost_mapping_is_never_proof() -> None:
    """Where the account is there, no number of runs removes its secret; a person may."""
    left = Left()
    left.directory.gone.clear()
    assert await left.runs(5) == ["skipped"] * 5
    assert NAME in left.world.vault.history_of


async def _failing_listing(left: Left) -> None:
    left.world.vault.listing_failure = DENIED
    assert await left.one() == "-"
    left.world.vault.listing_failure = None


async def _failing_directory(left: Left) -> None:
    left.directory.failures[GONE] = DENIED
    assert await left.one() == "-"
    left.directory.failures.clear()


async def _account_is_back(left: Left) -> None:
    left.directory.gone.clear()
    assert await left.one() == "skipped"
    left.directory.gone.add(GONE)


async def _timeout(left: Left) -> None:
    left.directory.hang = True
    found = await left.search().run(0.001)
    assert (found.changes, len(found.warnings)) == ((), 1)
    assert "nothing is removed in this run" in found.warnings[0]
    left.directory.hang = False


async def _cancelled(left: Left) -> None:
    left.directory.hang = True
    left.directory.asked.clear()
    search = asyncio.create_task(left.search().run(60))
    while not left.directory.asked:  # noqa: ASYNC110  # the event is the search's
        await asyncio.sleep(0)
    search.cancel()
    await asyncio.gather(search, return_exceptions=True)
    left.directory.hang = False


@pytest.mark.parametrize("event", [_failing_listing, _failing_directory, _account_is_back, _timeout, _cancelled])
async def test_any_run_without_proof_starts_the_count_again(event: Any) -> None:
    """An error, a timeout, a search that was cut off or an account that is back: three new runs in a row are needed."""
    left = Left()
    assert await left.runs(2) == ["skipped", "skipped"]
    await event(left)
    assert await left.runs(3) == ["skipped", "skipped", "deleted"]


async def test_a_failed_listing_is_one_vaults_and_is_told() -> None:
    """Nothing is removed in the vault that could not be listed; the others' orphans are found, and a warning says so."""
    left = Left(vaults=("main", "spare"))
    left.world.vaults["spare"].put("left", key("gone"), MARK)
    left.world.vault.listing_failure = DENIED
    found = await left.search(streaks=None).run(5)
    assert [(change.ref.vault, change.ref.secret) for change in found.changes] == [("spare", "left")]
    assert "vault main could not be listed, nothing is removed there (HTTP 403: Forbidden)" in found.warnings[0]


async def test_a_directory_that_fails_for_one_account_is_told() -> None:
    """The secrets of an account whose presence cannot be told stay, those of others are judged."""
    left = Left()
    other = own_tags(item(account="other", owner="mine"))
    left.world.vault.put("left", key("gone"), other)
    left.directory.failures[other[SOURCE]] = DENIED
    found = await left.search(streaks=None).run(5)
    assert [change.ref.secret for change in found.changes] == [NAME]
    assert f"whether {other[SOURCE]} is gone is unknown, its secrets stay" in found.warnings[0]


async def test_a_secret_that_cannot_be_read_is_a_failure_of_its_own() -> None:
    """The look at one orphan fails: its item says so, and nothing of it is touched."""
    left = Left()
    left.world.vault.failures[NAME] = DENIED
    assert await left.runs(4) == ["failed"] * 4
    assert left.world.vault.history_of[NAME]


async def test_orphans_of_a_read_only_vault_are_shown() -> None:
    """What would be removed is told as in a plan, and stays; without proof it is no removal there either."""
    left = Left()
    assert await left.runs(4, read_only=["main"]) == ["skipped", "skipped", "delete", "delete"]
    assert left.world.vault.history_of[NAME]


async def test_an_orphan_of_another_shard_is_left_to_it() -> None:
    """A run that has a share of the accounts judges the orphans of these alone."""
    left = Left()
    search = left.search(streaks=None)
    mine = OrphanSearch(search.targets, search.existence, search.translator, "delete", "mine", {}, is_mine=lambda account: account != GONE)  # fmt: skip
    assert (await mine.run(5)).changes == ()


async def test_removals_are_limited() -> None:
    """Two of our three secrets there are more than the one that a run may remove: the run stops, with the numbers."""
    left = Left()
    left.world.sources["alpha"].values.pop("secondary")
    left.world.vault.put("left", key("gone"), MARK)
    for _ in range(3):
        report = await left.world.run(orphans=left.search(), limits={"main": Limits()})
    assert "2 of the 3 secrets managed there would be disabled or deleted" in (report.stopped or "")
    assert {NAME, "left"} <= left.world.vault.history_of.keys()


@pytest.mark.parametrize("mode", ["disable", "delete"])
@pytest.mark.parametrize(
    "tags",
    [{**MARK, OWNER: "them"}, {}, {**MARK, MANAGED_BY: "terraform"}, {**MARK, SOURCE: f"{GROUP}/alpha"}],
    ids=["other owner", "unmarked", "other tool", "other account"],
)
@pytest.mark.parametrize("how", ["retagged", "new version"])
async def test_an_orphan_that_somebody_took_meanwhile_is_refused(mode: Mode, tags: dict[str, str], how: str) -> None:
    """Between the look and the removal an orphan got a new version or other marks: it is left alone and reported."""
    left = Left(mode=mode)
    await left.runs(2)
    taken = []

    def take() -> None:
        if how == "retagged":
            left.world.vault.retag(NAME, tags)
        else:
            left.world.vault.put(NAME, key("theirs"), tags)
        taken.append(left.world.vault.latest(NAME))

    found = await left.search().run(5)
    take()
    (result,) = await left.world.applier().apply(Plan(found.changes), ApplyInputs())
    assert result.outcome == "refused"
    assert (result.reason or "").endswith("now: keysync sync")
    assert left.world.vault.history_of[NAME][-1] == taken[0]


def _told(results: Sequence[Result]) -> Result:
    return next(result for result in results if result.ref.secret == NAME)


SOURCES = [GONE, GONE.upper(), f"{GROUP}/there", f"{GROUP}/failing", "no ARM id", None]
TAGS = st.fixed_dictionaries(
    {
        MANAGED_BY: st.sampled_from([KEYSYNC, KEYSYNC, KEYSYNC, "Keysync", "terraform", None]),
        OWNER: st.sampled_from(["mine", "mine", "mine", "Mine", "them", "", None]),
        SOURCE: st.sampled_from(SOURCES),
        KEY: st.sampled_from(["primary", "secondary", "Primary", None]),
    }
).map(lambda tags: {name: value for name, value in tags.items() if value is not None})
SECRETS = st.lists(
    st.tuples(TAGS, st.booleans(), st.sampled_from([False, False, True]), st.sampled_from(["main", "spare"])),
    max_size=8,
)


@given(
    SECRETS,
    st.sampled_from(["disable", "delete"]),
    st.booleans(),
    st.sets(st.sampled_from(["main", "spare"])),
    st.booleans(),
)
@settings(max_examples=120)
def test_what_is_not_ours_or_not_proven_is_never_touched(
    secrets: list[tuple[dict[str, str], bool, bool, str]], mode: Mode, daemon: bool, read_only: set[str], accept: bool
) -> None:
    """Through five runs and an `--accept`, only secrets with our whole mark, of accounts that answered, are ever removed."""

    async def run() -> None:
        world = World(vaults=("main", "spare"))
        directory = MemoryDirectory(GONE, GONE.upper())
        directory.failures = {f"{GROUP}/failing": DENIED, "no ARM id": DENIED}
        for index, (tags, enabled, managed, vault) in enumerate(secrets):
            world.vaults[vault].put(f"s{index}", key("x"), tags, enabled=enabled, managed=managed)
        before = {name: dict(vault.history_of) for name, vault in world.vaults.items()}
        streaks = MissingCounters() if daemon else None
        for _ in range(5):
            search = world.orphans(directory, mode=mode, read_only=sorted(read_only), streaks=streaks)
            report = await world.run(orphans=search, limits=NO_LIMIT)
        if accept:
            search = world.orphans(directory, mode=mode, read_only=sorted(read_only))
            await world.run(orphans=search, accept=report.checksum)
        for index, (tags, _, managed, vault) in enumerate(secrets):
            whole = (tags.get(MANAGED_BY), tags.get(OWNER)) == (KEYSYNC, "mine") and tags.get(KEY) in {
                "primary",
                "secondary",
            }
            proven = tags.get(SOURCE, "").lower() == GONE.lower() and daemon
            told = accept and tags.get(SOURCE) in SOURCES[:3]
            if not (whole and (proven or told)) or managed or vault in read_only:
                assert world.vaults[vault].history_of.get(f"s{index}") == before[vault][f"s{index}"]

    asyncio.run(run())
