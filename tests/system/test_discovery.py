"""`discover` in the commands `accounts`, `sync`, `plan`, `check` and `adopt`."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from keysync.emulator import Fault
from tests.support.azure import GROUP, SUBSCRIPTION
from tests.support.warm_process import WarmKeysync
from tests.system.conftest import Ran, World, clean_environment

MakeWorld = Callable[..., World]

OTHER = "22222222-2222-3333-4444-555555555555"
MISSING_SUBSCRIPTION = "99999999-2222-3333-4444-555555555555"
DENIED = {"operation": "listAccounts", "status": 403, "code": "AuthorizationFailed"}


class WarmWorld(World):
    """A world whose commands start quickly."""

    def __init__(self, world: World, keysync: WarmKeysync) -> None:
        super().__init__(world.running, world.folder)
        self._keysync = keysync

    def run(self, command: str, *arguments: str, env: Mapping[str, str] | None = None) -> Ran:
        """Runs a command with this configuration."""
        done = self._keysync.run(
            [command, "-c", str(self.path), *arguments],
            env={**clean_environment(), **self.running.environ, **(env or {})},
            folder=self.folder,
        )
        return Ran(done.code, done.out, done.err)


@pytest.fixture
def make_world(make_world: MakeWorld, keysync: WarmKeysync) -> MakeWorld:
    """Makes such worlds."""
    return lambda *accounts, **options: WarmWorld(make_world(*accounts, **options), keysync)


def resource_id(name: str, subscription: str = SUBSCRIPTION) -> str:
    return f"/subscriptions/{subscription}/resourceGroups/{GROUP}/providers/Microsoft.Batch/batchAccounts/{name}"


def discover(*subscriptions: str, **more: Any) -> dict[str, Any]:
    return {"subscriptions": list(subscriptions or (SUBSCRIPTION,)), "vaults": ["main"], **more}


def aim(world: World, **fault: Any) -> None:
    world.running.do(lambda azure: azure.faults.add(Fault.model_validate({**DENIED, **fault})))


def states(ran: Ran) -> dict[str, str]:
    return {account["account"]: f"{account['source']} {account['state']}" for account in ran.report["accounts"]}


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """Two subscriptions with one account name in common, and accounts that have no keys."""
    world = make_world(
        "alpha",
        "beta",
        "twin",
        {"name": "nokeys", "allowed_authentication_modes": ["AAD"]},
        {"name": "young", "provisioning_state": "Creating"},
        {"name": "lost", "tags": {"vault": "nope"}},
        {"name": "twin", "subscription_id": OTHER},
        {"name": "gamma", "subscription_id": OTHER, "tags": {"Vault": "second"}},
        vaults=("main", "second"),
    )
    world.configure(["alpha"], discover=[discover(SUBSCRIPTION, OTHER, vaults_by_tag="vault")])
    return world


@pytest.mark.parametrize("via", ["list", "resource_graph"])
def test_accounts_lists_the_covered_accounts(world: World, via: str) -> None:
    """Each account has its source and state. A refused account makes the exit code 1. No key is requested."""
    world.configure(["alpha"], discover=[discover(SUBSCRIPTION, OTHER, vaults_by_tag="vault", via=via)])
    ran = world.run("accounts", "--output", "json")
    assert ran.code == 1
    assert states(ran) == {
        resource_id("alpha"): "listed served",
        resource_id("beta"): "discover[0] served",
        resource_id("gamma", OTHER): "discover[0] served",
        resource_id("twin"): "discover[0] refused",
        resource_id("twin", OTHER): "discover[0] refused",
        resource_id("lost"): "discover[0] refused",
        resource_id("nokeys"): "discover[0] skipped",
        resource_id("young"): "discover[0] skipped",
    }
    gamma = next(account for account in ran.report["accounts"] if account["account"] == resource_id("gamma", OTHER))
    assert gamma["vaults"] == ["second"]
    assert gamma["secrets"] == {"primary": "gamma-primary-key", "secondary": "gamma-secondary-key"}
    assert ran.report["complete"] is True
    assert ran.report["summary"] == {"served": 3, "skipped": 2, "refused": 3}
    assert ran.err == ""
    assert world.running.do(lambda azure: azure.counts["listKeys"]) == 0


def test_accounts_as_a_table(world: World) -> None:
    """One line for each account, one for each reason, and a summary."""
    ran = world.run("accounts")
    assert ran.code == 1
    lines = ran.out.splitlines()
    assert [word for line in lines if line.startswith("gamma") for word in line.split()] == [
        "gamma", OTHER, GROUP, "discover[0]", "second", "gamma-primary-key,", "gamma-secondary-key", "served",
    ]  # fmt: skip
    assert any(line.startswith("skipped young: it is not provisioned") for line in lines)
    assert any(line.startswith("refused lost: its tag vault names the vault 'nope'") for line in lines)
    assert lines[-1] == "accounts: 3 served, 2 skipped, 3 refused"


def test_accounts_are_shown_in_natural_order(make_world: MakeWorld) -> None:
    """farm2 comes before farm10, whatever the order of the file."""
    names = ["farm10", "farm2", "farm1"]
    world = make_world(*names)
    world.configure(names)
    lines = world.run("accounts").out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("farm")] == ["farm1", "farm2", "farm10"]


def test_accounts_without_discovery_makes_no_request(make_world: MakeWorld) -> None:
    """Only listed accounts are covered, and the exit code is 0."""
    world = make_world("alpha")
    world.configure(["alpha"])
    ran = world.run("accounts", "--output", "json")
    assert (ran.code, states(ran)) == (0, {resource_id("alpha"): "listed served"})
    assert world.running.do(lambda azure: sum(azure.counts.values())) == 0
    world.path.write_text("accounts: [")
    assert world.run("accounts").code == 2


def test_a_run_serves_discovered_accounts_and_refuses_conflicts(world: World) -> None:
    """The next run serves new accounts; refused ones are items with a reason."""
    ran = world.sync()
    assert ran.code == 1
    outcomes = ran.outcomes()
    assert outcomes["main/alpha-primary-key"] == outcomes["main/beta-secondary-key"] == "created"
    assert outcomes["second/gamma-primary-key"] == "created"
    refused = [item for item in ran.report["items"] if item["outcome"] == "refused"]
    assert {item["account"] for item in refused} == {resource_id("twin"), resource_id("twin", OTHER)}
    assert all("neither is served" in item["reason"] for item in refused)
    (warning,) = ran.report["warnings"]
    assert warning.startswith(f"{resource_id('lost')} was refused: its tag vault names the vault 'nope'")
    assert world.versions("main", "twin-primary-key") == []
    assert "nokeys" not in ran.out
    assert world.running.do(lambda azure: azure.counts["listKeys"]) == 3


@pytest.mark.parametrize("via", ["list", "resource_graph"])
def test_an_account_whose_last_operation_failed_is_served(make_world: MakeWorld, via: str) -> None:
    """It has keys that clients use. Only accounts that do not exist yet, or no longer exist, are skipped."""
    states = ("Succeeded", "Failed", "Cancelled", "Creating", "Deleting", "Invalid")
    world = make_world(*({"name": state.lower(), "provisioning_state": state} for state in states))
    world.configure([], discover=[discover(via=via)])
    ran = world.sync()
    assert ran.code == 0
    assert ran.outcomes() == {
        f"main/{name}-{key}-key": "created"
        for name in ("succeeded", "failed", "cancelled")
        for key in ("primary", "secondary")
    }


def test_an_account_that_was_moved_is_refused_before_its_next_regeneration(make_world: MakeWorld) -> None:
    """Its secrets have the right values but carry its former id. The first run says so, and the suggested command
    resolves it.
    """
    world = make_world("alpha", "beta")
    world.configure([], discover=[discover()])
    assert world.sync().code == 0
    world.running.do(lambda azure: azure.state.move("alpha", "elsewhere"))
    moved = resource_id("alpha").replace(GROUP, "elsewhere")
    for ran in (world.sync(), world.run("plan", "--output", "json")):
        assert ran.code == 1
        assert ran.outcomes()["main/beta-primary-key"] == "unchanged"
        items = [item for item in ran.report["items"] if item["account"] == moved]
        assert [item["outcome"] for item in items] == ["refused", "refused"]
        for item in items:
            assert item["reason"].startswith(
                f"the account was moved: the value is right, but the secret is tagged for '{resource_id('alpha')}'"
            )
            assert item["reason"].endswith(f"adopt -c {world.path} --secret main/{item['secret']} --replace --yes")
    for key in ("primary", "secondary"):
        secret = f"main/alpha-{key}-key"
        assert world.run("adopt", "--secret", secret, "--replace", "--yes", "--output", "json").code == 0
    assert len(world.versions("main", "alpha-primary-key")) == 1
    world.running.do(lambda azure: azure.state.regenerate("alpha", "Primary"))
    ran = world.sync()
    assert (ran.code, ran.outcomes()["main/alpha-primary-key"]) == (0, "updated")


def test_a_listed_account_that_moved_to_another_group_is_reported_with_its_new_id(make_world: MakeWorld) -> None:
    """The entry under `accounts` no longer exists, and the discovered account is refused. The reason says what to
    change.
    """
    world = make_world("alpha")
    world.configure(["alpha"], discover=[discover()])
    assert world.sync().code == 0
    world.running.do(lambda azure: azure.state.move("alpha", "elsewhere"))
    ran = world.sync()
    assert ran.code == 1
    by_account = {item["account"]: item for item in ran.report["items"]}
    assert by_account[resource_id("alpha")]["error"]["http_status"] == 404
    results = by_account[resource_id("alpha").replace(GROUP, "elsewhere")]
    assert results["outcome"] == "refused"
    assert "If it is the same account and was moved, change its id under `accounts`" in results["reason"]


def test_secrets_of_a_skipped_account_are_a_warning_in_the_orphan_search(make_world: MakeWorld) -> None:
    """A one-off run keeps no state, but the vault does."""
    world = make_world("alpha", "beta", {"name": "nokeys", "allowed_authentication_modes": ["AAD"]})
    world.configure([], discover=[discover()], **orphan_rules())
    assert world.sync().report["warnings"] == []
    world.running.do(lambda azure: setattr(azure.state.account("alpha"), "provisioning_state", "Deleting"))
    ran = world.sync()
    (warning,) = ran.report["warnings"]
    prefix = f"vault main: the secrets of {resource_id('alpha')} are not kept in sync, since the account is not served"
    assert warning == f"{prefix}: it is not provisioned: its state is Deleting"


def test_a_clean_fleet_is_0_and_plan_and_adopt_see_it(make_world: MakeWorld) -> None:
    """`plan --exit-code` reports what a new account needs; `--account` and `--shard` also select among discovered
    accounts.
    """
    world = make_world("alpha", "beta", "gamma")
    world.configure([], discover=[discover()])
    plan = world.run("plan", "--exit-code", "--output", "json", "--account", "BETA")
    assert (plan.code, set(plan.outcomes().values())) == (3, {"create"})
    assert len(plan.report["items"]) == 2
    parts = [world.sync("--shard", f"{index}/2") for index in range(2)]
    assert [part.code for part in parts] == [0, 0]
    done = [item["account"] for part in parts for item in part.report["items"]]
    assert sorted(done) == sorted(2 * [resource_id(name) for name in ("alpha", "beta", "gamma")])
    assert world.sync().report["summary"]["unchanged"] == 6
    adopt = world.run("adopt", "--output", "json")
    assert (adopt.code, adopt.report["items"]) == (0, [])
    missing = world.sync("--account", "delta")
    assert missing.code == 2
    assert "--account delta: no such account in the configuration, which has alpha, beta, gamma" in missing.err


def test_an_incomplete_listing_serves_the_accounts_it_returned(world: World) -> None:
    """Exit code 1, the CloudError in the log, a warning with the scope and the fix. Everything else is synced."""
    aim(world, target=OTHER)
    ran = world.sync()
    assert ran.code == 1
    assert ran.outcomes()["main/beta-primary-key"] == "created"
    assert ran.outcomes()["main/twin-primary-key"] == "created"
    (warning,) = [warning for warning in ran.report["warnings"] if OTHER in warning]
    assert "was not listed completely" in warning
    assert "Microsoft.Batch/batchAccounts/read" in warning
    (record,) = [line for line in ran.log if line["event"] == "discovery.incomplete"]
    assert (record["level"], record["http_status"]) == ("error", 403)
    assert record["cloud_error"]["code"] == "AuthorizationFailed"
    assert record["scope"] == f"/subscriptions/{OTHER}"
    listed = world.run("accounts", "--output", "json")
    assert (listed.code, listed.report["complete"]) == (1, False)
    assert listed.report["problems"][0]["error"]["cloud_error"]["code"] == "AuthorizationFailed"
    assert "; not all could be listed" in world.run("accounts").out
    unsure = world.sync("--account", "gamma")
    assert unsure.code == 1
    assert any("--account gamma: not found" in warning for warning in unsure.report["warnings"])


@pytest.mark.parametrize(
    ("entry", "scope", "code"),
    [
        (discover(MISSING_SUBSCRIPTION), f"/subscriptions/{MISSING_SUBSCRIPTION}", "SubscriptionNotFound"),
        (
            discover(resource_groups=["nope"]),
            f"/subscriptions/{SUBSCRIPTION}/resourceGroups/nope",
            "ResourceGroupNotFound",
        ),
        (discover(MISSING_SUBSCRIPTION, via="resource_graph"), f"/subscriptions/{MISSING_SUBSCRIPTION}", "BadRequest"),
    ],
)
def test_a_missing_scope_fails_only_its_entry(make_world: MakeWorld, entry: Any, scope: str, code: str) -> None:
    """Other entries and listed accounts are still served."""
    world = make_world("alpha", "beta")
    world.configure(["alpha"], discover=[entry, discover(name="b*")])
    ran = world.sync()
    assert ran.code == 1
    assert set(ran.outcomes().values()) == {"created"}
    assert len(ran.outcomes()) == 4
    (record,) = [line for line in ran.log if line["event"] == "discovery.incomplete"]
    assert (record["entry"], record["scope"], record["cloud_error"]["code"]) == (0, scope, code)


def test_a_filter_that_matches_nothing_is_a_warning_that_names_it(make_world: MakeWorld) -> None:
    """All existing accounts are served, so the exit code is 0."""
    world = make_world("alpha")
    world.configure(["alpha"], discover=[discover(name="x*"), discover(tags={"a": "b"}), discover(exclude=["y?"])])
    ran = world.sync()
    assert ran.code == 0
    assert [warning.partition(":")[0] for warning in ran.report["warnings"]] == [
        "discover[0].name", "discover[1].tags", "discover[2].exclude",
    ]  # fmt: skip
    assert "discover[0].name: 'x*' matches none of the 1 accounts there" in world.run("accounts").out


def test_check_reports_the_findings_of_discovery(world: World) -> None:
    """Refused accounts and scopes that cannot be listed are problems; accounts without keys are not."""
    aim(world, target=OTHER)
    ran = world.run("check", "--output", "json")
    assert ran.code == 1
    results = {(item["level"], item["subject"]): item for item in ran.report["findings"]}
    failed = results["problem", f"discover[0] /subscriptions/{OTHER}"]
    assert "Microsoft.Batch/batchAccounts/read" in failed["hint"]
    assert ("problem", "account lost") in results
    assert ("warning", "account nokeys") in results
    assert ("ok", "account beta") in results


def orphan_rules(**more: Any) -> dict[str, Any]:
    return {"owner": "here", "orphans": "delete", "limits": {"removal_percent": 100}, **more}


def test_nothing_is_removed_while_a_listing_is_incomplete(make_world: MakeWorld) -> None:
    """Not even a proven orphan, because the other subscription could not be listed."""
    world = make_world("alpha", "beta", {"name": "gamma", "subscription_id": OTHER})
    entries = {"discover": [discover(SUBSCRIPTION, OTHER)]}
    world.configure([], **entries, **orphan_rules())
    assert world.sync().code == 0
    world.running.do(lambda azure: azure.state.by_subscription[SUBSCRIPTION].pop())
    world.running.do(lambda azure: azure.state.accounts.pop(resource_id("beta").lower()))
    aim(world, target=OTHER)
    ran = world.sync()
    assert ran.code == 1
    assert not {"delete", "deleted", "failed"} & set(ran.outcomes().values())
    assert any(
        "orphans: not every account could be listed: nothing is removed" in warning
        for warning in ran.report["warnings"]
    )
    world.running.do(lambda azure: azure.faults.clear())
    plan = world.run("plan", "--output", "json")
    assert plan.outcomes()["main/beta-primary-key"] == "delete"
    assert plan.outcomes()["main/gamma-primary-key"] == "unchanged"


def test_secrets_of_skipped_accounts_are_no_orphans(make_world: MakeWorld) -> None:
    """Secrets of an account that no longer has keys, or of two conflicting accounts, are kept; those of an excluded
    account are orphans.
    """
    world = make_world("alpha", "beta", "gamma", {"name": "delta", "subscription_id": OTHER})
    world.configure([], discover=[discover(SUBSCRIPTION, OTHER)], **orphan_rules())
    assert world.sync().code == 0
    world.running.do(lambda azure: setattr(azure.state.account("alpha"), "pool_allocation_mode", "UserSubscription"))
    names = {"primary": "{account}-primary-key", "secondary": None}
    world.configure(
        [{"name": "other", "secrets": {"primary": "delta-primary-key", "secondary": None}}],
        discover=[discover(SUBSCRIPTION, OTHER, exclude=["gamma"], secrets=names)],
        **orphan_rules(),
    )
    plan = world.run("plan", "--output", "json")
    removed = {secret for secret, outcome in plan.outcomes().items() if outcome == "delete"}
    assert removed == {"main/beta-secondary-key", "main/gamma-primary-key", "main/gamma-secondary-key"}


@pytest.mark.parametrize("command", ["sync", "accounts"])
def test_an_interrupted_listing_ends_the_command(make_world: MakeWorld, command: str) -> None:
    """SIGINT while a list request hangs: exit code 130 and a report that says that it is incomplete."""
    world = make_world("alpha")
    world.configure([], discover=[discover()])
    aim(world, kind="hang")
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "keysync", command, "-c", str(world.path), "--output", "json"],
        env={**clean_environment(), **world.running.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 20
    while not world.running.do(lambda azure: azure.counts["listAccounts"]) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "interrupted before the accounts were listed" in out


def test_no_key_is_in_any_output_of_a_listing(world: World) -> None:
    """Neither in the table, nor in the JSON report, nor in the debug log."""
    keys = [key for name in ("alpha", "beta", "gamma") for key in world.running.do(lambda azure, name=name: azure.state.keys(name))]  # fmt: skip
    for arguments in (("accounts", "--output", "json"), ("accounts",), ("sync", "--output", "json")):
        ran = world.run(*arguments, "--log-level", "debug")
        assert "beta" in ran.out
        assert not any(key in ran.out + ran.err for key in keys)
