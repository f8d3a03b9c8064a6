"""A SecretValue cannot be printed, pickled or compared by accident."""

from __future__ import annotations

import copy
import json
import pickle
import pprint
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import structlog

from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.reveal import reveal
from keysync.secret.value import MASK, SecretValue

PLAIN = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA=="


@dataclass
class Holder:
    inner: SecretValue


FORMS: dict[str, Callable[[SecretValue], str]] = {
    "repr": repr,
    "str": str,
    "format": lambda value: format(value, ">80"),
    "percent": lambda value: "%s %r" % (value, value),  # noqa: UP031
    "f-string": lambda value: f"{value} {value!s} {value!r} {value!a} {value:>90}",
    "str.format": lambda value: "{} {!r}".format(value, value),  # noqa: UP032
    "json default": lambda value: json.dumps({"key": value}, default=str) + json.dumps([value], default=repr),
    "containers": lambda value: f"{[value]} {(value,)} { {'key': value} }",
    "dataclass": lambda value: repr(Holder(value)),
    "pprint": lambda value: pprint.pformat({"key": [value]}),
    "copy": lambda value: f"{copy.copy(value)!r} {copy.deepcopy([value])!r}",
    "structlog key-value": lambda value: str(structlog.processors.KeyValueRenderer()(None, "info", {"key": value})),
    "structlog json": lambda value: str(structlog.processors.JSONRenderer()(None, "info", {"key": value})),
    "structlog console": lambda value: str(
        structlog.dev.ConsoleRenderer(colors=False)(None, "info", {"event": "e", "key": value})
    ),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_no_printed_form_shows_the_value(form: Callable[[SecretValue], str]):
    """Each conversion to text gives the mask."""
    printed = form(SecretValue(PLAIN))
    assert PLAIN not in printed
    assert MASK in printed


@pytest.mark.parametrize("length", [0, 1, 10, 88, 10_000])
def test_the_mask_hides_the_length(length: int):
    """A short value and a long one print the same text."""
    assert repr(SecretValue("x" * length)) == repr(SecretValue(PLAIN))
    assert not hasattr(SecretValue("x"), "__len__")


def test_a_traceback_with_locals_shows_no_value():
    """A handler that prints the local variables of each frame prints the mask."""

    def fail(value: SecretValue) -> None:
        context = {"key": value}
        raise RuntimeError(f"something about {context}")

    with pytest.raises(RuntimeError) as caught:
        fail(SecretValue(PLAIN))
    output = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "value = " in output
    assert MASK in output
    assert PLAIN not in output


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_neither_value_nor_fingerprint_is_pickled(protocol: int):
    """The error does not quote the value."""
    value = SecretValue(PLAIN)
    for secret in (value, Fingerprinter().of(value)):
        with pytest.raises(TypeError, match="never serialised") as caught:
            pickle.dumps(secret, protocol)
        assert PLAIN not in str(caught.value)


def test_json_without_a_default_raises():
    """A value in a report by mistake raises TypeError instead of being printed."""
    with pytest.raises(TypeError) as caught:
        json.dumps({"key": SecretValue(PLAIN)})
    assert PLAIN not in str(caught.value)


def test_a_value_equals_only_itself():
    """Two values with the same content are not equal; fingerprints compare contents."""
    value = SecretValue(PLAIN)
    assert value == copy.deepcopy(value)
    assert value != SecretValue(PLAIN)
    assert value != PLAIN


def test_reveal_gives_the_text():
    """The plain text."""
    assert reveal(SecretValue(PLAIN)) == PLAIN


@pytest.mark.parametrize(
    ("text", "usable"),
    [
        (PLAIN, True),
        ("", False),
        ("not base64!", False),
        ("abc", False),
        ("é" * 4, False),
        ("YWJj", False),
        ("REDACTED", False),
        ("fakeKey", False),
        ("null", False),
        ("eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eA==", False),
        ("eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg=", True),
        (" eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg=", False),
    ],
)
def test_a_base64_key_is_recognised(text: str, usable: bool):
    """It is standard base64 of at least 32 bytes."""
    assert SecretValue(text).is_base64_key() is usable
