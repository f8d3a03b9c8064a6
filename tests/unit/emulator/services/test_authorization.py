"""Role definitions and assignments on Resource Manager, and their effect."""

import json
from contextlib import asynccontextmanager

import pytest

from keysync.emulator import AccountData, Emulator, EmulatorData, VaultData
from keysync.emulator.identity_data import IdentityData, RoleData
from keysync.emulator.roles import Permissions, RoleAssignment, RoleDefinition
from tests.unit.emulator.conftest import SUB, Clock, connect

SUBSCRIPTION = f"/subscriptions/{SUB}"
GROUP = f"{SUBSCRIPTION}/resourceGroups/rg"
ACCOUNT = f"{GROUP}/providers/Microsoft.Batch/batchAccounts/acct"
AUTHORIZATION = "/providers/Microsoft.Authorization"
V = "?api-version=2022-04-01"
ROLE_ID, OTHER_ROLE_ID = (f"10000000-0000-4000-8000-00000000000{n}" for n in (1, 2))
BATCH_KEYS = {
    "roleName": "Batch keys",
    "description": "Lists keys",
    "type": "CustomRole",
    "assignableScopes": [GROUP],
    "permissions": [{"actions": ["Microsoft.Batch/batchAccounts/listKeys/action"], "dataActions": []}],
}


class World:
    """A running emulator, and requests of its identities."""

    def __init__(self, client):
        self.client = client
        self.azure = client.azure
        self.identities = client.azure.endpoints.identities

    async def token(self, name, resource):
        ends, found = self.azure.endpoints, self.identities[name]
        fields = {key: found[key] for key in ("client_id", "client_secret")}
        fields |= {"grant_type": "client_credentials", "scope": f"{resource}/.default"}
        async with self.client.session.post(
            f"{ends.authority}/{ends.tenant_id}/oauth2/v2.0/token", data=fields
        ) as reply:
            return (await reply.json())["access_token"]

    async def ask(self, name, path, method="GET", *, base=None, resource="https://management.azure.com", **more):
        url = f"{base or self.azure.endpoints.resource_manager}{path}"
        headers = {"Authorization": f"Bearer {await self.token(name, resource)}"}
        async with self.client.session.request(method, url, headers=headers, **more) as reply:
            return reply.status, json.loads(await reply.read() or b"null")

    async def secret(self, name, path, method="GET", vault="kv-a", **more):
        base = self.azure.endpoints.vaults[vault]
        return await self.ask(
            name, f"{path}?api-version=7.6", method, base=base, resource="https://vault.azure.net", **more
        )

    async def define(self, name="owner", role_id=ROLE_ID, scope=GROUP, **changed):
        body = {"properties": {**BATCH_KEYS, **changed}}
        return await self.ask(name, f"{scope}{AUTHORIZATION}/roleDefinitions/{role_id}{V}", "PUT", json=body)

    async def assign(self, role, assignee="sync", scope=ACCOUNT, name="a", by="owner", **properties):
        body = {"principalId": self.identities[assignee]["object_id"], "roleDefinitionId": role, **properties}
        path = f"{scope}{AUTHORIZATION}/roleAssignments/{name}{V}"
        return await self.ask(by, path, "PUT", json={"properties": body})


@asynccontextmanager
async def running(*identities, **fields):
    account = AccountData(subscription_id=SUB, resource_group="rg", name="acct")
    vaults = fields.pop("vaults", [VaultData(name=name) for name in ("kv-a", "kv-denied")])
    owner = IdentityData(name="owner", roles=[RoleData(role="Owner", scope=SUBSCRIPTION)])
    data = EmulatorData(
        **{"role_delay": 0, "identities": [owner, *identities], "accounts": [account], "vaults": vaults, **fields}
    )
    async with Emulator(data, clock=Clock()) as azure, connect(azure) as client:
        yield World(client)


@pytest.fixture
async def world():
    async with running(IdentityData(name="sync")) as entered:
        yield entered


def code_of(answer):
    return answer[0], answer[1].get("error", {}).get("code")


async def role_named(world, name, scope=SUBSCRIPTION):
    _, body = await world.ask("owner", f"{scope}{AUTHORIZATION}/roleDefinitions{V}&$filter=roleName eq '{name}'")
    return body["value"]


async def test_a_custom_role_takes_effect(world):
    """From its definition to its removal."""
    keys = f"{ACCOUNT}/listKeys?api-version=2024-07-01"
    assert code_of(await world.ask("sync", keys, "POST")) == (403, "AuthorizationFailed")
    status, role = await world.define()
    assert (status, role["properties"]["type"], role["name"]) == (201, "CustomRole", ROLE_ID)
    assert role["id"] == f"{SUBSCRIPTION}{AUTHORIZATION}/roleDefinitions/{ROLE_ID}"
    assert [found["name"] for found in await role_named(world, "batch KEYS", GROUP)] == [ROLE_ID]
    status, assignment = await world.assign(role["id"])
    assert (status, assignment["properties"]["roleDefinitionId"]) == (201, role["id"])
    assert assignment["id"] == f"{ACCOUNT}{AUTHORIZATION}/roleAssignments/a"
    assert (await world.ask("sync", keys, "POST"))[0] == 200
    for path, expected in {
        f"{SUBSCRIPTION}{AUTHORIZATION}/roleAssignments{V}": 2,
        f"{GROUP}{AUTHORIZATION}/roleAssignments{V}&$filter=atScope()": 1,
        f"{ACCOUNT}{AUTHORIZATION}/roleAssignments{V}&$filter=atScope()": 2,
        f"{GROUP}{AUTHORIZATION}/roleAssignments{V}&$filter=principalId eq '{world.identities['sync']['object_id']}'": 1,
    }.items():
        assert len((await world.ask("owner", path))[1]["value"]) == expected, path
    assert code_of(await world.ask("owner", f"{role['id']}{V}", "DELETE")) == (400, "RoleDefinitionHasAssignments")
    assert (await world.ask("owner", f"{assignment['id']}{V}", "DELETE"))[0] == 200
    assert (await world.ask("owner", f"{assignment['id']}{V}", "DELETE"))[0] == 204
    assert code_of(await world.ask("sync", keys, "POST")) == (403, "AuthorizationFailed")
    assert (await world.ask("owner", f"{role['id']}{V}", "DELETE"))[0] == 200
    assert code_of(await world.ask("owner", f"{role['id']}{V}")) == (404, "RoleDefinitionDoesNotExist")


async def test_a_built_in_role_and_a_condition_on_secrets(world):
    """Names are compared with case. A listing has no name, so the condition refuses it."""
    (officer,) = await role_named(world, "Key Vault Secrets Officer")
    assert officer["properties"]["type"] == "BuiltInRole"
    condition = "@Resource[Microsoft.KeyVault/vaults/secrets:name] StringStartsWith 'acct-'"
    vault = world.azure.state.vault("kv-a").id
    status, body = await world.assign(officer["id"], scope=vault, condition=condition, conditionVersion="2.0")
    assert (status, body["properties"]["condition"]) == (201, condition)
    assert (await world.secret("sync", "/secrets/acct-key", "PUT", json={"value": "x"}))[0] == 200
    assert (await world.secret("sync", "/secrets/acct-key"))[0] == 200
    for path, method in (("/secrets/other", "PUT"), ("/secrets/ACCT-key", "GET"), ("/secrets", "GET")):
        assert (await world.secret("sync", path, method, json={"value": "x"}))[0] == 403
    assert (await world.secret("owner", "/secrets/acct-key"))[0] == 403  # an owner has no data actions


async def test_refusals(world):
    """With the codes of Azure."""
    (_, role), (reader,) = await world.define(), await role_named(world, "Reader")
    await world.assign(reader["id"], name="first")
    for call, expected in [
        (world.define("sync", OTHER_ROLE_ID), (403, "AuthorizationFailed")),
        (world.define(assignableScopes=["/"]), (403, "AuthorizationFailed")),
        (world.define(role_id=OTHER_ROLE_ID), (409, "RoleDefinitionWithSameNameExists")),
        (world.define(permissions=[{"actions": "*"}]), (400, "BadRequestFormat")),
        (world.define(role_id=reader["name"]), (400, "BadRequestFormat")),
        (world.ask("owner", f"{reader['id']}{V}", "DELETE"), (400, "BadRequestFormat")),
        (world.assign(reader["id"], name="second"), (409, "RoleAssignmentExists")),
        (world.assign(role["id"], scope=SUBSCRIPTION), (400, "InvalidRoleAssignmentScope")),
        (world.assign(f"{AUTHORIZATION}/roleDefinitions/{OTHER_ROLE_ID}"), (404, "RoleDefinitionDoesNotExist")),
        (world.assign(role["id"], principalId=OTHER_ROLE_ID), (400, "PrincipalNotFound")),
        (world.assign(role["id"], condition="x"), (400, "BadRequestFormat")),
        (world.assign(role["id"], by="sync"), (403, "AuthorizationFailed")),
        (world.ask("owner", f"{GROUP}{AUTHORIZATION}/roleDefinitions{V}&$filter=x eq 1"), (400, "UnsupportedQuery")),
        (world.ask("owner", f"{GROUP}{AUTHORIZATION}/roleAssignments{V}&$filter=x()"), (400, "UnsupportedQuery")),
        (world.ask("owner", f"{GROUP}{AUTHORIZATION}/roleAssignments/none{V}"), (404, "RoleAssignmentNotFound")),
        (world.ask("owner", f"{GROUP}{AUTHORIZATION}/roleAssignments?api-version=1"), (404, "InvalidResourceType")),
    ]:
        assert code_of(await call) == expected
    status, _ = await world.assign(role["id"], name="new", principalId=OTHER_ROLE_ID, principalType="ServicePrincipal")
    assert status == 201  # a principal that the directory does not show yet


async def test_an_assignment_is_felt_after_the_delay():
    """As in Azure, which needs some time; the reply comes at once."""
    async with running(IdentityData(name="sync"), role_delay=30) as world:
        (contributor,) = await role_named(world, "Azure Batch Account Contributor")
        assert (await world.assign(contributor["id"]))[0] == 201
        keys = f"{ACCOUNT}/listKeys?api-version=2024-07-01"
        assert code_of(await world.ask("sync", keys, "POST")) == (403, "AuthorizationFailed")
        world.azure.state.clock.now += 30
        assert (await world.ask("sync", keys, "POST"))[0] == 200


async def test_roles_survive_a_restart(tmp_path):
    """With a state folder, and with the ids of the data file."""
    data = EmulatorData(
        identities=[IdentityData(name="sync")],
        accounts=[AccountData(subscription_id=SUB, resource_group="rg", name="acct")],
        vaults=[VaultData(name=name) for name in ("kv-a", "kv-denied")],
        role_delay=0,
    )
    async with Emulator(data, state_directory=tmp_path) as azure:
        roles = azure.state.roles
        roles.define(RoleDefinition(ROLE_ID, "mine", "", [Permissions(("*",), data_actions=("*/read",))], ["/"]))
        roles.assign(RoleAssignment("a", GROUP, ROLE_ID, data.identities[0].object_id, "ServicePrincipal"))
    async with Emulator(data, state_directory=tmp_path) as azure, connect(azure) as client:
        found = azure.state.roles.definition(ROLE_ID)
        assert found is not None
        assert found.permissions == [Permissions(("*",), data_actions=("*/read",))]
        assert (await World(client).ask("sync", f"{ACCOUNT}?api-version=2024-07-01"))[0] == 200
