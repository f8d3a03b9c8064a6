"""Memory that is given back."""

from __future__ import annotations

import ctypes

import pytest

from keysync.daemon import thrift


@pytest.fixture(autouse=True)
def _looked_up_anew() -> None:
    thrift._trim.cache_clear()


def test_it_is_given_back_where_the_library_can() -> None:
    """As often as it is asked for."""
    for _ in range(2):
        thrift.give_back()
    assert (thrift._trim() is not None) == hasattr(ctypes.CDLL(None), "malloc_trim")


def test_a_library_that_cannot_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """musl has no such function."""
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    thrift.give_back()
    assert thrift._trim() is None
    thrift._trim.cache_clear()
