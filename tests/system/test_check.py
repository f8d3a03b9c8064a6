"""`check` finds what a pass would stumble over, says what to do about each finding, and writes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.system.conftest import Ran, World

MakeWorld = Callable[..., World]

Finding = dict[str, Any]


def findings(ran: Ran) -> list[Finding]:
    """The findings of `check --output json`."""
    assert "Traceback" not in ran.err
    found: list[Finding] = json.loads(ran.out)["findings"]
    assert all(set(one) == {"level", "subject", "message", "cure"} for one in found)
    return found


def about(found: list[Finding], subject: str, *, level: str | None = None) -> Finding:
    """The one finding about a subject."""
    (one,) = [one for one in found if one["subject"] == subject and level in {None, one["level"]}]
    return one


def contents(world: World) -> dict[str, Any]:
    """All that stands in every vault, by vault and secret."""

    def look(azure: Any) -> dict[str, Any]:
        return {
            f"{vault.name}/{name}": [(one.version, one.value, dict(one.tags), one.updated) for one in versions]
            for vault in azure.state.vaults
            for name, versions in vault.secrets.items()
        }

    return world.running.do(look)


def rewrite(world: World, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the configuration that stands there."""
    document = json.loads(world.path.read_text())
    change(document)
    world.path.write_text(json.dumps(document))


def test_a_good_world_is_all_right_and_stays_as_it_is(make_world: MakeWorld) -> None:
    """Exit code 0, a mark at each line, and no version, tag or secret that was not there before."""
    world = make_world("alpha", "beta")
    world.configure(["alpha", "beta"])
    assert world.sync("--account", "alpha").code == 0
    before = contents(world)
    assert len(before) == 2
    ran = world.run("check", "--output", "json")
    assert ran.code == 0, ran.out
    found = findings(ran)
    assert {one["level"] for one in found} == {"ok"}
    assert about(found, "secret main/alpha-primary-key")["message"] == "is in step"
    assert about(found, "secret main/beta-primary-key")["message"] == "would be created"
    assert {one["subject"] for one in found} >= {"configuration", "account alpha", "account beta", "vault main"}
    text = world.run("check")
    assert text.code == 0
    assert f"{len(found)} ok, 0 warnings, 0 problems" in text.out
    assert text.err == ""
    assert contents(world) == before


def test_every_finding_of_a_bad_world_comes_with_its_cure(make_world: MakeWorld) -> None:
    """Each thing that is wrong is found in one run, at its own subject, with what to do about it."""
    taken = [
        {"name": "foreign-primary-key", "value": "by hand", "tags": {"managed-by": "terraform"}},
        {"name": "disabled-primary-key", "value": "off", "enabled": False},
    ]
    world = make_world(
        {"name": "norole", "fault": "role_missing"},
        {"name": "entraonly", "allowed_authentication_modes": ["AAD"]},
        {"name": "locked", "fault": "locked"},
        "foreign",
        "deleted",
        "disabled",
        "closed",
        vaults=(
            {"name": "main", "secrets": taken, "deleted": [{"name": "deleted-primary-key", "value": "gone"}]},
            {"name": "readonly", "denied": ["setSecret"]},
        ),
    )
    names = ["norole", "entraonly", "locked", "foreign", "deleted", "disabled", "nowhere"]
    world.configure([*names, {"name": "closed", "vaults": ["readonly"]}])
    before = contents(world)
    ran = world.run("check", "--output", "json")
    assert ran.code == 1
    assert contents(world) == before
    found = findings(ran)
    assert all(one["cure"] for one in found if one["level"] != "ok"), [one for one in found if one["level"] != "ok"]
    expected = {
        "account norole": ("problem", "Microsoft.Batch/batchAccounts/listKeys/action"),
        "account entraonly": ("problem", "allow SharedKey"),
        "account locked": ("problem", "lock"),
        "account nowhere": ("problem", "no such Batch account"),
        "secret main/foreign-primary-key": ("problem", "managed by 'terraform'"),
        "secret main/deleted-primary-key": ("problem", "recover"),
        "secret main/disabled-primary-key": ("warning", "--enabled true"),
    }
    for subject, (level, part) in expected.items():
        one = about(found, subject)
        assert one["level"] == level, one
        assert part in one["cure"], one
    closed = about(found, "vault readonly", level="problem")
    assert "Microsoft.KeyVault/vaults/secrets/setSecret/action" in closed["cure"]
    assert about(found, "secret main/foreign-secondary-key")["level"] == "ok"
    text = world.run("check")
    assert text.code == 1
    for one in found:
        assert one["subject"] in text.out
        assert (one["cure"] or "") in text.out


def test_a_failure_of_an_account_is_told_once(make_world: MakeWorld) -> None:
    """Not again for each of its secrets; what a vault has to say of them, and what is another failure, is told still."""
    world = make_world(
        "alpha",
        {"name": "norole", "fault": "role_missing"},
        {"name": "hollow", "fault": {"operation": "listKeys", "kind": "null_keys"}},
        vaults=("main", {"name": "closed", "denied": ["getSecret", "setSecret"]}),
    )
    world.configure([{"name": name, "vaults": ["main", "closed"]} for name in ("alpha", "norole", "hollow")])
    ran = world.run("check", "--output", "json")
    assert ran.code == 1
    found = findings(ran)
    about(found, "account norole", level="problem")
    assert "gave no key" in about(found, "account hollow", level="problem")["message"]
    assert {one["subject"] for one in found if one["subject"].startswith("secret ")} == {
        f"secret {vault}/alpha-{key}-key" for vault in ("main", "closed") for key in ("primary", "secondary")
    }
    # That the vault may not be written is another thing than that it may not be read.
    assert "setSecret" in about(found, "vault closed", level="problem")["cure"]
    assert "getSecret" in about(found, "secret closed/alpha-primary-key", level="problem")["cure"]
    assert ran.out.count("listKeys/action") == 2  # the message and its cure


def test_one_account_can_be_checked_alone(make_world: MakeWorld) -> None:
    """`--account` leaves the others out, and what is wrong with them."""
    world = make_world("alpha", {"name": "norole", "fault": "role_missing"})
    world.configure(["alpha", "norole"])
    ran = world.run("check", "--account", "alpha", "--output", "json")
    assert ran.code == 0, ran.out
    assert not any("norole" in one["subject"] for one in findings(ran))


@pytest.mark.slow  # it waits for real time to pass
def test_a_vault_whose_name_does_not_resolve_leaves_the_others_served(make_world: MakeWorld) -> None:
    """It is told as a matter of DNS with its host, by `check` and by `sync`, and the other vault gets its secrets."""
    world = make_world("alpha")
    world.configure([{"name": "alpha", "vaults": ["main", "lost"]}])
    url = "https://keysync-no-such-host.invalid"
    rewrite(world, lambda document: document["vaults"].update(lost={"url": url, "verify_challenge_resource": False}))
    ran = world.run("check", "--output", "json")
    assert ran.code == 1
    found = findings(ran)
    lost = [one for one in found if one["subject"] == "vault lost"]
    assert lost
    for one in lost:
        assert one["level"] == "problem"
        assert "does not resolve" in one["message"]
        assert f"{url} does not resolve" in one["cure"]
    assert {one["level"] for one in found if one["subject"] == "vault main"} == {"ok"}
    ran = world.sync()
    assert ran.code == 1
    assert "Traceback" not in ran.err
    outcomes = ran.outcomes()
    assert outcomes["main/alpha-primary-key"] == outcomes["main/alpha-secondary-key"] == "created"
    errors = [item["error"] for item in ran.report["items"] if item["vault"] == "lost"]
    assert [error["kind"] for error in errors] == ["dns", "dns"]
    assert all("does not resolve" in error["hint"] for error in errors)


def test_a_certificate_that_is_not_trusted_is_told_as_such(make_world: MakeWorld) -> None:
    """Without the bundle nothing is asked, and the hint names the settings that trust one."""
    world = make_world("alpha")
    world.configure(["alpha"])
    rewrite(world, lambda document: document["cloud"].pop("ca_bundle"))
    ran = world.run("check", "--output", "json", env={"SSL_CERT_FILE": ""})
    assert ran.code == 1
    troubles = [one for one in findings(ran) if one["level"] == "problem"]
    assert troubles
    assert all("cloud.ca_bundle" in one["cure"] for one in troubles), troubles
    ran = world.sync(env={"SSL_CERT_FILE": ""})
    assert ran.code == 1
    assert "Traceback" not in ran.err
    assert {item["error"]["kind"] for item in ran.report["items"]} == {"tls"}
    assert world.running.do(lambda azure: dict(azure.counts)) == {}


def test_who_is_not_let_in_is_not_said_to_be_let_write(make_world: MakeWorld) -> None:
    """Entra's refusal is a 400 too, and says nothing about the vault."""
    world = make_world("alpha")
    world.configure(["alpha"])
    found = findings(world.run("check", "--output", "json", env={**world.running.environ, "AZURE_CLIENT_ID": "nobody"}))
    assert "AADSTS" in json.dumps(found)
    assert [one["level"] for one in found if one["subject"] == "vault main"] == ["problem", "problem"]
    assert not any(one["subject"].startswith("secret ") for one in found)  # the account has told it
