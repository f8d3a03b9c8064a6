"""Runs the unmodified az CLI against the emulator: `python tests/az_cli/check.py AZ`.

Prints a line for each step, and exits with 1 at the first failure. It does not change the CLI's own configuration.
"""

# ruff: noqa: T201, S310  # a program that prints; it opens only the emulator's address

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
    """The CLI with a separate configuration."""

    def __init__(self, program, directory, ready):
        self.program = program
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AZURE_", "ARM_"))}
        self.environ = inherited | {
            "AZURE_CONFIG_DIR": str(directory),
            "AZURE_CORE_COLLECT_TELEMETRY": "false",
            "REQUESTS_CA_BUNDLE": ready["ca_bundle"],
            "NO_PROXY": "localhost,127.0.0.1",
        }

    def run(self, *arguments, fails=None):
        """The parsed output of a command. With `fails` the command must fail, with that text on stderr."""
        command = [self.program, *arguments, "--output", "json"]
        completed = subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=120, check=False)
        step = "az " + " ".join(word for word in arguments if not word.startswith("--password"))
        if fails is not None:
            check(
                f"{step} is refused: {fails}", completed.returncode != 0 and fails in completed.stderr, completed.stderr
            )
            return None
        check(step, completed.returncode == 0, completed.stderr)
        return json.loads(completed.stdout) if completed.stdout.strip() else None


def check(step, passed, detail=""):
    """Print the step, and exit if it failed."""
    print(f"{'ok  ' if passed else 'FAIL'} {step}", flush=True)
    if not passed:
        sys.exit(f"{detail}".strip() or 1)


def wait_for(path, server):
    """Wait for the ready file; returns its content."""
    deadline = time.monotonic() + 30
    while not path.exists():
        if server.poll() is not None or time.monotonic() > deadline:
            sys.exit("the emulator did not start")
        time.sleep(0.05)
    return json.loads(path.read_text())


def control(ready, method, path, body):
    """Send a request to the control address."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(ready["control"] + path, json.dumps(body).encode(), headers, method=method)
    urllib.request.urlopen(request, timeout=10).close()  # nosec B310  # the emulator, on loopback


def batch(az, ready):
    """Check the commands for accounts and keys."""
    account = ("--resource-group", GROUP, "--name", ACCOUNT)
    before = az.run("batch", "account", "keys", "list", *account)
    check("both keys are there", bool(before["primary"]) and bool(before["secondary"]))
    renewed = az.run("batch", "account", "keys", "renew", *account, "--key-name", "Primary")
    check("the primary key has changed", renewed["primary"] != before["primary"])
    check("the secondary key has not changed", renewed["secondary"] == before["secondary"])
    check(
        "the list shows the new key",
        az.run("batch", "account", "keys", "list", *account)["primary"] == renewed["primary"],
    )
    names = [item["name"] for item in az.run("batch", "account", "list")]
    check("accounts are listed", ACCOUNT in names, names)
    shown = az.run("batch", "account", "show", *account)
    check("an account is shown", shown["provisioningState"] == "Succeeded", shown)
    fault = {"operation": "listKeys", "status": 403, "code": "AuthorizationFailed", "message": "no role", "times": 1}
    control(ready, "POST", "/faults", fault)
    az.run("batch", "account", "keys", "list", *account, fails="AuthorizationFailed")


def resources(az, ready):
    """Check the commands for groups, resources, vaults, and accounts that are changed, created and deleted."""
    vaults = az.run("keyvault", "list")
    check("both vaults are listed", [vault["name"] for vault in vaults] == ["kv-render", "kv-genome"], vaults)
    vault = az.run("keyvault", "show", "--name", "kv-render")
    check("a vault is found by name", vault["properties"]["vaultUri"] == ready["vaults"]["kv-render"] + "/", vault)
    check("vaults of a group are listed", len(az.run("keyvault", "list", "--resource-group", GROUP)) == 2)
    check("groups are listed", GROUP in [group["name"] for group in az.run("group", "list")])
    check("a group exists", az.run("group", "exists", "--name", GROUP) is True)
    check("another does not", az.run("group", "exists", "--name", "none") is False)
    found = az.run("resource", "list", "--resource-type", "Microsoft.Batch/batchAccounts")
    check("resources are listed by type", ACCOUNT in [each["name"] for each in found], found)
    provider = az.run("provider", "show", "--namespace", "Microsoft.Batch")
    check("the provider is registered", provider["registrationState"] == "Registered", provider)
    created = ("--resource-group", GROUP, "--name", "newaccount")
    az.run("batch", "account", "create", *created, "--location", "westeurope")
    # The command of docs/comparison.md that turns shared keys off.
    url = (
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Batch/batchAccounts/newaccount"
        "?api-version=2024-07-01"
    )
    body = json.dumps({"properties": {"allowedAuthenticationModes": ["AAD"]}})
    az.run("rest", "--method", "patch", "--body", body, "--url", url)
    az.run("batch", "account", "keys", "list", *created, fails="SharedKeyAccessNotAllowed")
    az.run("batch", "account", "delete", *created, "--yes")
    az.run("batch", "account", "show", *created, fails="AccountNotFound")
    check("a quota is shown", az.run("batch", "location", "quotas", "show", "--location", "westeurope"))


def key_vault(az, ready):
    """Check the commands for secrets."""
    vault = ready["vaults"]["kv-render"]
    control(ready, "PATCH", "/vaults/kv-render", {"delete_delay": 0, "recover_delay": 0})
    by_id = ("--id", f"{vault}/secrets/hello")
    by_name = ("--vault-name", vault.removeprefix("https://"), "--name", "hello")
    created = az.run("keyvault", "secret", "set", *by_name, "--value", "world", "--tags", "a=b")
    check("the secret has its value and tags", (created["value"], created["tags"].get("a")) == ("world", "b"), created)
    check("the secret is shown by id", az.run("keyvault", "secret", "show", *by_id)["value"] == "world")
    check("the secret is shown by name", az.run("keyvault", "secret", "show", *by_name)["value"] == "world")
    names = [item["name"] for item in az.run("keyvault", "secret", "list", "--id", vault)]
    check("the secret is listed", names == ["hello"], names)
    az.run("keyvault", "secret", "set", *by_name, "--value", "again")
    versions = az.run("keyvault", "secret", "list-versions", *by_id)
    check("the secret has two versions", len(versions) == 2, versions)
    az.run("keyvault", "secret", "set-attributes", *by_id, "--enabled", "false")
    az.run("keyvault", "secret", "show", *by_id, fails="disabled secret")
    az.run("keyvault", "secret", "set-attributes", *by_id, "--enabled", "true")
    az.run("keyvault", "secret", "delete", *by_id)
    az.run("keyvault", "secret", "show", *by_id, fails="SecretNotFound")
    az.run("keyvault", "secret", "set", *by_name, "--value", "x", fails="ObjectIsDeletedButRecoverable")
    az.run("keyvault", "secret", "recover", "--id", f"{vault}/deletedsecrets/hello")
    check("the secret is recovered", az.run("keyvault", "secret", "show", *by_id)["value"] == "again")


def rotation(az, ready, directory):
    """Run the commands of docs/rotation.md unchanged."""
    vault = ready["vaults"]["kv-render"]
    account = {"subscription_id": SUBSCRIPTION, "resource_group": GROUP, "name": ACCOUNT, "vaults": ["main"]}
    config = {
        "cloud": {name: ready[name] for name in ("authority", "resource_manager", "ca_bundle")},
        "credential": {"type": "environment"},
        "vaults": {"main": {"url": vault, "verify_challenge_resource": False}},
        "accounts": [account],
    }
    (directory / "keysync.yaml").write_text(json.dumps(config))
    credential = {f"AZURE_{name.upper()}": ready[name] for name in ("tenant_id", "client_id", "client_secret")}
    path = f"{walkthrough.programs(directory / 'bin', az.program)}{os.pathsep}{os.environ['PATH']}"
    environ = {**az.environ, **credential, "PATH": path}
    names = f"account={ACCOUNT} group={GROUP} vault={vault.removeprefix('https://')}\n"
    guide = [*walkthrough.blocks("rotation.md", "walk")[1:], *walkthrough.blocks("rotation.md", "by hand")[1:]]
    for block in ["keysync sync", *guide]:
        completed = walkthrough.run(names + block, environ, directory)
        step = " / ".join(line for line in block.splitlines() if line)
        check(f"the guide: {step}", completed.returncode == 0, completed.stdout + completed.stderr)


def first_steps(az, ready, directory):
    """Run README's commands for a real subscription unchanged, as a user who owns it: the role step takes effect.

    The proxy leads Azure's own names to the emulator, so az needs no cloud and no option.
    """
    az.environ |= {"HTTPS_PROXY": ready["proxy"], "SSL_CERT_FILE": ready["ca_bundle"], "NO_PROXY": ""}
    (directory / "keysync.yaml").write_text(walkthrough.first_configuration())
    path = f"{walkthrough.programs(directory / 'bin', az.program)}{os.pathsep}{os.environ['PATH']}"
    environ = {**az.environ, "PATH": path}
    az.run("login", "--use-device-code")
    vault = az.run("keyvault", "show", "--name", "kv-render")["id"]
    denied = walkthrough.run("keysync check", environ, directory)
    check("check names the missing action", "getSecret/action" in denied.stdout, denied.stdout + denied.stderr)
    for script in (walkthrough.first_steps(), walkthrough.first_steps(only_roles=True)):
        completed = walkthrough.run(script, environ, directory)
        check(
            "README: " + " / ".join(script.split("\n")), completed.returncode == 0, completed.stdout + completed.stderr
        )
    names = [item["name"] for item in az.run("keyvault", "secret", "list", "--vault-name", "kv-render")]
    check("both secrets are there", len(names) == 2, names)
    assigned = az.run("role", "assignment", "list", "--all")
    check("az shows the assignments", {each["principalName"] for each in assigned} == {"you@example.com"}, assigned)
    reader = ("--role", "Reader", "--scope", vault)
    az.run("role", "assignment", "create", "--assignee", "you@example.com", *reader)
    az.run("role", "assignment", "delete", "--assignee", "you@example.com", *reader)


def everything(az, ready, directory):
    """Run the commands that need an application which may do everything, in a registered cloud."""
    az.run("config", "set", "core.instance_discovery=false")
    # With this suffix --vault-name accepts a host and a port: NAME.localhost does not resolve everywhere.
    endpoints = ("--endpoint-resource-manager", ready["resource_manager"], "--suffix-keyvault-dns", "/")
    az.run("cloud", "register", "--name", "keysync", *endpoints)
    az.run("cloud", "set", "--name", "keysync")
    principal = ("--tenant", ready["tenant_id"], "--username", ready["client_id"])
    az.run("login", "--service-principal", *principal, "--password=wrong", fails="AADSTS7000215")
    subscriptions = az.run("login", "--service-principal", *principal, f"--password={ready['client_secret']}")
    check("both subscriptions are listed", len(subscriptions) == 2, subscriptions)
    az.run("account", "set", "--subscription", SUBSCRIPTION)
    batch(az, ready)
    resources(az, ready)
    key_vault(az, ready)
    rotation(az, ready, directory)


def serve(program, steps, *arguments):
    """Start the emulator, run `steps`, stop it."""
    with tempfile.TemporaryDirectory(prefix="keysync-az-") as name:
        directory = Path(name)
        ready_file = directory / "ready.json"
        command = [sys.executable, "-m", "keysync", "emulator", "--ready-file", str(ready_file), *arguments]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            ready = wait_for(ready_file, server)
            check("the emulator starts", True)
            az = Az(program, directory / "azure", ready)
            steps(az, ready, directory)
        finally:
            server.terminate()
            code = server.wait(10)
        check("the emulator ends on SIGTERM", code == 0, code)


def main(program):
    """Run all steps with an application that may do everything, then README's with a user."""
    serve(program, everything)
    with tempfile.TemporaryDirectory(prefix="keysync-az-") as name:
        data = Path(name) / "data.yaml"
        subscription = "00000000-0000-0000-0000-000000000000"
        owner = {"role": "Owner", "scope": f"/subscriptions/{subscription}"}
        place = {"subscription_id": subscription, "resource_group": "default-azurebatch-japaneast"}
        content = {
            "identities": [{"name": "you@example.com", "type": "user", "roles": [owner]}],
            "accounts": [{**place, "name": "sampleacct"}],
            "vaults": [{"name": "kv-render"}],
            "role_delay": 0,
        }
        data.write_text(json.dumps(content))
        serve(program, first_steps, "--data", str(data))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
