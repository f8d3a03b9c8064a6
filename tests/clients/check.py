"""Runs Azure's own SDKs, unmodified, against the embedded Azure: `python tests/clients/check.py [--record FILE] NAME=COMMAND...`.

NAME is a key of CLIENTS, COMMAND how its program starts. Each program makes the operations of OPERATIONS with the options
that a user of Azure sets, which are none: the emulator's proxy gives the services their names in Azure. Prints a line for each
operation. Exits with 1 if a client fails, skips an operation, or was not throttled where it should have been.

With --record, FILE gets every request with its response, for oav.
"""

# ruff: noqa: T201  # a program that prints

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509 import load_pem_x509_certificate

sys.path.insert(0, str(Path(__file__).parents[2]))
from keysync.emulator import Emulator, EmulatorData, Endpoints
from keysync.emulator.wire import Call

TIMEOUT = 600
SUBSCRIPTION, GROUP, ACCOUNT = "5b000000-0000-4000-8000-000000000001", "rg-render", "render"
SECRETS = 30
BATCH_KEY, BATCH_TOKEN = "use Batch with a key", "use Batch with a token"
OPERATIONS = (
    "sign in",
    "sign in with a wrong secret",
    "list accounts",
    "get an account",
    "list keys",
    "regenerate a key",
    "a denied and a missing account",
    "a throttled account",
    "set a secret",
    "get a secret",
    "list secrets",
    "list versions",
    "update a secret",
    "back up a secret",
    "delete a secret",
    "recover a secret",
    "purge a secret",
    "restore a secret",
    "a throttled secret",
    "a denied secret",
    BATCH_KEY,
    BATCH_TOKEN,
)
CLIENTS = {
    "python": (),
    "python-old": (BATCH_KEY, BATCH_TOKEN),  # its packages have no client of the data plane
    "go": (BATCH_KEY,),  # azbatch signs in with tokens only
    "java": (BATCH_KEY, BATCH_TOKEN),  # no released package is a client of the data plane
    "javascript": (),
    "az": (),
}
"""The clients, and the operations that they do not have."""


class Failed(Exception):
    """A client did not do what it should."""


@dataclass
class Recorder:
    """The pairs of requests and responses in the form that oav reads."""

    pairs: list[dict[str, Any]]

    def add(self, call: Call, response: web.Response) -> None:
        """Keep one pair."""
        query = dict(call.query)
        self.pairs.append(
            {
                "liveRequest": {
                    "method": call.method,
                    "url": f"{call.raw_path}?{'&'.join(f'{name}={value}' for name, value in query.items())}",
                    "headers": {name.lower(): value for name, value in call.headers.items()},
                    "query": query,
                    "body": _json(call.body),
                },
                "liveResponse": {
                    "statusCode": str(response.status),
                    "headers": {name.lower(): value for name, value in response.headers.items()},
                    "body": _json(response.body if isinstance(response.body, bytes) else b""),
                },
            }
        )


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")


def content() -> EmulatorData:
    """Accounts and vaults for the operations. Lists have more than one page; deletion and recovery take a second."""
    account = {"subscription_id": SUBSCRIPTION, "resource_group": GROUP}
    throttled = {"status": 429, "code": "TooManyRequests", "retry_after": "1", "times": 1}
    secrets = [{"name": f"secret{number}", "value": "x"} for number in range(SECRETS - 1)]
    return EmulatorData.model_validate(
        {
            "page_size": 2,
            "accounts": [
                {**account, "name": ACCOUNT, "tags": {"team": "render"}},
                {**account, "name": "denied", "fault": "role_missing"},
                {**account, "name": "busy", "fault": throttled},
            ],
            "vaults": [
                {
                    "name": "kv-clients",
                    "secrets": [*secrets, {"name": "busy", "value": "calm"}],
                    "delete_delay": 1,
                    "recover_delay": 1,
                },
                {"name": "kv-denied", "denied": ["getSecret"]},
            ],
            "faults": [{"operation": "getSecret", "target": "kv-clients/busy", **throttled}],
        }
    )


async def run(name: str, command: list[str], recorder: Recorder) -> None:
    """Run one client against an emulator of its own. Raises Failed."""
    data = content()
    with tempfile.TemporaryDirectory(prefix="keysync-clients-") as folder:
        async with Emulator(data, limits=True) as azure:
            azure.hooks.on_exchange = recorder.add
            environ = {
                **{name: value for name, value in os.environ.items() if not name.startswith(("AZURE_", "ARM_"))},
                **_proxy(azure.endpoints, Path(folder)),
                "AZURE_TENANT_ID": azure.endpoints.tenant_id,
                "AZURE_CLIENT_ID": azure.endpoints.client_id,
                "AZURE_CLIENT_SECRET": azure.endpoints.client_secret,
                "AZURE_CONFIG_DIR": folder,
                "AZURE_CORE_COLLECT_TELEMETRY": "false",
                "SUBSCRIPTION_ID": SUBSCRIPTION,
                "RESOURCE_GROUP": GROUP,
                "ACCOUNT": ACCOUNT,
                "ACCOUNTS": str(len(data.accounts)),
                "SECRETS": str(SECRETS),
                "VAULT_URL": "https://kv-clients.vault.azure.net",
                "DENIED_VAULT_URL": "https://kv-denied.vault.azure.net",
                **({} if BATCH_TOKEN in CLIENTS[name] else {"DATA_PLANE": "yes"}),
            }
            output, code = await _output(command, environ, Path(folder))
            passed = [line for line in output.splitlines() if line in OPERATIONS]
            for operation in passed:
                print(f"ok   {name}: {operation}", flush=True)
            missing = set(OPERATIONS) - set(CLIENTS[name]) - set(passed)
            if code or missing:
                raise Failed(f"{name} ended with {code}, without: {', '.join(sorted(missing)) or '-'}\n{output}")
            throttled = {(served.operation, served.target) for served in azure.requests if served.status == 429}
            if not {("listKeys", "busy"), ("getSecret", "kv-clients/busy")} <= throttled:
                raise Failed(f"{name} was throttled by {sorted(throttled)} only")


def _proxy(endpoints: Endpoints, folder: Path) -> dict[str, str]:
    """The variables for a proxy with a CA of its own. Java has properties instead, and a trust store."""
    certificate = pkcs12.PKCS12Certificate(load_pem_x509_certificate(endpoints.ca_pem.encode()), None)
    password = "public"  # nosec B105  # of a certificate, which is no secret
    encryption = serialization.BestAvailableEncryption(password.encode())
    store = folder / "java.p12"
    store.write_bytes(pkcs12.serialize_java_truststore([certificate], encryption))
    host, _, port = endpoints.proxy.removeprefix("http://").partition(":")
    properties = {
        "https.proxyHost": host,
        "https.proxyPort": port,
        "javax.net.ssl.trustStore": store,
        "javax.net.ssl.trustStoreType": "PKCS12",
        "javax.net.ssl.trustStorePassword": password,
    }
    return {
        "HTTPS_PROXY": endpoints.proxy,
        "NO_PROXY": "",
        **dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"), endpoints.ca_bundle),
        "JAVA_TOOL_OPTIONS": " ".join(f"-D{name}={value}" for name, value in properties.items()),
    }


async def _output(command: list[str], environ: dict[str, str], folder: Path) -> tuple[str, int]:
    """What the command printed, and its exit code. It is killed after TIMEOUT seconds."""
    path = folder / "output"
    with path.open("wb") as file:
        process = await asyncio.create_subprocess_exec(*command, env=environ, stdout=file, stderr=file)
        try:
            code = await asyncio.wait_for(process.wait(), TIMEOUT)
        except TimeoutError:
            process.kill()
            code = await process.wait()
            file.write(f"killed after {TIMEOUT} s\n".encode())
    return path.read_text(encoding="utf-8", errors="replace"), code


def main() -> None:
    """Run the given clients one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, metavar="FILE")
    parser.add_argument("clients", nargs="+", metavar="NAME=COMMAND")
    arguments = parser.parse_args()
    recorder, failures = Recorder([]), []
    for client in arguments.clients:
        name, _, command = client.partition("=")
        if name not in CLIENTS or not command:
            parser.error(f"{client}: expected NAME=COMMAND with a NAME of {', '.join(CLIENTS)}")
        began = time.monotonic()
        try:
            asyncio.run(run(name, shlex.split(command), recorder))
        except Failed as failure:
            failures.append(name)
            print(f"FAIL {failure}", flush=True)
        print(f"     {name}: {time.monotonic() - began:.0f} s", flush=True)
    if arguments.record is not None:
        arguments.record.write_text(json.dumps(recorder.pairs), encoding="utf-8")
        print(f"     {len(recorder.pairs)} pairs are in {arguments.record}")
    if failures:
        sys.exit(f"failed: {', '.join(failures)}")


if __name__ == "__main__":
    main()
