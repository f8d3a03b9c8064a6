"""The files that say how to use a running emulator."""

from io import StringIO

from ruamel.yaml import YAML

from keysync.emulator import AccountData, Emulator, EmulatorData, VaultData, guide
from keysync.emulator.identity_data import IdentityData

from .conftest import SUB


def docker_variables(text):
    """As docker reads --env-file: no quotes and no export (docs.docker.com/reference/cli/docker/container/run)."""
    variables = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            assert name.strip() == name
            assert " " not in name
            variables[name] = value
    return variables


def test_an_environment_file_is_for_docker_too(azure):
    """Each value is as it is, without quotes. The one line more is of a variable that shells overwrite."""
    expected = guide.variables(azure.endpoints)
    assert set(expected) == {"AZURE_AUTHORITY_HOST", "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"}
    variables = docker_variables(guide.environment_file(expected))
    assert variables.pop("_").startswith("; export AZURE_")
    assert variables == expected


def test_the_vaults_take_turns(azure):
    """Each name is text, also one that YAML would read as a number."""
    group = {"subscription_id": SUB, "resource_group": "1e3"}
    accounts = [AccountData(**group, name=name) for name in ("100", "other", "third")]
    content = EmulatorData(accounts=accounts, vaults=[VaultData(name=name) for name in ("kv-a", "kv-b")])
    config = YAML(typ="safe", pure=True).load(StringIO(guide.configuration(azure.endpoints, content)))
    vaults = list(config["vaults"])
    found = [(account["resource_group"], account["name"], account["vaults"]) for account in config["accounts"]]
    assert found == [("1e3", "100", [vaults[0]]), ("1e3", "other", [vaults[1]]), ("1e3", "third", [vaults[2]])]


async def test_without_a_client_secret_the_guide_signs_a_user_in():
    """The configuration uses the sign-in of az."""
    user = IdentityData(name="you@example.com", type="user")
    content = EmulatorData(identities=[user], vaults=[VaultData(name="kv-a")])
    async with Emulator(content) as running:
        config = YAML(typ="safe", pure=True).load(StringIO(guide.configuration(running.endpoints, content)))
        assert config["credential"] == {"type": "azure_cli"}
        assert set(guide.variables(running.endpoints)) == {"AZURE_AUTHORITY_HOST", "AZURE_TENANT_ID"}
        assert "az login --use-device-code" in guide.guide(running.endpoints, content)
