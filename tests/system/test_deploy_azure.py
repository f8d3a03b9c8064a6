"""The files in deploy/azure: roles equal keysync's, templates are consistent, and each script runs."""

from __future__ import annotations

import base64
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from keysync.access.permissions import ROLES, Role
from keysync.access.roles import Definition
from keysync.config.formats import split_listen
from keysync.config.load import load_config
from tests.support.az import run_with_az
from tests.system.conftest import World

MakeWorld = Callable[..., World]

AZURE = Path(__file__).parents[2] / "deploy" / "azure"
TEMPLATES = ["workload-identity.json", "container-apps-job.json"]
PRINCIPAL, CLIENT = "22222222-0000-0000-0000-000000000000", "11111111-0000-0000-0000-000000000000"


def yaml(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def template(name: str) -> Any:
    return json.loads((AZURE / name).read_text(encoding="utf-8"))


# Roles


def test_each_role_has_a_file_and_each_file_its_role() -> None:
    """Each file has the definition that `keysync role` makes, with a scope to fill in."""
    wanted = {f"{role.title.lower().replace(' ', '-')}.json": key for key, role in ROLES.items()}
    assert {path.name for path in (AZURE / "roles").iterdir()} == set(wanted)
    for name, key in wanted.items():
        document = json.loads((AZURE / "roles" / name).read_text(encoding="utf-8"))
        definition = Definition(key, f"keysync {ROLES[key].title}", None, (), ())
        assert document == definition.body(document["AssignableScopes"])
        assert document["AssignableScopes"] == [
            "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/YOUR-GROUP"
        ]


def test_the_template_defines_the_same_roles() -> None:
    """With the same titles, actions and descriptions."""
    by_title = {role.title: role for role in ROLES.values()}
    definitions: dict[str, Role] = {}
    for resource in template("workload-identity.json")["resources"]:
        if resource["type"] == "Microsoft.Authorization/roleDefinitions":
            properties = resource["properties"]
            (title,) = re.findall(r"format\('keysync (.*) \(\{0\}\)', parameters\('owner'\)\)", properties["roleName"])
            definitions[title] = by_title[title]
            (permissions,) = properties["permissions"]
            assert permissions == {
                "actions": list(by_title[title].actions),
                "notActions": [],
                "dataActions": list(by_title[title].data_actions),
                "notDataActions": [],
            }
            assert properties["description"] == f"keysync: {by_title[title].description}"
            assert properties["assignableScopes"] == ["[subscription().id]"]
            assert ("condition" in resource) == by_title[title].for_orphans
    assert {"Batch keys", "sync secrets", "see Batch accounts", "delete orphans"} == set(definitions)


# Templates


def expressions(value: object) -> Iterator[str]:
    """The expressions of a template, without those of nested templates, which have their own parameters."""
    if isinstance(value, str) and value.startswith("[") and not value.startswith("[["):
        assert value.endswith("]")
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from expressions(item)
    elif isinstance(value, dict):
        for name, entry in value.items():
            yield from expressions(name)
            if name != "template" or "$schema" not in entry:
                yield from expressions(entry)


def nested(value: object) -> Iterator[Any]:
    """A template and the templates nested in it."""
    if isinstance(value, dict):
        if "$schema" in value:
            yield value
        for item in value.values():
            yield from nested(item)
    elif isinstance(value, list):
        for entry in value:
            yield from nested(entry)


def deployments(one: Any) -> Iterator[Any]:
    for resource in one["resources"]:
        if resource["type"] == "Microsoft.Resources/deployments":
            yield resource["properties"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_reference_of_a_template_resolves(name: str) -> None:
    """Each parameter and variable exists and is used. Nested templates get exactly the parameters that they declare."""
    for item in nested(template(name)):
        texts = " ".join(expressions({key: value for key, value in item.items() if key != "$schema"}))
        assert set(re.findall(r"parameters\('(\w+)'\)", texts)) == set(item.get("parameters", {}))
        assert set(re.findall(r"variables\('(\w+)'\)", texts)) == set(item.get("variables", {}))
        for variable, part in re.findall(r"variables\('(\w+)'\)\.(\w+)", texts):
            assert part in item["variables"][variable]
        for deployment in deployments(item):
            assert deployment["expressionEvaluationOptions"] == {"scope": "inner"}
            assert set(deployment["parameters"]) == set(deployment["template"]["parameters"])


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_resource_of_a_template_is_complete(name: str) -> None:
    """It has an API version and a name, its parentheses are balanced, and its dependencies exist."""
    for part in nested(template(name)):
        assert re.fullmatch(
            r"https://schema\.management\.azure\.com/schemas/20\d\d-\d\d-\d\d/\w+\.json#", part["$schema"]
        )
        assert part["contentVersion"] == "1.0.0.0"
        names = {resource["name"] for resource in part["resources"]}
        assert len(names) == len(part["resources"])
        for resource in part["resources"]:
            assert re.fullmatch(r"20\d\d-\d\d-\d\d", resource["apiVersion"])
            for waited in resource.get("dependsOn", ()):
                assert waited in names or waited.startswith(("[subscriptionResourceId(", "[resourceId("))
        for text in expressions(part):
            plain = re.sub(r"'[^']*'", "", text)
            assert (plain.count("("), plain.count("[")) == (plain.count(")"), plain.count("]"))


def test_parameters_of_templates_are_described_and_shown_as_they_are() -> None:
    """The page lists each parameter that has no default."""
    page = (AZURE / "README.md").read_text(encoding="utf-8")
    for name in TEMPLATES:
        properties = template(name)["parameters"]
        assert all(item["metadata"]["description"] for item in properties.values())
        (command,) = re.findall(
            rf"az deployment \w+ create (?:(?!az deployment).)*?{re.escape(name)}.*?(?=\n[a`])", page, re.DOTALL
        )
        assert set(re.findall(r"(?<![\w-])(\w+)=", command)) - set(properties) == set()
        assert {name for name, item in properties.items() if "defaultValue" not in item} <= set(
            re.findall(r"(\w+)=", command)
        )


# Configurations


@pytest.mark.parametrize("name", ["docker-run.yaml", "managed-identity.yaml"])
def test_configurations_are_valid(name: str) -> None:
    """Without any other file or variable."""
    assert load_config(AZURE / name, {}).accounts


def test_the_container_instance_contains_its_configuration() -> None:
    """In base64, unchanged, at the path that keysync reads; the probe uses the port that keysync serves."""
    group = yaml(AZURE / "container-instance.yaml")["properties"]
    (volume,), (container,) = group["volumes"], group["containers"]
    text = base64.b64decode(volume["secret"]["keysync.yaml"], validate=True).decode()
    assert text == (AZURE / "managed-identity.yaml").read_text(encoding="utf-8")
    assert container["properties"]["volumeMounts"] == [
        {"name": volume["name"], "mountPath": "/etc/keysync", "readOnly": True}
    ]
    listen = load_config(AZURE / "managed-identity.yaml", {}).listen
    assert container["properties"]["livenessProbe"]["httpGet"]["port"] == split_listen(listen)[1]


def test_the_job_ends_before_the_next_one_and_mounts_its_configuration() -> None:
    """Every five minutes, at most 270 seconds, and with the file at the path that keysync reads."""
    (job,) = template("container-apps-job.json")["resources"]
    settings, pod = job["properties"]["configuration"], job["properties"]["template"]
    assert settings["triggerType"] == "Schedule"
    assert settings["replicaTimeout"] < 300
    assert template("container-apps-job.json")["parameters"]["schedule"]["defaultValue"] == "*/5 * * * *"
    (secret,), (volume,), (container,) = settings["secrets"], pod["volumes"], pod["containers"]
    assert volume["secrets"] == [{"secretRef": secret["name"], "path": "keysync.yaml"}]
    assert container["volumeMounts"] == [{"volumeName": volume["name"], "mountPath": "/etc/keysync"}]
    assert container["args"][0] == "sync"


# Scripts


def programs(folder: Path, name: str, text: str) -> str:
    """A program in its own PATH folder."""
    place = folder / "programs"
    place.mkdir(exist_ok=True)
    (place / name).write_text(text)
    (place / name).chmod(0o755)
    return str(place)


def test_the_identity_is_created_with_the_roles_that_the_configuration_needs(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    """The federated credential names the service account, and `keysync role` grants the roles."""
    world = make_world("alpha")
    world.configure(["alpha"], owner="us")
    place = programs(tmp_path, "keysync", f'#!/bin/sh\nexec {sys.executable} -m keysync "$@"\n')
    folder = tmp_path / "az"
    folder.mkdir()
    vault = "/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/v"
    # PATH begins with this run's `az`, followed by this folder.
    path = os.pathsep.join((str(folder), place, os.environ["PATH"]))
    given = {
        "RESOURCE_GROUP": "render group",
        "CLUSTER": "aks",
        "NAMESPACE": "batch",
        "CONFIG": str(world.path),
        "VAULT_ID_1": vault,
    }
    ran = run_with_az((AZURE / "workload-identity.sh").read_text(), folder, program="bash", PATH=path, **given)
    assert (ran.code, ran.err) == (0, "")
    assert CLIENT in ran.out
    assert ran.of("identity", "create") == [
        ["--name", "keysync", "--resource-group", "render group", "--output", "none"]
    ]
    (federated,) = ran.of("identity", "federated-credential", "create")
    assert federated[federated.index("--subject") + 1] == "system:serviceaccount:batch:keysync"
    assert federated[federated.index("--issuer") + 1] == "https://issuer.example/c"
    assert [call[1] for call in ran.of("role", "assignment", "create")] == [PRINCIPAL, PRINCIPAL]


def test_docker_run_serves_with_the_supplied_configuration(make_world: MakeWorld, tmp_path: Path) -> None:
    """The arguments of docker: no root, a read-only file system and no secret values. A sync run works with exactly
    these.
    """
    world = make_world("sampleacct")
    world.configure(["sampleacct"])
    mine, theirs = json.loads(world.path.read_text()), yaml(AZURE / "docker-run.yaml")
    del mine["listen"]  # a free port, for the tests only
    # The reader sets addresses and ids; everything else is unchanged.
    assert {key for key in theirs if key not in mine} == {"listen"}
    theirs |= {key: mine[key] for key in ("cloud", "vaults", "accounts")}
    world.path.write_text(json.dumps(theirs))
    docker = programs(tmp_path, "docker", "#!/bin/sh\nfor word; do printf '%s\\n' \"$word\"; done\n")
    folder = tmp_path / "az"
    folder.mkdir()
    script = AZURE / "docker-run.sh"
    path = os.pathsep.join((docker, os.environ["PATH"]))
    ran = run_with_az(
        f'bash "{script}" sync --output json',
        folder,
        program="bash",
        PATH=path,
        CONFIG=str(world.path),
        **world.running.environ,
    )
    assert (ran.code, ran.err) == (0, "")
    words = ran.out.splitlines()
    at = words.index("keysync:0.1.0")
    assert {"--read-only", "--cap-drop=ALL", "65532:65532", "no-new-privileges"} <= set(words[:at])
    assert world.running.environ["AZURE_CLIENT_SECRET"] not in ran.out
    assert f"{world.path}:/etc/keysync/keysync.yaml:ro" in words
    named = [words[number + 1] for number, word in enumerate(words[:at]) if word == "--env"]
    assert sorted(named) == sorted(world.running.environ)
    done = world.run(words[at + 1], *words[at + 2 :], env={name: world.running.environ[name] for name in named})
    assert done.code == 0, done.err
    assert set(done.outcomes().values()) == {"created"}
