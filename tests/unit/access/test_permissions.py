"""What a configuration needs: each account and vault reached by exactly one assignment of its identity, none within another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysync.access.permissions import ROLES, Grant, covering, is_written, permissions_of
from keysync.azure import hints
from keysync.config.settings import Account, Config, Discover
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


def told(made: Config) -> set[tuple[str, str, str]]:
    """Grants as place, role and scope."""
    return {(grant.identity.place, grant.role, grant.scope) for grant in permissions_of(made)}


def entry(**more: Any) -> dict[str, Any]:
    return {"subscription_id": SUBSCRIPTIONS[0], "vaults": ["main"], **more}


ALPHA = f"{ONE}/resourceGroups/render/providers/Microsoft.Batch/batchAccounts/alpha"


def test_a_plain_configuration_needs_two_roles() -> None:
    """Keys of the account, secrets of the vault; with `recover: owned` one that recovers in place of the latter."""
    assert told(config()) == {("credential", "batch_keys", ALPHA), ("credential", "sync_secrets", URL)}
    assert ("credential", "recover_secrets", URL) in told(config(recover="owned"))


@pytest.mark.parametrize("where", ["all", "vault", "account"])
def test_what_is_read_only_is_read(where: str) -> None:
    """However it is said: keys are still compared, and nothing lets keysync write, nor recover."""
    made = config(recover="owned")
    places = {
        "all": {"read_only": True},
        "vault": {"vaults": {"main": replace(made.vaults["main"], read_only=True)}},
        "account": {"accounts": (replace(made.accounts[0], read_only=True),)},
    }
    assert told(replace(made, **places[where])) == {
        ("credential", "batch_keys", ALPHA),
        ("credential", "read_secrets", URL),
    }


def test_one_account_that_writes_is_enough_for_a_vault_to_be_written() -> None:
    """A vault is one scope, whoever uses it."""
    made = config(discover=[entry(read_only=True)])
    assert is_written(made, "main")
    assert ("credential", "sync_secrets", URL) in told(made)


@pytest.mark.parametrize(("more", "scopes"), [
    ({}, [ONE]),
    ({"resource_groups": ["render", "RENDER", "west"]}, [f"{ONE}/resourceGroups/render", f"{ONE}/resourceGroups/west"]),
])  # fmt: skip
def test_discovery_needs_what_it_lists_and_accounts_within_need_no_more(
    more: dict[str, Any], scopes: list[str]
) -> None:
    """The subscription, or its groups; `alpha` is in both."""
    found = [scope for _, role, scope in told(config(discover=[entry(**more)])) if role == "batch_keys"]
    assert sorted(found) == sorted(scopes)


def test_an_account_of_another_identity_needs_its_own_assignment() -> None:
    """What one identity may do on a subscription helps no other."""
    made = config(discover=[entry(credential={"type": "managed_identity"})])
    assert told(made) >= {("credential", "batch_keys", ALPHA), ("discover[0].credential", "batch_keys", ONE)}


def test_resource_graph_needs_to_see_the_subscription() -> None:
    """Else one without Batch accounts looks like one that is not shown."""
    assert ("credential", "subscriptions", ONE) in told(
        config(discover=[entry(via="resource_graph", resource_groups=["a"])])
    )
    assert not [role for _, role, _ in told(config(discover=[entry()])) if role == "subscriptions"]


def test_a_tag_may_name_any_vault() -> None:
    """So each is written."""
    vaults = {"main": {"url": URL}, "second": {"url": "https://kv-2.vault.azure.net"}, "seen": {"url": "https://kv-3.vault.azure.net", "read_only": True}}  # fmt: skip
    made = config(vaults=vaults, discover=[entry(vaults_by_tag="vault")])
    assert {role: scope for _, role, scope in told(made) if "secrets" in role and scope != URL} == {
        "sync_secrets": vaults["second"]["url"],
        "read_secrets": vaults["seen"]["url"],
    }


def test_a_vault_that_nothing_uses_needs_nothing() -> None:
    """Unless orphans are looked for there."""
    vaults = {"main": {"url": URL}, "old": {"url": "https://kv-old.vault.azure.net"}}
    old = vaults["old"]["url"]
    assert {scope for _, _, scope in told(config(vaults=vaults))} == {ALPHA, URL}
    kept = {role for _, role, scope in told(config(vaults=vaults, owner="us", orphans="disable")) if scope == old}
    assert kept == {"read_secrets", "disable"}


def test_removal_of_orphans_stands_apart() -> None:
    """Deleting is a role of its own; disabling needs none where secrets are written; both need to see what accounts there are."""
    proof = ("credential", "see_accounts", ONE)
    extra = told(config(owner="us", orphans="delete")) - told(config(owner="us"))
    assert extra == {proof, ("credential", "delete", URL)}
    assert told(config(owner="us", orphans="disable")) - told(config(owner="us")) == {proof}
    listed = told(config(owner="us", orphans="delete", discover=[entry()]))
    assert proof not in listed  # whoever lists the subscription sees them
    assert not [role for _, role, _ in told(config(owner="us", orphans="delete", read_only=True)) if role == "delete"]


def test_two_names_of_one_vault_are_one() -> None:
    """The one that is written wins."""
    vaults = {"seen": {"url": URL, "read_only": True}, "main": {"url": f"{URL}/"}}
    account = {"subscription_id": SUBSCRIPTIONS[0], "resource_group": "render", "name": "beta", "vaults": ["seen"]}
    made = config(vaults=vaults, accounts=[account, {**account, "name": "alpha", "vaults": ["main"]}])
    assert [grant.role for grant in permissions_of(made) if grant.is_vault] == ["sync_secrets"]


def test_every_action_that_a_hint_names_is_in_a_role() -> None:
    """What an operator is told to grant is what `keysync role` grants."""
    known = {action for role in ROLES.values() for action in (*role.actions, *role.data_actions)}
    assert {
        *hints._BATCH_ACTIONS.values(),
        *(hints._SECRETS + action for action, _ in hints._SECRET_RIGHTS.values()),
    } <= known


def test_covering_goes_by_whole_segments() -> None:
    """A group is not within another because its name begins like it; a vault is within nothing."""
    scopes = [
        "/subscriptions/a/resourceGroups/r",
        "/subscriptions/a/resourceGroups/rr",
        "https://v",
        "/subscriptions/A/resourcegroups/R/x/y",
    ]
    assert covering(scopes) == tuple(scopes[:3])


# Whatever the configuration

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
    accounts = draw(st.lists(ACCOUNTS, max_size=5, unique_by=lambda one: (one["subscription_id"], one["name"])))
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


def needed(made: Config) -> Iterator[tuple[Any, str]]:
    """Whose keys are listed by whom: credential and scope."""
    for one in (*made.accounts, *made.discover):
        credential = one.credential or made.credential
        if isinstance(one, Account):
            yield credential, one.resource_id
        elif isinstance(one, Discover):
            for subscription in one.scopes:
                whole = f"/subscriptions/{subscription}"
                yield from ((credential, f"{whole}/resourceGroups/{group}") for group in one.resource_groups)
                if not one.resource_groups:
                    yield credential, whole


@given(configs())
def test_each_thing_is_reached_once_and_nothing_more(made: Config) -> None:
    """For each identity and role: every scope that is needed is within exactly one, and every one is needed."""
    grants = permissions_of(made)
    wanted = list(needed(made))
    keys = [grant for grant in grants if grant.role == "batch_keys"]
    for credential, scope in wanted:
        assert sum(one.identity.credential == credential and is_within(scope, one.scope) for one in keys) == 1
    for grant in keys:
        assert any(
            credential == grant.identity.credential and scope.lower() == grant.scope.lower()
            for credential, scope in wanted
        )
    assert len(set(grants)) == len(grants)
    for one in grants:
        assert not [two for two in grants if two != one and _same_role(one, two) and is_within(one.scope, two.scope)]
    for name, vault in made.vaults.items():
        served = any(
            name in one.vaults or getattr(one, "vaults_by_tag", None) for one in (*made.accounts, *made.discover)
        )
        roles = [grant.role for grant in grants if grant.scope == vault.url and not ROLES[grant.role].for_orphans]
        assert len(roles) == (1 if served or made.orphans != "keep" else 0)
        writing = {action for grant in grants if grant.scope == vault.url for action in ROLES[grant.role].data_actions}
        if made.read_only or vault.read_only:
            assert writing <= {f"{SECRETS}getSecret/action", f"{SECRETS}readMetadata/action"}


def _same_role(one: Grant, two: Grant) -> bool:
    return (one.identity, one.role) == (two.identity, two.role)
