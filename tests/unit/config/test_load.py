"""Location of the file, environment variables, referenced files, examples and the JSON Schema."""

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

from keysync.config.isolated import find_config, read_config
from keysync.config.load import load_config
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


def test_missing_configuration_names_the_checked_paths(tmp_path, monkeypatch):
    """The error names each path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("keysync.config.isolated._DEFAULT_PATHS", (Path("keysync.yaml"), tmp_path / "etc.yaml"))
    with pytest.raises(ConfigError, match=r"KEYSYNC_CONFIG .*\./keysync\.yaml, .*etc\.yaml"):
        find_config(None, {})


@pytest.mark.parametrize(
    ("value", "in_file", "read_only"),
    [("1", False, True), ("true", False, True), ("TRUE", False, True), ("0", True, False), ("", True, True)],
)
def test_read_only_variable_overrides_the_file(load, value, in_file, read_only):
    """KEYSYNC_READ_ONLY overrides the file unless it is empty."""
    text = RIGHT + f"read_only: {str(in_file).lower()}\n"
    assert load(text, {"KEYSYNC_READ_ONLY": value}).read_only is read_only


def test_misspelt_read_only_variable_is_an_error(findings):
    """A misspelt switch must not let keysync write."""
    (finding,) = findings(RIGHT, {"KEYSYNC_READ_ONLY": "yess"})
    assert finding.key == "KEYSYNC_READ_ONLY"


@pytest.mark.parametrize(
    ("in_file", "given", "expected"),
    [
        ("", "0.0.0.0:8080", "0.0.0.0:8080"),
        ("listen: 127.0.0.1:9090\n", "0.0.0.0:8080", "127.0.0.1:9090"),
        ("", "", "127.0.0.1:8080"),
    ],
)
def test_listen_variable_is_a_default(load, in_file, given, expected):
    """An image sets KEYSYNC_LISTEN. `listen` in the file overrides it."""
    assert load(RIGHT + in_file, {"KEYSYNC_LISTEN": given}).listen == expected


def test_bad_listen_variable_is_a_finding(findings):
    """It names the variable, not a line of the file."""
    (finding,) = findings(RIGHT, {"KEYSYNC_LISTEN": "8080"})
    assert (finding.file, finding.key) == ("environment", "KEYSYNC_LISTEN")


def test_relative_path_starts_at_the_folder_of_the_configuration(load, tmp_path):
    """The working folder makes no difference."""
    (tmp_path / "cert.pem").write_bytes(PAIR)
    assert load(RIGHT + CERTIFICATE).credential.certificate_file == tmp_path / "cert.pem"


def test_missing_referenced_file_is_a_finding(findings):
    """Credentials, vaults and the cloud can name files, which must exist."""
    (finding,) = findings(RIGHT + CERTIFICATE)
    assert finding.key == "credential.certificate_file"
    assert "expected a file that exists" in finding.message
    nested = RIGHT.replace("net}", "net, credential: {type: workload_identity, token_file: nope}}")
    (finding,) = findings(nested)
    assert finding.key == "vaults.main.credential.token_file"
    cloud = "cloud: {authority: https://a, resource_manager: https://b, ca_bundle: '${CA}'}\n"
    (finding,) = findings(RIGHT + cloud, {"CA": "ca-bundle.pem"})
    assert finding.message == "found the value of ${CA}, expected a file that exists"


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
def test_unusable_certificate_is_a_finding_with_its_line(findings, tmp_path, content, what):
    """The finding has line and key. The hint describes the required content."""
    (tmp_path / "cert.pem").write_bytes(content)
    (finding,) = findings(RIGHT + CERTIFICATE)
    assert finding.line == RIGHT.count("\n") + 1
    assert finding.key == "credential.certificate_file"
    assert finding.message == f"found 'cert.pem', which is {what}"
    assert "the certificate and its private key" in finding.hint


def test_pkcs12_certificate_needs_its_password(load, findings, tmp_path):
    """A wrong password and a file without a key are findings."""
    certificate = x509.load_pem_x509_certificate(certificate_pem(END, with_key=False))
    key = load_pem_private_key(PAIR, None)
    closed = BestAvailableEncryption(b"open")
    (tmp_path / "cert.pem").write_bytes(pkcs12.serialize_key_and_certificates(b"k", key, certificate, None, closed))
    text = RIGHT + CERTIFICATE.replace("cert.pem", "cert.pem, password_file: word")
    (tmp_path / "word").write_text("open\n")
    assert load(text).credential.password_file == tmp_path / "word"
    (tmp_path / "word").write_text("shut")
    (finding,) = findings(text)
    assert finding.message.endswith("a file that cannot be opened as PEM or PKCS#12")
    assert "password_file" in finding.hint
    (tmp_path / "word").write_text("open")
    (tmp_path / "cert.pem").write_bytes(pkcs12.serialize_key_and_certificates(b"k", None, certificate, None, closed))
    (finding,) = findings(text)
    assert finding.message.endswith("a file without a private key and its certificate")


@pytest.mark.parametrize("content", [b"garbage", b"", PAIR.partition(b"-----BEGIN CERTIFICATE-----")[0]])
def test_ca_bundle_without_certificates_is_a_finding_with_its_line(load, findings, tmp_path, content):
    """It is reported at `ca_bundle`, before a connection fails."""
    cloud = "cloud:\n  authority: https://a\n  resource_manager: https://b\n  ca_bundle: ca.pem\n"
    (tmp_path / "ca.pem").write_bytes(content)
    (finding,) = findings(RIGHT + cloud)
    assert (finding.line, finding.key) == (RIGHT.count("\n") + 4, "cloud.ca_bundle")
    assert finding.message == "found 'ca.pem', which is a file without certificates"
    assert "PEM" in finding.hint
    (tmp_path / "ca.pem").write_bytes(certificate_pem(END, with_key=False))
    assert load(RIGHT + cloud).cloud.ca_bundle == tmp_path / "ca.pem"


@pytest.fixture
def locked():
    """A folder with a file that this process may not read and a subfolder that it may not enter."""
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
def test_unreadable_configuration_names_the_user_and_the_fix(locked, place):
    """Also if the folder cannot be entered, and also through the separate process."""
    for read in (lambda path: load_config(path, {}), read_config):
        with pytest.raises(ConfigError) as caught:
            read(locked / place)
        (finding,) = caught.value.findings
        assert finding.file == str(locked / place)
        assert finding.message == "the file cannot be read: Permission denied"
        assert f"uid {os.geteuid()}" in finding.hint
        assert "chmod" in finding.hint


def test_configuration_in_a_closed_folder_is_found(locked, monkeypatch):
    """It is not skipped and raises nothing. Reading it reports the problem."""
    monkeypatch.setattr(
        "keysync.config.isolated._DEFAULT_PATHS", (locked / "closed" / "keysync.yaml", locked / "certified.yaml")
    )
    assert find_config(None, {}) == locked / "closed" / "keysync.yaml"


def test_unreadable_certificate_names_the_user(locked):
    """The finding has the line of the path."""
    with pytest.raises(ConfigError) as caught:
        load_config(locked / "certified.yaml", {})
    (finding,) = caught.value.findings
    assert (finding.line, finding.key) == (RIGHT.count("\n") + 1, "credential.certificate_file")
    assert finding.message.endswith("which is a file that cannot be read")
    assert f"uid {os.geteuid()}" in finding.hint


@pytest.mark.parametrize("name", NAMES)
def test_example_loads(name):
    """The examples are valid, and need only the variables that they name."""
    assert load_config(EXAMPLES / name, ENVIRON).accounts


@pytest.mark.parametrize("name", NAMES)
def test_example_matches_the_schema(name):
    """The schema describes the text in the file."""
    data = YAML(typ="safe", pure=True).load(EXAMPLES / name)
    jsonschema.Draft202012Validator(json_schema()).validate(data)


def test_full_example_has_every_key():
    """full.yaml shows each key of the schema."""
    data = YAML(typ="safe", pure=True).load(EXAMPLES / "full.yaml")
    schema = json_schema()
    assert set(data) == set(schema["properties"])
    places = {"Vault": data["vaults"]["audited"], "Account": data["accounts"][1], "Discover": data["discover"][0]}
    for name, written in places.items():
        # An entry has `subscription_id` or `subscriptions`, not both.
        assert set(written) == set(schema["$defs"][name]["properties"]) - {"subscriptions"}
    assert set(data["discover"][1]) == {"subscriptions", "vaults_by_tag"}
    # `notify` has `secret` or `secret_file`, not both.
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
def test_schema_rejects_invalid_configurations(wrong):
    """An editor with the schema shows the mistake."""
    data = {**YAML(typ="safe", pure=True).load(EXAMPLES / "minimal.yaml"), **wrong}
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(data)


def test_schema_file_is_current():
    """The file in the repository is the output of `keysync schema`."""
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert (EXAMPLES / "keysync.schema.json").read_text(encoding="utf-8") == render_schema()
    assert os.linesep == "\n" or "\r" not in render_schema()
