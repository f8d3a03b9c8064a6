"""An unmodified az CLI against the embedded Azure: `python tests/az_cli/check.py AZ`.

Prints a line for each step, and ends with 1 at the first that fails. The CLI's own configuration is left alone.
"""

# ruff: noqa: T201, S310  # a program that prints; the only address it opens is the emulator's own

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support import walkthrough

SUBSCRIPTION = "5b000000-0000-4000-8000-000000000001"
GROUP = "rg-render"
ACCOUNT = "renderwest"


class Az:
    """The CLI with a configuration of its own."""

    def __init__(self, program, directory, ready):
        self.program = program
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AZURE_", "ARM_"))}
        self.environ = kept | {
            "AZURE_CONFIG_DIR": str(directory),
            "AZURE_CORE_COLLECT_TELEMETRY": "false",
            "REQUESTS_CA_BUNDLE": ready["ca_bundle"],
            "NO_PROXY": "localhost,127.0.0.1",
        }

    def run(self, *arguments, fails=None):
        """The command's output, parsed; with `fails`, that text must be in the errors of a command that fails."""
        words = [self.program, *arguments, "--output", "json"]
        done = subprocess.run(words, env=self.environ, capture_output=True, text=True, timeout=120, check=False)
        step = "az " + " ".join(word for word in arguments if not word.startswith("--password"))
        if fails is not None:
            check(f"{step} is refused: {fails}", done.returncode != 0 and fails in done.stderr, done.stderr)
            return None
        check(step, done.returncode == 0, done.stderr)
        return json.loads(done.stdout) if done.stdout.strip() else None


def check(step, holds, detail=""):
    """Print the step; end the program unless it holds."""
    print(f"{'ok  ' if holds else 'FAIL'} {step}", flush=True)
    if not holds:
        sys.exit(f"{detail}".strip() or 1)


def wait_for(path, server):
    """The ready file's content, once it is there."""
    deadline = time.monotonic() + 30
    while not path.exists():
        if server.poll() is not None or time.monotonic() > deadline:
            sys.exit("the emulator did not start")
        time.sleep(0.05)
    return json.loads(path.read_text())


def batch(az, ready):
    """Keys are shown and renewed."""
    place = ("--resource-group", GROUP, "--name", ACCOUNT)
    before = az.run("batch", "account", "keys", "list", *place)
    check("both keys are there", bool(before["primary"]) and bool(before["secondary"]))
    renewed = az.run("batch", "account", "keys", "renew", *place, "--key-name", "Primary")
    check("the primary is another", renewed["primary"] != before["primary"])
    check("the secondary is as it was", renewed["secondary"] == before["secondary"])
    check("and so it stays", az.run("batch", "account", "keys", "list", *place)["primary"] == renewed["primary"])
    names = [account["name"] for account in az.run("batch", "account", "list")]
    check("accounts are listed", ACCOUNT in names, names)
    shown = az.run("batch", "account", "show", *place)
    check("an account is shown", shown["provisioningState"] == "Succeeded", shown)
    fault = {"operation": "listKeys", "status": 403, "code": "AuthorizationFailed", "message": "no role", "times": 1}
    body = json.dumps(fault).encode()
    request = urllib.request.Request(f"{ready['control']}/faults", data=body, method="POST")
    urllib.request.urlopen(request, timeout=10).close()  # nosec B310  # the embedded Azure, on loopback
    az.run("batch", "account", "keys", "list", *place, fails="AuthorizationFailed")


def key_vault(az, ready):
    """Secrets are set, shown, listed, changed, deleted and recovered."""
    vault = ready["vaults"]["kv-render"]
    secret = ("--id", f"{vault}/secrets/hello")
    named = ("--vault-name", vault.removeprefix("https://"), "--name", "hello")
    made = az.run("keyvault", "secret", "set", *named, "--value", "world", "--tags", "a=b")
    check("the secret has its value and tags", (made["value"], made["tags"].get("a")) == ("world", "b"), made)
    check("and is shown", az.run("keyvault", "secret", "show", *secret)["value"] == "world")
    check("by name too", az.run("keyvault", "secret", "show", *named)["value"] == "world")
    names = [found["name"] for found in az.run("keyvault", "secret", "list", "--id", vault)]
    check("and is listed", names == ["hello"], names)
    az.run("keyvault", "secret", "set", *named, "--value", "again")
    versions = az.run("keyvault", "secret", "list-versions", *secret)
    check("it has two versions", len(versions) == 2, versions)
    az.run("keyvault", "secret", "set-attributes", *secret, "--enabled", "false")
    az.run("keyvault", "secret", "show", *secret, fails="disabled secret")
    az.run("keyvault", "secret", "set-attributes", *secret, "--enabled", "true")
    az.run("keyvault", "secret", "delete", *secret)
    az.run("keyvault", "secret", "show", *secret, fails="SecretNotFound")
    az.run("keyvault", "secret", "set", *named, "--value", "x", fails="ObjectIsDeletedButRecoverable")
    az.run("keyvault", "secret", "recover", "--id", f"{vault}/deletedsecrets/hello")
    time.sleep(0.5)
    check("it is back", az.run("keyvault", "secret", "show", *secret)["value"] == "again")


def rotation(az, ready, directory):
    """The commands of docs/rotation.md, run as they stand."""
    vault = ready["vaults"]["kv-render"]
    account = {"subscription_id": SUBSCRIPTION, "resource_group": GROUP, "name": ACCOUNT, "vaults": ["main"]}
    config = {
        "cloud": {name: ready[name] for name in ("authority", "resource_manager", "ca_bundle")},
        "credential": {"type": "environment"},
        "vaults": {"main": {"url": vault, "verify_challenge_resource": False}},
        "accounts": [account],
    }
    (directory / "keysync.yaml").write_text(json.dumps(config))
    signed_in = {f"AZURE_{name.upper()}": ready[name] for name in ("tenant_id", "client_id", "client_secret")}
    path = f"{walkthrough.programs(directory / 'bin', az.program)}{os.pathsep}{os.environ['PATH']}"
    environ = {**az.environ, **signed_in, "PATH": path}
    names = f"account={ACCOUNT} group={GROUP} vault={vault.removeprefix('https://')}\n"
    guide = [*walkthrough.blocks("rotation.md", "walk")[1:], *walkthrough.blocks("rotation.md", "by hand")[1:]]
    for block in ["keysync sync", *guide]:
        done = walkthrough.run(names + block, environ, directory)
        step = " / ".join(line for line in block.splitlines() if line)
        check(f"the guide: {step}", done.returncode == 0, done.stdout + done.stderr)


def main(program):
    """Start the emulator, go through the steps, stop it."""
    with tempfile.TemporaryDirectory(prefix="keysync-az-") as name:
        directory = Path(name)
        ready_file = directory / "ready.json"
        command = [sys.executable, "-m", "keysync", "emulator", "--ready-file", str(ready_file)]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            ready = wait_for(ready_file, server)
            check("the emulator serves", True)
            az = Az(program, directory / "azure", ready)
            az.run("config", "set", "core.instance_discovery=false")
            # The suffix lets --vault-name take a host and a port: NAME.localhost does not resolve everywhere.
            places = ("--endpoint-resource-manager", ready["resource_manager"], "--suffix-keyvault-dns", "/")
            az.run("cloud", "register", "--name", "keysync", *places)
            az.run("cloud", "set", "--name", "keysync")
            who = ("--tenant", ready["tenant_id"], "--username", ready["client_id"])
            az.run("login", "--service-principal", *who, "--password=wrong", fails="AADSTS7000215")
            subscriptions = az.run("login", "--service-principal", *who, f"--password={ready['client_secret']}")
            check("both subscriptions are seen", len(subscriptions) == 2, subscriptions)
            az.run("account", "set", "--subscription", SUBSCRIPTION)
            batch(az, ready)
            key_vault(az, ready)
            rotation(az, ready, directory)
        finally:
            server.terminate()
            code = server.wait(10)
        check("the emulator ends on SIGTERM", code == 0, code)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
