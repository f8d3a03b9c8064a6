"""Reading YAML: what is no YAML, what the environment gives, and what is never shown."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, SecretStr, field_validator
from ruamel.yaml import YAML

from keysync.config.load import load_config
from keysync.config.yaml import load_document
from keysync.errors import ConfigError

SECRET = "hunter2-Zq9"


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    key: SecretStr | None = None


class Sample(BaseModel):
    model_config = ConfigDict(extra="forbid")
    items: list[Inner] = []
    password: int | None = None
    label: str = ""

    @field_validator("label")
    @classmethod
    def _talkative(cls, value: str) -> str:
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
def test_what_is_no_document_is_a_finding(read, text, message):
    """Whatever stands in the file, the user is told; nothing crashes."""
    assert any(message in one.message for one in findings_of(read, text))


def test_a_syntax_error_has_its_line(read):
    """What the parser could not read is shown where it stands."""
    (one,) = findings_of(read, "label: a\nitems: ]\n")
    assert (one.line, one.column) == (2, 8)


def test_a_variable_in_braces_needs_quotes_and_the_user_learns_it(read):
    """YAML reads the braces of ${NAME} as its own inside of a flow mapping; the hint names the cure."""
    (one,) = findings_of(read, "items: [{name: ${A}, key: x}]\n", {"A": "a"})
    assert "put it in quotes" in (one.hint or "")


def test_a_file_without_a_last_newline_has_positions_too(read):
    """The last line is a line, whether or not it ends with one."""
    (one,) = findings_of(read, "label: [a]")
    assert (one.line, one.column) == (1, 1)


def test_a_file_that_is_not_there_is_a_finding(tmp_path):
    """A missing file and a folder in its place are told, with the name that the user gave."""
    for path, message in ((tmp_path / "none.yaml", "no such file"), (tmp_path, "found a folder")):
        with pytest.raises(ConfigError, match=message) as caught:
            load_document(path, Sample, environ={})
        assert caught.value.findings[0].file == str(path)


def test_aliases_cannot_make_a_file_endless(read, monkeypatch):
    """A small file that expands to a huge one is refused."""
    monkeypatch.setattr("keysync.config.yaml._MAX_VALUES", 1000)
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 9))
    assert "more than 1000 values" in findings_of(read, "l0: &l0 x\n" + levels)[0].message


def test_a_duplicate_key_is_shown_with_both_lines(read):
    """The second of two equal keys is where the finding stands; the first is named."""
    (one,) = findings_of(read, "label: a\nitems: []\nlabel: b\n")
    assert (one.line, one.column, one.key) == (3, 1, "label")
    assert "first in line 1" in one.message


def test_the_environment_is_filled_in(read):
    """${NAME} takes a variable, also inside of text; $${ is the text itself; what comes in is not looked at again."""
    made = read("items: [{name: 'a-${A}-$${B}'}]\nlabel: ${C}\n", {"A": "${C}", "C": "x"})
    assert made.items[0].name == "a-${C}-${B}"
    assert made.label == "x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label: ${NOPE}\n", "the environment variable NOPE is not set"),
        ("label: ${NOPE\n", "found '${' without its '}'"),
        ("label: ${NO PE}\n", "no name of a variable"),
    ],
)
def test_a_variable_that_cannot_be_had_is_one_finding(read, text, message):
    """An undefined variable is named, and nothing that only follows from it is told."""
    (one,) = findings_of(read, text)
    assert message in one.message
    assert (one.line, one.column, one.key) == (1, 8, "label")


def test_a_merge_takes_the_keys_of_another_mapping(read):
    """`<<` works, and what stands in the mapping itself wins."""
    made = read("items:\n  - &a {name: x, key: y}\n  - {<<: *a, name: z}\n")
    assert made.items[1].name == "z"
    assert made.items[1].key.get_secret_value() == "y"


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        (f"password: {SECRET}\n", {}),
        (f"password: [{SECRET}]\n", {}),
        (f"passwort: {SECRET}\n", {}),
        (f"password: *{SECRET}\n", {}),
        (f"password: !{SECRET} x\n", {}),
        (f"password: '{SECRET}\n", {}),
        (f"items: [{{name: a, key: [{SECRET}]}}]\n", {}),
        ("label: ${S}\n", {"S": SECRET}),
        ("password: a${S}\n", {"S": SECRET}),
        ("items: ${S}\n", {"S": SECRET}),
        ("items: [{name: [a, '${S}']}]\n", {"S": SECRET}),
        (f"label: '{SECRET}${{S}}'\n", {"S": SECRET}),
    ],
)
def test_a_secret_is_never_in_an_error(read, text, environ):
    """Neither a value under a secret's key nor one from the environment is shown, even if a validator repeats it."""
    with pytest.raises(ConfigError) as caught:
        read(text, environ)
    assert SECRET not in str(caught.value) + repr(caught.value.findings)
    assert caught.value.__cause__ is None


def test_a_secret_of_another_kind_is_hidden_in_what_is_found(read):
    """A secret that has the wrong form is told without its value."""
    (one,) = findings_of(read, f"password: {SECRET}\n")
    assert one.message == "found a value that is not shown, expected a whole number"


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
    """Whatever a file holds, nothing but ConfigError comes out."""
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
    """Whatever bytes a file holds, nothing but ConfigError comes out."""
    file = tmp_path / "any.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError):
        load_config(file, {})
