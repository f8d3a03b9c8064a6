"""Roles as a script and as JSON: names, definitions, and that every word reaches `az` as it was meant."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from keysync.access.roles import MOST_SCOPES, plan_roles, render, to_dict
from keysync.access.script import render_script
from keysync.config.settings import Config
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
    """The definitions that were made, by name."""
    found = [json.loads(call[1]) for call in ran.of("role", "definition", "create")]
    return {one["Name"]: one for one in found}


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_makes_roles_and_assignments(shell: str, tmp_path: Path) -> None:
    """Two definitions, assignable in the groups of the account and of the vault, and two assignments."""
    ran = run_with_az(render_script(plan_roles(config())), tmp_path, program=shell, PRINCIPAL_ID=WHO)
    assert (ran.code, ran.err) == (0, "")
    made = definitions(ran)
    assert {name: one["AssignableScopes"] for name, one in made.items()} == {
        "keysync Batch keys (us)": [GROUP],
        "keysync sync secrets (us)": [VAULT_GROUP],
    }
    assert ran.of("role", "assignment", "create") == [
        ["--assignee-object-id", WHO, "--assignee-principal-type", "ServicePrincipal", "--role", NEW_ROLE, "--scope", scope, "--output", "none"]
        for scope in (ALPHA, f"{VAULT_GROUP}/providers/Microsoft.KeyVault/vaults/kv-render")
    ]  # fmt: skip
    assert ran.of("keyvault", "show") == [["--name", "kv-render", "--query", "id", "--output", "tsv"]]


def test_a_role_that_is_there_is_brought_up_to_date(tmp_path: Path) -> None:
    """No second one of the same name is made, and its id is used."""
    ran = run_with_az(render_script(plan_roles(config(), [WHO])), tmp_path, AZ_ROLES_THERE="1")
    assert ran.code == 0
    assert ran.of("role", "definition", "create") == []
    assert all(call[5].endswith("/old") for call in ran.of("role", "assignment", "create"))
    assert [call[1] for call in ran.of("role", "assignment", "create")] == [WHO, WHO]


def test_a_role_that_cannot_be_made_ends_the_script(tmp_path: Path) -> None:
    """Both reasons are shown, and nothing is assigned."""
    ran = run_with_az(render_script(plan_roles(config())), tmp_path, PRINCIPAL_ID=WHO, AZ_REFUSES="1")
    assert ran.code == 1
    assert "not allowed" in ran.err
    assert "No definition was found" in ran.err
    assert ran.of("role", "assignment", "create") == []


def test_an_assignment_that_comes_too_early_is_tried_again(tmp_path: Path) -> None:
    """Five times; then the script ends, and the next assignment is not made."""
    ran = run_with_az(render_script(plan_roles(config())), tmp_path, PRINCIPAL_ID=WHO, AZ_LATE="1", PAUSE="0")
    assert ran.code == 1
    assert len(ran.of("role", "assignment", "create")) == 5


def test_without_a_principal_nothing_is_asked(tmp_path: Path) -> None:
    """The shell says what to set."""
    ran = run_with_az(render_script(plan_roles(config())), tmp_path)
    assert ran.code != 0
    assert "PRINCIPAL_ID: set it to the object id of the identity that credential means" in ran.err
    assert ran.calls == []


def test_identities_that_the_configuration_names_are_looked_up(tmp_path: Path) -> None:
    """Each has its own assignments; whoever signed in with `az login` is a user."""
    made = config(
        credential={"type": "managed_identity", "client_id": "m-1"},
        vaults={"main": {"url": URL, "credential": {"type": "azure_cli"}}},
    )
    ran = run_with_az(render_script(plan_roles(made)), tmp_path, PRINCIPAL_ID_2=WHO)
    assert (ran.code, ran.err) == (0, "")
    assert ran.of("ad", "sp", "show") == [["--id", "m-1", "--query", "id", "--output", "tsv"]]
    assigned = [(call[1], call[3], call[7]) for call in ran.of("role", "assignment", "create")]
    assert assigned[0] == ("object-of-m-1", "ServicePrincipal", ALPHA)
    assert assigned[1][:2] == (WHO, "User")


def test_each_tenant_has_roles_of_its_own(tmp_path: Path) -> None:
    """Names are unique in a tenant and these may be one, so the tenant is in the name; az is put into each before its part."""
    other = "66666666-6666-6666-6666-666666666666"
    mine = {"type": "client_certificate", "tenant_id": other, "client_id": "c", "certificate_file": "cert.pem"}
    made = config(vaults={"main": {"url": URL}, "theirs": {"url": "https://kv-2.vault.azure.net", "credential": mine}}, discover=[{"subscription_id": SUBSCRIPTION, "vaults": ["theirs"]}])  # fmt: skip
    ran = run_with_az(render_script(plan_roles(made)), tmp_path, PRINCIPAL_ID=WHO)
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


@pytest.mark.parametrize(("cloud", "told"), [
    ("public", []),
    ("usgovernment", [["--name", "AzureUSGovernment"]]),
    ("china", [["--name", "AzureChinaCloud"]]),
    ({"authority": "https://a.example", "resource_manager": "https://b.example"}, []),
])  # fmt: skip
def test_other_clouds(cloud: Any, told: list[list[str]], tmp_path: Path) -> None:
    """A named cloud is set; one without a name is told about."""
    script = render_script(plan_roles(config(cloud=cloud)))
    assert run_with_az(script, tmp_path, PRINCIPAL_ID=WHO).of("cloud", "set") == told
    assert ("no name for" in script) == isinstance(cloud, dict)


def test_a_vault_behind_a_private_name_has_to_be_named(tmp_path: Path) -> None:
    """Its ARM id comes from the environment then, and the role is assignable in its group."""
    script = render_script(plan_roles(config(vaults={"main": {"url": "https://localhost:8443"}})))
    assert run_with_az(script, tmp_path, PRINCIPAL_ID=WHO).code != 0
    vault = "/subscriptions/t/resourceGroups/g/providers/Microsoft.KeyVault/vaults/v"
    ran = run_with_az(script, tmp_path, PRINCIPAL_ID=WHO, VAULT_ID_1=vault)
    assert ran.code == 0
    assert definitions(ran)["keysync sync secrets (us)"]["AssignableScopes"] == ["/subscriptions/t/resourceGroups/g"]
    assert ran.of("role", "assignment", "create")[1][7] == vault


def test_access_policies_are_told_as_comments() -> None:
    """Metadata of secrets is shown to those who may list; an update is a set."""
    script = render_script(plan_roles(config(orphans="delete", recover="owned")))
    line = next(line for line in script.splitlines() if "set-policy" in line)
    assert (
        line
        == '#   az keyvault set-policy --name kv-render --object-id "$PRINCIPAL_ID" --secret-permissions get list set recover delete'
    )


def test_removal_of_orphans_comes_last_and_can_be_cut_off(tmp_path: Path) -> None:
    """What stands above it is whole without it."""
    head, found, _ = render_script(plan_roles(config(orphans="delete"))).partition("# Only for the removal of orphans")
    assert found
    ran = run_with_az(head, tmp_path, PRINCIPAL_ID=WHO)
    assert ran.code == 0
    actions = [action for one in definitions(ran).values() for action in (*one["Actions"], *one["DataActions"])]
    assert not [action for action in actions if "delete" in action]


def test_names_without_an_owner_tell_installations_apart() -> None:
    """By what each role is for, however it is spelt and in whichever order."""

    def names(**more: Any) -> list[str]:
        return [one.name for one in plan_roles(config(owner=None, **more)).definitions]

    second = {"subscription_id": SUBSCRIPTION, "resource_group": "other", "name": "beta", "vaults": ["main"]}
    first = {**second, "resource_group": "render", "name": "alpha"}
    assert names() == names()
    assert names()[0] != names(accounts=[first, second])[0]
    assert names()[1] == names(accounts=[first, second])[1]
    assert names(accounts=[second, first]) == names(accounts=[first, {**second, "resource_group": "OTHER"}])
    assert len({one.name for one in plan_roles(config()).definitions}) == 2


def test_owners_that_would_read_alike_do_not_share_a_role() -> None:
    """What az's filter cannot take is left out of a name, and then a mark stands for it."""
    names = {
        plan_roles(config(owner=owner)).definitions[0].name
        for owner in ("a'b", 'a"b', "a-b", "a" * 200, "a" * 201, "\n")
    }
    assert len(names) == 6
    assert not [name for name in names if "'" in name or "\n" in name or len(name) > 120]


def test_a_role_has_at_most_as_many_scopes_as_azure_takes() -> None:
    """Then subscriptions stand for their groups; accounts keep their own assignments."""
    accounts = [
        {"subscription_id": SUBSCRIPTION, "resource_group": f"g{number}", "name": f"acct{number}", "vaults": ["main"]}
        for number in range(MOST_SCOPES + 1)
    ]
    plan = plan_roles(config(accounts=accounts))
    assert plan.definitions[0].groups == (f"/subscriptions/{SUBSCRIPTION}",)
    assert len(plan.grants) == MOST_SCOPES + 2


def test_the_json_says_the_same_as_the_script(tmp_path: Path) -> None:
    """Roles, assignments, and what only Azure knows in braces."""
    plan = plan_roles(config(orphans="delete"), [WHO])
    told = json.loads(render(plan))
    assert set(told) == {"cloud", "identities", "vaults", "roles", "assignments", "notes"}
    ran = run_with_az(render_script(plan), tmp_path)
    in_braces = f"{{resource group of {URL}}}"
    known = {
        one["role"]: {**one["definition"], "AssignableScopes": [VAULT_GROUP if scope == in_braces else scope for scope in one["definition"]["AssignableScopes"]]}
        for one in told["roles"]
    }  # fmt: skip
    assert definitions(ran) == known
    assert len(ran.of("role", "assignment", "create")) == len(told["assignments"])
    assert {one["scope"] or one["vault"] for one in told["assignments"]} == {
        ALPHA,
        URL,
        f"/subscriptions/{SUBSCRIPTION}",
    }
    assert told["identities"][0]["principal_id"] == WHO
    assert told["vaults"][0]["or_access_policies"] == [
        {"identity": "credential", "secret_permissions": ["get", "list", "set", "delete"]}
    ]
    assert [one["role"] for one in told["roles"] if one["only_for_orphans"]] == [
        "keysync see Batch accounts (us)",
        "keysync delete orphans (us)",
    ]


def test_no_secret_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a credential only its kind, tenant and application."""
    credential = {
        "type": "client_secret",
        "tenant_id": "t",
        "client_id": "c",
        "client_secret_file": "/run/secrets/hidden",
    }
    plan = plan_roles(config(credential=credential))
    assert "hidden" not in render_script(plan) + render(plan)


HOSTILE = st.text(alphabet=st.sampled_from("ab'\"`$(){};&|\\ \n#%*~<>!é-"), min_size=1, max_size=20)


@given(  # nosec B604  # an argument of that name
    owner=HOSTILE,
    host=HOSTILE.filter(lambda text: text.isascii() and not set(text) & set(" \n\\#%")),
    shell=st.sampled_from(SHELLS),
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_the_configuration_holds_it_reaches_az_as_it_is(owner: str, host: str, shell: str) -> None:
    """Quotes, dollars, newlines: no shell takes any of it for a command."""
    try:
        made = config(owner=owner, vaults={"main": {"url": f"https://{host}.vault.azure.net"}})
    except ValueError:
        reject()  # no such host
    plan = plan_roles(made, [WHO])
    with tempfile.TemporaryDirectory() as folder:
        # Asked for where the host's first label is no vault's name.
        vault = "/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/main"
        named = {} if plan.vaults[0].azure_name else {"VAULT_ID_1": vault}
        ran = run_with_az(render_script(plan), Path(folder), program=shell, **named)
        assert [path.name for path in Path(folder).iterdir()] == ["az"]
    assert (ran.code, ran.err, ran.out) == (0, "", "")
    shown = ran.of("keyvault", "show")
    assert [call[1] for call in shown] == [plan.vaults[0].azure_name] if plan.vaults[0].azure_name else shown == []
    assert set(definitions(ran)) == {one["role"] for one in to_dict(plan)["roles"]}


@pytest.mark.parametrize("host", ["--help", "-n", "a'b", "1main", "main-"])
def test_no_host_is_taken_for_an_option(host: str) -> None:
    """What cannot be a vault's name is not given to az as one."""
    plan = plan_roles(config(vaults={"main": {"url": f"https://{host}.vault.azure.net"}}), [WHO])
    assert plan.vaults[0].azure_name is None
