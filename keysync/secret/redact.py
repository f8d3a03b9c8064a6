"""Taking secrets out of text that others wrote: a service's error message may echo what it was sent."""

from __future__ import annotations

import base64
import re
import threading
import weakref
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate
from operator import ne
from typing import Final

from keysync.secret.encodings import STANDARD_ALPHABET, Decoded, as_bytes, layers, unpacked
from keysync.secret.reveal import reveal
from keysync.secret.value import MASK, SecretValue

_TOKEN: Final = re.compile(r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]+){0,2}|(?i:(?<=bearer )[^\s\"',]{16,})")
# User and password of a URL, such as a proxy's; a user alone may be a token.
_USER_INFO: Final = re.compile(r"(?<=://)[^\s/?#@\"'<>]+(?=@)")
# A Batch key is 88 characters of base64: no word or id of Azure has 60 such characters that look random.
_KEY: Final = re.compile(r"[A-Za-z0-9+/_-]{60,}={0,2}")
_KEY_LENGTH: Final = 60
_LETTERS: Final = 11  # of each case; 24 are usual
_CHANGES: Final = 25  # from one kind of character to another; 38 are usual
_KEY_IN_NUMBERS: Final = re.compile(r"(?:(?:0[xX])?[0-9A-Fa-f]{2}[:,;-]?){60,}|(?:[0-9]{1,3}[,;]){60,}[0-9]{1,3}")
_PATH: Final = re.compile(r"/(?:subscriptions|resourceGroups|providers|batchAccounts)(?=/)", re.IGNORECASE)
_GUID: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-?[0-9A-Fa-f]{4}){3}-?[0-9A-Fa-f]{12}")
_CLASSES: Final = str.maketrans(
    {
        code: "A" if chr(code).isupper() else "a" if chr(code).islower() else "0" if chr(code).isdigit() else "+"
        for code in range(33, 128)
    }
)
_WORD: Final = re.compile(r"A{6,}|a{6,}|0{6,}")
_SHORTEST: Final = 8
_SHORTEST_CUT: Final = 16  # a head or a tail of a shorter value may be an ordinary word
# What many values begin with, and many messages too, is no sign of a value.
_COMMON: Final = re.compile(r"https?://|/subscriptions/")
_ESCAPES: Final = re.compile(r"[%\\&]")


class _Held(weakref.ref[SecretValue]):
    """A remembered value, held weakly, and the anchors that it is found by."""

    __slots__ = ("anchors",)
    anchors: frozenset[str]


class Redactor:
    """Masks every remembered value, its head and its tail, in any encoding, and what looks like a key or a token.

    Values are held weakly: a value without another holder is forgotten. A text is decoded and searched once, however many values are
    remembered: each value is found by its first and its last characters, the anchors.
    """

    def __init__(self) -> None:
        # Tuples that are replaced, never changed: another thread may be reading one. The lock is for the threads that replace; the
        # collector may call `_forget` in the middle of `remember`, hence a lock that may be entered again.
        self._by_anchor: dict[str, tuple[_Held, ...]] = {}
        self._lock = threading.RLock()

    def remember(self, value: SecretValue) -> SecretValue:
        """Masks `value` from now on; returns it, so that a value can be wrapped and remembered in one expression."""
        anchors = frozenset(
            anchor for form in _forms(reveal(value)) for anchor in (form[:_SHORTEST], form[-_SHORTEST:])
        )
        with self._lock:
            known = next(iter(anchors), "")
            if any(held() is value for held in self._by_anchor.get(known, ())):
                return value
            held = _Held(value, self._forget)
            held.anchors = anchors
            for anchor in anchors:
                others = self._by_anchor.get(anchor, ())
                self._by_anchor[anchor] = (*(one for one in others if one() is not None), held)
        return value

    def redact(self, text: str) -> str:
        """`text` without any remembered value and without anything that looks like a key or a token."""
        # All look at the text as it came: a mask in the middle of something would hide from the others what that was.
        found = [one.span() for pattern in (_TOKEN, _USER_INFO) for one in pattern.finditer(text)]
        if len(text) >= _SHORTEST:
            for layer in layers(text):
                found += _looking_secret(layer)
                found += self._found(layer)
        return _masked(text, sorted(found))

    def _forget(self, gone: weakref.ref[SecretValue]) -> None:
        with self._lock:
            for anchor in gone.anchors if isinstance(gone, _Held) else ():
                left = tuple(held for held in self._by_anchor.get(anchor, ()) if held is not gone)
                if left:
                    self._by_anchor[anchor] = left
                else:
                    self._by_anchor.pop(anchor, None)

    def _found(self, layer: Decoded) -> Iterator[tuple[int, int]]:
        """Where remembered values begin and end in the original text."""
        if not self._by_anchor:
            return
        forms: dict[int, tuple[str, ...]] = {}  # of the values that occur
        for piece in (layer, *unpacked(layer)):
            chars = piece.chars.translate(STANDARD_ALPHABET)
            known = self._by_anchor
            for at in [at for at in range(len(chars) - _SHORTEST + 1) if chars[at : at + _SHORTEST] in known]:
                for held in known.get(chars[at : at + _SHORTEST], ()):
                    value = held()
                    if value is None:
                        continue
                    if id(held) not in forms:
                        forms[id(held)] = _forms(reveal(value))
                    for begin, end in (_shown(chars, at, form) for form in forms[id(held)]):
                        if begin < end:
                            yield piece.span(begin, end)


def _forms(plain: str) -> tuple[str, ...]:
    """What is searched for: the value and its base64. `encodings` undoes everything else."""
    rare = _COMMON.sub("", plain, count=1) if _COMMON.match(plain) else plain
    # Also in base64, although that is undone: a head of 8 digits holds less than 8 bytes.
    encoded = base64.b64encode(plain.encode("utf-8", "surrogatepass")).decode()
    forms = [as_bytes(rare).translate(STANDARD_ALPHABET), encoded]
    if _ESCAPES.search(rare):
        # A part of the value reads as an escape, and is then undone in a text too.
        *_, innermost = layers(rare)
        forms.append(innermost.chars.translate(STANDARD_ALPHABET))
    # A very short "secret" would turn ordinary words into masks.
    return tuple(form for form in forms if len(form) >= _SHORTEST) if len(forms[0]) >= _SHORTEST else ()


def _shown(chars: str, at: int, form: str) -> tuple[int, int]:
    """Where `form`, its head or its tail begins and ends in `chars`, given that one of its anchors is at `at`; empty if it does not.

    A message may be cut off within a value: as much of it as the message holds is to be masked.
    """
    end = at + _SHORTEST
    if chars.startswith(form, at):
        return at, at + len(form)
    if end >= len(form) and chars.startswith(form, end - len(form)):
        return end - len(form), end
    if len(form) < _SHORTEST_CUT:
        return at, at
    bounds = range(_SHORTEST, len(form) + 1)
    if chars.startswith(form[:_SHORTEST], at):
        # The first length that is too long.
        return at, at + _SHORTEST - 1 + bisect_left(
            bounds, True, key=lambda size: not chars.startswith(form[:size], at)
        )
    if chars.startswith(form[-_SHORTEST:], at):
        wrong = bisect_left(bounds, True, key=lambda size: not chars.endswith(form[-size:], 0, end))
        return end - (_SHORTEST - 1 + wrong), end
    return at, at


def _masked(text: str, found: Iterable[tuple[int, int]]) -> str:
    """`text` with a mask for each stretch of it that is covered; where two overlap, neither leaves a rest."""
    parts: list[str] = []
    done = 0
    for begin, end in found:
        if begin >= done:
            parts += [text[done:begin], MASK]
        done = max(done, end)
    return "".join([*parts, text[done:]]) if parts else text


def _looking_secret(layer: Decoded) -> Iterator[tuple[int, int]]:
    """Where something looks like a key, in the original text."""
    for run in _KEY.finditer(layer.chars):
        for begin, end in _keys(layer, *run.span()):
            yield layer.span(begin, end)
    for run in _KEY_IN_NUMBERS.finditer(layer.chars):
        yield layer.span(*run.span())


def _keys(layer: Decoded, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """What looks random from `begin` to `end`, and each long part there that neither white space nor an ARM id interrupts."""
    yield from ((begin + start, begin + stop) for start, stop in _random_stretches(layer.chars[begin:end]))
    breaks = [at for at in range(begin + 1, end) if layer.first[at] > layer.last[at - 1]]
    for start, stop in zip([begin, *breaks], [*breaks, end], strict=True):
        done = start
        words = list(_PATH.finditer(layer.chars, start, stop))
        for word in (*words, None):
            upto = word.start() if word else stop
            part = layer.chars[done:upto]
            # An ARM id is made of letters and slashes too, where no name in it has a dash or a dot; so is a secret's name.
            if len(part) >= _KEY_LENGTH and not words and "-" not in part and "_" not in part:
                yield done, upto
            done = word.end() if word else stop


def _random_stretches(run: str) -> Iterator[tuple[int, int]]:
    """Where 60 characters in a row change between large and small letters, digits and signs as often as those of a key do.

    A word that glues to the key once white space is gone is left out.
    """
    classes = _GUID.sub(lambda guid: " " * len(guid.group()), run).translate(_CLASSES)
    if min(classes.count("A"), classes.count("a")) < _LETTERS:
        return
    changes = list(accumulate(map(ne, classes, classes[1:]), initial=0))
    large, small, blank = (list(accumulate((one == kind for one in classes), initial=0)) for kind in "Aa ")
    begin = end = -1
    for at in range(len(run) - _KEY_LENGTH + 1):
        stop = at + _KEY_LENGTH
        enough = min(large[stop] - large[at], small[stop] - small[at]) >= _LETTERS
        if changes[stop - 1] - changes[at] < _CHANGES or not enough or blank[stop] > blank[at]:
            continue
        if at > end >= 0:
            yield _trimmed(classes, begin, end)
        begin, end = (at if at > end else begin), stop
    if end >= 0:
        yield _trimmed(classes, begin, end)


def _trimmed(classes: str, begin: int, end: int) -> tuple[int, int]:
    while word := _WORD.match(classes, begin, end):
        begin = word.end()
    while classes[end - 6 : end] in {"aaaaaa", "AAAAAA", "000000"}:
        end -= len(classes[:end]) - len(classes[:end].rstrip(classes[end - 1]))
    return begin, end
