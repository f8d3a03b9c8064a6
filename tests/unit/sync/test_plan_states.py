"""The plan for each state of a secret: metadata, disabled and deleted secrets, and adoption."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keysync.sync.model import Adoption, Change, ChangeKind, Field
from keysync.sync.ownership import KEY, KEYSYNC, MANAGED_BY, OWNER, SOURCE, own_tags
from keysync.sync.plan import judge, plan_account
from keysync.targets.interface import Absent, Disabled, Observation, SoftDeleted
from tests.support.observations import item, long_history, look, ours, stored
from tests.support.runs import World, key, outcomes, ref

NOW = datetime(2026, 11, 24, 5, 22, tzinfo=UTC)
PRIMARY, SECONDARY = ref("alpha").secret, ref("alpha", "secondary").secret


def in_sync(world: World, **more: Any) -> None:
    """Puts both secrets of alpha into the vault, in sync."""
    for name, value in world.sources["alpha"].values.items():
        tags = own_tags(item(name)) | more.get("tags", {})
        world.vault.put(ref("alpha", name).secret, value, tags, content_type=more.get("content_type"))


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"tags": {"env": "prod"}}, "tags"), ({"content_type": "text/x"}, "content type"), ({"expires_after": timedelta(days=9)}, "expires")],
)  # fmt: skip
async def test_metadata_alone_makes_no_version(settings: dict[str, Any], field: str) -> None:
    """If the value is right, metadata is patched without a version, and the reason names the field."""
    world = World("alpha")
    in_sync(world)
    world.items["alpha"] = settings
    report = await world.run()
    assert outcomes(report.results) == {PRIMARY: "updated", SECONDARY: "updated"}
    assert world.writes() == [f"patch {PRIMARY}", f"patch {SECONDARY}"]
    assert len(world.vault.history_of[PRIMARY]) == 1
    assert f"what differs is: {field}; no new version" in (report.results[0].reason or "")
    assert {result.outcome for result in (await world.run()).results} == {"unchanged"}


async def test_value_and_metadata_together_make_one_version() -> None:
    """A new key and a new tag need a single write."""
    world = World("alpha")
    in_sync(world, tags={"cost": "7"})
    world.items["alpha"] = {"tags": {"env": "prod"}, "content_type": "text/x"}
    world.sources["alpha"].values["primary"] = key("regenerated")
    await world.run()
    assert sorted(world.writes()) == [f"patch {SECONDARY}", f"write {PRIMARY}"]
    latest = world.vault.latest(PRIMARY)
    assert (latest.tags, latest.content_type) == ({**own_tags(item()), "cost": "7", "env": "prod"}, "text/x")


async def test_a_managed_secret_without_room_for_a_tag_still_gets_its_key() -> None:
    """A late key is an outage, a missing tag is not: a tag without room is skipped, and causes no patch."""
    world = World("alpha")
    others = {f"t{index}": "x" for index in range(12)}
    in_sync(world, tags=others)
    world.items["alpha"] = {"tags": {"env": "prod", "t3": "y"}}
    world.sources["alpha"].values["primary"] = key("regenerated")
    await world.run()
    assert world.vault.text(PRIMARY) == key("regenerated")
    assert world.vault.latest(PRIMARY).tags == {**own_tags(item()), **others, "t3": "y"}
    assert {result.outcome for result in (await world.run()).results} == {"unchanged"}


@pytest.mark.parametrize(
    ("observation", "enable", "kind", "fields"),
    [
        (Disabled("v1", own_tags(item())), True, "update", {"enabled"}),
        (Disabled("v1", own_tags(item())), False, "skipped", set()),
        (Disabled("v1", {}), True, "skipped", set()),
        (Disabled("v1", {MANAGED_BY: "terraform"}), True, "skipped", set()),
        (Disabled("v1", own_tags(item("secondary"))), True, "skipped", set()),
        (Disabled("v1", own_tags(item(owner="them"))), True, "skipped", set()),
        (Disabled("v1", None), True, "skipped", set()),
        (Disabled(None, own_tags(item())), True, "skipped", set()),
        (Disabled("v1", own_tags(item()), managed=True), True, "refused", set()),
    ],
    ids=["ours", "ours, report", "by hand", "tool", "other key", "other owner", "tags unknown", "version unknown", "certificate"],
)  # fmt: skip
def test_only_a_managed_disabled_secret_is_enabled(
    observation: Disabled, enable: bool, kind: ChangeKind, fields: set[Field]
) -> None:
    """`disabled: enable` enables managed secrets. All others stay disabled and are reported."""
    change = judge(look(item(enable=enable), observation), NOW)
    assert (change.kind, change.verdict) == (kind, "disabled")
    assert set(change.fields) == fields
    assert change.reason


@pytest.mark.parametrize(
    ("tags", "recover", "kind"),
    [
        (own_tags(item()), True, "recover"),
        (own_tags(item()), False, "refused"),
        ({}, True, "refused"),
        (None, True, "refused"),
        ({MANAGED_BY: "terraform"}, True, "refused"),
        (own_tags(item("secondary")), True, "refused"),
        (own_tags(item(owner="them")), True, "refused"),
    ],
    ids=["ours", "ours, report", "by hand", "unknown", "tool", "other key", "other owner"],
)
def test_only_a_managed_deleted_secret_is_recovered(
    tags: dict[str, str] | None, recover: bool, kind: ChangeKind
) -> None:
    """`recover: owned` recovers managed secrets. For all others the reason has the commands to recover and to purge."""
    change = judge(look(item(recover=recover), SoftDeleted(tags)), NOW)
    assert (change.kind, change.verdict) == (kind, "soft_deleted")
    if kind == "refused":
        assert "secret recover" in (change.reason or "")
        assert "secret purge" in (change.reason or "")


@pytest.mark.parametrize("day", [None, datetime(2026, 12, 31, 8, tzinfo=UTC)])
def test_a_purge_is_not_suggested_with_purge_protection(day: datetime | None) -> None:
    """With purge protection the reason has one command, and the time when Azure purges the secret."""
    reason = judge(look(item(), SoftDeleted({}, purgeable=False, purged_on=day)), NOW).reason or ""
    assert "secret purge" not in reason
    assert "To recover it (and adopt it then" in reason
    assert f"az keyvault secret recover --id /deletedsecrets/{PRIMARY}" in reason
    assert ("until Azure purges it on 2026-12-31" if day else "until Azure purges it by itself") in reason


MINE = item(owner="mine")
THEIRS = own_tags(item(owner="them"))
UNOWNED = own_tags(item())
TOOL = {MANAGED_BY: "terraform"}
HALF = {SOURCE: "somewhere"}
_ALWAYS: dict[str, tuple[Observation, ChangeKind]] = {
    "absent": (Absent(), "create"),
    "ours": (stored("primary", own_tags(MINE)), "unchanged"),
    "ours, stale": (stored("gone", own_tags(MINE)), "update"),
    "certificate": (stored("primary", own_tags(MINE), managed=True), "refused"),
    "certificate, stale": (stored("gone", {}, managed=True), "refused"),
    "certificate, disabled": (Disabled("v1", {}, managed=True), "refused"),
    "disabled": (Disabled("v1", {}), "skipped"),
    "deleted": (SoftDeleted({}), "refused"),
}
_BY_ADOPTION: dict[str, tuple[Observation, tuple[ChangeKind, ChangeKind, ChangeKind]]] = {
    "by hand": (stored("primary", {"team": "x"}), ("unchanged", "adopt", "adopt")),
    "by hand, differs": (stored("gone", {"team": "x"}), ("refused", "refused", "adopt")),
    "tool": (stored("primary", TOOL), ("unchanged", "unchanged", "adopt")),
    "tool, differs": (stored("gone", TOOL), ("refused", "refused", "adopt")),
    "half a mark": (stored("primary", HALF), ("unchanged", "unchanged", "adopt")),
    "other owner": (stored("primary", THEIRS), ("unchanged", "unchanged", "adopt")),
    "other owner, differs": (stored("gone", THEIRS), ("refused", "refused", "adopt")),
    "ours but for the owner": (stored("primary", UNOWNED), ("unchanged", "adopt", "adopt")),
    "ours but for the owner, differs": (stored("gone", UNOWNED), ("refused", "refused", "adopt")),
}
ADOPTIONS: tuple[Adoption, ...] = ("never", "untagged", "replace")


def adopted(observation: Observation, adopt: Adoption) -> Change:
    return judge(look(item(owner="mine", adopt=adopt), observation), NOW)


@pytest.mark.parametrize("adopt", ADOPTIONS)
@pytest.mark.parametrize("state", _ALWAYS)
def test_adoption_does_not_affect_managed_or_unreadable_secrets(state: str, adopt: Adoption) -> None:
    """A managed secret stays managed, a certificate's is never written, and an unreadable one is not adopted."""
    observation, kind = _ALWAYS[state]
    assert adopted(observation, adopt).kind == kind


@pytest.mark.parametrize(("index", "adopt"), list(enumerate(ADOPTIONS)))
@pytest.mark.parametrize("state", _BY_ADOPTION)
def test_adoption_takes_the_selected_secrets(state: str, index: int, adopt: Adoption) -> None:
    """`adopt` takes unmarked secrets with the right value, `--replace` all. Each refusal suggests the command."""
    observation, kinds = _BY_ADOPTION[state]
    change = adopted(observation, adopt)
    assert change.kind == kinds[index]
    if change.kind == "adopt":
        assert ("value" in change.fields) == state.endswith("differs")
        assert change.metadata is not None
        assert own_tags(MINE).items() <= change.metadata.tags.items()
    else:
        assert "keysync adopt --secret main/alpha-primary-key" in (change.reason or "")


@pytest.mark.parametrize("state", _BY_ADOPTION)
@pytest.mark.parametrize("adopt", ADOPTIONS[:2])
def test_the_suggested_command_adopts_the_secret(state: str, adopt: Adoption) -> None:
    """If a reason suggests `keysync adopt`, with or without `--replace`, that command adopts the secret."""
    observation = _BY_ADOPTION[state][0]
    reason = adopted(observation, adopt).reason or ""
    if "keysync adopt" in reason:
        suggested: Adoption = "replace" if "--replace" in reason else "untagged"
        assert adopted(observation, suggested).kind == "adopt"


def test_a_secret_with_an_owner_is_unmanaged_without_one() -> None:
    """Without a configured `owner`, a secret with an owner is unmanaged, and a plain adoption does not take it."""
    change = judge(look(item(adopt="untagged"), stored("primary", THEIRS)), NOW)
    assert (change.kind, change.unmanaged) == ("unchanged", True)
    assert "owner 'them'" in (change.reason or "")


@pytest.mark.parametrize("versions", [299, 300, 449, 450])
def test_a_secret_with_many_versions_warns_and_then_needs_accept(versions: int) -> None:
    """From 300 versions on an update has a warning. From 450 on it needs `--accept`."""
    change = judge(look(item(), ours("gone"), history=long_history(versions)), NOW)
    assert change.kind == "update"
    assert (f"{versions} versions" in (change.reason or "")) == (versions >= 300)
    assert (change.needs_accept is not None) == (versions >= 450)


def test_a_read_only_secret_needs_no_accept() -> None:
    """Accepting it would write nothing, so it has the outcome of a plan and needs no `--accept`."""
    change = judge(look(item(read_only=True), ours("gone"), history=long_history(450)), NOW)
    assert (change.kind, change.read_only, change.needs_accept) == ("update", True, None)


def test_metadata_alone_needs_no_accept() -> None:
    """A patch makes no version, so the limit of versions does not apply."""
    change = judge(look(item(tags={"env": "x"}), ours("primary"), history=long_history(499, 1)), NOW)
    assert (change.kind, change.needs_accept) == ("update", None)


@pytest.mark.parametrize(("value", "text"), [("secondary", "secondary key"), ("gone", "another value")])
def test_the_reason_says_what_an_unmanaged_secret_has(value: str, text: str) -> None:
    """A refusal says whether the secret has the other key, who owns it and what to do."""
    reason = judge(look(item(), stored(value, {MANAGED_BY: KEYSYNC, SOURCE: "elsewhere", KEY: "primary", OWNER: "them"})), NOW).reason  # fmt: skip
    assert text in (reason or "")
    assert "owner 'them'" in (reason or "")
    assert "choose another name in `secrets`" in (reason or "")


def test_verdicts_give_the_reason_of_an_update() -> None:
    """A swap, two copies and two regenerated keys each have their own reason."""
    pairs = {
        "held the account's other key": ("secondary", "primary"),
        "both held": ("secondary", "secondary"),
        "regenerate one at a time": ("gone", "gone"),
    }
    for text, (first, second) in pairs.items():
        changes = plan_account([look(item(), ours(first)), look(item("secondary"), ours(second, "secondary"))], NOW)
        assert text in (changes[0].reason or "")
        assert changes[0].kind == "update"
