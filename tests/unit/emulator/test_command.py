"""`keysync emulator` as a process, and its data file."""

import json
import signal
import stat
import subprocess
import sys
import time
from io import StringIO

import pytest
from ruamel.yaml import YAML

from keysync.cli.emulator import _seconds
from keysync.emulator import load_data
from keysync.errors import ConfigError, UsageError

from .conftest import SUB

DATA = f"""
accounts:
  - {{subscription_id: {SUB}, resource_group: rg, name: first, fault: throttled}}
  - {{subscription_id: {SUB}, resource_group: rg, name: second, fault: {{kind: html, status: 502}}}}
vaults:
  - name: kv-one
    secrets: [{{name: there, value: x, tags: {{a: b}}}}]
    deleted: [{{name: gone}}]
"""


def command(*arguments):
    return [sys.executable, "-m", "keysync", "emulator", *map(str, arguments)]


def test_it_serves_until_sigterm(tmp_path):
    """The ready file and the printed configuration agree, and the exit code is 0."""
    data, ready = tmp_path / "data.yaml", tmp_path / "ready.json"
    data.write_text(DATA)
    arguments = command("--data", data, "--ready-file", ready, "--limits", "azure", "--latency", "1ms")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 20
        while not ready.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        endpoints = json.loads(ready.read_text())
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert stat.S_IMODE(ready.stat().st_mode) == 0o600
    assert set(endpoints) == {
        "authority",
        "resource_manager",
        "ca_bundle",
        "tenant_id",
        "client_id",
        "client_secret",
        "identities",
        "batch",
        "queues",
        "vaults",
        "control",
        "proxy",
        "identity_endpoint",
        "identity_header",
    }
    config = YAML(typ="safe", pure=True).load(StringIO(printed.partition("\n\n")[0]))
    assert config["cloud"] == {name: endpoints[name] for name in ("authority", "resource_manager", "ca_bundle")}
    assert config["vaults"] == {"kv-one": {"url": endpoints["vaults"]["kv-one"], "verify_challenge_resource": False}}
    assert [account["name"] for account in config["accounts"]] == ["first", "second"]
    assert f"export AZURE_CLIENT_SECRET={endpoints['client_secret']}" in printed


TWICE = "vaults: [{name: kv-a, secrets: [{name: one, value: a}], deleted: [{name: ONE, value: b}]}]"


@pytest.mark.parametrize(
    "text", ["accounts: [{name: x}]", "vaults: [{name: kv-a}, {name: KV-A}]", TWICE, "[]", "nonsense: 1"]
)
def test_an_invalid_file_is_reported(tmp_path, text):
    """The exit code is 2, and the message names the file."""
    data = tmp_path / "data.yaml"
    data.write_text(text)
    done = subprocess.run(command("--data", data), capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert str(data) in done.stderr
    assert "alue error" not in done.stderr
    assert "something else" not in done.stderr


def test_a_broken_rule_is_reported_alone(tmp_path):
    """With line and key, and without what was found: the message says it."""
    data = tmp_path / "data.yaml"
    data.write_text("""\
vaults: [{name: kv-one, api_versions: ["9.9"]}]
identities: [{name: one, roles: [{role: Owner, condition: "one ("}]}]
faults: [{kind: misrouted}, {kind: stale, operation: listKeys}]
""")
    with pytest.raises(ConfigError) as caught:
        load_data(data, {})
    assert [(finding.line, finding.key, finding.message.partition(",")[0]) for finding in caught.value.findings] == [
        (1, "vaults[0].api_versions", "'9.9' is no api-version of Key Vault"),
        (2, "identities[0].roles[0].condition", "the condition has one at position 1"),
        (3, "faults[0]", "a misrouted reply needs `other`: the account or the secret that the reply is about"),
        (3, "faults[1]", "the kind stale is for the operations setSecret"),
    ]


@pytest.mark.parametrize("option", ["--ready-file", "--env-file", "--write-config"])
def test_the_data_file_is_not_overwritten(tmp_path, option):
    """The command removes and writes its output files, also by another name of the same file."""
    data = tmp_path / "data.yaml"
    text = f"accounts: [{{subscription_id: {SUB}, resource_group: rg, name: first}}]\nvaults: [{{name: kv-one}}]\n"
    data.write_text(text)
    (tmp_path / "folder").mkdir()
    same = tmp_path / "folder" / ".." / "data.yaml"
    done = subprocess.run(
        command("--data", data, option, same), capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, "name a file of its own" in done.stderr) == (2, True)
    assert data.read_text() == text


def test_an_unknown_operation_is_reported(tmp_path):
    """With the most similar operation, everywhere in the data file."""
    data = tmp_path / "data.yaml"
    account = f"subscription_id: {SUB}, resource_group: rg"
    data.write_text(
        f"""\
accounts:
  - {{{account}, name: first, denied: [listkeys]}}
  - {{{account}, name: second, fault: {{operation: listKey}}}}
  - {{{account}, name: third, denied: [getAccount], fault: {{operation: LISTK*}}}}
vaults:
  - {{name: kv-one, denied: [getSecret, getSecrets]}}
faults: [{{operation: "zzzz*"}}, {{operation: "*secret"}}]
"""
    )
    with pytest.raises(ConfigError) as caught:
        load_data(data, {})
    assert [(finding.line, finding.key, finding.message, finding.hint) for finding in caught.value.findings][:-1] == [
        (2, "accounts[0].denied", "there is no operation 'listkeys'", "did you mean 'listKeys'?"),
        (3, "accounts[1].fault.operation", "there is no operation 'listKey'", "did you mean 'listKeys'?"),
        (6, "vaults[0].denied", "there is no operation 'getSecrets'", "did you mean 'getSecret'?"),
    ]
    last = caught.value.findings[-1]
    assert (last.line, last.key, last.message) == (7, "faults[0].operation", "there is no operation 'zzzz*'")
    assert "listKeys, regenerateKeys, " in (last.hint or "")


def test_latency_is_parsed():
    """In milliseconds and seconds. Anything else is a usage error."""
    assert (_seconds("40ms"), _seconds("1.5s")) == (0.04, 1.5)
    for invalid in ("40", "-1s", "1h", ""):
        with pytest.raises(UsageError, match="--latency"):
            _seconds(invalid)
