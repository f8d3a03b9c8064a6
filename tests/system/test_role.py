"""The command `role`, and whether it grants exactly the actions that keysync uses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.az import run_with_az
from tests.support.azure import GROUP, SUBSCRIPTION
from tests.support.other_writers import arm_id, remove_account
from tests.system.conftest import Ran, World

MakeWorld = Callable[..., World]

PRINCIPAL = "99999999-0000-0000-0000-000000000000"
SUBSCRIPTION_SCOPE = f"/subscriptions/{SUBSCRIPTION}"
SECRETS = "Microsoft.KeyVault/vaults/secrets/"
BATCH = "Microsoft.Batch/batchAccounts/"

# What Azure requires for each operation (learn.microsoft.com/azure/role-based-access-control/permissions), repeated
# here, so that keysync's own table is not compared with itself.
ACTIONS = {
    "getAccount": f"{BATCH}read",
    "listAccounts": f"{BATCH}read",
    "listKeys": f"{BATCH}listKeys/action",
    "getSecret": f"{SECRETS}getSecret/action",
    "setSecret": f"{SECRETS}setSecret/action",
    "updateSecret": f"{SECRETS}update/action",
    "listSecrets": f"{SECRETS}readMetadata/action",
    "listVersions": f"{SECRETS}readMetadata/action",
    "getDeletedSecret": f"{SECRETS}readMetadata/action",
    "listDeletedSecrets": f"{SECRETS}readMetadata/action",
    "recoverSecret": f"{SECRETS}recover/action",
    "deleteSecret": f"{SECRETS}delete",
    "purgeSecret": f"{SECRETS}purge/action",
}
UNGUARDED = {"token", "challenge", "queryResources"}
"""Operations that need no action; Resource Graph returns only resources that the identity can read."""


def granted(world: World) -> dict[str, set[str]]:
    """By scope (a URL for a vault), the actions that `keysync role` grants for the current configuration."""
    ran = world.run("role", "--output", "json")
    assert ran.code == 0, ran.err
    roles = {role["role"]: role["definition"] for role in ran.report["roles"]}
    results: dict[str, set[str]] = {}
    for assignment in ran.report["assignments"]:
        role = roles[assignment["role"]]
        results.setdefault(assignment["scope"] or assignment["vault"], set()).update(
            role["Actions"], role["DataActions"]
        )
    return results


def requested_actions(world: World) -> set[tuple[str, str]]:
    """Every scope and action that the embedded Azure was asked for; a scope is a URL or an ARM id."""
    urls = world.running.azure.endpoints.vaults
    requests = world.running.do(lambda azure: [(request.operation, request.target) for request in azure.requests])
    results = set()
    for operation, target in requests:
        if operation in UNGUARDED:
            continue
        vault = target.partition("/")[0]
        if operation == "listAccounts":
            scope = SUBSCRIPTION_SCOPE if target == SUBSCRIPTION else f"{SUBSCRIPTION_SCOPE}/resourceGroups/{target}"
        else:
            scope = urls[vault] if ACTIONS[operation].startswith(SECRETS) else arm_id(target)
        results.add((scope, ACTIONS[operation]))
    return results


def is_within(used_scope: str, scope: str) -> bool:
    return f"{used_scope}/".startswith(f"{scope}/")


def compare(world: World, grants: dict[str, set[str]]) -> None:
    """Every action that was used is granted, and every granted action was used."""
    done = requested_actions(world)
    missing = {
        (used_scope, action)
        for used_scope, action in done
        if not any(is_within(used_scope, scope) and action in actions for scope, actions in grants.items())
    }
    assert missing == set()
    unused = {
        (scope, action)
        for scope, actions in grants.items()
        for action in actions - {"Microsoft.Resources/subscriptions/read"}
        if not any(is_within(used_scope, scope) and action == used for used_scope, used in done)
    }
    assert unused == set()


def deny_the_rest(world: World, grants: dict[str, set[str]]) -> None:
    """From now on each vault refuses what its roles do not grant, as Azure does."""
    for name, url in world.running.azure.endpoints.vaults.items():
        denied = frozenset(
            operation
            for operation, action in ACTIONS.items()
            if action.startswith(SECRETS) and action not in grants.get(url, set())
        )
        world.running.do(lambda azure, name=name, denied=denied: setattr(azure.state.vault(name), "denied", denied))


def assert_success(ran: Ran) -> None:
    assert ran.code == 0, (ran.out, ran.err)


def a_life(world: World, configure: Callable[..., None]) -> None:
    """Every change of a secret that the settings allow: created, tagged, written again."""
    assert_success(world.run("check"))
    assert_success(world.sync())
    configure(tags={"team": "render"})
    assert_success(world.sync())
    world.running.do(lambda azure: azure.state.regenerate("alpha", "Primary"))
    assert_success(world.sync())


@pytest.mark.parametrize("recover", ["report", "owned"])
def test_the_role_grants_exactly_what_a_run_needs(make_quick_world: MakeWorld, recover: str) -> None:
    """One account and one vault; `recover: owned` needs one more action, which is used."""
    world = make_quick_world("alpha")
    vaults = world.running.azure.endpoints.vaults

    def configure(**more: Any) -> None:
        world.configure(["alpha"], recover=recover, vaults={"main": {"url": vaults["main"], **more}})

    configure()
    grants = granted(world)
    deny_the_rest(world, grants)
    a_life(world, configure)
    if recover == "owned":
        world.running.do(lambda azure: azure.state.vault("main").delete("alpha-primary-key"))
        assert world.sync().outcomes()["main/alpha-primary-key"] == "recovered"
    compare(world, grants)
    assert (f"{SECRETS}recover/action" in grants[vaults["main"]]) == (recover == "owned")


@pytest.mark.parametrize("where", ["all", "vault", "account"])
def test_read_only_needs_no_write_access(make_quick_world: MakeWorld, where: str) -> None:
    """Neither a run nor `check`, for each way to set read-only."""
    world = make_quick_world("alpha")
    url = world.running.azure.endpoints.vaults["main"]
    world.configure(
        [{"name": "alpha", "read_only": where == "account"}],
        vaults={"main": {"url": url, "read_only": where == "vault"}},
        read_only=where == "all",
    )
    grants = granted(world)
    deny_the_rest(world, grants)
    assert_success(world.run("check"))
    assert_success(world.sync())
    compare(world, grants)
    assert grants[url] == {f"{SECRETS}getSecret/action", f"{SECRETS}readMetadata/action"}


@pytest.mark.parametrize("mode", ["disable", "delete"])
def test_the_role_grants_exactly_what_removal_of_orphans_needs(make_quick_world: MakeWorld, mode: str) -> None:
    """In a vault with writes, and in a vault that is no longer written to."""
    world = make_quick_world("alpha", "beta", vaults=("main", "old"))
    more: dict[str, Any] = {"owner": "us", "orphans": mode, "limits": {"removal_percent": 100}}
    world.configure(["alpha", {"name": "beta", "vaults": ["main", "old"]}], owner="us")
    assert_success(world.sync())
    world.running.do(lambda azure: remove_account(azure, "beta"))
    world.running.do(lambda azure: azure.requests.clear())
    urls = world.running.azure.endpoints.vaults

    def configure(**tags: Any) -> None:
        vaults = {"main": {"url": urls["main"], **tags}, "old": {"url": urls["old"]}}
        world.configure(["alpha"], vaults=vaults, **more)

    configure()
    grants = granted(world)
    deny_the_rest(world, grants)
    assert_success(world.run("check"))
    checksum = json.loads(world.run("plan", "--output", "json").out)["checksum"]
    assert sorted(world.sync("--accept", checksum).outcomes().values()).count(f"{mode}d") == 4
    a_life(world, configure)
    compare(world, grants)
    assert grants[SUBSCRIPTION_SCOPE] == {f"{BATCH}read"}


@pytest.mark.parametrize("more", [{}, {"resource_groups": [GROUP]}, {"via": "resource_graph"}])
def test_the_role_grants_exactly_what_discovery_needs(make_quick_world: MakeWorld, more: dict[str, Any]) -> None:
    """By subscription, by resource group and by Resource Graph."""
    world = make_quick_world("alpha", "beta")
    url = world.running.azure.endpoints.vaults["main"]

    def configure(**tags: Any) -> None:
        entry = {"subscription_id": SUBSCRIPTION, "vaults": ["main"], **more}
        world.configure(["alpha"], discover=[entry], vaults={"main": {"url": url, **tags}})

    configure()
    grants = granted(world)
    deny_the_rest(world, grants)
    a_life(world, configure)
    compare(world, grants)
    scope = f"{SUBSCRIPTION_SCOPE}/resourceGroups/{GROUP}" if "resource_groups" in more else SUBSCRIPTION_SCOPE
    assert set(grants) == {scope, url}


# The command


def test_role_makes_no_request(make_world: MakeWorld, tmp_path: Path) -> None:
    """A script on stdout, nothing on stderr, and no request."""
    world = make_world("alpha")
    world.configure(["alpha"], owner="us")
    ran = world.run("role", "--principal-id", PRINCIPAL)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("#!/bin/sh\n")
    assert world.running.do(lambda azure: len(azure.requests)) == 0
    folder = tmp_path / "az"
    folder.mkdir()
    done = run_with_az(
        ran.out, folder, VAULT_ID_1="/subscriptions/t/resourceGroups/g/providers/Microsoft.KeyVault/vaults/v"
    )
    assert (done.code, done.err) == (0, "")
    assert [call[1] for call in done.of("role", "assignment", "create")] == [PRINCIPAL, PRINCIPAL]


@pytest.mark.parametrize(("arguments", "message"), [
    (["--principal-id", "me"], "--principal-id 'me': expected the object ID of an identity, a GUID"),
    (["--principal-id", PRINCIPAL, "--principal-id", PRINCIPAL], "--principal-id: given 2 times, but the configuration has identities: 1"),
    (["--output", "yaml"], "yaml"),
])  # fmt: skip
def test_a_wrong_command_line_exits_with_2(make_world: MakeWorld, arguments: list[str], message: str) -> None:
    """The reason on stderr, and nothing on stdout."""
    world = make_world("alpha")
    world.configure(["alpha"])
    ran = world.run("role", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_a_wrong_configuration_exits_with_2(make_world: MakeWorld) -> None:
    """With file and position, as for other commands."""
    world = make_world("alpha")
    world.configure(["alpha"], owmer="us")
    ran = world.run("role")
    assert (ran.code, ran.out) == (2, "")
    assert "did you mean 'owner'?" in ran.err


def test_the_kill_switch_removes_the_writing_roles(make_world: MakeWorld) -> None:
    """KEYSYNC_READ_ONLY works as in a run, and the output says so."""
    world = make_world("alpha")
    world.configure(["alpha"])
    ran = world.run("role", env={"KEYSYNC_READ_ONLY": "1"})
    assert ran.code == 0
    assert "setSecret" not in ran.out
    assert "`read_only` is set" in ran.out
