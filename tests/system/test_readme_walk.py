"""Runs README's commands for a real subscription against the embedded Azure: the roles that `role` prints are enough."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keysync.emulator import AccountData, EmulatorData, VaultData
from keysync.emulator.identity_data import IdentityData, RoleData
from tests.support import walkthrough
from tests.support.azure import RunningAzure, running_azure
from tests.system.conftest import clean_environment

SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
ACCOUNT, GROUP, VAULT = "sampleacct", "default-azurebatch-japaneast", "kv-render"

Walk = Callable[[str], tuple[int, str]]


@pytest.fixture
def azure() -> Iterator[RunningAzure]:
    """A user who owns the resource group, and has no permission for secrets."""
    group = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}"
    user = IdentityData(name="you@example.com", type="user", roles=[RoleData(role="Owner", scope=group)])
    account = AccountData(subscription_id=SUBSCRIPTION, resource_group=GROUP, name=ACCOUNT)
    content = EmulatorData(identities=[user], accounts=[account], vaults=[VaultData(name=VAULT)], role_delay=0)
    with running_azure(content) as running:
        yield running


@pytest.fixture
def walk(azure: RunningAzure, tmp_path: Path) -> Walk:
    """Runs commands in a folder with README's keysync.yaml, unchanged: the proxy leads Azure's names to the emulator."""
    ends = azure.azure.endpoints
    (tmp_path / "ready.json").write_bytes(ends.ready_file())
    (tmp_path / "keysync.yaml").write_text(walkthrough.first_configuration())
    environ = {
        **clean_environment(),
        "PATH": f"{walkthrough.programs(tmp_path / 'bin')}{os.pathsep}{os.environ['PATH']}",
        "AZ_READY_FILE": str(tmp_path / "ready.json"),
        "HTTPS_PROXY": ends.proxy,
        "SSL_CERT_FILE": ends.ca_bundle,
        "PAUSE": "0",
    }

    def run(script: str) -> tuple[int, str]:
        done = walkthrough.run(script, environ, tmp_path)
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.slow
def test_the_first_steps_lead_to_both_secrets(azure: RunningAzure, walk: Walk) -> None:
    """Without the role step `check` names the missing data action. The role step can be repeated."""
    code, output = walk("keysync check")
    assert code == 1
    assert "lacks the data action Microsoft.KeyVault/vaults/secrets/getSecret/action" in output
    for script in (walkthrough.first_steps(), walkthrough.first_steps(only_roles=True)):
        code, output = walk(script)
        assert code == 0, output
    keys = azure.do(lambda emulator: emulator.state.keys(ACCOUNT))
    names = [f"{ACCOUNT}-{key}-key" for key in ("primary", "secondary")]
    stored = azure.do(lambda emulator: [emulator.state.vault(VAULT).versions(name)[-1].value for name in names])
    assert tuple(stored) == keys
    assert azure.do(lambda emulator: len(emulator.state.roles.assignments())) == 3
