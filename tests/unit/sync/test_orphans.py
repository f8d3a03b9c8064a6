"""Orphans: a removal needs keysync's tags, the owner, and the proof that the account is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keysync.config.operation import Limits
from keysync.failures import CallFailed, FailureRecord
from keysync.sources.azure_batch import KEY_NAMES
from keysync.sync.model import Plan, Result
from keysync.sync.orphans import MissingCounters, Mode, OrphanSearch, Presence, orphans_among, removal
from keysync.sync.ownership import KEY, KEYSYNC, MANAGED_BY, OWNER, SOURCE, is_ours_for, own_tags
from keysync.sync.write import ApplyInputs
from keysync.targets.interface import Absent, Disabled, Observation, SecretProperties, SoftDeleted
from tests.support.memory import MemoryDirectory
from tests.support.observations import item, stored
from tests.support.runs import GROUP, World, key, outcomes, ref

DENIED = CallFailed(FailureRecord(kind="cloud_error", summary="HTTP 403: Forbidden", http_status=403))
GONE = f"{GROUP}/gone"
MANAGED_TAGS = own_tags(item(account="gone", owner="mine"))
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
def test_an_orphan_has_all_tags(change: dict[str, str | None], found: bool) -> None:
    """An orphan has `managed-by: keysync`, the configured owner, a source and a key."""
    tags = {name: value for name, value in (MANAGED_TAGS | change).items() if value is not None}
    refs = orphans_among([SecretProperties("left", tags)], "main", {"served"}, "mine", KEY_NAMES)
    assert [one.secret for one in refs] == (["left"] if found else [])


@pytest.mark.parametrize(("name", "managed"), [("served", False), ("SERVED", False), ("left", True)])
def test_a_served_or_a_certificates_secret_is_no_orphan(name: str, managed: bool) -> None:
    """A name that the configuration writes, in any case, or that a certificate owns is never an orphan."""
    listed = [SecretProperties(name, MANAGED_TAGS, managed=managed)]
    assert orphans_among(listed, "main", {"served"}, "mine", KEY_NAMES) == []


@pytest.mark.parametrize("name", [MANAGED_BY, SOURCE, KEY, OWNER])
def test_a_changed_tag_makes_the_secret_unmanaged(name: str) -> None:
    """If one tag differs or is missing, the secret is not this installation's."""
    assert is_ours_for(MANAGED_TAGS, ref("gone"), "mine")
    assert not is_ours_for(MANAGED_TAGS | {name: "x"}, ref("gone"), "mine")
    assert not is_ours_for({tag: value for tag, value in MANAGED_TAGS.items() if tag != name}, ref("gone"), "mine")


@pytest.mark.parametrize("mode", ["disable", "delete"])
@pytest.mark.parametrize("disabled", [False, True])
@pytest.mark.parametrize(
    ("presence", "streak", "expected"),
    [
        ("gone", None, "needs accept"),
        ("gone", 0, "skipped"),
        ("gone", 2, "skipped"),
        ("gone", 3, "done"),
        ("gone", 9, "done"),
        ("there", None, "needs accept"),
        ("there", 0, "needs accept"),
        ("there", 9, "needs accept"),
    ],
)
def test_a_removal_needs_three_runs_or_accept(
    presence: Presence, streak: int | None, expected: str, mode: Mode, disabled: bool
) -> None:
    """A gone account needs three consecutive runs of the daemon. One-off runs and lost mappings need `--accept`."""
    observation: Observation = Disabled("v1", MANAGED_TAGS) if disabled else stored("gone", MANAGED_TAGS)
    change = removal(ref("gone"), observation, mode, presence, streak)
    if disabled and mode == "disable":
        assert change is None
        return
    assert change is not None
    assert (change.verdict, change.before, change.managed) == ("orphaned", "v1", True)
    assert change.kind == ("skipped" if expected == "skipped" else mode)
    assert (change.needs_accept is not None) == (expected == "needs accept")
    assert f"{streak} of the 3 consecutive runs" in (change.reason or "") or expected != "skipped"


@pytest.mark.parametrize("mode", ["disable", "delete"])
@pytest.mark.parametrize(
    "observation",
    [Absent(), SoftDeleted(MANAGED_TAGS), Disabled(None, MANAGED_TAGS), Disabled("v1", MANAGED_TAGS, managed=True), stored("gone", MANAGED_TAGS, managed=True)],
    ids=["absent", "deleted", "version unknown", "certificate, disabled", "certificate"],
)  # fmt: skip
def test_an_absent_or_a_certificates_secret_is_not_removed(observation: Observation, mode: Mode) -> None:
    """An absent, deleted or certificate's secret, or one of unknown version, does not change, whatever the proof."""
    assert removal(ref("gone"), observation, mode, "gone", 9) is None


def test_a_streak_starts_over_with_a_run_without_proof() -> None:
    """Only consecutive runs count. Account ids are compared without case."""
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


class OrphanWorld:
    """A world with one orphan in main, whose account is gone, and runs of the daemon."""

    def __init__(self, *, mode: Mode = "delete", vaults: tuple[str, ...] = ("main",), **tags: str) -> None:
        self.world = World("alpha", vaults=vaults)
        self.world.items["alpha"] = {"owner": "mine"}
        self.world.vault.put(NAME, key("gone"), MANAGED_TAGS | tags)
        self.existence = MemoryDirectory(GONE)
        self.streaks = MissingCounters()
        self.mode: Mode = mode

    def search(self, **options: Any) -> OrphanSearch:
        """The daemon's search."""
        return self.world.orphans(self.existence, mode=self.mode, **{"streaks": self.streaks, **options})

    async def runs(self, count: int, **options: Any) -> list[str]:
        """The outcome of the orphan in each of `count` runs; ``-`` if it is not in the report."""
        return [await self.run_once(**options) for _ in range(count)]

    async def run_once(self, **options: Any) -> str:
        report = await self.world.run(orphans=self.search(**options), limits=NO_LIMIT)
        return outcomes(report.results).get(NAME, "-")


@pytest.mark.parametrize(("mode", "done"), [("disable", "disabled"), ("delete", "deleted")])
async def test_the_daemon_removes_in_the_third_run(mode: Mode, done: str) -> None:
    """Two runs skip it, the third removes it, and the fourth does not report it."""
    orphan_world = OrphanWorld(mode=mode)
    assert await orphan_world.runs(4) == ["skipped", "skipped", done, "-"]
    assert orphan_world.world.writes()[-1] == f"{mode} {NAME}"
    versions = orphan_world.world.vault.deleted[NAME] if mode == "delete" else orphan_world.world.vault.history_of[NAME]
    assert [version.enabled for version in versions] == [mode == "delete"]


async def test_the_report_says_whether_orphans_were_searched() -> None:
    """The report says so, since no orphans in a report mean nothing without a successful search."""
    orphan_world = OrphanWorld()
    assert (await orphan_world.world.run(orphans=orphan_world.search(), limits=NO_LIMIT)).orphans_searched
    assert not (await orphan_world.world.run(limits=NO_LIMIT)).orphans_searched
    assert not (
        await orphan_world.world.run(orphans=replace(orphan_world.search(), skip_reason="not listed"), limits=NO_LIMIT)
    ).orphans_searched


async def test_a_one_off_run_needs_accept() -> None:
    """However often it runs, a removal needs `--accept`."""
    orphan_world = OrphanWorld()
    for _ in range(4):
        report = await orphan_world.world.run(orphans=orphan_world.search(streaks=None), limits=NO_LIMIT)
    assert outcomes(report.results)[NAME] == "skipped"
    assert f"To delete it: keysync sync --accept {report.checksum}" in (_orphan_result(report.results).reason or "")
    accepted = await orphan_world.world.run(orphans=orphan_world.search(streaks=None), accept=report.checksum)
    assert outcomes(accepted.results)[NAME] == "deleted"


async def test_a_lost_mapping_is_no_proof() -> None:
    """If the account exists, no number of runs removes its secret."""
    orphan_world = OrphanWorld()
    orphan_world.existence.gone.clear()
    assert await orphan_world.runs(5) == ["skipped"] * 5
    assert NAME in orphan_world.world.vault.history_of


async def _failing_listing(orphan_world: OrphanWorld) -> None:
    orphan_world.world.vault.listing_failure = DENIED
    assert await orphan_world.run_once() == "-"
    orphan_world.world.vault.listing_failure = None


async def _failing_existence_check(orphan_world: OrphanWorld) -> None:
    orphan_world.existence.failures[GONE] = DENIED
    assert await orphan_world.run_once() == "-"
    orphan_world.existence.failures.clear()


async def _account_is_back(orphan_world: OrphanWorld) -> None:
    orphan_world.existence.gone.clear()
    assert await orphan_world.run_once() == "skipped"
    orphan_world.existence.gone.add(GONE)


async def _timeout(orphan_world: OrphanWorld) -> None:
    orphan_world.existence.hang = True
    found = await orphan_world.search().run(0.001)
    assert (found.changes, len(found.warnings)) == ((), 1)
    assert "nothing is removed in this run" in found.warnings[0]
    orphan_world.existence.hang = False


async def _cancelled(orphan_world: OrphanWorld) -> None:
    orphan_world.existence.hang = True
    orphan_world.existence.asked.clear()
    search = asyncio.create_task(orphan_world.search().run(60))
    while not orphan_world.existence.asked:  # noqa: ASYNC110  # the event is the search's
        await asyncio.sleep(0)
    search.cancel()
    await asyncio.gather(search, return_exceptions=True)
    orphan_world.existence.hang = False


@pytest.mark.parametrize("event", [_failing_listing, _failing_existence_check, _account_is_back, _timeout, _cancelled])
async def test_a_run_without_proof_starts_the_count_over(event: Any) -> None:
    """After an error, a timeout, a cancelled search or a return of the account, three new consecutive runs are needed."""
    orphan_world = OrphanWorld()
    assert await orphan_world.runs(2) == ["skipped", "skipped"]
    await event(orphan_world)
    assert await orphan_world.runs(3) == ["skipped", "skipped", "deleted"]


async def test_a_failed_listing_affects_one_vault_and_is_reported() -> None:
    """Nothing is removed in that vault, and a warning says so. Orphans in other vaults are found."""
    orphan_world = OrphanWorld(vaults=("main", "spare"))
    orphan_world.world.vaults["spare"].put("left", key("gone"), MANAGED_TAGS)
    orphan_world.world.vault.listing_failure = DENIED
    found = await orphan_world.search(streaks=None).run(5)
    assert [(change.ref.vault, change.ref.secret) for change in found.changes] == [("spare", "left")]
    assert "vault main could not be listed, nothing is removed there (HTTP 403: Forbidden)" in found.warnings[0]


async def test_a_failed_existence_check_affects_one_account_and_is_reported() -> None:
    """The secrets of an account whose existence is unknown are kept. Other orphans are found."""
    orphan_world = OrphanWorld()
    other = own_tags(item(account="other", owner="mine"))
    orphan_world.world.vault.put("left", key("gone"), other)
    orphan_world.existence.failures[other[SOURCE]] = DENIED
    found = await orphan_world.search(streaks=None).run(5)
    assert [change.ref.secret for change in found.changes] == [NAME]
    assert f"whether {other[SOURCE]} is gone is unknown, its secrets stay" in found.warnings[0]


async def test_an_orphan_that_cannot_be_read_has_failed() -> None:
    """If reading an orphan fails, its item has failed, and the secret does not change."""
    orphan_world = OrphanWorld()
    orphan_world.world.vault.failures[NAME] = DENIED
    assert await orphan_world.runs(4) == ["failed"] * 4
    assert orphan_world.world.vault.history_of[NAME]


async def test_orphans_of_a_read_only_vault_are_reported() -> None:
    """A removal in a read-only vault has the outcome of a plan. It needs the proof too."""
    orphan_world = OrphanWorld()
    assert await orphan_world.runs(4, read_only=["main"]) == ["skipped", "skipped", "delete", "delete"]
    assert orphan_world.world.vault.history_of[NAME]


async def test_an_orphan_of_another_shard_is_ignored() -> None:
    """A run of a shard covers only the orphans of its accounts."""
    orphan_world = OrphanWorld()
    search = orphan_world.search(streaks=None)
    mine = OrphanSearch(search.targets, search.existence, search.translator, "delete", "mine", {}, KEY_NAMES, is_mine=lambda account: account != GONE)  # fmt: skip
    assert (await mine.run(5)).changes == ()


async def test_removals_are_limited() -> None:
    """Two of three managed secrets exceed the limit of one removal: the run stops, with the numbers."""
    orphan_world = OrphanWorld()
    orphan_world.world.sources["alpha"].values.pop("secondary")
    orphan_world.world.vault.put("left", key("gone"), MANAGED_TAGS)
    for _ in range(3):
        report = await orphan_world.world.run(orphans=orphan_world.search(), limits={"main": Limits()})
    assert "2 of the 3 secrets managed there would be disabled or deleted" in (report.stopped or "")
    assert {NAME, "left"} <= orphan_world.world.vault.history_of.keys()


@pytest.mark.parametrize("mode", ["disable", "delete"])
@pytest.mark.parametrize(
    "tags",
    [
        {**MANAGED_TAGS, OWNER: "them"},
        {},
        {**MANAGED_TAGS, MANAGED_BY: "terraform"},
        {**MANAGED_TAGS, SOURCE: f"{GROUP}/alpha"},
    ],
    ids=["other owner", "untagged", "other tool", "other account"],
)
@pytest.mark.parametrize("how", ["retagged", "new version"])
async def test_an_orphan_that_changed_meanwhile_is_refused(mode: Mode, tags: dict[str, str], how: str) -> None:
    """An orphan that got a new version or other tags before the removal is refused and does not change."""
    orphan_world = OrphanWorld(mode=mode)
    await orphan_world.runs(2)
    taken = []

    def take() -> None:
        if how == "retagged":
            orphan_world.world.vault.retag(NAME, tags)
        else:
            orphan_world.world.vault.put(NAME, key("theirs"), tags)
        taken.append(orphan_world.world.vault.latest(NAME))

    found = await orphan_world.search().run(5)
    take()
    (result,) = await orphan_world.world.write(Plan(found.changes), ApplyInputs())
    assert result.outcome == "refused"
    assert (result.reason or "").endswith("now: keysync sync")
    assert orphan_world.world.vault.history_of[NAME][-1] == taken[0]


def _orphan_result(results: Sequence[Result]) -> Result:
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
def test_an_unmanaged_or_unproven_secret_never_changes(
    secrets: list[tuple[dict[str, str], bool, bool, str]], mode: Mode, daemon: bool, read_only: set[str], accept: bool
) -> None:
    """In five runs and an `--accept`, only fully tagged secrets of accounts with a known state are removed."""

    async def run() -> None:
        world = World(vaults=("main", "spare"))
        existence = MemoryDirectory(GONE, GONE.upper())
        existence.failures = {f"{GROUP}/failing": DENIED, "no ARM id": DENIED}
        for index, (tags, enabled, managed, vault) in enumerate(secrets):
            world.vaults[vault].put(f"s{index}", key("x"), tags, enabled=enabled, managed=managed)
        before = {name: dict(vault.history_of) for name, vault in world.vaults.items()}
        streaks = MissingCounters() if daemon else None
        for _ in range(5):
            search = world.orphans(existence, mode=mode, read_only=sorted(read_only), streaks=streaks)
            report = await world.run(orphans=search, limits=NO_LIMIT)
        if accept:
            search = world.orphans(existence, mode=mode, read_only=sorted(read_only))
            await world.run(orphans=search, accept=report.checksum)
        for index, (tags, _, managed, vault) in enumerate(secrets):
            has_all_tags = (tags.get(MANAGED_BY), tags.get(OWNER)) == (KEYSYNC, "mine") and tags.get(KEY) in {
                "primary",
                "secondary",
            }
            proven = tags.get(SOURCE, "").lower() == GONE.lower() and daemon
            accepted = accept and tags.get(SOURCE) in SOURCES[:3]
            if not (has_all_tags and (proven or accepted)) or managed or vault in read_only:
                assert world.vaults[vault].history_of.get(f"s{index}") == before[vault][f"s{index}"]

    asyncio.run(run())
