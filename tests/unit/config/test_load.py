"""Where the file is found, what the environment adds, and that the examples and the schema are right."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import jsonschema
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, load_pem_private_key, pkcs12
from ruamel.yaml import YAML

from keysync.config.isolated import read_config
from keysync.config.load import load_config
from keysync.config.locate import find_config
from keysync.config.schema import json_schema, render_schema
from keysync.errors import ConfigError
from tests.support.certificates import certificate_pem

EXAMPLES = Path(__file__).parents[3] / "config"
GUID = "00000000-0000-0000-0000-000000000000"
NAMES = ["minimal.yaml", "full.yaml", "sovereign.yaml"]
ENVIRON = {"KEYSYNC_AUDITED_SECRET": "from-the-environment", "KEYSYNC_NOTIFY_SECRET": "from-the-environment-too"}
CERTIFICATE = "credential: {type: client_certificate, tenant_id: t, client_id: c, certificate_file: cert.pem}\n"
END = datetime(2040, 1, 1, tzinfo=UTC)
PAIR = certificate_pem(END)
RIGHT = (EXAMPLES / "minimal.yaml").read_text(encoding="utf-8")


def test_the_file_is_found_in_the_documented_order(tmp_path, monkeypatch):
    """The option, then KEYSYNC_CONFIG, then the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keysync.yaml").touch()
    environ = {"KEYSYNC_CONFIG": "named.yaml"}
    assert find_config(Path("option.yaml"), environ) == Path("option.yaml")
    assert find_config(None, environ) == Path("named.yaml")
    assert find_config(None, {}) == Path("keysync.yaml")


def test_without_a_file_the_user_learns_where_it_was_looked_for(tmp_path, monkeypatch):
    """Nothing found is an error that names each place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("keysync.config.locate._PLACES", (Path("keysync.yaml"), tmp_path / "etc.yaml"))
    with pytest.raises(ConfigError, match=r"KEYSYNC_CONFIG .*\./keysync\.yaml, .*etc\.yaml"):
        find_config(None, {})


@pytest.mark.parametrize(
    ("value", "in_file", "read_only"),
    [("1", False, True), ("true", False, True), ("TRUE", False, True), ("0", True, False), ("", True, True)],
)
def test_the_environment_decides_on_read_only(load, value, in_file, read_only):
    """KEYSYNC_READ_ONLY wins over the file, unless it is empty."""
    text = RIGHT + f"read_only: {str(in_file).lower()}\n"
    assert load(text, {"KEYSYNC_READ_ONLY": value}).read_only is read_only


def test_another_value_of_read_only_is_an_error(findings):
    """A misspelt switch must not let keysync write."""
    (one,) = findings(RIGHT, {"KEYSYNC_READ_ONLY": "yess"})
    assert one.key == "KEYSYNC_READ_ONLY"


@pytest.mark.parametrize(
    ("in_file", "given", "expected"),
    [
        ("", "0.0.0.0:8080", "0.0.0.0:8080"),
        ("listen: 127.0.0.1:9090\n", "0.0.0.0:8080", "127.0.0.1:9090"),
        ("", "", "127.0.0.1:8080"),
    ],
)
def test_the_environment_says_where_to_listen_unless_the_file_does(load, in_file, given, expected):
    """An image has a default of its own, and what an operator wrote wins over it."""
    assert load(RIGHT + in_file, {"KEYSYNC_LISTEN": given}).listen == expected


def test_a_bad_address_in_the_environment_is_a_finding(findings):
    """It names the variable, since no line of the file is wrong."""
    (one,) = findings(RIGHT, {"KEYSYNC_LISTEN": "8080"})
    assert (one.file, one.key) == ("environment", "KEYSYNC_LISTEN")


def test_a_relative_file_starts_at_the_folder_of_the_configuration(load, tmp_path):
    """Where keysync was started from makes no difference."""
    (tmp_path / "cert.pem").write_bytes(PAIR)
    assert load(RIGHT + CERTIFICATE).credential.certificate_file == tmp_path / "cert.pem"


def test_a_file_that_is_missing_is_a_finding(findings):
    """A file that the configuration names must be there, wherever it is named."""
    (one,) = findings(RIGHT + CERTIFICATE)
    assert one.key == "credential.certificate_file"
    assert "expected a file that exists" in one.message
    nested = RIGHT.replace("net}", "net, credential: {type: workload_identity, token_file: nope}}")
    (one,) = findings(nested)
    assert one.key == "vaults.main.credential.token_file"
    cloud = "cloud: {authority: https://a, resource_manager: https://b, ca_bundle: '${CA}'}\n"
    (one,) = findings(RIGHT + cloud, {"CA": "ca-bundle.pem"})
    assert one.message == "found the value of ${CA}, expected a file that exists"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"no certificate", "a file that cannot be opened as PEM or PKCS#12"),
        (b"", "a file that cannot be opened as PEM or PKCS#12"),
        (certificate_pem(END, with_key=False), "a certificate without its private key"),
        (PAIR.partition(b"-----BEGIN CERTIFICATE-----")[0], "a private key without a certificate"),
    ],
    ids=["garbage", "empty", "no key", "no certificate"],
)
def test_a_certificate_that_cannot_sign_in_is_a_finding_with_its_line(findings, tmp_path, content, what):
    """File, line and key, and what the file has to hold."""
    (tmp_path / "cert.pem").write_bytes(content)
    (one,) = findings(RIGHT + CERTIFICATE)
    assert one.line == RIGHT.count("\n") + 1
    assert one.key == "credential.certificate_file"
    assert one.message == f"found 'cert.pem', which is {what}"
    assert "the certificate and its private key" in one.hint


def test_a_certificate_of_pkcs12_opens_with_its_password_alone(load, findings, tmp_path):
    """The wrong password is a finding of the file, and so is a file without a key."""
    made = x509.load_pem_x509_certificate(certificate_pem(END, with_key=False))
    key = load_pem_private_key(PAIR, None)
    closed = BestAvailableEncryption(b"open")
    (tmp_path / "cert.pem").write_bytes(pkcs12.serialize_key_and_certificates(b"k", key, made, None, closed))
    text = RIGHT + CERTIFICATE.replace("cert.pem", "cert.pem, password_file: word")
    (tmp_path / "word").write_text("open\n")
    assert load(text).credential.password_file == tmp_path / "word"
    (tmp_path / "word").write_text("shut")
    (one,) = findings(text)
    assert one.message.endswith("a file that cannot be opened as PEM or PKCS#12")
    assert "password_file" in one.hint
    (tmp_path / "word").write_text("open")
    (tmp_path / "cert.pem").write_bytes(pkcs12.serialize_key_and_certificates(b"k", None, made, None, closed))
    (one,) = findings(text)
    assert one.message.endswith("a file without a private key and its certificate")


@pytest.mark.parametrize("content", [b"garbage", b"", PAIR.partition(b"-----BEGIN CERTIFICATE-----")[0]])
def test_a_bundle_without_certificates_is_a_finding_with_its_line(load, findings, tmp_path, content):
    """It names the line of `ca_bundle`, not the first host that is not trusted."""
    cloud = "cloud:\n  authority: https://a\n  resource_manager: https://b\n  ca_bundle: ca.pem\n"
    (tmp_path / "ca.pem").write_bytes(content)
    (one,) = findings(RIGHT + cloud)
    assert (one.line, one.key) == (RIGHT.count("\n") + 4, "cloud.ca_bundle")
    assert one.message == "found 'ca.pem', which is a file without certificates"
    assert "PEM" in one.hint
    (tmp_path / "ca.pem").write_bytes(certificate_pem(END, with_key=False))
    assert load(RIGHT + cloud).cloud.ca_bundle == tmp_path / "ca.pem"


@pytest.fixture
def locked():
    """A folder that this process may not enter, and one of whose files it may not read, with what it runs as meanwhile."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "closed").mkdir(mode=0o700)
        for file in (folder / "keysync.yaml", folder / "closed" / "keysync.yaml", folder / "cert.pem"):
            file.write_text(RIGHT)
            file.chmod(0)
        (folder / "certified.yaml").write_text(RIGHT + CERTIFICATE)
        (folder / "certified.yaml").chmod(0o644)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        else:
            (folder / "closed").chmod(0)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)
            (folder / "closed").chmod(0o700)


@pytest.mark.parametrize("place", ["keysync.yaml", "closed/keysync.yaml"])
def test_a_configuration_that_may_not_be_read_names_the_user_and_the_fix(locked, place):
    """Also where it is the folder that may not be entered, and also through the process that reads it apart."""
    for read in (lambda path: load_config(path, {}), read_config):
        with pytest.raises(ConfigError) as caught:
            read(locked / place)
        (one,) = caught.value.findings
        assert one.file == str(locked / place)
        assert one.message == "the file cannot be read: Permission denied"
        assert f"uid {os.geteuid()}" in one.hint
        assert "chmod" in one.hint


def test_a_configuration_behind_a_closed_folder_is_found(locked, monkeypatch):
    """It is not passed over for another, and does not end in a traceback: reading it says what is wrong."""
    monkeypatch.setattr(
        "keysync.config.locate._PLACES", (locked / "closed" / "keysync.yaml", locked / "certified.yaml")
    )
    assert find_config(None, {}) == locked / "closed" / "keysync.yaml"


def test_a_certificate_that_may_not_be_read_names_the_user(locked):
    """With the line that names it."""
    with pytest.raises(ConfigError) as caught:
        load_config(locked / "certified.yaml", {})
    (one,) = caught.value.findings
    assert (one.line, one.key) == (RIGHT.count("\n") + 1, "credential.certificate_file")
    assert one.message.endswith("which is a file that cannot be read")
    assert f"uid {os.geteuid()}" in one.hint


@pytest.mark.parametrize("name", NAMES)
def test_each_example_loads(name):
    """The examples are right, and need nothing but what they say."""
    assert load_config(EXAMPLES / name, ENVIRON).accounts


@pytest.mark.parametrize("name", NAMES)
def test_each_example_fits_the_schema(name):
    """The schema describes the file as it is written."""
    data = YAML(typ="safe", pure=True).load(EXAMPLES / name)
    jsonschema.Draft202012Validator(json_schema()).validate(data)


def test_the_full_example_has_every_key():
    """Whoever looks for a key finds it in the full example."""
    data = YAML(typ="safe", pure=True).load(EXAMPLES / "full.yaml")
    schema = json_schema()
    assert set(data) == set(schema["properties"])
    places = {"Vault": data["vaults"]["audited"], "Account": data["accounts"][1], "Discover": data["discover"][0]}
    for name, written in places.items():
        # One of the two ways to name subscriptions can stand there, not both.
        assert set(written) == set(schema["$defs"][name]["properties"]) - {"subscriptions"}
    assert set(data["discover"][1]) == {"subscriptions", "vaults_by_tag"}
    # One of the two sources of the secret can stand there, not both.
    assert {*data["notify"], "secret_file"} == set(schema["$defs"]["Notify"]["properties"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"schedule": {"every": 5}},
        {"recuver": "owned"},
        {"concurrency": 0},
        {"vaults": {}},
        {"discover": [{"vaults": ["main"]}]},
        {"discover": [{"subscription_id": GUID}]},
        {"discover": [{"subscription_id": GUID, "subscriptions": [GUID], "vaults": ["main"]}]},
        {"discover": [{"subscription_id": GUID, "vaults": ["main"], "via": "graph"}]},
    ],
)
def test_the_schema_refuses_what_loading_refuses(wrong):
    """An editor that knows the schema shows the mistake."""
    data = {**YAML(typ="safe", pure=True).load(EXAMPLES / "minimal.yaml"), **wrong}
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(data)


def test_the_schema_file_is_what_the_models_say():
    """The schema in the repository is the one that `keysync schema` prints."""
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert (EXAMPLES / "keysync.schema.json").read_text(encoding="utf-8") == render_schema()
    assert os.linesep == "\n" or "\r" not in render_schema()
