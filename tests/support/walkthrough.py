"""Runs the shell blocks of a guide unchanged, with an `az` for the embedded Azure.

It needs only the standard library, so that `nox -s az_cli` runs them with the real az as well.
"""

import json
import os
import re
import ssl
import stat
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def blocks(page: str, name: str) -> list[str]:
    """The shell blocks between ``<!-- NAME -->`` and ``<!-- /NAME -->``."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    part = text.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- /{name} -->\n")[0]
    return shell(part)


def shell(text: str) -> list[str]:
    """The shell blocks in Markdown."""
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


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
    """The part of az that the guides use. AZ_READY_FILE names the embedded Azure's ready file."""

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

    def _token(self, resource: str) -> str:
        asked = {"grant_type": "client_credentials", "scope": f"{resource}/.default"}
        credential = {name: self._ready[name] for name in ("client_id", "client_secret")}
        url = f"{self._ready['authority']}/{self._ready['tenant_id']}/oauth2/v2.0/token"
        token: str = self._call("POST", url, None, urllib.parse.urlencode({**asked, **credential}))["access_token"]
        return token

    def account(self, action: str, body: Mapping[str, Any] | None) -> Any:
        """A POST to the Batch account in the options."""
        base = self._ready["resource_manager"]
        token = self._token("https://management.azure.com")
        listed = self._call("GET", f"{base}/subscriptions?api-version=2022-12-01", token, None)["value"]
        group, name = self.option("resource-group"), self.option("name")
        path = f"/subscriptions/{listed[0]['subscriptionId']}/resourceGroups/{group}"
        url = f"{base}{path}/providers/Microsoft.Batch/batchAccounts/{name}/{action}?api-version=2024-07-01"
        return self._call("POST", url, token, body or {})

    def run(self) -> str:
        """Runs the command and returns its output. Raises KeyError for a missing option, ValueError for an unsupported
        command.
        """
        match self.command:
            case "batch account keys renew":
                reply = self.account("regenerateKeys", {"keyName": self.option("key-name")})
            case "batch account keys list":
                reply = self.account("listKeys", None)[self.option("query")]
            case "keyvault secret set":
                url = self._ready["vaults"][self.option("vault-name")]
                body = {"value": Path(self.option("file")).read_text(encoding="utf-8")}
                reply = self._call(
                    "PUT",
                    f"{url}/secrets/{self.option('name')}?api-version=7.4",
                    self._token("https://vault.azure.net"),
                    body,
                )
            case _:
                raise ValueError(f"no such command here: az {self.command}")
        output = self._options.pop("--output", "json")
        if self._options:
            raise ValueError(f"options that az here does not know: {self._options}")
        return {"none": "", "tsv": f"{reply}\n"}.get(output) or (json.dumps(reply) if output == "json" else "")


if __name__ == "__main__":
    ready_file = Path(os.environ["AZ_READY_FILE"])
    sys.stdout.write(Az(json.loads(ready_file.read_text(encoding="utf-8")), sys.argv[1:]).run())
