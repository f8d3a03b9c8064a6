"""Fingerprints compare content and tell nothing of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.value import SecretValue

ONE = Fingerprinter()


@given(st.text(), st.text())
def test_fingerprints_are_equal_exactly_where_the_content_is(left: str, right: str):
    """One fingerprinter gives equal fingerprints for equal content and for no other."""
    one, other = ONE.of(SecretValue(left)), ONE.of(SecretValue(right))
    assert (one == other) is (left == right)
    assert ONE.of(SecretValue(left)) == one
    assert hash(ONE.of(SecretValue(left))) == hash(one)


@given(st.text())
def test_fingerprinters_share_nothing(text: str):
    """The same content under two fingerprinters gives fingerprints that differ: none can be looked up elsewhere."""
    assert Fingerprinter().of(SecretValue(text)) != Fingerprinter().of(SecretValue(text))


def test_a_fingerprint_equals_nothing_else():
    """A fingerprint is no string and no bytes."""
    fingerprint = ONE.of(SecretValue("a"))
    assert fingerprint != "a"
    assert fingerprint != b"a"


def test_a_fingerprint_prints_nothing_of_its_digest():
    """All fingerprints print alike."""
    assert repr(ONE.of(SecretValue("a"))) == str(ONE.of(SecretValue("b"))) == "Fingerprint(…)"


def test_text_that_is_no_unicode_has_a_fingerprint():
    """A lone surrogate, which JSON can carry, is compared like any other content."""
    assert ONE.of(SecretValue("\ud800")) == ONE.of(SecretValue("\ud800"))
