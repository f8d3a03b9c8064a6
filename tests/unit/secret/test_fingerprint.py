"""Fingerprints compare the contents of secrets without revealing them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.value import SecretValue

FINGERPRINTER = Fingerprinter()


@given(st.text(), st.text())
def test_fingerprints_are_equal_if_and_only_if_contents_are(left: str, right: str):
    """Within one fingerprinter."""
    fingerprint, other = FINGERPRINTER.of(SecretValue(left)), FINGERPRINTER.of(SecretValue(right))
    assert (fingerprint == other) is (left == right)
    assert FINGERPRINTER.of(SecretValue(left)) == fingerprint
    assert hash(FINGERPRINTER.of(SecretValue(left))) == hash(fingerprint)


@given(st.text())
def test_two_fingerprinters_differ_for_the_same_content(text: str):
    """A fingerprint cannot be looked up in another process."""
    assert Fingerprinter().of(SecretValue(text)) != Fingerprinter().of(SecretValue(text))


def test_a_fingerprint_equals_only_fingerprints():
    """It differs from strings and bytes."""
    fingerprint = FINGERPRINTER.of(SecretValue("a"))
    assert fingerprint != "a"
    assert fingerprint != b"a"


def test_a_printed_fingerprint_hides_its_digest():
    """All fingerprints print the same text."""
    assert repr(FINGERPRINTER.of(SecretValue("a"))) == str(FINGERPRINTER.of(SecretValue("b"))) == "Fingerprint(…)"


def test_text_with_a_lone_surrogate_has_a_fingerprint():
    """JSON can contain lone surrogates."""
    assert FINGERPRINTER.of(SecretValue("\ud800")) == FINGERPRINTER.of(SecretValue("\ud800"))
