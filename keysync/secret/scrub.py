"""Taking secrets out of text that others wrote: a service's error message may echo what it was sent."""

from __future__ import annotations

import base64
import re
import threading
import weakref
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote

from keysync.secret.reveal import reveal
from keysync.secret.value import MASK, SecretValue

# A Batch key is 88 characters of base64 and a token starts with "eyJ": no word, path or id of Azure looks like these.
_LOOKS_SECRET: Final = re.compile(
    r"(?:[A-Za-z0-9+/]|%2[BbFf]|\\u002[BbFf]|\\/|&#4[37];|&#x2[BbFf];){60,}(?:=|%3[Dd]|\\u003[Dd]|&#61;){0,2}(?:(?:\r?\n|\\r\\n|\\n)[A-Za-z0-9+/]+={0,2})*|eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]+){0,2}|(?i:(?<=bearer )[^\s\"',]{16,})"
)
_PATH: Final = re.compile(r"/(?:subscriptions|resourceGroups|providers|batchAccounts)/", re.IGNORECASE)
_SHORTEST: Final = 8
_HEAD: Final = 12


class _Held(weakref.ref[SecretValue]):
    """A remembered value, held weakly, and the beginnings that it is found by."""

    __slots__ = ("beginnings",)
    beginnings: frozenset[str]


class Scrubber:
    """Masks every value that it was told of, as it stands, in base64 and URL-encoded, and what looks like a secret.

    Values are held weakly: once nobody else has one, it is forgotten. A string is looked through once, however many values are
    remembered: each form of a value is found by its first characters.
    """

    def __init__(self) -> None:
        # Tuples that are replaced, never changed: another thread may be looking through one. The lock is for those who replace; the
        # collector may call `_forget` in the middle of `remember`, hence one that may be entered again.
        self._by_beginning: dict[str, tuple[_Held, ...]] = {}
        self._lock = threading.RLock()

    def remember(self, value: SecretValue) -> SecretValue:
        """Masks `value` from now on; returns it, so that a value can be wrapped and remembered in one expression."""
        beginnings = frozenset(form[:_SHORTEST] for form in _forms(reveal(value)))
        with self._lock:
            known = next(iter(beginnings), "")
            if any(held() is value for held in self._by_beginning.get(known, ())):
                return value
            held = _Held(value, self._forget)
            held.beginnings = beginnings
            for beginning in beginnings:
                others = self._by_beginning.get(beginning, ())
                self._by_beginning[beginning] = (*(one for one in others if one() is not None), held)
        return value

    def scrub(self, text: str) -> str:
        """`text` without any remembered value and without anything that looks like a key or a token."""
        # Both look at the text as it came: a mask in the middle of something would hide from the other what that was.
        return _masked(text, sorted((*self._found(text), *_looking_secret(text))))

    def _forget(self, gone: weakref.ref[SecretValue]) -> None:
        with self._lock:
            for beginning in gone.beginnings if isinstance(gone, _Held) else ():
                left = tuple(held for held in self._by_beginning.get(beginning, ()) if held is not gone)
                if left:
                    self._by_beginning[beginning] = left
                else:
                    self._by_beginning.pop(beginning, None)

    def _found(self, text: str) -> Iterator[tuple[int, int]]:
        """Where something remembered begins and ends, in the order of the beginnings."""
        if not self._by_beginning:
            return
        forms: dict[int, tuple[str, ...]] = {}  # of those that occur
        for at in range(len(text) - _SHORTEST + 1):
            for held in self._by_beginning.get(text[at : at + _SHORTEST], ()):
                value = held()
                if value is None:
                    continue
                if id(held) not in forms:
                    forms[id(held)] = _forms(reveal(value))
                length = max((_shown(text, at, form) for form in forms[id(held)]), default=0)
                if length:
                    yield at, at + length


def _forms(plain: str) -> tuple[str, ...]:
    # A very short "secret" would turn ordinary words into masks.
    if len(plain) < _SHORTEST:
        return ()
    # A reply may hold half of a surrogate pair, which is text to Python and nothing to UTF-8.
    encoded = base64.b64encode(plain.encode("utf-8", "surrogatepass")).decode()
    return (plain, encoded, quote(plain, safe="", errors="surrogatepass"))


def _shown(text: str, at: int, form: str) -> int:
    """How many characters of `form` stand in `text` from `at` on; 0 if too few to tell anything.

    A message may be cut off within a value: as much of it as stands there is to be masked.
    """
    if text.startswith(form, at):
        return len(form)
    if len(form) < 2 * _HEAD or not text.startswith(form[:_HEAD], at):
        return 0
    # The first length that stands there no more.
    return bisect_left(range(len(form)), True, lo=_HEAD, key=lambda length: not text.startswith(form[:length], at)) - 1


def _masked(text: str, found: Iterable[tuple[int, int]]) -> str:
    """`text` with a mask for each stretch of it that is covered; where two overlap, neither leaves a rest."""
    parts: list[str] = []
    done = 0
    for begin, end in found:
        if begin >= done:
            parts += [text[done:begin], MASK]
        done = max(done, end)
    return "".join([*parts, text[done:]]) if parts else text


def _looking_secret(text: str) -> Iterator[tuple[int, int]]:
    for found in _LOOKS_SECRET.finditer(text):
        # An ARM id is made of letters and slashes too, where no name in it has a dash or a dot.
        if not _PATH.search(found.group()):
            yield found.start(), found.end()
