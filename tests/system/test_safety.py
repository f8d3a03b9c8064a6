"""The safety rules in report, exit code, log and vault. Every command that a refusal suggests is run."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keysync.emulator import Emulator, Fault
from tests.support.other_writers import (
    DAY,
    add_version,
    add_versions,
    arm_id,
    az_keyvault,
    before,
    commands,
    marks,
    remove_account,
    secret,
    without_count,
    write_after_each_write,
)
from tests.support.runs import key
from tests.system.conftest import Ran, World

MakeWorld = Callable[..., World]

LIVE = {"primary": key("p"), "secondary": key("s")}
ALPHA = {"name": "alpha", **LIVE}
VERDICT_ACCOUNTS = ("steady", "stale", "swapped", "doubled", "both", "missing", "unmanaged")
"""Accounts whose secrets differ from their keys in every possible way."""
NAME = "main/alpha-primary-key"
ONLY_PRIMARY = {"secrets": {"secondary": None}}
PRIMARY = {"name": "alpha", **ONLY_PRIMARY}

# Azure Policy's denial of a secret that lacks a required property.
DENIAL = Fault(
    operation="setSecret",
    kind="status",
    status=403,
    code="Forbidden",
    inner_code="ForbiddenByPolicy",
    message="Operation is not allowed by policy. PolicyAssignmentId: /providers/microsoft.management/managementgroups/corp/"
    "providers/microsoft.authorization/policyassignments/kv-secrets, Effect: Deny, Reason: secrets should have a content "
    "type and an expiration date set.",
    times=1,
)


def holding(*secrets: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The data of a vault `main` with these secrets."""
    return {"name": "main", "secrets": list(secrets), **more}


def ours(value: str = "old", account: str = "alpha", name: str = "primary", **more: Any) -> dict[str, Any]:
    """A managed secret for a key, with this value."""
    return secret(account, name, value=value, tags=marks(account, name), **more)


def item(ran: Ran, name: str = NAME) -> dict[str, Any]:
    """The item of a report for one secret."""
    results: list[dict[str, Any]] = [
        item for item in ran.report["items"] if f"{item['vault']}/{item['secret']}" == name
    ]
    assert len(results) == 1, ran.report["items"]
    return results[0]


def count(world: World, *operations: str) -> int:
    """The number of requests of these operations."""
    return world.running.do(lambda azure: sum(azure.counts[name] for name in operations))


def writes(world: World) -> int:
    """The number of requests that could change a vault."""
    return count(world, "setSecret", "updateSecret", "deleteSecret", "recoverSecret", "purgeSecret")


def with_vaults(world: World, **settings: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration's `vaults`, with more settings for the given ones."""
    urls = world.running.azure.endpoints.vaults
    plain = {"verify_challenge_resource": False}
    return {name: {"url": url, **plain, **settings.get(name, {})} for name, url in urls.items()}


def follow(world: World, command: str) -> Ran:
    """Runs a suggested keysync command unchanged."""
    program, *words = shlex.split(command)
    assert program == "keysync"
    return world.run(words[0], "--output", "json", *words[1:])


def only_command(text: str) -> str:
    """The only command in a text."""
    (results,) = commands(text)
    return results


# 1: ownership


def test_an_unmanaged_secret_is_refused_with_its_owner_and_a_fix(make_quick_world: MakeWorld) -> None:
    """Report and log name the owner. The suggested command replaces this secret and no other account's."""
    tags: dict[str, dict[str, str]] = {
        "hand": {"team": "render"},
        "terraform": {"managed-by": "terraform"},
        "owner": marks("owner", owner="other-team"),
        "account": marks("alpha"),
    }
    whose = ("made by hand", "managed by 'terraform'", "owner 'other-team'", f"'primary' key of '{arm_id('alpha')}'")
    world = make_quick_world(*tags, vaults=(holding(*(secret(name, tags=tag) for name, tag in tags.items())),))
    world.configure([{"name": name, **ONLY_PRIMARY} for name in tags], owner="us")
    ran = world.sync()
    assert ran.code == 1
    assert set(ran.outcomes().values()) == {"refused"}
    assert writes(world) == 0
    for name, owner in zip(tags, whose, strict=True):
        reported = item(ran, f"main/{name}-primary-key")
        assert (reported["verdict"], reported["error"]) == ("unmanaged", None)
        assert owner in reported["reason"]
        assert "not overwritten" in reported["reason"]
        (line,) = [line for line in ran.log if line.get("secret") == reported["secret"]]
        assert (line["event"], line["level"], line["reason"]) == ("secret.refused", "warning", reported["reason"])
    command = only_command(item(ran, "main/terraform-primary-key")["reason"])
    done = follow(world, command)
    assert (done.code, done.outcomes()) == (0, {"main/terraform-primary-key": "adopted"})
    after = world.sync().outcomes()
    assert after.pop("main/terraform-primary-key") == "unchanged"
    assert set(after.values()) == {"refused"}
    assert [version.value for version in world.versions("main", "hand-primary-key")] == ["by-hand"]


def test_an_equal_value_without_our_tags_is_unchanged_with_a_note(make_quick_world: MakeWorld) -> None:
    """Exit code 0 and a note. The note's command tags the secret, which is kept in sync from then on."""
    world = make_quick_world(ALPHA, vaults=(holding(secret("alpha", value=LIVE["primary"])),))
    world.configure([PRIMARY])
    ran = world.sync()
    assert (ran.code, ran.outcomes(), writes(world)) == (0, {NAME: "unchanged"}, 0)
    text = world.run("sync").out
    assert "not be kept in sync" in text
    assert follow(world, only_command(item(ran)["reason"])).outcomes() == {NAME: "adopted"}
    world.running.do(lambda azure: azure.state.regenerate("alpha", "Primary"))
    assert world.sync().outcomes() == {NAME: "updated"}


def test_a_certificates_secret_is_refused(make_quick_world: MakeWorld) -> None:
    """Even with keysync's tags and an equal value."""
    world = make_quick_world(ALPHA, vaults=(holding(ours(LIVE["primary"], managed=True)),))
    world.configure([PRIMARY], adopt=True, disabled="enable")
    ran = world.sync()
    assert (ran.code, ran.outcomes(), writes(world)) == (1, {NAME: "refused"}, 0)
    assert "certificate" in item(ran)["reason"]
    assert "another name in `secrets`" in item(ran)["reason"]


def test_users_cannot_set_our_tags(make_quick_world: MakeWorld) -> None:
    """A setting in a vault's `tags` that would override a keysync tag ends the command before the first request."""
    world = make_quick_world("alpha")
    for tag in ("managed-by", "keysync-owner", "Keysync-Source"):
        world.configure(["alpha"], vaults=with_vaults(world, main={"tags": {tag: "x"}}))
        ran = world.sync()
        assert ran.code == 2
        assert f"vaults.main.tags.{tag}" in ran.err
    assert count(world, "token", "getSecret") == 0


def test_a_secret_created_between_plan_and_write_is_not_overwritten(make_quick_world: MakeWorld) -> None:
    """A free name is checked again before the write. The suggested command also checks it, and refuses it as
    unmanaged."""
    world = make_quick_world(ALPHA)
    world.configure([PRIMARY])
    put = functools.partial(add_version, value="by-hand", tags={})
    world.running.do(lambda azure: before(azure, ("getSecret", NAME), put, which=2))
    ran = world.sync()
    assert (ran.code, ran.outcomes(), writes(world)) == (1, {NAME: "refused"}, 0)
    assert "alpha-primary-key was changed after it was compared" in item(ran)["reason"]
    again = follow(world, only_command(item(ran)["reason"]))
    assert (again.code, item(again)["verdict"]) == (1, "unmanaged")
    assert [version.value for version in world.versions("main", "alpha-primary-key")] == ["by-hand"]


def test_the_command_of_a_refusal_adopts_no_other_accounts_secret(make_quick_world: MakeWorld) -> None:
    """With two accounts of one name in two groups, the command for one leaves the other's secret unchanged."""
    twin = {"name": "alpha", "resource_group": "other-group"}
    world = make_quick_world("alpha", twin, vaults=(holding(secret("alpha"), secret("twin")),))
    world.configure([PRIMARY, {**twin, "secrets": {"primary": "twin-primary-key", "secondary": None}}])
    ran = world.sync()
    follow(world, only_command(item(ran)["reason"]))
    assert [version.value for version in world.versions("main", "twin-primary-key")] == ["by-hand"]


def test_the_command_of_a_refusal_adopts_no_secret_of_another_vault(make_quick_world: MakeWorld) -> None:
    """A command for a secret of one vault replaces nothing in another vault."""
    other = {"name": "other", "secrets": [secret("alpha", value="precious", tags={"managed-by": "terraform"})]}
    world = make_quick_world(ALPHA, vaults=(holding(secret("alpha")), other))
    world.configure([{**PRIMARY, "vaults": ["main", "other"]}])
    follow(world, only_command(item(world.sync())["reason"]))
    assert [version.value for version in world.versions("other", "alpha-primary-key")] == ["precious"]


# 1 continued: checks before a repeated write


@pytest.mark.parametrize("existed", [False, True])
def test_a_repeated_write_reads_the_secret_again(make_quick_world: MakeWorld, existed: bool) -> None:
    """Between a throttled write and its retry another writer takes the name or removes the tag. Its secret stays
    unchanged.
    """
    stored = (secret("alpha", value="old", tags=marks("alpha")),) if existed else ()
    world = make_quick_world(ALPHA, vaults=(holding(*stored),))
    world.configure([PRIMARY])

    def take(azure: Emulator, _target: str) -> None:
        vault = azure.state.vault("main")
        if existed:
            vault.versions("alpha-primary-key")[-1].tags = {"who": "them"}
        else:
            vault.add_version("alpha-primary-key", "theirs", tags={"who": "them"})

    # After ten seconds the first check is too old.
    wait = "11" if existed else "0"
    fault = Fault(operation="setSecret", status=429, code="TooManyRequests", retry_after=wait, times=1)
    world.running.do(lambda azure: azure.faults.add(fault))
    # The first read, the check of the free name, and then the one before the retry.
    which = 2 if existed else 3
    world.running.do(lambda azure: before(azure, ("getSecret", NAME), take, which=which))
    ran = world.sync()
    assert ran.outcomes()[NAME] == "refused"
    (version,) = world.versions("main", "alpha-primary-key")
    assert (version.value, version.tags) == ("old" if existed else "theirs", {"who": "them"})


def test_a_write_that_was_throttled_for_long_is_made(make_quick_world: MakeWorld) -> None:
    """After ten seconds the read and the listing of the versions are too old: keysync makes both again, and then writes."""
    world = make_quick_world(ALPHA)
    world.configure([PRIMARY])
    assert world.sync().outcomes()[NAME] == "created"  # with the count of versions, so that only the write lists them
    world.running.do(lambda azure: azure.state.regenerate("alpha", "Primary"))
    fault = Fault(operation="setSecret", status=429, code="TooManyRequests", retry_after="11", times=1)
    world.running.do(lambda azure: azure.faults.add(fault))
    assert world.sync().outcomes()[NAME] == "updated"
    primary, _ = world.running.do(lambda azure: azure.state.keys("alpha"))
    assert [version.value for version in world.versions("main", "alpha-primary-key")] == [LIVE["primary"], primary]


# 3: verdicts


def test_each_verdict_is_in_report_table_log_and_metrics(make_quick_world: MakeWorld) -> None:
    """In sync, stale, swapped, duplicated, both changed and unmanaged, each in report, table, log and metrics."""
    live = {name: {"primary": key(f"{name}-p"), "secondary": key(f"{name}-s")} for name in VERDICT_ACCOUNTS}
    waiting = {
        "steady": tuple(live["steady"].values()),
        "stale": ("old", live["stale"]["secondary"]),
        "swapped": (live["swapped"]["secondary"], live["swapped"]["primary"]),
        "doubled": (live["doubled"]["secondary"],) * 2,
        "both": ("old", "older"),
        "missing": None,
    }
    stored = [
        ours(value, name, which)
        for name, values in waiting.items()
        if values
        for which, value in zip(LIVE, values, strict=True)
    ]
    names = [*VERDICT_ACCOUNTS]
    world = make_quick_world(
        *({"name": name, **live[name]} for name in names), vaults=(holding(*stored, secret("unmanaged", value="x")),)
    )
    world.configure(names)
    expected = {
        "steady": ("in_sync", "in_sync"),
        "stale": ("stale", "in_sync"),
        "swapped": ("swapped", "swapped"),
        "doubled": ("duplicated", "in_sync"),
        "both": ("both_changed", "both_changed"),
        "missing": ("missing", "missing"),
        "unmanaged": ("unmanaged", "missing"),
    }
    table = world.run("plan", "--all").out
    ran = world.sync("--metrics-file", str(world.folder / "keysync.prom"))
    for name, verdicts in expected.items():
        for which, verdict in zip(LIVE, verdicts, strict=True):
            assert item(ran, f"main/{name}-{which}-key")["verdict"] == verdict
            (row,) = [line for line in table.splitlines() if f"main   {name}-{which}-key" in line]
            assert verdict.replace("_", " ") in row
    written = {line["secret"]: line["verdict"] for line in ran.log if line["event"] == "secret.updated"}
    assert written["swapped-primary-key"] == "swapped"
    assert written["both-primary-key"] == written["both-secondary-key"] == "both_changed"
    (warning,) = [line for line in ran.log if line["event"] == "account.both_keys_changed"]
    assert (warning["level"], warning["account"], warning["vault"]) == ("warning", arm_id("both"), "main")
    assert "one key at a time" in warning["hint"]
    metrics = (world.folder / "keysync.prom").read_text()
    assert 'keysync_both_keys_changed_total{vault="main"} 1.0' in metrics
    assert 'keysync_secret_verdicts_total{vault="main",verdict="duplicated"} 1.0' in metrics
    assert 'keysync_secret_verdicts_total{vault="main",verdict="unmanaged"} 1.0' in metrics
    assert {item["verdict"] for item in world.sync().report["items"]} == {"in_sync", "unmanaged"}


@pytest.mark.parametrize("kept", ["primary", "secondary"])
def test_a_single_changed_key_causes_no_warning(make_quick_world: MakeWorld, kept: str) -> None:
    """The recommended procedure causes no warning."""
    world = make_quick_world(ALPHA, vaults=(holding(ours("old"), ours("old", name="secondary")),))
    world.running.do(lambda azure: setattr(azure.state.vault("main").find(f"alpha-{kept}-key").latest, "value", LIVE[kept]))  # type: ignore[union-attr]  # fmt: skip
    world.configure(["alpha"])
    ran = world.sync()
    assert not [line for line in ran.log if line["event"] == "account.both_keys_changed"]
    assert sorted(ran.outcomes().values()) == ["unchanged", "updated"]


# 4: separate fields


def test_metadata_is_patched_and_kept_by_a_new_value(make_quick_world: MakeWorld) -> None:
    """A later content type, expiry or tag makes no version. The next value has them, and other writers' tags too."""
    tags = {**marks("alpha"), "team": "render"}
    world = make_quick_world(ALPHA, vaults=(holding({**ours(LIVE["primary"]), "tags": tags}),))
    settings = {"content_type": "text/x-key", "expires_after": "90d", "tags": {"cost-center": "4711"}}
    world.configure([PRIMARY], vaults=with_vaults(world, main=settings))
    ran = world.sync()
    assert (ran.code, ran.outcomes()) == (0, {NAME: "updated"})
    assert "no new version" in item(ran)["reason"]
    assert (count(world, "setSecret"), count(world, "updateSecret")) == (0, 1)
    (version,) = world.versions("main", "alpha-primary-key")
    assert item(ran)["version"] == version.version
    assert without_count(version.tags) == {**tags, "cost-center": "4711"}
    assert version.content_type == "text/x-key"
    ninety_days = (datetime.now(UTC) + timedelta(days=90)).timestamp()
    assert abs(version.expires - ninety_days) < DAY
    assert world.sync().outcomes() == {NAME: "unchanged"}
    world.running.do(lambda azure: azure.state.regenerate("alpha", "Primary"))
    assert world.sync().outcomes() == {NAME: "updated"}
    new = world.versions("main", "alpha-primary-key")[-1]
    assert new.value == world.running.do(lambda azure: azure.state.keys("alpha"))[0]
    assert (without_count(new.tags), new.content_type) == (without_count(version.tags), "text/x-key")
    assert abs(new.expires - ninety_days) < DAY


@pytest.mark.parametrize(("days", "outcome"), [(10, "updated"), (60, "unchanged"), (400, "updated")])
def test_an_expiry_is_renewed_at_half_time(make_quick_world: MakeWorld, days: int, outcome: str) -> None:
    """By PATCH, and only if less than half of it is left, or more than all of it."""
    soon = int(datetime.now(UTC).timestamp()) + days * DAY
    world = make_quick_world(ALPHA, vaults=(holding(ours(LIVE["primary"], expires=soon)),))
    world.configure([PRIMARY], vaults=with_vaults(world, main={"expires_after": "90d"}))
    assert world.sync().outcomes() == {NAME: outcome}
    (version,) = world.versions("main", "alpha-primary-key")
    assert abs(version.expires - soon - (90 - days) * DAY) < DAY if outcome == "updated" else version.expires == soon


def test_a_denial_by_policy_is_explained(make_quick_world: MakeWorld) -> None:
    """The hint names the settings that satisfy the policy; with them the write succeeds."""
    world = make_quick_world(ALPHA)
    world.configure([PRIMARY])
    world.running.do(lambda azure: azure.faults.add(DENIAL))
    ran = world.sync()
    assert (ran.code, ran.outcomes()) == (1, {NAME: "failed"})
    error = item(ran)["error"]
    assert (error["http_status"], error["cloud_error"]["innererror"]["code"]) == (403, "ForbiddenByPolicy")
    assert "`content_type`" in error["hint"]
    assert "`expires_after`" in error["hint"]
    assert "Reason: secrets should have" in error["cloud_error"]["message"]
    world.configure([PRIMARY], vaults=with_vaults(world, main={"content_type": "text/plain", "expires_after": "90d"}))
    assert world.sync().outcomes() == {NAME: "created"}
    (version,) = world.versions("main", "alpha-primary-key")
    assert version.content_type == "text/plain"
    assert version.expires


def test_the_text_has_the_requirements_of_a_policy(make_quick_world: MakeWorld) -> None:
    """The hint refers to the message for the requirements, so the message must be complete."""
    world = make_quick_world(ALPHA)
    world.configure([PRIMARY])
    world.running.do(lambda azure: azure.faults.add(DENIAL))
    assert "an expiration date set" in world.run("sync").out


def test_a_disabled_secret_stays_disabled_until_the_command_is_run(make_quick_world: MakeWorld) -> None:
    """It is reported and unchanged. After the suggested command it is in sync."""
    world = make_quick_world(ALPHA, vaults=(holding(ours("old", enabled=False)),))
    world.configure([PRIMARY])
    ran = world.sync()
    assert (ran.code, ran.outcomes(), writes(world)) == (0, {NAME: "skipped"}, 0)
    assert item(ran)["verdict"] == "disabled"
    assert [line["event"] for line in ran.log if line.get("secret")] == ["secret.skipped"]
    az_keyvault(world.running, only_command(item(ran)["reason"]))
    assert world.sync().outcomes() == {NAME: "updated"}
    assert world.versions("main", "alpha-primary-key")[-1].value == LIVE["primary"]


def test_disabled_enable_enables_managed_secrets_and_syncs_them(make_quick_world: MakeWorld) -> None:
    """Managed ones are enabled: without a version if the value is right, else with one. Unmanaged ones stay
    disabled."""
    theirs = secret("beta", enabled=False, tags={"managed-by": "terraform"})
    stored = (ours(LIVE["primary"], enabled=False), ours("old", name="secondary", enabled=False), theirs)
    world = make_quick_world(ALPHA, "beta", vaults=(holding(*stored),))
    world.configure(["alpha", {"name": "beta", **ONLY_PRIMARY}], disabled="enable")
    ran = world.sync()
    assert ran.outcomes() == {
        NAME: "updated",
        "main/alpha-secondary-key": "updated",
        "main/beta-primary-key": "skipped",
    }
    assert "terraform" in item(ran, "main/beta-primary-key")["reason"]
    (right,) = world.versions("main", "alpha-primary-key")
    assert (right.value, right.enabled) == (LIVE["primary"], True)
    assert [version.value for version in world.versions("main", "alpha-secondary-key")] == ["old", LIVE["secondary"]]
    assert all(version.enabled for version in world.versions("main", "alpha-secondary-key"))
    assert world.versions("main", "beta-primary-key")[-1].enabled is False


# 5: soft-deleted secrets with the same name


@pytest.mark.parametrize(("way", "outcome"), [(0, "updated"), (1, "created")], ids=["recover", "purge"])
def test_a_deleted_secret_of_the_same_name_is_reported_with_two_fixes(
    make_quick_world: MakeWorld, way: int, outcome: str
) -> None:
    """keysync neither recovers nor purges by itself. After either of two suggested commands the next run writes."""
    world = make_quick_world(ALPHA, vaults=(holding(deleted=[ours()], recover_delay=0),))
    world.configure([PRIMARY])
    ran = world.sync()
    assert (ran.code, ran.outcomes(), writes(world)) == (1, {NAME: "refused"}, 0)
    assert item(ran)["verdict"] == "soft_deleted"
    reported = commands(item(ran)["reason"])
    assert len(reported) == 2
    az_keyvault(world.running, reported[way])
    after = world.sync()
    assert (after.code, after.outcomes()) == (0, {NAME: outcome})
    assert world.versions("main", "alpha-primary-key")[-1].value == LIVE["primary"]


def test_recover_owned_recovers_managed_secrets_only(make_quick_world: MakeWorld) -> None:
    """A managed one is recovered, and updated if the key has changed. An unmanaged one stays deleted; nothing is
    purged.
    """
    right, old = ours(LIVE["primary"]), ours("old", name="secondary")
    theirs = secret("beta", tags={"managed-by": "terraform"})
    other_owner = secret("beta", "secondary", tags=marks("beta", "secondary", owner="them"))
    world = make_quick_world(
        ALPHA, "beta", vaults=(holding(deleted=[right, old, theirs, other_owner], recover_delay=0.1),)
    )
    world.configure(["alpha", "beta"], recover="owned")
    assert world.run("plan", "--output", "json").outcomes()[NAME] == "recover"
    assert writes(world) == 0
    ran = world.sync()
    assert ran.code == 1
    assert ran.outcomes() == {
        NAME: "recovered",
        "main/alpha-secondary-key": "recovered",
        "main/beta-primary-key": "refused",
        "main/beta-secondary-key": "refused",
    }
    assert [version.value for version in world.versions("main", "alpha-primary-key")] == [LIVE["primary"]]
    assert [version.value for version in world.versions("main", "alpha-secondary-key")] == ["old", LIVE["secondary"]]
    assert count(world, "purgeSecret") == 0
    assert len(world.running.do(lambda azure: azure.state.vault("main").deleted_secrets())) == 2


def test_a_recovery_that_is_not_allowed_names_the_action(make_quick_world: MakeWorld) -> None:
    """Without the right to recover, that secret fails, and the hint names the missing action."""
    world = make_quick_world(ALPHA, vaults=(holding(deleted=[ours()], denied=["recoverSecret"]),))
    world.configure([PRIMARY], recover="owned")
    ran = world.sync()
    assert (ran.code, ran.outcomes()) == (1, {NAME: "failed"})
    assert "Microsoft.KeyVault/vaults/secrets/recover/action" in item(ran)["error"]["hint"]


# 6: limits


def test_a_limit_of_one_vault_stops_all_writes_until_accept(make_quick_world: MakeWorld) -> None:
    """Exit code 4, with the numbers in error and log. The suggested command writes exactly the plan that was shown."""
    world = make_quick_world("alpha", "beta", vaults=("main", "second"))
    both = [{"name": name, "vaults": ["main", "second"]} for name in ("alpha", "beta")]
    world.configure(both, vaults=with_vaults(world, second={"limits": {"creates": 3}}))
    stopped = world.sync()
    assert (stopped.code, writes(world)) == (4, 0)
    assert stopped.report["stopped"].startswith("vault second: 4 secrets would be created")
    assert "limits.creates is 3" in stopped.report["stopped"]
    assert set(stopped.outcomes().values()) == {"skipped"}
    (line,) = [line for line in stopped.log if line["event"] == "run.stopped"]
    assert (line["level"], line["reason"]) == ("error", stopped.report["stopped"])
    assert world.run("plan", "--output", "json").report["checksum"] == stopped.report["checksum"]
    done = follow(world, only_command(stopped.report["stopped"]))
    assert (done.code, set(done.outcomes().values())) == (0, {"created"})
    assert count(world, "setSecret") == 8


def test_a_changed_plan_is_not_the_accepted_one(make_quick_world: MakeWorld) -> None:
    """A key that changed after the plan was shown stops the run: exit code 4, and nothing is written."""
    stored = [ours("old", account) for account in ("alpha", "beta")]
    world = make_quick_world("alpha", "beta", vaults=(holding(*stored),))
    world.configure(["alpha", "beta"], limits={"creates": 1})
    shown = world.sync()
    assert shown.code == 4
    world.running.do(lambda azure: azure.state.vault("main").add_version("beta-primary-key", "x", tags=marks("beta")))
    refused = world.sync("--accept", shown.report["checksum"])
    assert (refused.code, writes(world)) == (4, 0)
    assert refused.report["checksum"] != shown.report["checksum"]
    assert refused.report["checksum"] in refused.report["stopped"]
    assert world.sync("--accept", refused.report["checksum"]).code == 0


def test_update_percent_of_a_vault_stops_a_run(make_quick_world: MakeWorld) -> None:
    """`update_percent` of a vault overrides the general one, and applies to the managed secrets of that vault."""
    names = [f"account{number}" for number in range(5)]
    stored = [ours("old", name, which) for name in names for which in LIVE]
    world = make_quick_world(*names, vaults=(holding(*stored),))
    world.configure(names, vaults=with_vaults(world, main={"limits": {"update_percent": 50}}))
    stopped = world.sync()
    assert (stopped.code, writes(world)) == (4, 0)
    assert "10 of the 10 secrets managed there (100%) would be updated" in stopped.report["stopped"]
    world.configure(
        names, limits={"update_percent": 50}, vaults=with_vaults(world, main={"limits": {"update_percent": 100}})
    )
    assert world.sync().code == 0


def test_a_slow_account_is_written_in_a_later_batch(make_quick_world: MakeWorld) -> None:
    """The limits wait for it only for a limited time: others are written first, and it later in the same run."""
    slow = {"name": "slow", "fault": {"kind": "status", "status": 429, "retry_after": "1", "times": 1}}
    world = make_quick_world("alpha", slow)
    world.configure(["alpha", "slow"], timeouts={"collect": "300ms"})
    ran = world.sync()
    assert (ran.code, set(ran.outcomes().values())) == (0, {"created"})
    requests = world.running.do(lambda azure: [(request.operation, request.target) for request in azure.requests])
    written = [target for operation, target in requests if operation == "setSecret"]
    assert {target.partition("/")[2].partition("-")[0] for target in written[:2]} == {"alpha"}
    keys = [
        position for position, (operation, target) in enumerate(requests) if (operation, target) == ("listKeys", "slow")
    ]
    assert keys[-1] > requests.index(("setSecret", written[1]))


def test_a_late_account_beyond_the_limit_is_refused_with_its_command(make_quick_world: MakeWorld) -> None:
    """Punctual accounts are written. The report says how to write the late one, and that command works."""
    slow = {"name": "slow", "fault": {"kind": "status", "status": 429, "retry_after": "1", "times": 1}}
    world = make_quick_world("alpha", slow)
    world.configure(["alpha", "slow"], timeouts={"collect": "300ms"}, limits={"creates": 2})
    ran = world.sync()
    assert ran.code == 1
    assert ran.outcomes()[NAME] == "created"
    assert ran.outcomes()["main/slow-primary-key"] == "refused"
    command = only_command(item(ran, "main/slow-primary-key")["reason"])
    assert follow(world, command).outcomes()["main/slow-primary-key"] == "created"


def test_the_others_are_written_although_an_account_hangs(make_quick_world: MakeWorld) -> None:
    """It fails by its own deadline, and the limits apply to the accounts that answered."""
    world = make_quick_world("alpha", {"name": "stuck", "fault": "hang"})
    world.configure(["alpha", "stuck"], timeouts={"collect": "1s", "request": "3s", "account": "6s"})
    ran = world.sync()
    assert ran.code == 1
    assert ran.outcomes()[NAME] == "created"
    assert item(ran, "main/stuck-primary-key")["error"]["kind"] == "timeout"


def test_the_suggested_accept_is_valid_for_the_accounts_of_the_run(make_quick_world: MakeWorld) -> None:
    """A blocked run for one account suggests a command for just that account."""
    world = make_quick_world("alpha", "beta")
    world.configure(["alpha", "beta"], limits={"creates": 1})
    stopped = world.sync("--account", "alpha")
    done = follow(world, only_command(stopped.report["stopped"]))
    assert done.code == 0, done.report["stopped"]


def test_a_suggested_command_names_the_file_of_the_run(make_quick_world: MakeWorld) -> None:
    """A run with `-c FILE` suggests a command for that file, not for the default one."""
    world = make_quick_world("alpha")
    world.configure(["alpha"], limits={"creates": 1})
    world.path.rename(world.folder / "other.yaml")
    stopped = world.sync("-c", "other.yaml")
    assert follow(world, only_command(stopped.report["stopped"])).code == 0


def test_a_plan_says_that_a_limit_would_stop_it(make_quick_world: MakeWorld) -> None:
    """A plan shows in advance what a sync would report."""
    world = make_quick_world("alpha")
    world.configure(["alpha"], limits={"creates": 1})
    assert "limits.creates is 1" in world.run("plan").out


# 7: orphans


def orphaned(world: World, **settings: Any) -> None:
    """Configures only `alpha`, so that all other managed secrets in the vault are orphans."""
    world.configure(["alpha"], **{"owner": "us", **settings})


def orphan_world(make: MakeWorld, *, gone: bool = True, **options: Any) -> World:
    """In sync, except for the secrets of `beta`, whose account is gone, and of another owner."""
    secrets = [
        secret("alpha", which, value=value, tags=marks("alpha", which, owner="us"), content_type="x")
        for which, value in LIVE.items()
    ]
    orphans = [secret("beta", which, tags=marks("beta", which, owner="us")) for which in LIVE]
    others = [
        secret("gamma", tags=marks("gamma", owner="them")),
        secret("delta", tags=marks("delta")),
        secret("epsilon", tags={"managed-by": "terraform", "keysync-owner": "us"}),
    ]
    world = make(ALPHA, "beta", vaults=(holding(*secrets, *orphans, *others),), **options)
    if gone:
        world.running.do(lambda azure: remove_account(azure, "beta"))
    return world


BETA = ("main/beta-primary-key", "main/beta-secondary-key")


def test_orphans_are_kept_by_default(make_quick_world: MakeWorld) -> None:
    """By default keysync does not search for orphans."""
    world = orphan_world(make_quick_world)
    orphaned(world)
    assert set(world.sync().outcomes().values()) == {"unchanged"}
    assert count(world, "listSecrets", "listAccounts") + writes(world) == 0


@pytest.mark.parametrize("gone", [True, False], ids=["account-gone", "mapping-gone"])
@pytest.mark.parametrize(("mode", "done"), [("disable", "disabled"), ("delete", "deleted")])
def test_orphans_are_removed_by_the_accept_that_was_shown(
    make_quick_world: MakeWorld, mode: str, done: str, *, gone: bool
) -> None:
    """A plan shows them. A sync keeps them and suggests a command, which removes only them, recoverably."""
    world = orphan_world(make_quick_world, gone=gone)
    orphaned(world, orphans=mode)
    shown = world.run("plan", "--output", "json")
    assert {name: shown.outcomes()[name] for name in BETA} == dict.fromkeys(BETA, mode)
    assert {item(shown, name)["verdict"] for name in BETA} == {"orphaned"}
    left = world.sync()
    assert (left.code, writes(world)) == (0, 0)
    assert {left.outcomes()[name] for name in BETA} == {"skipped"}
    reason = item(left, BETA[0])["reason"]
    assert ("its account is gone" if gone else "no longer maps it") in reason
    command = only_command(reason)
    assert command == f"keysync sync --accept {shown.report['checksum']}"
    ran = follow(world, command)
    assert (ran.code, {ran.outcomes()[name] for name in BETA}) == (0, {done})
    assert item(ran, BETA[0])["reason"].endswith("its account is gone" if gone else "no longer maps it here")
    stored = world.running.do(lambda azure: azure.state.vault("main"))
    if mode == "delete":
        assert stored.find("beta-primary-key") is None
        assert len(stored.deleted_secrets()) == 2
        assert count(world, "purgeSecret") == 0
    else:
        (version,) = world.versions("main", "beta-primary-key")
        assert (version.enabled, version.value) == (False, "by-hand")
    for name in ("gamma", "delta", "epsilon"):
        (kept,) = world.versions("main", f"{name}-primary-key")
        assert kept.enabled
    assert not set(BETA) & set(world.sync().outcomes())


@pytest.mark.parametrize(
    "fault",
    [
        {"operation": "getAccount", "target": "beta", "status": 403, "code": "AuthorizationFailed"},
        {"operation": "listAccounts", "status": 403, "code": "AuthorizationFailed"},
        {"operation": "listAccounts", "kind": "truncated", "status": 200},
        {"operation": "getAccount", "target": "beta", "status": 404, "code": "SubscriptionNotFound"},
    ],
    ids=["account-403", "listing-403", "listing-cut", "subscription-404"],
)
def test_without_proof_nothing_is_removed(make_quick_world: MakeWorld, fault: dict[str, Any]) -> None:
    """If the account may still exist, report and log have a warning, and nothing is removed."""
    world = orphan_world(make_quick_world)
    orphaned(world, orphans="delete")
    checksum = world.run("plan", "--output", "json").report["checksum"]
    world.running.do(lambda azure: azure.faults.add(Fault(**fault)))
    ran = world.sync("--accept", checksum)
    assert (ran.code, writes(world)) == (4, 0)
    assert not set(BETA) & set(ran.outcomes())
    (warning,) = ran.report["warnings"]
    assert arm_id("beta") in warning
    assert "its secrets stay" in warning
    assert [line["reason"] for line in ran.log if line["event"] == "run.warning"] == [warning]


def test_a_warning_of_the_search_is_no_failure(make_quick_world: MakeWorld) -> None:
    """Without the right to read the account everything else stays in sync; the warning is below the table."""
    world = orphan_world(make_quick_world)
    orphaned(world, orphans="delete")
    denial = Fault(operation="getAccount", target="beta", status=403, code="AuthorizationFailed")
    world.running.do(lambda azure: azure.faults.add(denial))
    ran = world.run("sync")
    assert ran.code == 0
    assert "warning: orphans: whether " in ran.out
    assert writes(world) == 0


def test_a_failing_page_of_a_vault_listing_removes_nothing(make_quick_world: MakeWorld) -> None:
    """Orphans on the first page stay if the second page cannot be read."""
    many = [secret(f"a{number:02}", tags={"managed-by": "terraform"}) for number in range(30)]
    orphan = secret("a00", "orphan", tags=marks("gone", owner="us"))
    world = make_quick_world(ALPHA, vaults=(holding(*many, orphan),))
    world.configure(["alpha"], owner="us", orphans="delete")
    assert world.run("plan", "--output", "json").outcomes()["main/a00-orphan-key"] == "delete"
    pages = Fault(operation="listSecrets", kind="status", status=403, code="Forbidden", inner_code="ForbiddenByRbac")
    arm = functools.partial(_arm, fault=pages)
    world.running.do(lambda azure: before(azure, ("listSecrets", "main"), arm, which=2))
    ran = world.sync()
    assert "main/a00-orphan-key" not in ran.outcomes()
    (warning,) = ran.report["warnings"]
    assert "vault main could not be listed" in warning
    assert count(world, "deleteSecret") == 0


def _arm(azure: Emulator, _target: str, fault: Fault) -> None:
    azure.faults.add(fault)


def test_an_orphan_that_another_tool_adopted_meanwhile_stays(make_quick_world: MakeWorld) -> None:
    """A removed secret has keysync's tags in the last check before the removal, not only in the listing."""
    world = orphan_world(make_quick_world)
    orphaned(world, orphans="delete")
    retag = functools.partial(add_version, value="theirs", tags=marks("beta", owner="them"))
    world.running.do(lambda azure: before(azure, ("getSecret", BETA[0]), retag))
    shown = world.run("plan", "--output", "json")
    assert BETA[0] not in shown.outcomes()
    assert shown.outcomes()[BETA[1]] == "delete"


def test_a_run_for_one_account_does_not_search_for_orphans(make_quick_world: MakeWorld) -> None:
    """`--account` neither searches for orphans nor removes them."""
    world = orphan_world(make_quick_world)
    orphaned(world, orphans="delete")
    ran = world.sync("--account", "alpha")
    assert set(ran.outcomes().values()) == {"unchanged"}
    assert count(world, "listSecrets", "listAccounts") + writes(world) == 0


def test_an_orphan_that_changed_since_it_was_shown_stays(make_quick_world: MakeWorld) -> None:
    """The checksum covers the secret's version, so a later write by another tool is not deleted."""
    world = orphan_world(make_quick_world)
    orphaned(world, orphans="delete")
    checksum = world.run("plan", "--output", "json").report["checksum"]
    tags = marks("beta", owner="us")
    world.running.do(lambda azure: azure.state.vault("main").add_version("beta-primary-key", "new", tags=tags))
    assert world.sync("--accept", checksum).code == 4
    assert writes(world) == 0


def test_the_command_for_one_secret_says_what_else_it_removes(make_quick_world: MakeWorld) -> None:
    """The suggestion for a late key says that the command also removes orphans."""
    late = secret("alpha", value="old", tags=marks("alpha", owner="us"))
    orphan = secret("beta", tags=marks("beta", owner="us"))
    world = make_quick_world(ALPHA, vaults=(holding(late, orphan),))
    world.configure([PRIMARY], owner="us", orphans="delete", limits={"changes_per_day": 1})
    reason = item(world.sync())["reason"]
    done = follow(world, only_command(reason))
    removed = "deleted" in done.outcomes().values()
    assert "delete" in reason if removed else "delete" not in reason


def test_a_renamed_secret_outlives_a_failed_write_of_its_new_name(make_quick_world: MakeWorld) -> None:
    """The old name is removed only after the new one is written; else clients of either name would have no key."""
    world = make_quick_world(ALPHA, vaults=(holding(secret("alpha", tags=marks("alpha", owner="us"))),))
    world.configure([{"name": "alpha", "secrets": {"primary": "new", "secondary": None}}], owner="us", orphans="delete")
    checksum = world.run("plan", "--output", "json").report["checksum"]
    world.running.do(lambda azure: azure.faults.add(DENIAL))
    ran = world.sync("--accept", checksum)
    assert ran.outcomes()["main/new"] == "failed"
    assert count(world, "deleteSecret") == 0


# 8: the kill switch


@pytest.mark.parametrize("switch", ["global", "vault", "account", "environment"])
def test_a_kill_switch_reports_the_planned_changes(make_quick_world: MakeWorld, switch: str) -> None:
    """Outcomes as in a dry run and exit code 0; no secret is written, adopted, enabled, recovered or removed."""
    stored = [
        ours("old"),
        secret("beta", tags=marks("beta"), enabled=False),
        secret("gone", tags=marks("gone", owner="us")),
    ]
    for entry in stored[:2]:
        entry["tags"]["keysync-owner"] = "us"
    deleted = secret("beta", "secondary", tags=marks("beta", "secondary", owner="us"))
    world = make_quick_world(ALPHA, "beta", vaults=(holding(*stored, deleted=[deleted]),))
    settings: dict[str, Any] = {"owner": "us", "orphans": "delete", "recover": "owned", "disabled": "enable"}
    accounts = [{"name": name, "read_only": switch == "account"} for name in ("alpha", "beta")]
    world.configure(
        accounts,
        **settings,
        read_only=switch == "global",
        vaults=with_vaults(world, main={"read_only": switch == "vault"}),
    )
    env = {"KEYSYNC_READ_ONLY": "1"} if switch == "environment" else {}
    ran = world.sync(env=env)
    outcomes = ran.outcomes()
    # An orphan belongs to no configured account, so here only the other accounts can keep it; it also needs --accept.
    assert outcomes.pop("main/gone-primary-key") == ("skipped" if switch == "account" else "delete")
    assert outcomes == {
        NAME: "update",
        "main/alpha-secondary-key": "create",
        "main/beta-primary-key": "update",
        "main/beta-secondary-key": "recover",
    }
    assert (ran.code, ran.report["stopped"], writes(world)) == (0, None, 0)
    if switch != "account":
        assert item(ran, "main/gone-primary-key")["reason"].startswith("orphaned: its account is gone; read_only")
        assert world.sync("--accept", ran.report["checksum"], env=env).code == 0
        assert writes(world) == 0


def test_a_read_only_account_keeps_its_orphans(make_quick_world: MakeWorld) -> None:
    """Secrets of a read-only account that were renamed in the configuration stay, even with --accept."""
    world = make_quick_world(ALPHA, vaults=(holding(secret("alpha", tags=marks("alpha", owner="us"))),))
    names = {"secrets": {"primary": "renamed", "secondary": None}}
    world.configure([{"name": "alpha", "read_only": True, **names}], owner="us", orphans="delete")
    checksum = world.run("plan", "--output", "json").report["checksum"]
    world.sync("--accept", checksum)
    assert writes(world) == 0


def test_a_read_only_run_says_so(make_quick_world: MakeWorld) -> None:
    """The output of a sync with `update` rows says that nothing was written, and names the switch."""
    world = make_quick_world(ALPHA)
    world.configure([PRIMARY], read_only=True)
    assert "read_only" in world.run("sync").out


def test_a_read_only_run_suggests_no_useless_command(make_quick_world: MakeWorld) -> None:
    """`--accept` does not write to a read-only vault, so it is not suggested."""
    world = make_quick_world(ALPHA, vaults=(holding(ours("old")),))
    world.configure([PRIMARY], read_only=True, limits={"changes_per_day": 1})
    assert "--accept" not in (item(world.sync())["reason"] or "")


def test_a_read_only_run_still_fails_for_refused_secrets(make_quick_world: MakeWorld) -> None:
    """Exit code 1 for an unmanaged secret; no limit stops a run that writes nothing."""
    world = make_quick_world(ALPHA, vaults=(holding(secret("alpha")),))
    world.configure(["alpha"], limits={"creates": 0})
    ran = world.sync(env={"KEYSYNC_READ_ONLY": "1"})
    assert (ran.code, ran.outcomes()) == (1, {NAME: "refused", "main/alpha-secondary-key": "create"})


def test_the_other_vault_is_written_although_one_is_read_only(make_quick_world: MakeWorld) -> None:
    """The switch of one vault applies to that vault only."""
    world = make_quick_world(ALPHA, vaults=("main", "second"))
    world.configure([{**PRIMARY, "vaults": ["main", "second"]}], vaults=with_vaults(world, second={"read_only": True}))
    assert world.sync().outcomes() == {NAME: "created", "second/alpha-primary-key": "create"}
    assert world.versions("second", "alpha-primary-key") == []


# 9: one writer for each secret


def test_a_concurrent_write_is_a_conflict(make_quick_world: MakeWorld) -> None:
    """The value read back differs from the written one: that is reported once and not overwritten."""
    world = make_quick_world(ALPHA, vaults=(holding(ours("old")),))
    world.configure([PRIMARY])
    world.running.do(lambda azure: write_after_each_write(azure, "main", "theirs", {"managed-by": "terraform"}))
    ran = world.sync()
    assert (ran.code, ran.outcomes()) == (1, {NAME: "failed"})
    error = item(ran)["error"]
    assert error["kind"] == "conflict"
    assert "two writers share this secret" in item(ran)["reason"]
    assert "az keyvault secret list-versions --id https://" in error["hint"]
    assert [version.value for version in world.versions("main", "alpha-primary-key")] == [
        "old",
        LIVE["primary"],
        "theirs",
    ]
    (line,) = [line for line in ran.log if line["event"] == "secret.failed"]
    assert (line["level"], line["hint"]) == ("error", error["hint"])
    assert world.sync().outcomes() == {NAME: "refused"}
    assert count(world, "setSecret") == 1


def test_many_versions_are_a_warning_and_then_a_refusal(make_quick_world: MakeWorld) -> None:
    """At 300 versions the secret is written with a note, at 450 only by the suggested command."""
    world = make_quick_world(ALPHA, vaults=(holding(ours("old")),))
    world.configure([PRIMARY])
    world.running.do(lambda azure: add_versions(azure, "main", "alpha-primary-key", 300))
    warned = world.sync()
    assert warned.outcomes() == {NAME: "updated"}
    assert "it has 300 versions" in item(warned)["reason"]
    assert "at 450" in next(line["reason"] for line in warned.log if line["event"] == "secret.updated")
    world.running.do(lambda azure: add_versions(azure, "main", "alpha-primary-key", 450))
    refused = world.sync()
    assert (refused.code, count(world, "setSecret")) == (1, 1)
    assert refused.outcomes() == {NAME: "refused"}
    assert "450 versions" in item(refused)["reason"]
    done = follow(world, only_command(item(refused)["reason"]))
    assert (done.code, done.outcomes()) == (0, {NAME: "updated"})
    assert len(world.versions("main", "alpha-primary-key")) == 451


@pytest.mark.parametrize("beside", ["failed", "read-only"])
def test_one_of_several_waiting_secrets_can_be_accepted(make_quick_world: MakeWorld, beside: str) -> None:
    """The suggested command works although another secret of the run failed or belongs to a read-only account."""
    world = make_quick_world(ALPHA, "beta", vaults=(holding(ours("old")),))
    beta = {"name": "beta", **ONLY_PRIMARY, "read_only": beside == "read-only"}
    world.configure([PRIMARY, beta], limits={"changes_per_day": 1})
    if beside == "failed":
        world.running.do(lambda azure: azure.faults.add(DENIAL))
    waiting = world.sync()
    assert waiting.outcomes()[NAME] == "refused"
    done = follow(world, only_command(item(waiting)["reason"]))
    assert done.outcomes()[NAME] == "updated", done.report["stopped"]


def test_an_identity_that_cannot_list_versions_keeps_keys_in_sync(make_quick_world: MakeWorld) -> None:
    """Neither the change limit nor the version limit blocks a late key because of a missing permission."""
    world = make_quick_world(ALPHA, vaults=(holding(ours("old"), denied=["listVersions"]),))
    world.configure([PRIMARY], limits={"changes_per_day": 1})
    assert world.sync().outcomes() == {NAME: "updated"}


@pytest.mark.parametrize("state", ["deleted", "disabled"])
def test_the_version_limit_applies_to_recovered_secrets(make_quick_world: MakeWorld, state: str) -> None:
    """A recovered or enabled secret with 450 versions gets another version only with --accept."""
    world = make_quick_world(ALPHA, vaults=(holding(ours("old"), recover_delay=0),))
    world.configure([PRIMARY], recover="owned", disabled="enable")
    world.running.do(lambda azure: add_versions(azure, "main", "alpha-primary-key", 450))
    world.running.do(lambda azure: _take_away(azure, state))
    world.sync()
    assert count(world, "setSecret") == 0


def _take_away(azure: Any, state: str) -> None:
    vault = azure.state.vault("main")
    latest = vault.versions("alpha-primary-key")[-1]
    latest.created += 3 * DAY
    if state == "deleted":
        vault.delete("alpha-primary-key")
    else:
        latest.enabled = False


@pytest.mark.parametrize("position", ["general", "vault"])
def test_a_secret_that_changes_too_often_waits_to_be_accepted(make_quick_world: MakeWorld, position: str) -> None:
    """The vault's own limit applies. The run writes the other secrets, and the command also writes this one."""
    world = make_quick_world(ALPHA, "beta", vaults=(holding(ours("old")),))
    own, general = ({}, 2) if position == "general" else ({"limits": {"changes_per_day": 2}}, 50)
    world.configure(
        [PRIMARY, {"name": "beta", **ONLY_PRIMARY}],
        limits={"changes_per_day": general},
        vaults=with_vaults(world, main=own),
    )
    world.running.do(lambda azure: add_versions(azure, "main", "alpha-primary-key", 2, age=3600))
    ran = world.sync()
    assert ran.code == 1
    assert ran.outcomes() == {NAME: "refused", "main/beta-primary-key": "created"}
    assert "changed 2 times in 24 hours" in item(ran)["reason"]
    assert "limits.changes_per_day is 2" in item(ran)["reason"]
    assert len(world.versions("main", "alpha-primary-key")) == 2
    assert follow(world, only_command(item(ran)["reason"])).outcomes()[NAME] == "updated"
    assert world.versions("main", "alpha-primary-key")[-1].value == LIVE["primary"]


def test_changes_of_yesterday_do_not_count(make_quick_world: MakeWorld) -> None:
    """The limit covers 24 hours."""
    world = make_quick_world(ALPHA, vaults=(holding(ours("old", created=1)),))
    world.configure([PRIMARY], limits={"changes_per_day": 2})
    world.running.do(lambda azure: add_versions(azure, "main", "alpha-primary-key", 9))
    assert world.sync().outcomes() == {NAME: "updated"}


# All of it together: no unmanaged secret changes


def test_a_vault_of_unmanaged_secrets_does_not_change(make_quick_world: MakeWorld) -> None:
    """Whatever the settings and commands, except `adopt --replace`, unmanaged secrets do not change."""
    foreign = [
        secret("alpha", tags={"managed-by": "terraform"}),
        secret("alpha", "secondary", tags={}),
        secret("beta", tags=marks("beta", owner="them"), enabled=False),
        secret("beta", "secondary", tags=marks("alpha", owner="us")),
        secret("gamma", tags={"managed-by": "KEYSYNC", "keysync-owner": "us"}),
        secret("gamma", "secondary", managed=True, tags=marks("gamma", "secondary", owner="us")),
        secret("other", tags=marks("other", owner="Us")),
    ]
    deleted = [secret("delta", tags=marks("delta", owner="them")), secret("delta", "secondary", tags={})]
    world = make_quick_world("alpha", "beta", "gamma", "delta", vaults=(holding(*foreign, deleted=deleted),))
    world.configure(
        ["alpha", "beta", "gamma", "delta"],
        owner="us",
        adopt=True,
        orphans="delete",
        recover="owned",
        disabled="enable",
        vaults=with_vaults(world, main={"expires_after": "90d", "content_type": "x", "tags": {"a": "b"}}),
    )
    before = world.running.do(lambda azure: repr(azure.state.vault("main").export()) + _values(azure))
    checksum = world.run("plan", "--output", "json").report["checksum"]
    for arguments in (("sync",), ("sync", "--accept", checksum), ("adopt", "--yes")):
        world.run(*arguments)
    assert world.running.do(lambda azure: repr(azure.state.vault("main").export()) + _values(azure)) == before
    assert writes(world) == 0


def _values(azure: Any) -> str:
    secrets, deleted = azure.state.vault("main").export()
    every = [*secrets, *(gone.secret for gone in deleted)]
    return repr([(item.name, [version.value for version in item.versions]) for item in every])


# Settings


@pytest.mark.parametrize(
    ("settings", "position", "part"),
    [
        ({"disabled": "maybe"}, "disabled", "report"),
        ({"recover": "always"}, "recover", "owned"),
        ({"orphans": "purge"}, "orphans", "delete"),
        ({"orphans": "delete"}, "orphans", "`owner`"),
        ({"limits": {"changes_per_day": 0}}, "limits.changes_per_day", "1"),
        ({"limits": {"changes_per_day": "often"}}, "limits.changes_per_day", "number"),
        ({"limits": {"removal_percent": 101}}, "limits.removal_percent", "100"),
        ({"main": {"expires_after": "0s"}}, "vaults.main.expires_after", "duration"),
        ({"main": {"expires_after": "-1d"}}, "vaults.main.expires_after", "duration"),
        ({"main": {"content_type": "x" * 256}}, "vaults.main.content_type", "255"),
        ({"main": {"limits": {"changes_per_day": 0}}}, "vaults.main.limits.changes_per_day", "1"),
        ({"owner": ""}, "owner", "1"),
        ({"adopt": "yes please"}, "adopt", "true"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_a_wrong_setting_changes_nothing(
    make_quick_world: MakeWorld, settings: dict[str, Any], position: str, part: str
) -> None:
    """Exit code 2, the position and what is expected, before the first request."""
    world = make_quick_world("alpha")
    general = {name: value for name, value in settings.items() if name != "main"}
    world.configure(["alpha"], **{"vaults": with_vaults(world, main=settings.get("main", {})), **general})
    ran = world.sync()
    assert (ran.code, ran.out) == (2, "")
    assert f" {position}: " in ran.err
    assert part in ran.err
    assert world.running.do(lambda azure: dict(azure.counts)) == {}
