"""Memory that is given back."""

from __future__ import annotations

import ctypes

import pytest

from keysync.daemon import malloc


@pytest.fixture(autouse=True)
def _looked_up_again() -> None:
    malloc._function.cache_clear()


def test_memory_is_trimmed_with_glibc() -> None:
    """As often as it is asked for."""
    for _ in range(2):
        malloc.trim_heap()
    assert (malloc._function("malloc_trim") is not None) == hasattr(ctypes.CDLL(None), "malloc_trim")


def test_a_library_that_cannot_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """musl has no such function."""
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    malloc.trim_heap()
    assert malloc._function("malloc_trim") is None
    malloc._function.cache_clear()


def test_threads_share_where_the_library_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the setting, and says so with a 1; one without it is left alone."""
    settings: list[tuple[int, int]] = []
    libc = ctypes.CDLL(None)

    class Library:
        """The C library, seen at work."""

        def mallopt(self, setting: int, value: int) -> None:
            settings.append((setting, value))
            assert not hasattr(libc, "mallopt") or libc.mallopt(setting, value) == 1

    monkeypatch.setattr(ctypes, "CDLL", lambda _name: Library())
    malloc.limit_arenas()
    assert settings == [(-8, 1)]
    malloc._function.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    malloc.limit_arenas()
    malloc._function.cache_clear()
