"""YAML files: invalid input, environment variables, and secrets that messages must hide."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, field_validator
from ruamel.yaml import YAML

from keysync.config.load import load_config
from keysync.config.validate import load_document
from keysync.errors import ConfigError

SECRET = "hunter2-Zq9"


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    client_secret: str | None = None


class Sample(BaseModel):
    model_config = ConfigDict(extra="forbid")
    items: list[Inner] = []
    password: int | None = None
    label: str = ""

    @field_validator("label")
    @classmethod
    def _repeat_value(cls, value: str) -> str:
        if len(value) > 3:
            raise ValueError(f"{value} is too long")
        return value


@pytest.fixture
def read(tmp_path):
    def read_text(text, environ=None):
        file = tmp_path / "data.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_document(file, Sample, environ=environ or {})

    return read_text


def findings_of(read, text, environ=None):
    with pytest.raises(ConfigError) as caught:
        read(text, environ)
    return caught.value.findings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ("- a\n", "found a list, expected a mapping"),
        ("just text\n", "found 'just text', expected a mapping"),
        ("a: [1\n", "this is not YAML"),
        ("a: b: c\n", "this is not YAML"),
        ("a:\n\t- b\n", "this is not YAML"),
        ("label: a\n---\nlabel: b\n", "this is not YAML"),
        (b"label: \xff\xfe\n", "not UTF-8: byte 7"),
        (b"label: \x00\n", "this is not YAML"),
        ("[" * 5000, "nested too deeply"),
        ("label: &a [*a]\n", "alias of a value that contains this alias"),
        ("label: *nowhere\n", "this is not YAML: found undefined alias"),
        ("? [a, b]\n: c\n", "a list or a mapping as a key"),
    ],
)
def test_invalid_document_is_a_finding(read, text, message):
    """Any content gives a finding and no crash."""
    assert any(message in finding.message for finding in findings_of(read, text))


def test_syntax_error_has_its_position(read):
    """The finding has the line and column of the syntax error."""
    (finding,) = findings_of(read, "label: a\nitems: ]\n")
    assert (finding.line, finding.column) == (2, 8)


def test_unquoted_variable_in_a_flow_mapping_has_a_hint(read):
    """In a flow mapping YAML parses the braces of ${NAME} itself. The hint says to quote it."""
    (finding,) = findings_of(read, "items: [{name: ${A}, client_secret: x}]\n", {"A": "a"})
    assert "put it in quotes" in (finding.hint or "")


def test_file_without_a_last_newline_has_positions(read):
    """The last line need not end with a newline."""
    (finding,) = findings_of(read, "label: [a]")
    assert (finding.line, finding.column) == (1, 1)


def test_missing_file_is_a_finding(tmp_path):
    """So is a folder in its place. The finding has the path that the user gave."""
    for path, message in ((tmp_path / "none.yaml", "no such file"), (tmp_path, "found a folder")):
        with pytest.raises(ConfigError, match=message) as caught:
            load_document(path, Sample, environ={})
        assert caught.value.findings[0].file == str(path)


def test_aliases_cannot_expand_without_limit(read, monkeypatch):
    """A small file that expands to too many values is an error."""
    monkeypatch.setattr("keysync.config.yaml._MAX_VALUES", 1000)
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 9))
    assert "more than 1000 values" in findings_of(read, "l0: &l0 x\n" + levels)[0].message


def test_duplicate_key_is_reported_with_both_lines(read):
    """The finding is at the second key and names the line of the first."""
    (finding,) = findings_of(read, "label: a\nitems: []\nlabel: b\n")
    assert (finding.line, finding.column, finding.key) == (3, 1, "label")
    assert "first in line 1" in finding.message


def test_variables_are_expanded(read):
    """${NAME} is expanded, also inside of text. $${ is an escape. Values of variables are not expanded again."""
    sample = read("items: [{name: 'a-${A}-$${B}'}]\nlabel: ${C}\n", {"A": "${C}", "C": "x"})
    assert sample.items[0].name == "a-${C}-${B}"
    assert sample.label == "x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label: ${NOPE}\n", "the environment variable NOPE is not set"),
        ("label: ${NOPE\n", "found '${' without its '}'"),
        ("label: ${NO PE}\n", "no name of a variable"),
    ],
)
def test_undefined_variable_is_one_finding(read, text, message):
    """The variable is named. Errors that only follow from it are not reported."""
    (finding,) = findings_of(read, text)
    assert message in finding.message
    assert (finding.line, finding.column, finding.key) == (1, 8, "label")


def test_merge_key_adds_keys_of_another_mapping(read):
    """Keys of the mapping itself override merged keys."""
    sample = read("items:\n  - &a {name: x, client_secret: y}\n  - {<<: *a, name: z}\n")
    assert sample.items[1].name == "z"
    assert sample.items[1].client_secret == "y"


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        (f"password: {SECRET}\n", {}),
        (f"password: [{SECRET}]\n", {}),
        (f"passwort: {SECRET}\n", {}),
        (f"password: *{SECRET}\n", {}),
        (f"password: !{SECRET} x\n", {}),
        (f"password: '{SECRET}\n", {}),
        (f"items: [{{name: a, client_secret: [{SECRET}]}}]\n", {}),
        ("label: ${S}\n", {"S": SECRET}),
        ("password: a${S}\n", {"S": SECRET}),
        ("items: ${S}\n", {"S": SECRET}),
        ("items: [{name: [a, '${S}']}]\n", {"S": SECRET}),
        (f"label: '{SECRET}${{S}}'\n", {"S": SECRET}),
    ],
)
def test_error_contains_no_secret(read, text, environ):
    """Values under secret keys and from variables are hidden, even if a validator repeats them."""
    with pytest.raises(ConfigError) as caught:
        read(text, environ)
    assert SECRET not in str(caught.value) + repr(caught.value.findings)
    assert caught.value.__cause__ is None


def test_secret_of_the_wrong_type_is_hidden(read):
    """The finding does not show the value."""
    (finding,) = findings_of(read, f"password: {SECRET}\n")
    assert finding.message == "found a value that is not shown, expected a whole number"


KEYS = st.sampled_from(
    [
        "cloud",
        "credential",
        "schedule",
        "vaults",
        "accounts",
        "discover",
        "limits",
        "type",
        "url",
        "main",
        "name",
        "subscription_id",
        "secrets",
        "primary",
        "client_secret",
        "client_secret_file",
        "certificate_file",
        "every",
        "cron",
        "timezone",
        "tags",
        "listen",
        "owner",
        "ca_bundle",
        "x",
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["main", "5m", "client_secret", "${A}", "${", "https://a", "{account}", "* * * * *", "1e999"]),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=30
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.dictionaries(KEYS, VALUES, max_size=8))
@example(data={"credential": {"type": ["x"]}, "vaults": [], "accounts": {"a": 1}})
def test_any_data_is_a_configuration_or_a_config_error(tmp_path: Path, data):
    """No data raises anything but ConfigError."""
    file = tmp_path / "any.yaml"
    with file.open("w", encoding="utf-8") as out:
        YAML(typ="safe", pure=True).dump(data, out)
    with contextlib.suppress(ConfigError):
        load_config(file, {"A": "a"})


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"%@`#,?<=~$\\ \n\t0.\u00e9"), max_size=60)
    | st.binary(max_size=60)
)
def test_any_text_is_a_document_or_a_config_error(tmp_path: Path, text):
    """No bytes raise anything but ConfigError."""
    file = tmp_path / "any.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError):
        load_config(file, {})
