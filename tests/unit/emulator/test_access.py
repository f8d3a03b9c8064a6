"""Decisions about access, from roles, deny assignments and access policies."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from keysync.emulator import AccountData, EmulatorData, VaultData, load_data
from keysync.emulator.access import Access
from keysync.emulator.conditions import secret_attributes
from keysync.emulator.directory import Directory
from keysync.emulator.identity_data import (
    AccessPolicyData,
    DenyAssignmentData,
    IdentityData,
    RoleData,
    RoleDefinitionData,
)
from keysync.emulator.roles import RoleAssignment
from keysync.emulator.state import State
from keysync.emulator.tokens import Token
from tests.unit.emulator.conftest import SUB, Clock

SUBSCRIPTION = f"/subscriptions/{SUB}"
ACCOUNT = f"{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Batch/batchAccounts/acct"
LIST_KEYS = "Microsoft.Batch/batchAccounts/listKeys/action"
GET, SET = (f"Microsoft.KeyVault/vaults/secrets/{end}Secret/action" for end in ("get", "set"))


class World:
    """State and decisions for some identities."""

    def __init__(self, *identities, **fields):
        self.clock = Clock()
        account = AccountData(subscription_id=SUB, resource_group="rg", name="acct")
        vaults = fields.pop("vaults", [VaultData(name="kv-a")])
        self.data = EmulatorData(accounts=[account], vaults=vaults, identities=list(identities), **fields)
        self.state = State(self.data, self.clock)
        self.access = Access(self.state.roles, Directory(self.data.principals, self.data.tenant_id, ()))
        self.vault = self.state.vault("kv-a")

    def token(self, name):
        identity = next(each for each in self.data.principals if each.name == name)
        return Token("aud", self.data.tenant_id, identity.client_id, identity.object_id, 0.0)

    def decide(self, name, action, scope, **more):
        return self.access.decide(self.token(name), action, scope, **more)

    def may(self, name, action, scope, **more):
        return self.decide(name, action, scope, **more).allowed


def identity(name="sync", *roles):
    return IdentityData(name=name, roles=[RoleData(**role) for role in roles])


def test_without_identities_everything_is_allowed():
    """To the application and to the user."""
    world = World()
    for principal in world.data.principals:
        assert world.may(principal.name, LIST_KEYS, ACCOUNT)
        assert world.may(principal.name, GET, world.vault.id, data=True)


@pytest.mark.parametrize(
    ("role", "scope", "action", "target", "data", "allowed"),
    [
        ("Owner", "/", LIST_KEYS, ACCOUNT, False, True),
        ("Owner", "/", GET, "kv-a", True, False),
        ("Reader", SUBSCRIPTION, "Microsoft.Batch/batchAccounts/read", ACCOUNT, False, True),
        ("Reader", SUBSCRIPTION, LIST_KEYS, ACCOUNT, False, False),
        ("Contributor", "/", "Microsoft.Authorization/roleAssignments/write", ACCOUNT, False, False),
        ("azure batch account contributor", "acct", LIST_KEYS, ACCOUNT.upper(), False, True),
        ("Azure Batch Account Contributor", "kv-a", LIST_KEYS, ACCOUNT, False, False),
        ("Key Vault Secrets User", "kv-a", GET, "kv-a", True, True),
        ("Key Vault Secrets User", "kv-a", SET, "kv-a", True, False),
        ("Key Vault Secrets Officer", f"{SUBSCRIPTION}/resourcegroups/RG", SET, "kv-a", True, True),
        ("Key Vault Secrets Officer", f"{SUBSCRIPTION}/resourcegroups/r", SET, "kv-a", True, False),
    ],
)
def test_a_role_allows_its_actions_in_its_scope(role, scope, action, target, data, allowed):
    """Scopes and actions are compared without regard to case; data actions are apart."""
    world = World(identity("sync", {"role": role, "scope": scope}))
    target = world.vault.id if target == "kv-a" else target
    assert world.may("sync", action, target, data=data) is allowed


def test_a_custom_role_and_its_condition():
    """The condition compares the name of the secret."""
    condition = "@Resource[Microsoft.KeyVault/vaults/secrets:name] StringStartsWith 'acct-'"
    role = RoleDefinitionData(
        name="write", data_actions=["Microsoft.KeyVault/vaults/secrets/*"], not_data_actions=[GET]
    )
    world = World(identity("sync", {"role": "write", "scope": "kv-a", "condition": condition}), role_definitions=[role])
    named = {"@resource[microsoft.keyvault/vaults/secrets:name]": "acct-key"}
    assert world.may("sync", SET, world.vault.id, data=True, attributes=named)
    assert not world.may("sync", GET, world.vault.id, data=True, attributes=named)
    assert not world.may("sync", SET, world.vault.id, data=True)


def test_a_deny_assignment_wins_over_a_role():
    """Except for the excluded identities."""
    denial = DenyAssignmentData(name="stack", scope="acct", excluded=["admin"])
    owner = {"role": "Owner", "scope": "/"}
    world = World(identity("sync", owner), identity("admin", owner), deny_assignments=[denial])
    decision = world.decide("sync", LIST_KEYS, ACCOUNT)
    assert not decision.allowed
    assert decision.denied_by is not None
    assert decision.denied_by.name == "stack"
    assert world.may("admin", LIST_KEYS, ACCOUNT)
    assert world.may("sync", LIST_KEYS, f"{SUBSCRIPTION}/resourceGroups/rg")


def test_a_new_assignment_takes_time():
    """And so does its removal."""
    world = World(identity(), role_delay=60)
    owner = next(role for role in world.state.roles.definitions("/") if role.name == "Owner")
    object_id = world.token("sync").object_id
    assigned = world.state.roles.assign(RoleAssignment("a", SUBSCRIPTION, owner.role_id, object_id, "ServicePrincipal"))
    assert not world.may("sync", LIST_KEYS, ACCOUNT)
    world.clock.now += 60
    assert world.may("sync", LIST_KEYS, ACCOUNT)
    world.state.roles.unassign(assigned.id)
    assert world.state.roles.assignments() == []
    assert world.may("sync", LIST_KEYS, ACCOUNT)
    world.clock.now += 60
    assert not world.may("sync", LIST_KEYS, ACCOUNT)


def test_access_policies_are_by_identity_and_permission():
    """A vault without entries allows every identity everything."""
    policies = [
        AccessPolicyData(identity="sync", secrets=["get", "list"]),
        AccessPolicyData(identity="admin", secrets=["all"]),
    ]
    vaults = [VaultData(name="kv-a", access_policies=policies), VaultData(name="kv-open", access_policies=True)]
    world = World(identity("sync"), identity("admin"), identity("other"), vaults=vaults)
    allowed = {
        (name, permission)
        for name in ("sync", "admin", "other")
        for permission in ("get", "set")
        if world.access.may_use(world.token(name), world.vault, permission)
    }
    assert allowed == {("sync", "get"), ("admin", "get"), ("admin", "set")}
    assert world.access.may_use(world.token("other"), world.state.vault("kv-open"), "set")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"identities": [identity("a", {"role": "Key Vault Secret User"})]}, "there is no role 'Key Vault Secret User' (did you mean 'Key Vault Secrets User'?)"),
        ({"identities": [identity("a", {"role": "Owner", "scope": "kv-b"})]}, "there is no account, vault or queue 'kv-b' (did you mean 'kv-a'?)"),
        ({"deny_assignments": [DenyAssignmentData(identities=["b"])]}, "there is no identity 'b' (there is none)"),
        ({"identities": [identity("a"), identity("A")]}, "the name 'A' is used twice"),
        ({"identities": [identity("a")], "client_id": "c1000000-0000-4000-8000-0000000000c2"}, "move it to identities[0].client_id"),
        ({"vaults": [VaultData(name="kv-a", access_policies=[AccessPolicyData(identity="x", secrets=[])])]}, "there is no identity 'x'"),
    ],
)  # fmt: skip
def test_an_unknown_name_is_refused(fields, message):
    """With the most similar known name."""
    with pytest.raises(ValidationError) as failed:
        EmulatorData(**{"vaults": [VaultData(name="kv-a")], **fields})
    assert message in str(failed.value)


def test_the_data_files_of_the_guide_are_valid(tmp_path):
    """The identities of docs/emulator.md may do what the guide says."""
    text = (Path(__file__).parents[3] / "docs" / "emulator.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(# azure-data\.yaml\n.*?)^```$", text, re.MULTILINE | re.DOTALL)
    files = [tmp_path / f"{index}.yaml" for index, _ in enumerate(blocks)]
    for file, block in zip(files, blocks, strict=True):
        file.write_text(block)
    contents = [load_data(file, {}) for file in files]
    (content,) = [content for content in contents if content.identities]
    state = State(content, Clock())
    access = Access(state.roles, Directory(content.principals, content.tenant_id, ()))
    tokens = {each.name: Token("aud", content.tenant_id, "", each.object_id, 0.0) for each in content.principals}
    account, vault = state.account("farm1").id, state.vault("kv-render").id
    regenerate = "Microsoft.Batch/batchAccounts/regenerateKeys/action"
    assert access.decide(tokens["keysync"], LIST_KEYS, account).allowed
    assert access.decide(tokens["keysync"], regenerate, account).denied_by is not None
    assert access.decide(tokens["you@example.com"], regenerate, account).allowed
    for name, allowed in (("farm1-key", True), ("other", False)):
        decision = access.decide(tokens["keysync"], SET, vault, data=True, attributes=secret_attributes(name))
        assert decision.allowed is allowed
