"""Redacts secrets in text that services and libraries wrote: an error message may repeat its request."""

from __future__ import annotations

import base64
import re
import threading
import weakref
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from operator import ne
from typing import Final

from keysync.secret.encodings import STANDARD_ALPHABET, Decoded, as_bytes, layers, unpacked
from keysync.secret.reveal import reveal
from keysync.secret.value import MASK, SecretValue

_TOKEN: Final = re.compile(r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]+){0,2}|(?i:(?<=bearer )[^\s\"',]{16,})")
# User and password in a URL, such as a proxy's. A user without password may be a token.
_USER_INFO: Final = re.compile(r"(?<=://)[^\s/?#@\"'<>]+(?=@)")
# A Batch key has 88 characters of base64. No word or id of Azure has 60 such characters that look random.
_KEY_LIKE: Final = re.compile(r"[A-Za-z0-9+/_-]{60,}={0,2}")
_MIN_KEY_LENGTH: Final = 60
_MIN_LETTERS: Final = 11  # of each case; a key usually has 24
_MIN_CHANGES: Final = 25  # from one kind of character to another; a key usually has 38
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
_MIN_LENGTH: Final = 8
_MIN_LENGTH_FOR_PARTS: Final = 16  # the start or the end of a shorter value may be an ordinary word
# Many values and many messages begin with these, so they do not identify a value.
_COMMON_PREFIX: Final = re.compile(r"https?://|/subscriptions/")
_ESCAPES: Final = re.compile(r"[%\\&]")


class _Remembered(weakref.ref[SecretValue]):
    """A weak reference to a remembered value, with the value's anchors."""

    __slots__ = ("anchors",)
    anchors: frozenset[str]


class Redactor:
    """Masks remembered values in any encoding, whole or cut off, and text that looks like a key or a token.

    References to values are weak: a value without other references is forgotten. A text is decoded and searched once, however
    many values are remembered: a value is found by its anchors, which are its first and its last 8 characters.
    """

    def __init__(self) -> None:
        # The tuples are immutable, as another thread may be reading one. The lock is for writers. It is reentrant, as the garbage
        # collector may call `_forget` during `remember`.
        self._by_anchor: dict[str, tuple[_Remembered, ...]] = {}
        self._lock = threading.RLock()

    def remember(self, value: SecretValue) -> SecretValue:
        """Masks `value` from now on. Returns it, so that one expression can wrap and remember a value."""
        anchors = frozenset(
            anchor for form in _forms(reveal(value)) for anchor in (form[:_MIN_LENGTH], form[-_MIN_LENGTH:])
        )
        with self._lock:
            any_anchor = next(iter(anchors), "")
            if any(known() is value for known in self._by_anchor.get(any_anchor, ())):
                return value
            reference = _Remembered(value, self._forget)
            reference.anchors = anchors
            for anchor in anchors:
                others = self._by_anchor.get(anchor, ())
                self._by_anchor[anchor] = (*(other for other in others if other() is not None), reference)
        return value

    def redact(self, text: str) -> str:
        """`text` with a mask for each remembered value, and for anything that looks like a key or a token."""
        # All searches use the original text: a mask in the middle of a secret would hide the rest of it from other searches.
        spans = [match.span() for pattern in (_TOKEN, _USER_INFO) for match in pattern.finditer(text)]
        if len(text) >= _MIN_LENGTH:
            for layer in layers(text):
                runs = [run.span() for run in _KEY_LIKE.finditer(layer.chars)]
                spans += [layer.span(*part) for run in runs for part in _key_like_in_run(layer, *run)]
                spans += [layer.span(*run.span()) for run in _KEY_IN_NUMBERS.finditer(layer.chars)]
                spans += self._remembered_spans(layer)
        parts: list[str] = []
        done = 0
        for begin, end in sorted(spans):
            if begin >= done:  # overlapping spans get one mask
                parts += [text[done:begin], MASK]
            done = max(done, end)
        return "".join([*parts, text[done:]])

    def _forget(self, reference: weakref.ref[SecretValue]) -> None:
        with self._lock:
            for anchor in reference.anchors if isinstance(reference, _Remembered) else ():
                others = tuple(other for other in self._by_anchor.get(anchor, ()) if other is not reference)
                if others:
                    self._by_anchor[anchor] = others
                else:
                    self._by_anchor.pop(anchor, None)

    def _remembered_spans(self, layer: Decoded) -> Iterator[tuple[int, int]]:
        """The spans of remembered values in the original text."""
        by_anchor = self._by_anchor
        forms: dict[int, tuple[str, ...]] = {}  # of the values found so far
        for piece in (layer, *unpacked(layer)) if by_anchor else ():
            chars = piece.chars.translate(STANDARD_ALPHABET)
            for at in [at for at in range(len(chars) - _MIN_LENGTH + 1) if chars[at : at + _MIN_LENGTH] in by_anchor]:
                for reference in by_anchor.get(chars[at : at + _MIN_LENGTH], ()):
                    value = reference()
                    if value is not None and id(reference) not in forms:
                        forms[id(reference)] = _forms(reveal(value))
                    for form in forms.get(id(reference), ()):
                        yield from (piece.span(begin, end) for begin, end in _matches_at_anchor(chars, at, form))


def _forms(plain: str) -> tuple[str, ...]:
    """The forms of a value to search for: plain and base64. `encodings` decodes the others."""
    distinctive = _COMMON_PREFIX.sub("", plain, count=1) if _COMMON_PREFIX.match(plain) else plain
    # Base64 is needed although `encodings` decodes it: 8 digits, the shortest part, encode less than 8 bytes.
    encoded = base64.b64encode(plain.encode("utf-8", "surrogatepass")).decode()
    forms = [as_bytes(distinctive).translate(STANDARD_ALPHABET), encoded]
    if _ESCAPES.search(distinctive):
        # A part of the value looks like an escape, so `encodings` decodes it in a text too.
        *_, innermost = layers(distinctive)
        forms.append(innermost.chars.translate(STANDARD_ALPHABET))
    # A very short value would mask ordinary words.
    return tuple(form for form in forms if len(form) >= _MIN_LENGTH) if len(forms[0]) >= _MIN_LENGTH else ()


def _matches_at_anchor(chars: str, at: int, form: str) -> Iterator[tuple[int, int]]:
    """The spans of `form`, or of its start or end, in `chars`, given an anchor at `at`.

    A message may be cut off within a value; the part in the message must be masked.
    """
    end = at + _MIN_LENGTH
    sizes = range(_MIN_LENGTH, len(form) + 1)
    smallest = len(form) if len(form) < _MIN_LENGTH_FOR_PARTS else _MIN_LENGTH
    if chars.startswith(form[:_MIN_LENGTH], at):
        # `bisect_left` finds the first length that does not match.
        too_long = bisect_left(sizes, True, key=lambda size: not chars.startswith(form[:size], at))
        if (size := too_long + _MIN_LENGTH - 1) >= smallest:
            yield at, at + size
    if chars.startswith(form[-_MIN_LENGTH:], at):
        too_long = bisect_left(sizes, True, key=lambda size: not chars.endswith(form[-size:], 0, end))
        if (size := too_long + _MIN_LENGTH - 1) >= smallest:
            yield end - size, end


def _key_like_in_run(layer: Decoded, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The spans from `begin` to `end` that look random, and long parts without white space that are not in an ARM id."""
    yield from ((begin + start, begin + stop) for start, stop in _random_stretches(layer.chars[begin:end]))
    breaks = [at for at in range(begin + 1, end) if layer.first[at] > layer.last[at - 1]]
    for start, stop in zip([begin, *breaks], [*breaks, end], strict=True):
        done = start
        words = list(_PATH.finditer(layer.chars, start, stop))
        for word in (*words, None):
            part_end = word.start() if word else stop
            part = layer.chars[done:part_end]
            # An ARM id whose names have no dash or dot consists of the same characters; so does the name of a secret.
            if len(part) >= _MIN_KEY_LENGTH and not words and "-" not in part and "_" not in part:
                yield done, part_end
            done = word.end() if word else stop


def _random_stretches(run: str) -> Iterator[tuple[int, int]]:
    """The spans whose every 60 characters alternate between upper case, lower case, digits and signs as often as a key.

    Words at the start or end of a span are excluded: without white space they are joined to the key.
    """
    classes = _GUID.sub(lambda guid: " " * len(guid.group()), run).translate(_CLASSES)
    if min(classes.count("A"), classes.count("a")) < _MIN_LETTERS:
        return
    changes = list(accumulate(map(ne, classes, classes[1:]), initial=0))
    large, small, blank = (
        list(accumulate((char_class == kind for char_class in classes), initial=0)) for kind in "Aa "
    )
    begin = end = -1
    for at in range(len(run) - _MIN_KEY_LENGTH + 1):
        stop = at + _MIN_KEY_LENGTH
        enough = min(large[stop] - large[at], small[stop] - small[at]) >= _MIN_LETTERS
        if changes[stop - 1] - changes[at] < _MIN_CHANGES or not enough or blank[stop] > blank[at]:
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
