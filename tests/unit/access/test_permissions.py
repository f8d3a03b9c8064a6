"""Grants of a configuration: exactly one assignment covers each account and vault, and none lies within another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysync.access.permissions import ROLES, Grant, covering, is_written, permissions_of
from keysync.azure import hints
from keysync.config.model import Account, Config, Discover
from tests.support.settings import config_of

SUBSCRIPTIONS = [f"{digit * 8}-0000-0000-0000-000000000000" for digit in "12"]
GROUPS = ["render", "Render.East", "other"]
ONE = f"/subscriptions/{SUBSCRIPTIONS[0]}"
URL = "https://kv-render.vault.azure.net"
CREDENTIALS: list[dict[str, str] | None] = [None, {"type": "default"}, {"type": "managed_identity", "client_id": "m"}]
SECRETS = "Microsoft.KeyVault/vaults/secrets/"


def config(**more: Any) -> Config:
    account = {"subscription_id": SUBSCRIPTIONS[0], "resource_group": "render", "name": "alpha", "vaults": ["main"]}
    return config_of({"vaults": {"main": {"url": URL}}, "accounts": [account], **more})


def grants_of(configuration: Config) -> set[tuple[str, str, str]]:
    """Grants as configuration key, role and scope."""
    return {(grant.identity.config_key, grant.role, grant.scope) for grant in permissions_of(configuration)}


def entry(**more: Any) -> dict[str, Any]:
    return {"subscription_id": SUBSCRIPTIONS[0], "vaults": ["main"], **more}


ALPHA = f"{ONE}/resourceGroups/render/providers/Microsoft.Batch/batchAccounts/alpha"


def test_simple_configuration_needs_two_roles() -> None:
    """One for keys of the account, one for secrets of the vault. `recover: owned` replaces the latter."""
    assert grants_of(config()) == {("credential", "batch_keys", ALPHA), ("credential", "sync_secrets", URL)}
    assert ("credential", "recover_secrets", URL) in grants_of(config(recover="owned"))


@pytest.mark.parametrize("level", ["all", "vault", "account"])
def test_read_only_needs_no_write_permission(level: str) -> None:
    """At any level: keys are still compared, but no role lets keysync write or recover."""
    configuration = config(recover="owned")
    changes: dict[str, dict[str, Any]] = {
        "all": {"read_only": True},
        "vault": {"vaults": {"main": replace(configuration.vaults["main"], read_only=True)}},
        "account": {"accounts": (replace(configuration.accounts[0], read_only=True),)},
    }
    assert grants_of(replace(configuration, **changes[level])) == {
        ("credential", "batch_keys", ALPHA),
        ("credential", "read_secrets", URL),
    }


def test_one_writing_account_makes_a_vault_written() -> None:
    """A vault is one scope for all its users."""
    configuration = config(discover=[entry(read_only=True)])
    assert is_written(configuration, "main")
    assert ("credential", "sync_secrets", URL) in grants_of(configuration)


@pytest.mark.parametrize(("more", "scopes"), [
    ({}, [ONE]),
    ({"resource_groups": ["render", "RENDER", "west"]}, [f"{ONE}/resourceGroups/render", f"{ONE}/resourceGroups/west"]),
])  # fmt: skip
def test_discovery_covers_the_accounts_within(more: dict[str, Any], scopes: list[str]) -> None:
    """It needs the subscription or its resource groups. `alpha` is in both."""
    found = [scope for _, role, scope in grants_of(config(discover=[entry(**more)])) if role == "batch_keys"]
    assert sorted(found) == sorted(scopes)


def test_account_with_another_identity_needs_its_own_assignment() -> None:
    """Permissions of one identity do not help another."""
    configuration = config(discover=[entry(credential={"type": "managed_identity"})])
    assert grants_of(configuration) >= {
        ("credential", "batch_keys", ALPHA),
        ("discover[0].credential", "batch_keys", ONE),
    }


def test_resource_graph_needs_to_read_the_subscription() -> None:
    """Otherwise a subscription without Batch accounts looks like one without access."""
    assert ("credential", "subscriptions", ONE) in grants_of(
        config(discover=[entry(via="resource_graph", resource_groups=["a"])])
    )
    assert not [role for _, role, _ in grants_of(config(discover=[entry()])) if role == "subscriptions"]


def test_vaults_by_tag_may_use_any_vault() -> None:
    """So each vault needs write permissions."""
    vaults = {"main": {"url": URL}, "second": {"url": "https://kv-2.vault.azure.net"}, "seen": {"url": "https://kv-3.vault.azure.net", "read_only": True}}  # fmt: skip
    configuration = config(vaults=vaults, discover=[entry(vaults_by_tag="vault")])
    assert {role: scope for _, role, scope in grants_of(configuration) if "secrets" in role and scope != URL} == {
        "sync_secrets": vaults["second"]["url"],
        "read_secrets": vaults["seen"]["url"],
    }


def test_unused_vault_needs_no_role() -> None:
    """Unless it is searched for orphans."""
    vaults = {"main": {"url": URL}, "old": {"url": "https://kv-old.vault.azure.net"}}
    old = vaults["old"]["url"]
    assert {scope for _, _, scope in grants_of(config(vaults=vaults))} == {ALPHA, URL}
    kept = {role for _, role, scope in grants_of(config(vaults=vaults, owner="us", orphans="disable")) if scope == old}
    assert kept == {"read_secrets", "disable"}


def test_removal_of_orphans_has_separate_roles() -> None:
    """Deleting has its own role. Disabling needs none if secrets are written. Both need to read the accounts."""
    proof = ("credential", "see_accounts", ONE)
    extra = grants_of(config(owner="us", orphans="delete")) - grants_of(config(owner="us"))
    assert extra == {proof, ("credential", "delete", URL)}
    assert grants_of(config(owner="us", orphans="disable")) - grants_of(config(owner="us")) == {proof}
    listed = grants_of(config(owner="us", orphans="delete", discover=[entry()]))
    assert proof not in listed  # discovery already reads the subscription
    assert not [
        role for _, role, _ in grants_of(config(owner="us", orphans="delete", read_only=True)) if role == "delete"
    ]


def test_two_names_of_one_vault_are_one_scope() -> None:
    """The stronger role applies."""
    vaults = {"seen": {"url": URL, "read_only": True}, "main": {"url": f"{URL}/"}}
    account = {"subscription_id": SUBSCRIPTIONS[0], "resource_group": "render", "name": "beta", "vaults": ["seen"]}
    configuration = config(vaults=vaults, accounts=[account, {**account, "name": "alpha", "vaults": ["main"]}])
    assert [grant.role for grant in permissions_of(configuration) if grant.is_vault] == ["sync_secrets"]


def test_roles_contain_every_action_of_hints() -> None:
    """`keysync role` grants the actions that hints tell an operator to grant."""
    known = {action for role in ROLES.values() for action in (*role.actions, *role.data_actions)}
    assert {
        *hints.ACTIONS.values(),
        *(hints.DATA_ACTION_PREFIX + action for action, _ in hints.RIGHTS.values()),
    } <= known


def test_covering_compares_whole_segments() -> None:
    """A group with a longer name is not within another. A vault is within nothing."""
    scopes = [
        "/subscriptions/a/resourceGroups/r",
        "/subscriptions/a/resourceGroups/rr",
        "https://v",
        "/subscriptions/A/resourcegroups/R/x/y",
    ]
    assert covering(scopes) == tuple(scopes[:3])


# Any configuration

ACCOUNTS = st.fixed_dictionaries({
    "subscription_id": st.sampled_from(SUBSCRIPTIONS),
    "resource_group": st.sampled_from([*GROUPS, "RENDER"]),
    "name": st.sampled_from(["alpha", "beta", "gamma"]),
    "vaults": st.lists(st.sampled_from(["main", "second"]), min_size=1, unique=True),
    "credential": st.sampled_from(CREDENTIALS),
    "read_only": st.booleans(),
    "secrets": st.just({"primary": "{subscription_id}-{account}", "secondary": None}),
})  # fmt: skip
ENTRIES = st.fixed_dictionaries({
    "subscriptions": st.lists(st.sampled_from(SUBSCRIPTIONS), min_size=1, unique=True),
    "resource_groups": st.lists(st.sampled_from([*GROUPS, "RENDER"]), max_size=3),
    "vaults": st.just(["main"]),
    "vaults_by_tag": st.sampled_from([None, "vault"]),
    "credential": st.sampled_from(CREDENTIALS),
    "via": st.sampled_from(["list", "resource_graph"]),
    "read_only": st.booleans(),
})  # fmt: skip
VAULTS = st.fixed_dictionaries({"credential": st.sampled_from(CREDENTIALS), "read_only": st.booleans()})


@st.composite
def configs(draw: st.DrawFn) -> Config:
    accounts = draw(
        st.lists(ACCOUNTS, max_size=5, unique_by=lambda account: (account["subscription_id"], account["name"]))
    )
    return config_of({
        "vaults": {"main": {"url": URL, **draw(VAULTS)}, "second": {"url": "https://kv-2.vault.azure.net", **draw(VAULTS)}},
        "accounts": accounts,
        "discover": draw(st.lists(ENTRIES, min_size=0 if accounts else 1, max_size=3)),
        "owner": "us",
        "orphans": draw(st.sampled_from(["keep", "disable", "delete"])),
        "recover": draw(st.sampled_from(["report", "owned"])),
        "read_only": draw(st.booleans()),
    })  # fmt: skip


def is_within(scope: str, other: str) -> bool:
    return scope.lower() == other.lower() or scope.lower().startswith(f"{other.lower()}/")


def needed(configuration: Config) -> Iterator[tuple[Any, str]]:
    """Each credential that lists keys, with the scope."""
    for source in (*configuration.accounts, *configuration.discover):
        credential = source.credential or configuration.credential
        if isinstance(source, Account):
            yield credential, source.resource_id
        elif isinstance(source, Discover):
            for subscription in source.scopes:
                whole = f"/subscriptions/{subscription}"
                yield from ((credential, f"{whole}/resourceGroups/{group}") for group in source.resource_groups)
                if not source.resource_groups:
                    yield credential, whole


@given(configs())
def test_each_scope_is_covered_once_and_no_other(configuration: Config) -> None:
    """For each identity and role, exactly one grant covers each needed scope, and every grant is needed."""
    grants = permissions_of(configuration)
    wanted = list(needed(configuration))
    keys = [grant for grant in grants if grant.role == "batch_keys"]
    for credential, scope in wanted:
        assert sum(grant.identity.credential == credential and is_within(scope, grant.scope) for grant in keys) == 1
    for grant in keys:
        assert any(
            credential == grant.identity.credential and scope.lower() == grant.scope.lower()
            for credential, scope in wanted
        )
    assert len(set(grants)) == len(grants)
    for grant, other in permutations(grants, 2):
        assert not (_same_role(grant, other) and is_within(grant.scope, other.scope))
    for name, vault in configuration.vaults.items():
        served = any(
            name in user.vaults or getattr(user, "vaults_by_tag", None)
            for user in (*configuration.accounts, *configuration.discover)
        )
        roles = [grant.role for grant in grants if grant.scope == vault.url and not ROLES[grant.role].for_orphans]
        assert len(roles) == (1 if served or configuration.orphans != "keep" else 0)
        writing = {action for grant in grants if grant.scope == vault.url for action in ROLES[grant.role].data_actions}
        if configuration.read_only or vault.read_only:
            assert writing <= {f"{SECRETS}getSecret/action", f"{SECRETS}readMetadata/action"}


def _same_role(grant: Grant, other: Grant) -> bool:
    return (grant.identity, grant.role) == (other.identity, other.role)
