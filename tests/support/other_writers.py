"""What other users and tools do to an embedded Azure, and the tags of managed secrets."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any, Final

from azure.identity import ClientSecretCredential
from azure.keyvault.secrets import SecretClient

from keysync.emulator import Emulator, Fault
from keysync.targets.versions import COUNT_TAG
from tests.support.azure import GROUP, SUBSCRIPTION, RunningAzure

DAY: Final = 86_400


def arm_id(account: str) -> str:
    """The ARM id of an account in the embedded Azure."""
    return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Batch/batchAccounts/{account}"


def marks(account: str, key: str = "primary", owner: str | None = None) -> dict[str, str]:
    """The tags of keysync's secret for a key of an account."""
    tags = {"managed-by": "keysync", "keysync-source": arm_id(account), "keysync-key": key}
    return tags if owner is None else {**tags, "keysync-owner": owner}


def without_count(tags: Mapping[str, str]) -> dict[str, str]:
    """`tags` without the count of versions, which is another one in each version."""
    return {name: value for name, value in tags.items() if name != COUNT_TAG}


def secret(account: str, key: str = "primary", **more: Any) -> dict[str, Any]:
    """A secret under the default name, for the data of a vault; by default with the value `by-hand` and without
    tags."""
    return {"name": f"{account}-{key}-key", "value": "by-hand", **more}


def remove_account(azure: Emulator, name: str) -> None:
    """Deletes a Batch account as an administrator would; call it through `RunningAzure.do`."""
    azure.state.delete(azure.state.account(name))


def add_versions(azure: Emulator, vault: str, name: str, total: int, *, age: int = 2 * DAY) -> None:
    """Adds versions to a secret, with the tags of the latest, up to a total; all are at least `age` seconds old."""
    stored = azure.state.vault(vault)
    while len(stored.versions(name)) < total:
        _, version_added = stored.add_version(name, "old", tags=stored.versions(name)[-1].tags)
        version_added.created -= age
    for version in stored.versions(name):
        version.created = min(version.created, version_added.created)


def add_version(azure: Emulator, target: str, value: str, tags: dict[str, str]) -> None:
    """Another writer's version of `target`, which is ``vault/secret``."""
    vault, _, name = target.partition("/")
    azure.state.vault(vault).add_version(name, value, tags=tags)


def before(azure: Emulator, call: tuple[str, str], action: Callable[[Emulator, str], None], *, which: int = 1) -> None:
    """Calls `action` once, just before the reply to request number `which` for this operation and target."""
    take, seen = azure.faults.take, [0]

    def acting(operation: str, target: str) -> Fault | None:
        seen[0] += (operation, target) == call
        if (operation, target) == call and seen[0] == which:
            action(azure, target)
        return take(operation, target)

    azure.faults.take = acting  # type: ignore[method-assign]


def write_after_each_write(azure: Emulator, vault: str, value: str, tags: dict[str, str]) -> None:
    """From now on, another writer writes after each write in the vault, before its reply is sent."""
    stored = azure.state.vault(vault)
    first = stored.add_version

    def both(name: str, *args: Any, **more: Any) -> Any:
        version_added = first(name, *args, **more)
        first(name, value, tags=tags)
        return version_added

    stored.add_version = both  # type: ignore[method-assign]


def commands(text: str) -> list[str]:
    """The commands that a sentence suggests: each begins after a colon and ends with the clause."""
    return [command.strip() for command in re.findall(r": ((?:keysync|az) [^;,:]*(?:https://[^;, ]+)?[^;, ]*)", text)]


def az_keyvault(azure: RunningAzure, command: str) -> None:
    """Does what `az keyvault secret ...` with an `--id` does, through the same SDK."""
    words = shlex.split(command)
    assert words[:3] == ["az", "keyvault", "secret"], command
    url, _, name = words[words.index("--id") + 1].rsplit("/", 2)
    endpoints = azure.azure.endpoints
    trust = {"connection_verify": endpoints.ca_bundle}
    credential = ClientSecretCredential(
        endpoints.tenant_id,
        endpoints.client_id,
        endpoints.client_secret,
        authority=endpoints.authority,
        disable_instance_discovery=True,
        **trust,
    )
    with credential, SecretClient(url, credential, verify_challenge_resource=False, **trust) as client:
        match words[3]:
            case "set-attributes":
                client.update_secret_properties(name, enabled=words[words.index("--enabled") + 1] == "true")
            case "recover":
                client.begin_recover_deleted_secret(name, _polling_interval=0.05).wait()
            case "purge":
                client.purge_deleted_secret(name)
            case other:
                raise AssertionError(f"az keyvault secret {other}")
