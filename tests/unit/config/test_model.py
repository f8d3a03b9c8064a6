"""The settings of valid configurations."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from keysync.config.credentials import (
    ClientSecretCredential,
    CloudMapping,
    DefaultCredential,
    EnvironmentVariable,
    ManagedIdentityCredential,
)
from keysync.config.formats import format_duration, parse_duration, split_listen
from keysync.config.model import Account, Config, SecretNames, Vault
from tests.support.certificates import certificate_pem
from tests.unit.config.conftest import RIGHT


def test_defaults_match_the_contract(load):
    """A key that is not set has its documented default."""
    config = load()
    assert config.cloud == "public"
    assert config.credential == DefaultCredential()
    assert (config.schedule.every, config.schedule.jitter) == (timedelta(minutes=5), timedelta(0))
    assert (config.limits.update_percent, config.limits.creates, config.limits.removal_percent) == (100, 500, 10)
    seconds = [config.timeouts.request, config.timeouts.account, config.timeouts.collect, config.timeouts.shutdown]
    assert [span.total_seconds() for span in seconds] == [30, 120, 10, 10]
    assert (config.concurrency, split_listen(config.listen)) == (64, ("127.0.0.1", 8080))
    assert (config.owner, config.read_only, config.adopt, config.recover, config.orphans) == (
        None,
        False,
        False,
        "report",
        "keep",
    )


def test_account_has_its_id_and_secret_names(load):
    """Both are computed from the fields of the account."""
    (account,) = load().accounts
    assert account.resource_id == (
        "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/default-azurebatch-japaneast"
        "/providers/Microsoft.Batch/batchAccounts/sampleacct"
    )
    assert account.secret_names() == {"primary": "sampleacct-primary-key", "secondary": "sampleacct-secondary-key"}


def test_null_name_skips_a_key():
    """A key whose name is null is not synced."""
    names = SecretNames(primary="{resource_group}-{account}", secondary=None)
    assert names.render("acct", resource_group="rg") == {"primary": "rg-acct"}


def test_vault_url_is_normalized():
    """Case, a trailing slash and the default port make no difference."""
    vault = TypeAdapter(Vault).validate_python
    assert vault({"url": "https://KV.vault.azure.net:443/"}).url == "https://kv.vault.azure.net"
    assert vault({"url": "https://localhost:8443"}).url == "https://localhost:8443"


def test_guid_is_lower_case(load):
    """Two spellings of a subscription are one subscription."""
    text = RIGHT.replace("00000000-0000-0000-0000-000000000000", "ABCDEF00-0000-0000-0000-000000000000")
    (account,) = load(text).accounts
    assert account.subscription_id == "abcdef00-0000-0000-0000-000000000000"


def test_cloud_can_be_a_mapping(load):
    """A cloud without a name has its endpoints in a mapping."""
    cloud = load(RIGHT + "cloud: {authority: https://login.x/, resource_manager: https://arm.x:8443}\n").cloud
    assert isinstance(cloud, CloudMapping)
    assert (cloud.authority, cloud.resource_manager) == ("https://login.x", "https://arm.x:8443")


def test_client_secret_is_an_environment_variable(load):
    """The configuration holds the name of the variable, not the secret."""
    text = RIGHT + "credential: {type: client_secret, tenant_id: t, client_id: c, client_secret: '${S}'}\n"
    credential = load(text, {"S": "hunter2"}).credential
    assert isinstance(credential, ClientSecretCredential)
    assert credential.client_secret == EnvironmentVariable("S")
    assert "hunter2" not in repr(credential)


@pytest.mark.parametrize("value", ["hunter2", "hunter2${S}", "${S}${S}", "$${S}"])
def test_literal_secret_is_an_error(findings, value):
    """The file must not contain a secret, nor a part of one."""
    text = RIGHT + f"credential: {{type: client_secret, tenant_id: t, client_id: c, client_secret: '{value}'}}\n"
    (finding,) = findings(text, {"S": "abc"})
    assert (finding.line, finding.key) == (8, "credential.client_secret")
    assert finding.message == "the file must not contain a secret"
    assert "hunter2" not in str(finding)


def test_client_secret_has_one_source(findings):
    """Neither or both of its sources is an error."""
    (finding,) = findings(RIGHT + "credential: {type: client_secret, tenant_id: t, client_id: c}\n")
    assert "exactly one of client_secret_file and client_secret" in finding.message
    (empty,) = findings(
        RIGHT + "credential: {type: client_secret, tenant_id: t, client_id: c, client_secret: '${S}'}\n", {"S": ""}
    )
    assert "variable is empty" in empty.message


NOTIFY = RIGHT + "notify: {url: 'https://hooks.example.com/a/?b=c', secret: '${S}'}\n"


def test_webhook_is_optional_and_has_defaults(load):
    """By default it gets every event. Its URL stays exactly as written."""
    assert load().notify is None
    notify = load(NOTIFY, {"S": "hunter2"}).notify
    assert notify.url == "https://hooks.example.com/a/?b=c"
    assert notify.events == ("changed", "failed", "recovered", "stopped")
    assert notify.timeout == timedelta(seconds=10)
    assert notify.secret == EnvironmentVariable("S")
    assert "hunter2" not in repr(notify)


def test_secret_of_a_webhook_may_be_a_file(load, tmp_path):
    """A relative path starts at the folder of the configuration."""
    (tmp_path / "hook-secret").touch()
    assert (
        load(NOTIFY.replace("secret: '${S}'", "secret_file: hook-secret")).notify.secret_file
        == tmp_path / "hook-secret"
    )


@pytest.mark.parametrize(
    ("old", "new", "key", "message", "hint"),
    [
        ("https://", "http://", "notify.url", "the value of ${U}, expected an https URL", "only https"),
        ("https://", "https://me:x@", "notify.url", "expected an https URL", ""),
        ("/a/?b=c", "/a#b", "notify.url", "expected an https URL", ""),
    ],
)
def test_invalid_webhook_url_is_an_error(findings, old, new, key, message, hint):
    """It must be https without user info. A URL from a variable may contain a token, so it is not shown."""
    url = "https://receiver.example.net/a/?b=c"
    text = RIGHT + "notify: {url: '${U}', secret: '${S}'}\n"
    (finding,) = findings(text, {"S": "hunter2", "U": url.replace(old, new)})
    assert finding.key == key
    assert message in finding.message
    assert hint in (finding.hint or "")
    assert "receiver" not in str(finding)


@pytest.mark.parametrize(
    ("old", "new", "key", "message"),
    [
        (", secret: '${S}'", "", "notify", "exactly one of secret_file and secret"),
        ("'${S}'", "hunter2", "notify.secret", "must not contain a secret"),
        ("secret: '${S}'", "secret_file: nope", "notify.secret_file", "expected a file that exists"),
        ("secret:", "events: [], secret:", "notify.events", "at least 1"),
        ("secret:", "events: [changd], secret:", "notify.events[0]", "'changed', 'failed', 'recovered' or 'stopped'"),
        ("secret:", "timeout: 0s, secret:", "notify.timeout", "above 0s"),
    ],
)
def test_wrong_webhook_setting_is_reported(findings, old, new, key, message):
    """The finding names the problem and never the secret."""
    (finding,) = findings(NOTIFY.replace(old, new), {"S": "hunter2"})
    assert (finding.line, finding.key) == (8, key)
    assert message in finding.message
    assert "hunter2" not in str(finding)
    assert key != "notify.secret" or "use secret_file" in (finding.hint or "")


def test_vaults_and_accounts_may_have_their_own_credential(load):
    """The type of such a credential selects its class too."""
    text = RIGHT.replace("net}", "net, credential: {type: managed_identity}}")
    assert isinstance(load(text).vaults["main"].credential, ManagedIdentityCredential)


IDS = "tenant_id: t, client_id: c"


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("default", ""),
        ("environment", ""),
        ("workload_identity", ""),
        ("managed_identity", ""),
        ("client_secret", f"{IDS}, client_secret: '${{S}}'"),
        ("client_certificate", f"{IDS}, certificate_file: cert.pem"),
        ("azure_cli", ""),
    ],
)
def test_type_of_a_credential_selects_its_class(load, tmp_path, kind, more):
    """Each class has its own value of `type`."""
    (tmp_path / "cert.pem").write_bytes(certificate_pem(datetime(2040, 1, 1, tzinfo=UTC)))
    credential = load(RIGHT + f"credential: {{type: {kind}, {more}}}\n", {"S": "x"}).credential
    assert credential.type == kind
    assert type(credential).__name__ == f"{kind.title().replace('_', '')}Credential"


def test_configuration_is_immutable(load):
    """Fields cannot be assigned."""
    with pytest.raises(FrozenInstanceError):
        load().owner = "x"


def test_model_can_be_built_without_a_file():
    """Code can use the classes as they are, and can validate plain values with the same rules."""
    vault, account = Vault(url="https://a"), Account("0" * 8 + "-0000-0000-0000-" + "0" * 12, "r", "abc", ("main",))
    config = Config(vaults={"main": vault}, accounts=(account,))
    validate = TypeAdapter(Config).validate_python
    plain = {"subscription_id": account.subscription_id, "resource_group": "r", "name": "abc", "vaults": ["main"]}
    assert validate({"vaults": {"main": {"url": "https://a"}}, "accounts": [plain]}) == config
    with pytest.raises(ValidationError):
        validate({"vaults": {"main": {"url": "https://a"}}, "accounts": [{**plain, "name": "-"}]})


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("30s", 30), ("5m", 300), ("1h", 3600), ("1h30m", 5400), ("1d", 86400)]
)
def test_durations_have_units(text, seconds):
    """Each unit has its length."""
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "m", "5 m", "30m1h", "-5m", "1.5h", "٣s", "5m\n", "999999999d", None, [], 1e99]
)
def test_invalid_duration_is_an_error(text):
    """The error says what is expected."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=366 * 86_400_000))
def test_duration_survives_formatting_and_parsing(milliseconds):
    """Parsing is the inverse of formatting."""
    span = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(span)) == span


ELECTION = RIGHT + "leader_election: {lease: keysync, renew_deadline: 7s}\n"


def test_leader_election_is_optional_and_has_defaults(load):
    """A standby takes over within 15 s: the lease plus a check just missed on either side."""
    assert load().leader_election is None
    election = load(ELECTION).leader_election
    assert (election.lease, election.namespace, election.identity) == ("keysync", None, None)
    assert election.lease_duration + 2 * election.retry_period < timedelta(seconds=15)


@pytest.mark.parametrize(
    ("old", "new", "key", "message"),
    [
        ("keysync,", "Keysync,", "leader_election.lease", "text that matches"),
        ("7s", "7s, lease_duration: 10500ms", "leader_election.lease_duration", "whole seconds"),
        ("7s", "9800ms", "leader_election.renew_deadline", "500ms or more below lease_duration"),
        ("7s", "7s, retry_period: 500ms", "leader_election.retry_period", "1s or more"),
        ("7s", "2s", "leader_election.renew_deadline", "one and a half times retry_period"),
    ],
)
def test_impossible_election_times_are_errors(findings, old, new, key, message):
    """They are found before the leader election starts."""
    (finding,) = findings(ELECTION.replace(old, new))
    assert finding.key == key
    assert message in finding.message


def test_model_needs_no_pydantic():
    """A daemon holds the configuration without the library that checks it."""
    code = "import sys, keysync.config.model; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "keysync.config.model" in loaded
    assert [module for module in loaded if module.partition(".")[0] in {"pydantic", "pydantic_core", "ruamel"}] == []
