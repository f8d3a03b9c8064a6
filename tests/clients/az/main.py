"""The common operations with the Azure CLI: `python main.py AZ`. Prints each operation that has passed."""

# ruff: noqa: T201  # a program that prints and asserts

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ACCOUNT = ("--resource-group", os.environ["RESOURCE_GROUP"], "--name", os.environ["ACCOUNT"])
VAULT, DENIED_VAULT = (
    os.environ[name].removeprefix("https://").partition(".")[0] for name in ("VAULT_URL", "DENIED_VAULT_URL")
)
SECRET = ("--vault-name", VAULT, "--name", "alpha")


def passed(operation):
    print(operation, flush=True)


def az(*arguments, fails=None):
    """The parsed output of a command. With `fails` it must fail, with that text on stderr."""
    command = [sys.argv[1], *arguments, "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if fails is not None:
        assert done.returncode != 0, (arguments, done.stdout)
        assert fails in done.stderr, (arguments, done.stderr)
        return None
    assert done.returncode == 0, (arguments, done.stderr)
    return json.loads(done.stdout) if done.stdout.strip() else None


def eventually(*arguments):
    """The output of a command that may fail at first, since deletion and recovery take some time."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return az(*arguments)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def sign_in():
    principal = ("--tenant", os.environ["AZURE_TENANT_ID"], "--username", os.environ["AZURE_CLIENT_ID"])
    az("login", "--service-principal", *principal, "--password=wrong", fails="AADSTS7000215")
    passed("sign in with a wrong secret")
    subscriptions = az("login", "--service-principal", *principal, f"--password={os.environ['AZURE_CLIENT_SECRET']}")
    assert os.environ["SUBSCRIPTION_ID"] in [subscription["id"] for subscription in subscriptions]
    passed("sign in")


def accounts():
    assert len(az("batch", "account", "list")) == int(os.environ["ACCOUNTS"])
    assert len(az("batch", "account", "list", *ACCOUNT[:2])) == int(os.environ["ACCOUNTS"])
    passed("list accounts")
    account = az("batch", "account", "show", *ACCOUNT)
    assert (account["provisioningState"], account["tags"]) == ("Succeeded", {"team": "render"})
    passed("get an account")
    before = az("batch", "account", "keys", "list", *ACCOUNT)
    assert len(before["primary"]) == len(before["secondary"]) == 88
    passed("list keys")
    after = az("batch", "account", "keys", "renew", *ACCOUNT, "--key-name", "Primary")
    assert after["primary"] != before["primary"]
    assert after["secondary"] == before["secondary"]
    assert az("batch", "account", "keys", "list", *ACCOUNT)["primary"] == after["primary"]
    passed("regenerate a key")
    az("batch", "account", "keys", "list", *ACCOUNT[:3], "denied", fails="AuthorizationFailed")
    az("batch", "account", "show", *ACCOUNT[:3], "missing", fails="ResourceNotFound")
    passed("a denied and a missing account")
    assert az("batch", "account", "keys", "list", *ACCOUNT[:3], "busy")["primary"]
    passed("a throttled account")


def secrets():
    first = az("keyvault", "secret", "set", *SECRET, "--value", "one", "--tags", "a=b")
    assert (first["name"], first["value"], first["tags"]["a"]) == ("alpha", "one", "b")
    passed("set a secret")
    az("keyvault", "secret", "set", *SECRET, "--value", "two")
    version = first["id"].rpartition("/")[2]
    assert az("keyvault", "secret", "show", *SECRET)["value"] == "two"
    assert az("keyvault", "secret", "show", *SECRET, "--version", version)["value"] == "one"
    az("keyvault", "secret", "show", *SECRET[:3], "missing", fails="SecretNotFound")
    passed("get a secret")
    assert len(az("keyvault", "secret", "list", *SECRET[:2])) == int(os.environ["SECRETS"]) + 1
    passed("list secrets")
    assert len(az("keyvault", "secret", "list-versions", *SECRET)) == 2
    passed("list versions")
    updated = az("keyvault", "secret", "set-attributes", *SECRET, "--enabled", "false", "--tags", "c=d")
    assert (updated["attributes"]["enabled"], updated["tags"]) == (False, {"c": "d"})
    az("keyvault", "secret", "show", *SECRET, fails="disabled secret")
    az("keyvault", "secret", "set-attributes", *SECRET, "--enabled", "true")
    passed("update a secret")
    life_cycle()
    assert az("keyvault", "secret", "show", *SECRET[:3], "busy")["value"] == "calm"
    passed("a throttled secret")
    denied = "is not authorized to perform action"
    az("keyvault", "secret", "show", "--vault-name", DENIED_VAULT, "--name", "alpha", fails=denied)
    passed("a denied secret")


def life_cycle():
    with tempfile.TemporaryDirectory() as folder:
        backup = str(Path(folder) / "backup")
        az("keyvault", "secret", "backup", *SECRET, "--file", backup)
        passed("back up a secret")
        az("keyvault", "secret", "delete", *SECRET)
        eventually("keyvault", "secret", "show-deleted", *SECRET)
        assert [secret["name"] for secret in az("keyvault", "secret", "list-deleted", *SECRET[:2])] == ["alpha"]
        az("keyvault", "secret", "set", *SECRET, "--value", "three", fails="ObjectIsDeletedButRecoverable")
        passed("delete a secret")
        az("keyvault", "secret", "recover", *SECRET)
        assert eventually("keyvault", "secret", "show", *SECRET)["value"] == "two"
        passed("recover a secret")
        az("keyvault", "secret", "delete", *SECRET)
        eventually("keyvault", "secret", "purge", *SECRET)
        passed("purge a secret")
        eventually("keyvault", "secret", "restore", *SECRET[:2], "--file", backup)
    assert az("keyvault", "secret", "show", *SECRET)["value"] == "two"
    assert len(az("keyvault", "secret", "list-versions", *SECRET)) == 2
    passed("restore a secret")


def data_plane():
    az("batch", "account", "login", *ACCOUNT, "--shared-key-auth")
    assert az("batch", "pool", "supported-images", "list")
    passed("use Batch with a key")
    az("batch", "account", "login", *ACCOUNT)
    assert az("batch", "pool", "supported-images", "list")
    passed("use Batch with a token")


sign_in()
accounts()
secrets()
data_plane()
