"""`keysync adopt` and the setting `adopt`: which secrets are adopted, and which stay unchanged."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.other_writers import arm_id, commands, marks, secret, without_count
from tests.support.runs import key
from tests.system.conftest import Ran, World

MakeWorld = Callable[..., World]

LIVE = {"primary": key("p"), "secondary": key("s")}
ALPHA = {"name": "alpha", **LIVE}
NAME = "main/alpha-primary-key"


def holding(*secrets: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """The data of one vault with these secrets."""
    return ({"name": "main", "secrets": list(secrets)},)


def adopt(world: World, *arguments: str) -> Ran:
    """Runs `keysync adopt --output json`."""
    return world.run("adopt", "--output", "json", *arguments)


def writes(world: World) -> int:
    """The number of requests that could change a vault."""
    changing = ("setSecret", "updateSecret", "deleteSecret", "recoverSecret", "purgeSecret")
    return world.running.do(lambda azure: sum(azure.counts[name] for name in changing))


def test_adopt_previews_and_sets_only_tags_if_the_value_is_equal(make_quick_world: MakeWorld) -> None:
    """Without --yes nothing is written. With --yes the secret keeps its one version and its tags, and gets keysync's
    tags.
    """
    there = secret(
        "alpha", value=LIVE["primary"], tags={"team": "render"}, content_type="text/x", expires=4_000_000_000
    )
    world = make_quick_world(ALPHA, vaults=holding(there))
    world.configure(["alpha"])
    shown = adopt(world)
    assert (shown.code, shown.outcomes()) == (0, {NAME: "adopt"})
    assert shown.report["dry_run"] is True
    assert writes(world) == 0
    done = adopt(world, "--yes")
    assert (done.code, done.outcomes()) == (0, {NAME: "adopted"})
    (version,) = world.versions("main", "alpha-primary-key")
    assert without_count(version.tags) == {"team": "render", **marks("alpha")}
    assert (version.value, version.content_type, version.expires) == (LIVE["primary"], "text/x", 4_000_000_000)
    assert done.report["items"][0]["version"] == version.version
    (line,) = [line for line in done.log if line["event"] == "secret.adopted"]
    assert "only tags are set" in line["reason"]
    assert (adopt(world).code, adopt(world).outcomes()) == (0, {})


def test_a_different_value_needs_replace(make_quick_world: MakeWorld) -> None:
    """`adopt` alone names the owner and refuses. `--replace` previews, and `--replace --yes` writes one version."""
    world = make_quick_world(ALPHA, vaults=holding(secret("alpha", tags={"team": "render"})))
    world.configure(["alpha"])
    for arguments in ((), ("--yes",)):
        refused = adopt(world, *arguments)
        assert (refused.code, refused.outcomes()) == (1, {NAME: "refused"})
        (item,) = refused.report["items"]
        assert item["verdict"] == "unmanaged"
        assert commands(item["reason"]) == ["keysync adopt --secret main/alpha-primary-key --replace --yes"]
    shown = adopt(world, "--replace")
    assert (shown.code, shown.outcomes()) == (0, {NAME: "adopt"})
    assert "replaced by a new version" in shown.report["items"][0]["reason"]
    assert writes(world) == 0
    assert adopt(world, "--replace", "--yes").outcomes() == {NAME: "adopted"}
    old, new = world.versions("main", "alpha-primary-key")
    assert (old.value, old.tags) == ("by-hand", {"team": "render"})
    assert (new.value, without_count(new.tags)) == (LIVE["primary"], {"team": "render", **marks("alpha")})


@pytest.mark.parametrize(
    ("tags", "whose"),
    [
        ({"managed-by": "terraform"}, "managed by 'terraform'"),
        (marks("alpha", owner="other-team"), "owner 'other-team'"),
        (marks("beta"), f"the 'primary' key of '{arm_id('beta')}'"),
        ({"keysync-key": "primary"}, "some of keysync's tags"),
    ],
    ids=["terraform", "another-owner", "another-account", "half-marked"],
)
def test_another_tools_tag_needs_replace_even_with_an_equal_value(
    make_quick_world: MakeWorld, tags: dict[str, str], whose: str
) -> None:
    """An equal value does not make another tool's secret managed. The note names the flag that adopts it without a
    version.
    """
    world = make_quick_world(ALPHA, vaults=holding(secret("alpha", value=LIVE["primary"], tags=tags)))
    world.configure(["alpha"])
    again = adopt(world, "--yes")
    assert (again.code, again.outcomes()) == (0, {NAME: "unchanged"})
    reason = again.report["items"][0]["reason"]
    assert whose in reason
    assert writes(world) == 0
    (command,) = commands(reason)
    assert command == "keysync adopt --secret main/alpha-primary-key --replace --yes"
    assert world.run(*shlex.split(command)[1:]).code == 0
    (version,) = world.versions("main", "alpha-primary-key")
    assert without_count(version.tags) == marks("alpha")


def test_adopt_changes_no_other_secret(make_quick_world: MakeWorld) -> None:
    """Apart from the adopted secrets, none is created, updated, enabled, recovered or removed."""
    gone = secret("gamma", tags=marks("gamma", owner="us"))
    theirs = secret("alpha", value=LIVE["primary"])
    stale = secret("alpha", "secondary", value="stale", tags=marks("alpha", "secondary", owner="us"))
    off = secret("beta", enabled=False, tags=marks("beta", owner="us"))
    deleted = secret("beta", "secondary", tags=marks("beta", "secondary", owner="us"))
    world = make_quick_world(
        ALPHA, "beta", "delta", vaults=({"name": "main", "secrets": [gone, theirs, stale, off], "deleted": [deleted]},)
    )
    world.configure(["alpha", "beta", "delta"], owner="us", orphans="delete", recover="owned", disabled="enable")
    done = adopt(world, "--replace", "--yes")
    assert (done.code, done.outcomes()) == (0, {NAME: "adopted"})
    assert writes(world) == 1
    assert world.versions("main", "delta-primary-key") == []
    assert world.versions("main", "alpha-secondary-key")[-1].value == "stale"
    (version,) = world.versions("main", "alpha-primary-key")
    assert without_count(version.tags) == marks("alpha", owner="us")


def test_adopt_setting_adopts_untagged_secrets_with_equal_values(make_quick_world: MakeWorld) -> None:
    """With `adopt: true` on an account, a sync adopts its untagged secrets of equal value, but no others and no other
    account's.
    """
    mine = secret("alpha", value=LIVE["primary"])
    wrong = secret("alpha", "secondary")
    others = secret("beta", value=key("beta-p"))
    marked = secret("delta", value=key("delta-p"), tags={"managed-by": "terraform"})
    beta, delta = (
        {"name": name, "primary": key(f"{name}-p"), "secondary": key(f"{name}-s")} for name in ("beta", "delta")
    )
    world = make_quick_world(ALPHA, beta, delta, vaults=holding(mine, wrong, others, marked))
    only_primary = {"secrets": {"secondary": None}}
    world.configure(
        [
            {"name": "alpha", "adopt": True},
            {"name": "beta", "adopt": False, **only_primary},
            {"name": "delta", **only_primary},
        ],
        adopt=True,
    )
    ran = world.sync()
    assert ran.code == 1
    assert ran.outcomes() == {
        NAME: "adopted",
        "main/alpha-secondary-key": "refused",
        "main/beta-primary-key": "unchanged",
        "main/delta-primary-key": "unchanged",
    }
    assert world.running.do(lambda azure: azure.counts["setSecret"]) == 0
    assert [version.value for version in world.versions("main", "alpha-secondary-key")] == ["by-hand"]
    assert world.versions("main", "beta-primary-key")[0].tags == {}
    assert world.sync().outcomes()[NAME] == "unchanged"


def test_a_new_owner_adopts_managed_secrets_without_an_owner(make_quick_world: MakeWorld) -> None:
    """Secrets from before `owner` was set are kept, with a note. `adopt --yes` adds the owner without a version."""
    world = make_quick_world(ALPHA)
    world.configure(["alpha"])
    assert world.sync().code == 0
    world.configure(["alpha"], owner="us")
    ran = world.sync()
    assert ran.code == 0
    again = [command for item in ran.report["items"] for command in commands(item["reason"])]
    assert again == [f"keysync adopt --secret main/alpha-{key}-key --yes" for key in ("primary", "secondary")]
    for command in again:
        assert world.run(*shlex.split(command)[1:]).code == 0
    (version,) = world.versions("main", "alpha-primary-key")
    assert without_count(version.tags) == marks("alpha", owner="us")
    assert {item["reason"] for item in world.sync().report["items"]} == {None}


def test_a_certificates_secret_is_not_adopted(make_quick_world: MakeWorld) -> None:
    """Even `--replace --yes` leaves it unchanged. As the refusal says, another name in `secrets` serves the account."""
    world = make_quick_world(ALPHA, vaults=holding(secret("alpha", managed=True)))
    world.configure(["alpha"])
    again = adopt(world, "--replace", "--yes")
    assert (again.code, again.outcomes()) == (1, {NAME: "refused"})
    assert "another name in `secrets`" in again.report["items"][0]["reason"]
    assert writes(world) == 0
    world.configure([{"name": "alpha", "secrets": {"primary": "alpha-one", "secondary": "alpha-two"}}])
    assert world.sync().outcomes() == {"main/alpha-one": "created", "main/alpha-two": "created"}


def test_read_only_applies_to_adopt(make_quick_world: MakeWorld) -> None:
    """The kill switch overrides --yes."""
    world = make_quick_world(ALPHA, vaults=holding(secret("alpha")))
    world.configure(["alpha"], read_only=True)
    again = adopt(world, "--replace", "--yes")
    assert (again.code, again.outcomes()) == (0, {NAME: "adopt"})
    assert writes(world) == 0
