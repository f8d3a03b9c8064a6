"""Roles as a script and as JSON: names, definitions, and quoting of every argument of `az`."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from keysync.access.roles import MAX_SCOPES, plan_roles, render_json
from keysync.access.script import render_script
from keysync.config.model import Config
from tests.support.az import AzRun, run_with_az
from tests.support.settings import config_of

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/render"
ALPHA = f"{GROUP}/providers/Microsoft.Batch/batchAccounts/alpha"
URL = "https://kv-render.vault.azure.net"
VAULT_GROUP = "/subscriptions/s/resourceGroups/vaults"
WHO = "99999999-0000-0000-0000-000000000000"
NEW_ROLE = "/subscriptions/s/providers/Microsoft.Authorization/roleDefinitions/new"
SHELLS = [shell for shell in ("sh", "bash", "dash") if shutil.which(shell)]


def config(**more: Any) -> Config:
    account = {"subscription_id": SUBSCRIPTION, "resource_group": "render", "name": "alpha", "vaults": ["main"]}
    return config_of({"vaults": {"main": {"url": URL}}, "accounts": [account], "owner": "us", **more})


def definitions(ran: AzRun) -> dict[str, Any]:
    """The created definitions by name."""
    bodies = [json.loads(call[1]) for call in ran.of("role", "definition", "create")]
    return {body["Name"]: body for body in bodies}


@pytest.mark.parametrize("shell", SHELLS)
def test_script_creates_roles_and_assignments(shell: str, tmp_path: Path) -> None:
    """Two definitions, assignable in the groups of the account and of the vault, and two assignments."""
    ran = run_with_az(render_script(plan_roles(config())), tmp_path, program=shell, PRINCIPAL_ID=WHO)
    assert (ran.code, ran.err) == (0, "")
    assert {name: body["AssignableScopes"] for name, body in definitions(ran).items()} == {
        "keysync Batch keys (us)": [GROUP],
        "keysync sync secrets (us)": [VAULT_GROUP],
    }
    assert ran.of("role", "assignment", "create") == [
        ["--assignee-object-id", WHO, "--assignee-principal-type", "ServicePrincipal", "--role", NEW_ROLE, "--scope", scope, "--output", "none"]
        for scope in (ALPHA, f"{VAULT_GROUP}/providers/Microsoft.KeyVault/vaults/kv-render")
    ]  # fmt: skip
    assert ran.of("keyvault", "show") == [["--name", "kv-render", "--query", "id", "--output", "tsv"]]


def test_existing_role_is_updated(tmp_path: Path) -> None:
    """No second role of the same name is created, and assignments use its id."""
    ran = run_with_az(render_script(plan_roles(config(), [WHO])), tmp_path, AZ_ROLES_THERE="1")
    assert ran.code == 0
    assert ran.of("role", "definition", "create") == []
    assert all(call[5].endswith("/old") for call in ran.of("role", "assignment", "create"))
    assert [call[1] for call in ran.of("role", "assignment", "create")] == [WHO, WHO]


def test_script_ends_if_a_role_cannot_be_created(tmp_path: Path) -> None:
    """It shows both errors and assigns nothing."""
    ran = run_with_az(render_script(plan_roles(config())), tmp_path, PRINCIPAL_ID=WHO, AZ_REFUSES="1")
    assert ran.code == 1
    assert "not allowed" in ran.err
    assert "No definition was found" in ran.err
    assert ran.of("role", "assignment", "create") == []


def test_early_assignment_is_retried(tmp_path: Path) -> None:
    """After five tries the script ends without the next assignment."""
    ran = run_with_az(render_script(plan_roles(config())), tmp_path, PRINCIPAL_ID=WHO, AZ_LATE="1", PAUSE="0")
    assert ran.code == 1
    assert len(ran.of("role", "assignment", "create")) == 5


def test_missing_principal_ends_the_script(tmp_path: Path) -> None:
    """The shell names the variable to set and calls nothing."""
    ran = run_with_az(render_script(plan_roles(config())), tmp_path)
    assert ran.code != 0
    assert "PRINCIPAL_ID: set it to the object id of the identity at credential" in ran.err
    assert ran.calls == []


def test_configured_identities_are_looked_up(tmp_path: Path) -> None:
    """Each has its own assignments. The account of `az login` is a user."""
    configuration = config(
        credential={"type": "managed_identity", "client_id": "m-1"},
        vaults={"main": {"url": URL, "credential": {"type": "azure_cli"}}},
    )
    ran = run_with_az(render_script(plan_roles(configuration)), tmp_path, PRINCIPAL_ID_2=WHO)
    assert (ran.code, ran.err) == (0, "")
    assert ran.of("ad", "sp", "show") == [["--id", "m-1", "--query", "id", "--output", "tsv"]]
    assigned = [(call[1], call[3], call[7]) for call in ran.of("role", "assignment", "create")]
    assert assigned[0] == ("object-of-m-1", "ServicePrincipal", ALPHA)
    assert assigned[1][:2] == (WHO, "User")


def test_each_tenant_has_its_own_roles(tmp_path: Path) -> None:
    """The name contains the tenant, since names are unique in a tenant. az changes to a tenant before its part."""
    other = "66666666-6666-6666-6666-666666666666"
    mine = {"type": "client_certificate", "tenant_id": other, "client_id": "c", "certificate_file": "cert.pem"}
    configuration = config(vaults={"main": {"url": URL}, "theirs": {"url": "https://kv-2.vault.azure.net", "credential": mine}}, discover=[{"subscription_id": SUBSCRIPTION, "vaults": ["theirs"]}])  # fmt: skip
    ran = run_with_az(render_script(plan_roles(configuration)), tmp_path, PRINCIPAL_ID=WHO)
    assert (ran.code, ran.err) == (0, "")
    assert ran.of("account", "list") == [
        ["--query", f"[?tenantId=='{other}' || tenantDefaultDomain=='{other}'] | [0].id", "--output", "tsv"]
    ]
    assert ran.of("account", "set") == [["--subscription", "some-subscription"]]
    assert set(definitions(ran)) == {
        "keysync Batch keys (us)",
        "keysync sync secrets (us)",
        f"keysync sync secrets (us tenant {other})",
    }
    words = [" ".join(call[:3]) for call in ran.calls]
    assert words.index("account set --subscription") < words.index("ad sp show")


@pytest.mark.parametrize(("cloud", "expected"), [
    ("public", []),
    ("usgovernment", [["--name", "AzureUSGovernment"]]),
    ("china", [["--name", "AzureChinaCloud"]]),
    ({"authority": "https://a.example", "resource_manager": "https://b.example"}, []),
])  # fmt: skip
def test_script_sets_the_cloud(cloud: Any, expected: list[list[str]], tmp_path: Path) -> None:
    """A cloud without a name in az has a comment instead."""
    script = render_script(plan_roles(config(cloud=cloud)))
    assert run_with_az(script, tmp_path, PRINCIPAL_ID=WHO).of("cloud", "set") == expected
    assert ("no name for" in script) == isinstance(cloud, dict)


def test_vault_with_a_private_name_needs_its_id(tmp_path: Path) -> None:
    """Its ARM id comes from the environment, and the role is assignable in its resource group."""
    script = render_script(plan_roles(config(vaults={"main": {"url": "https://localhost:8443"}})))
    assert run_with_az(script, tmp_path, PRINCIPAL_ID=WHO).code != 0
    vault = "/subscriptions/t/resourceGroups/g/providers/Microsoft.KeyVault/vaults/v"
    ran = run_with_az(script, tmp_path, PRINCIPAL_ID=WHO, VAULT_ID_1=vault)
    assert ran.code == 0
    assert definitions(ran)["keysync sync secrets (us)"]["AssignableScopes"] == ["/subscriptions/t/resourceGroups/g"]
    assert ran.of("role", "assignment", "create")[1][7] == vault


def test_access_policies_are_comments() -> None:
    """Of each role of a vault. Listing includes the metadata of secrets, and setting includes an update."""
    script = render_script(plan_roles(config(orphans="delete", recover="owned")))
    assert [line.partition("instead: ")[2] for line in script.splitlines() if "an access policy instead: " in line] == [
        "get list set recover.",
        "delete.",
    ]


def test_removal_of_orphans_comes_last(tmp_path: Path) -> None:
    """The script is complete without this last part."""
    head, found, _ = render_script(plan_roles(config(orphans="delete"))).partition("# Only for the removal of orphans")
    assert found
    ran = run_with_az(head, tmp_path, PRINCIPAL_ID=WHO)
    assert ran.code == 0
    actions = [action for body in definitions(ran).values() for action in (*body["Actions"], *body["DataActions"])]
    assert not [action for action in actions if "delete" in action]


def test_names_without_an_owner_are_unique() -> None:
    """They depend on the scopes of the role, but not on their case and order."""

    def names(**more: Any) -> list[str]:
        return [definition.name for definition in plan_roles(config(owner=None, **more)).definitions.values()]

    second = {"subscription_id": SUBSCRIPTION, "resource_group": "other", "name": "beta", "vaults": ["main"]}
    first = {**second, "resource_group": "render", "name": "alpha"}
    assert names() == names()
    assert names()[0] != names(accounts=[first, second])[0]
    assert names()[1] == names(accounts=[first, second])[1]
    assert names(accounts=[second, first]) == names(accounts=[first, {**second, "resource_group": "OTHER"}])
    assert len({definition.name for definition in plan_roles(config()).definitions.values()}) == 2


def test_similar_owners_do_not_share_a_role() -> None:
    """Characters that filters of az do not accept are replaced, and the name gets a digest."""
    names = {
        plan_roles(config(owner=owner)).definitions["batch_keys", None].name
        for owner in ("a'b", 'a"b', "a-b", "a" * 200, "a" * 201, "\n")
    }
    assert len(names) == 6
    assert not [name for name in names if "'" in name or "\n" in name or len(name) > 120]


def test_role_respects_the_limit_of_scopes() -> None:
    """Subscriptions replace their resource groups. Accounts keep their own assignments."""
    accounts = [
        {"subscription_id": SUBSCRIPTION, "resource_group": f"g{number}", "name": f"acct{number}", "vaults": ["main"]}
        for number in range(MAX_SCOPES + 1)
    ]
    plan = plan_roles(config(accounts=accounts))
    assert plan.definitions["batch_keys", None].groups == (f"/subscriptions/{SUBSCRIPTION}",)
    assert len(plan.grants) == MAX_SCOPES + 2


def test_json_matches_the_script(tmp_path: Path) -> None:
    """The same roles and assignments, with unknown resource groups in braces."""
    plan = plan_roles(config(orphans="delete"), [WHO])
    output = json.loads(render_json(plan))
    assert set(output) == {"cloud", "identities", "vaults", "roles", "assignments", "notes"}
    ran = run_with_az(render_script(plan), tmp_path)
    in_braces = f"{{resource group of {URL}}}"
    known = {
        role["role"]: {**role["definition"], "AssignableScopes": [VAULT_GROUP if scope == in_braces else scope for scope in role["definition"]["AssignableScopes"]]}
        for role in output["roles"]
    }  # fmt: skip
    assert definitions(ran) == known
    assert len(ran.of("role", "assignment", "create")) == len(output["assignments"])
    assert {assignment["scope"] or assignment["vault"] for assignment in output["assignments"]} == {
        ALPHA,
        URL,
        f"/subscriptions/{SUBSCRIPTION}",
    }
    assert output["identities"][0]["principal_id"] == WHO
    assert [role["or_secret_permissions"] for role in output["roles"]] == [[], ["get", "list", "set"], [], ["delete"]]
    assert [role["role"] for role in output["roles"] if role["only_for_orphans"]] == [
        "keysync see Batch accounts (us)",
        "keysync delete orphans (us)",
    ]


def test_output_contains_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a credential it shows only type, tenant and client id."""
    credential = {
        "type": "client_secret",
        "tenant_id": "t",
        "client_id": "c",
        "client_secret_file": "/run/secrets/hidden",
    }
    plan = plan_roles(config(credential=credential))
    assert "hidden" not in render_script(plan) + render_json(plan)


HOSTILE = st.text(alphabet=st.sampled_from("ab'\"`$(){};&|\\ \n#%*~<>!é-"), min_size=1, max_size=20)


@given(  # nosec B604  # an argument of that name
    owner=HOSTILE,
    host=HOSTILE.filter(lambda text: text.isascii() and not set(text) & set(" \n\\#%")),
    shell=st.sampled_from(SHELLS),
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_any_value_reaches_az_unchanged(owner: str, host: str, shell: str) -> None:
    """No shell interprets quotes, dollar signs or newlines of the configuration."""
    try:
        configuration = config(owner=owner, vaults={"main": {"url": f"https://{host}.vault.azure.net"}})
    except ValueError:
        reject()  # an invalid host
    plan = plan_roles(configuration, [WHO])
    with tempfile.TemporaryDirectory() as folder:
        # The script needs the id if the first label of the host is no valid name of a vault.
        vault = "/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/main"
        (azure_name,) = [each.azure_name for each in plan.vaults.values()]
        named = {} if azure_name else {"VAULT_ID_1": vault}
        ran = run_with_az(render_script(plan), Path(folder), program=shell, **named)
        assert [path.name for path in Path(folder).iterdir()] == ["az"]
    assert (ran.code, ran.err, ran.out) == (0, "", "")
    shown = ran.of("keyvault", "show")
    assert [call[1] for call in shown] == [azure_name] if azure_name else shown == []
    assert set(definitions(ran)) == {role["role"] for role in json.loads(render_json(plan))["roles"]}


@pytest.mark.parametrize("host", ["--help", "-n", "a'b", "1main", "main-"])
def test_host_is_never_an_option_of_az(host: str) -> None:
    """az gets no name that is not valid for a vault."""
    plan = plan_roles(config(vaults={"main": {"url": f"https://{host}.vault.azure.net"}}), [WHO])
    assert [each.azure_name for each in plan.vaults.values()] == [None]
