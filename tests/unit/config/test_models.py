"""What a configuration that is right turns into."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from keysync.config import models, settings
from keysync.config.formats import format_duration
from keysync.config.models import (
    Account,
    Config,
    SecretNames,
    Vault,
)
from keysync.config.types import parse_duration

RIGHT = """\
vaults:
  main: {url: https://kv-render.vault.azure.net}
accounts:
  - subscription_id: 00000000-0000-0000-0000-000000000000
    resource_group: default-azurebatch-japaneast
    name: sampleacct
    vaults: [main]
"""


def test_the_defaults_are_those_of_the_contract(load):
    """What is not written has the documented default."""
    config = load()
    assert config.cloud == "public"
    assert config.credential == settings.DefaultCredential()
    assert (config.schedule.every, config.schedule.jitter) == (timedelta(minutes=5), timedelta(0))
    assert (config.limits.update_percent, config.limits.creates, config.limits.removal_percent) == (100, 500, 10)
    seconds = [config.timeouts.request, config.timeouts.account, config.timeouts.collect, config.timeouts.shutdown]
    assert [span.total_seconds() for span in seconds] == [30, 120, 10, 10]
    assert (config.concurrency, config.listen_host, config.listen_port) == (64, "127.0.0.1", 8080)
    assert (config.owner, config.read_only, config.adopt, config.recover, config.orphans) == (
        None,
        False,
        False,
        "report",
        "keep",
    )


def test_an_account_knows_its_id_and_its_secrets(load):
    """The ARM id and the names of the secrets come from the account."""
    (account,) = load().accounts
    assert account.resource_id == (
        "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/default-azurebatch-japaneast"
        "/providers/Microsoft.Batch/batchAccounts/sampleacct"
    )
    assert account.secret_names() == {"primary": "sampleacct-primary-key", "secondary": "sampleacct-secondary-key"}


def test_null_leaves_a_key_out():
    """A key whose name is null is not kept in sync."""
    names = SecretNames(primary="{resource_group}-{account}", secondary=None).plain()
    assert names.render("acct", resource_group="rg") == {"primary": "rg-acct"}


def test_a_vault_has_one_form_of_its_address():
    """Case, a slash at the end and the usual port make no difference."""
    assert Vault(url="https://KV.vault.azure.net:443/").url == "https://kv.vault.azure.net"
    assert Vault(url="https://localhost:8443").url == "https://localhost:8443"


def test_a_guid_is_read_in_lower_case():
    """Two spellings of a subscription are one subscription."""
    account = Account(
        subscription_id="ABCDEF00-0000-0000-0000-000000000000", resource_group="rg", name="abc", vaults=["main"]
    )
    assert account.subscription_id == "abcdef00-0000-0000-0000-000000000000"


def test_a_cloud_can_be_a_mapping(load):
    """A cloud without a name is given by its addresses."""
    cloud = load(RIGHT + "cloud: {authority: https://login.x/, resource_manager: https://arm.x:8443}\n").cloud
    assert isinstance(cloud, settings.CloudMapping)
    assert (cloud.authority, cloud.resource_manager) == ("https://login.x", "https://arm.x:8443")


def test_a_client_secret_comes_from_the_environment(load):
    """What is kept is the name of the variable, so that no configuration holds a secret."""
    text = RIGHT + "credential: {type: client_secret, tenant_id: t, client_id: c, client_secret: '${S}'}\n"
    credential = load(text, {"S": "hunter2"}).credential
    assert isinstance(credential, settings.ClientSecretCredential)
    assert credential.client_secret == settings.EnvironmentVariable("S")
    assert "hunter2" not in repr(credential)


@pytest.mark.parametrize("value", ["hunter2", "hunter2${S}", "${S}${S}", "$${S}"])
def test_a_literal_secret_is_refused(findings, value):
    """A secret never stands in the file itself, not even a part of it."""
    text = RIGHT + f"credential: {{type: client_secret, tenant_id: t, client_id: c, client_secret: '{value}'}}\n"
    (one,) = findings(text, {"S": "abc"})
    assert (one.line, one.key) == (8, "credential.client_secret")
    assert one.message == "a secret never stands in the file itself"
    assert "hunter2" not in str(one)


def test_a_client_secret_has_one_source(findings):
    """Neither or both of its sources is an error."""
    (one,) = findings(RIGHT + "credential: {type: client_secret, tenant_id: t, client_id: c}\n")
    assert "exactly one of client_secret_file and client_secret" in one.message
    (empty,) = findings(
        RIGHT + "credential: {type: client_secret, tenant_id: t, client_id: c, client_secret: '${S}'}\n", {"S": ""}
    )
    assert "variable is empty" in empty.message


NOTIFY = RIGHT + "notify: {url: 'https://hooks.example.com/a/?b=c', secret: '${S}'}\n"


def test_a_webhook_is_optional_and_has_defaults(load):
    """Without one nobody is told; with one, everything is, to the address exactly as written."""
    assert load().notify is None
    notify = load(NOTIFY, {"S": "hunter2"}).notify
    assert notify.url == "https://hooks.example.com/a/?b=c"
    assert notify.events == ("changed", "failed", "recovered", "stopped")
    assert notify.timeout == timedelta(seconds=10)
    assert notify.secret == settings.EnvironmentVariable("S")
    assert "hunter2" not in repr(notify)


def test_the_secret_of_a_webhook_may_be_a_file(load, tmp_path):
    """A relative path starts at the folder of the configuration, as everywhere."""
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
def test_an_address_that_events_cannot_go_to_is_an_error(findings, old, new, key, message, hint):
    """Only https, with no user in it; an address from the environment, which may hold a token, is not shown."""
    url = "https://receiver.example.net/a/?b=c"
    text = RIGHT + "notify: {url: '${U}', secret: '${S}'}\n"
    (one,) = findings(text, {"S": "hunter2", "U": url.replace(old, new)})
    assert one.key == key
    assert message in one.message
    assert hint in (one.hint or "")
    assert "receiver" not in str(one)


@pytest.mark.parametrize(
    ("old", "new", "key", "message"),
    [
        (", secret: '${S}'", "", "notify", "exactly one of secret_file and secret"),
        ("'${S}'", "hunter2", "notify.secret", "never stands in the file itself"),
        ("secret: '${S}'", "secret_file: nope", "notify.secret_file", "expected a file that exists"),
        ("secret:", "events: [], secret:", "notify.events", "at least 1"),
        ("secret:", "events: [changd], secret:", "notify.events[0]", "'changed', 'failed', 'recovered' or 'stopped'"),
        ("secret:", "timeout: 0s, secret:", "notify.timeout", "above 0s"),
    ],
)
def test_each_wrong_piece_of_a_webhook_is_named(findings, old, new, key, message):
    """What is wrong stands in the finding, and the secret never does."""
    (one,) = findings(NOTIFY.replace(old, new), {"S": "hunter2"})
    assert (one.line, one.key) == (8, key)
    assert message in one.message
    assert "hunter2" not in str(one)
    assert key != "notify.secret" or "use secret_file" in (one.hint or "")


def test_vaults_and_accounts_may_have_their_own_credential(load):
    """A credential further down is of the kind that its type says."""
    text = RIGHT.replace("net}", "net, credential: {type: managed_identity}}")
    assert isinstance(load(text).vaults["main"].credential, settings.ManagedIdentityCredential)


def test_a_configuration_does_not_change(load):
    """What is loaded stays as it is."""
    with pytest.raises(FrozenInstanceError):
        load().owner = "x"


def test_a_model_can_be_made_without_a_file():
    """Code may build a configuration from plain values, with the same checks."""
    account = {"subscription_id": "0" * 8 + "-0000-0000-0000-" + "0" * 12, "resource_group": "r", "name": "abc"}
    vaults = {"main": {"url": "https://a"}}
    assert Config.model_validate({"vaults": vaults, "accounts": [{**account, "vaults": ["main"]}]})
    with pytest.raises(ValidationError):
        Config.model_validate({"vaults": vaults, "accounts": [{**account, "vaults": ["nope"]}]})


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("30s", 30), ("5m", 300), ("1h", 3600), ("1h30m", 5400), ("1d", 86400)]
)
def test_durations_have_units(text, seconds):
    """A duration is what its units say."""
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "m", "5 m", "30m1h", "-5m", "1.5h", "٣s", "5m\n", "999999999d", None, [], 1e99]
)
def test_what_is_no_duration_is_refused(text):
    """Anything else is refused with what is expected."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=366 * 86_400_000))
def test_a_duration_is_written_as_it_is_read(milliseconds):
    """Formatting and parsing are each other's inverse."""
    span = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(span)) == span


ELECTION = RIGHT + "leader_election: {lease: keysync, renew_deadline: 7s}\n"


def test_an_election_is_optional_and_has_defaults(load):
    """A standby takes over within fifteen seconds: the lease, and a look that just missed it on either side."""
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
def test_times_of_an_election_that_cannot_work_are_named(findings, old, new, key, message):
    """Before the library sees them, which would end the process."""
    (one,) = findings(ELECTION.replace(old, new))
    assert one.key == key
    assert message in one.message


@pytest.mark.parametrize(
    "model", [one for one in vars(models).values() if isinstance(one, type) and issubclass(one, models.Strict)]
)
def test_settings_have_the_fields_of_their_model(model):
    """What may stand in a file means something, and nothing is meant that no file can say."""
    if model is not models.Strict:
        meant = getattr(settings, model.__name__)
        assert {one.name for one in fields(meant) if one.init} == set(model.model_fields)
        assert meant.__dictoffset__ == 0, "a dict for each object is what slots spare"
