"""Runs the shell blocks of README and of the guides unchanged, with an `az` for the embedded Azure.

It needs only the standard library, so that `nox -s az_cli` runs them with the real az as well.
"""

import json
import os
import re
import ssl
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
AZ_CLIENT_ID = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
"""The application in which users of az sign in."""

SUBSCRIPTIONS = {"api-version": "2022-12-01"}
ROLES = "/providers/Microsoft.Authorization/roleDefinitions"


def blocks(page: str, name: str) -> list[str]:
    """The shell blocks between ``<!-- NAME -->`` and ``<!-- /NAME -->``."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    part = text.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- /{name} -->\n")[0]
    return shell(part)


def shell(text: str) -> list[str]:
    """The shell blocks in Markdown."""
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def first_steps(*, only_roles: bool = False) -> str:
    """The commands of README's part about a real subscription, or only its role step. Without the daemon, which does not end."""
    (block,) = [block for block in shell((ROOT / "README.md").read_text(encoding="utf-8")) if "role.sh" in block]
    skipped = (". .venv/bin/activate", "keysync run ")
    lines = [line for line in block.splitlines() if not line.startswith(skipped)]
    return "\n".join(line for line in lines if "role.sh" in line or not only_roles)


def first_configuration() -> str:
    """The keysync.yaml of the same part."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(# keysync\.yaml\n.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(block)


def programs(folder: Path, az: str | None = None) -> Path:
    """A folder for PATH with a `keysync` of this interpreter and an `az`, which is that program or this module."""
    folder.mkdir(exist_ok=True)
    ours = f'exec "{sys.executable}" "{Path(__file__)}" "$@"'
    # Not for az, which has its own SDKs.
    path = f"PYTHONPATH='{ROOT}'${{PYTHONPATH:+:$PYTHONPATH}}"
    written = {"keysync": f'{path} exec "{sys.executable}" -m keysync "$@"', "az": f'exec "{az}" "$@"' if az else ours}
    for name, line in written.items():
        program = folder / name
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return folder


def run(script: str, environ: Mapping[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a block in bash, up to the first command that fails."""
    words = ["bash", "-euo", "pipefail", "-c", script]
    return subprocess.run(words, env=environ, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


class Az:
    """The part of az that README and the guides use. AZ_READY_FILE names the embedded Azure's ready file."""

    def __init__(self, ready: Mapping[str, Any], words: list[str]) -> None:
        self._ready = ready
        cut = next((at for at, word in enumerate(words) if word.startswith("--")), len(words))
        self.command = " ".join(words[:cut])
        self._options = dict(zip(words[cut::2], words[cut + 1 :: 2], strict=True))
        self._context = ssl.create_default_context(cafile=ready["ca_bundle"])

    def option(self, name: str) -> str:
        """The value of a required option, which can be read once."""
        return self._options.pop(f"--{name}")

    def _call(self, method: str, url: str, token: str | None, body: Mapping[str, Any] | str | None) -> Any:
        data = body if body is None or isinstance(body, str) else json.dumps(body)
        request = urllib.request.Request(url, data=None if data is None else data.encode(), method=method)  # noqa: S310  # of the ready file
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=10, context=self._context) as reply:  # noqa: S310  # nosec B310
            return json.load(reply)

    def _form(self, path: str, **fields: str) -> dict[str, Any]:
        url = f"{self._ready['authority']}/{self._ready['tenant_id']}/oauth2/v2.0/{path}"
        reply: dict[str, Any] = self._call("POST", url, None, urllib.parse.urlencode(fields))
        return reply

    def _signed_in(self, resource: str) -> dict[str, Any]:
        """Tokens for the application of the ready file or, if it has no secret, for the user."""
        scope, client = f"{resource}/.default", self._ready["client_id"]
        if self._ready["client_secret"]:
            secret = self._ready["client_secret"]
            fields = {"grant_type": "client_credentials", "client_secret": secret, "client_id": client, "scope": scope}
            return self._form("token", **fields)
        code = self._form("devicecode", client_id=AZ_CLIENT_ID, scope=scope)["device_code"]
        grant = "urn:ietf:params:oauth:grant-type:device_code"
        return self._form("token", grant_type=grant, client_id=AZ_CLIENT_ID, device_code=code)

    def _token(self, resource: str) -> str:
        token: str = self._signed_in(resource)["access_token"]
        return token

    def _manage(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: str) -> Any:
        """A request to Resource Manager."""
        text = urllib.parse.urlencode({"api-version": "2022-04-01", **query})
        token = self._token("https://management.azure.com")
        return self._call(method, f"{self._ready['resource_manager']}{path}?{text}", token, body)

    def vault(self) -> Any:
        """The vault of a name, in the first subscription."""
        subscription = self._manage("GET", "/subscriptions", **SUBSCRIPTIONS)["value"][0]["id"]
        kind = {"$filter": "resourceType eq 'Microsoft.KeyVault/vaults'", "api-version": "2021-04-01"}
        name = self.option("name")
        listed = self._manage("GET", f"{subscription}/resources", **kind)["value"]
        return next(vault for vault in listed if vault["name"] == name)

    def define(self, *, update: bool) -> Any:
        """Creates a role or updates the one of its name. Ends with 1 if there is none to update."""
        role = json.loads(self.option("role-definition"))
        scope, name = role["AssignableScopes"][0], str(uuid.uuid4())
        if update:
            listed = self._manage("GET", f"{scope}{ROLES}", **{"$filter": f"roleName eq '{role['Name']}'"})["value"]
            if not listed:
                sys.exit(f"No definition was found with the name of {role['Name']!r}")
            name = listed[0]["name"]
        lists = ("Actions", "NotActions", "DataActions", "NotDataActions")
        properties = {
            "roleName": role["Name"],
            "description": role["Description"],
            "type": "CustomRole",
            "assignableScopes": role["AssignableScopes"],
            "permissions": [{f"{key[0].lower()}{key[1:]}": role[key] for key in lists}],
        }
        return self._manage("PUT", f"{scope}{ROLES}/{name}", {"properties": properties})

    def assign(self) -> None:
        """Creates a role assignment, unless it exists."""
        properties = {
            "principalId": self.option("assignee-object-id"),
            "principalType": self.option("assignee-principal-type"),
            "roleDefinitionId": self.option("role"),
        }
        path = f"{self.option('scope')}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
        try:
            self._manage("PUT", path, {"properties": properties})
        except urllib.error.HTTPError as refused:
            if json.load(refused)["error"]["code"] != "RoleAssignmentExists":
                raise

    def access_token(self) -> dict[str, Any]:
        """The output of `az account get-access-token`."""
        self._options.pop("--tenant", None)  # the ready file has one tenant
        reply = self._signed_in(self.option("resource"))
        return {"accessToken": reply["access_token"], "expires_on": int(time.time()) + reply["expires_in"]}

    def account(self, action: str, body: Mapping[str, Any] | None) -> Any:
        """A POST to the Batch account in the options."""
        base = self._ready["resource_manager"]
        token = self._token("https://management.azure.com")
        listed = self._call("GET", f"{base}/subscriptions?api-version=2022-12-01", token, None)["value"]
        group, name = self.option("resource-group"), self.option("name")
        path = f"/subscriptions/{listed[0]['subscriptionId']}/resourceGroups/{group}"
        url = f"{base}{path}/providers/Microsoft.Batch/batchAccounts/{name}/{action}?api-version=2024-07-01"
        return self._call("POST", url, token, body or {})

    def set_secret(self) -> Any:
        """Writes a secret with the value in a file."""
        url = self._ready["vaults"][self.option("vault-name")]
        body = {"value": Path(self.option("file")).read_text(encoding="utf-8")}
        path = f"/secrets/{self.option('name')}?api-version=7.4"
        return self._call("PUT", f"{url}{path}", self._token("https://vault.azure.net"), body)

    def user(self) -> Any:
        """The signed-in user."""
        graph = self._ready["resource_manager"]
        return self._call("GET", f"{graph}/v1.0/me", self._token(graph), None)

    def run(self) -> str:
        """Runs the command and returns its output. Raises KeyError for a missing option, ValueError for an unsupported
        command.
        """
        commands: dict[str, Callable[[], Any]] = {
            "batch account keys renew": lambda: self.account("regenerateKeys", {"keyName": self.option("key-name")}),
            "batch account keys list": lambda: self.account("listKeys", None)[self.option("query")],
            "keyvault secret set": self.set_secret,
            "keyvault show": lambda: self.vault()[self.option("query")],
            "login": lambda: self._manage("GET", "/subscriptions", **SUBSCRIPTIONS)["value"],
            "account get-access-token": self.access_token,
            "ad signed-in-user show": lambda: self.user()[self.option("query")],
            "role definition update": lambda: self.define(update=True)[self.option("query")],
            "role definition create": lambda: self.define(update=False)[self.option("query")],
            "role assignment create": self.assign,
        }
        if self.command not in commands:
            raise ValueError(f"no such command here: az {self.command}")
        reply = commands[self.command]()
        output = self._options.pop("--output", "json")
        if self._options:
            raise ValueError(f"options that az here does not know: {self._options}")
        return {"none": "", "tsv": f"{reply}\n"}.get(output) or (json.dumps(reply) if output == "json" else "")


if __name__ == "__main__":
    ready_file = Path(os.environ["AZ_READY_FILE"])
    sys.stdout.write(Az(json.loads(ready_file.read_text(encoding="utf-8")), sys.argv[1:]).run())
