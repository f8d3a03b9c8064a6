"""Decodes the encodings in which a service may repeat a secret, and keeps the position of each character.

Decoding the text once takes linear time. That is faster than a search for each secret in every encoding.
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import unescape
from typing import Final

STANDARD_ALPHABET: Final = str.maketrans("-_", "+/")
"""Translates base64url digits to base64 digits."""

# ASCII white space only: other white space is part of a value, and so are its bytes.
_WITHOUT_SPACE: Final = dict.fromkeys(code for code in range(128) if chr(code).isspace())
_MAX_LAYERS: Final = 6  # a hostile text could nest escapes endlessly
_ESCAPE: Final = re.compile(
    r"%[0-9A-Fa-f]{2}|\\x[0-9A-Fa-f]{2}"
    r"|\\u[dD][89abAB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2}|[\\%]u[0-9A-Fa-f]{4}|\\[\"'/\\nrtbf]"
    r"|&#[xX]0*[0-9A-Fa-f]{1,6};|&#0*[0-9]{1,7};|&[A-Za-z][A-Za-z0-9]{1,30};"
)
_LETTERS: Final = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{11,}")  # 11 digits encode 8 bytes
_HEX: Final = re.compile(r"[0-9A-Fa-fxX:,;-]{16,}")
_HEX_DIGIT: Final = re.compile(r"0[xX]|([0-9A-Fa-f])")
_NO_HEX_DIGIT: Final = re.compile(r"0[xX]|[^0-9A-Fa-f]")
_DECIMAL: Final = re.compile(r"(?:[0-9]{1,3}[,;]){7,}[0-9]{1,3}")
# Keys and client secrets are printable ASCII. An ordinary word, decoded, rarely is.
_PRINTABLE: Final = re.compile(rb"[\x20-\x7e]{8,}")


@dataclass(frozen=True, slots=True)
class Decoded:
    """Decoded text: its UTF-8 bytes as Latin-1 characters, without white space.

    `first` and `last` hold the start and end of each character in the original text.
    """

    chars: str
    first: Sequence[int]
    last: Sequence[int]

    def span(self, begin: int, end: int) -> tuple[int, int]:
        """The start and end, in the original text, of the characters from `begin` to `end`."""
        return self.first[begin], self.last[end - 1]


def as_bytes(text: str) -> str:
    """`text` in the form of `Decoded.chars`. A lone surrogate, which JSON can contain, is kept."""
    return text.translate(_WITHOUT_SPACE).encode("utf-8", "surrogatepass").decode("latin-1")


def layers(text: str) -> Iterator[Decoded]:
    """Yields `text` without white space, then with one more level of escapes (URL, JSON, HTML) decoded each time."""
    layer: Decoded | None = _without_space(text)
    for _ in range(_MAX_LAYERS):
        if layer is None:
            return
        yield layer
        layer = _unescaped(layer)


def unpacked(layer: Decoded) -> Iterator[Decoded]:
    """Yields the printable text that `layer` contains in base64, in hex or as a list of byte values."""
    chars = layer.chars
    for run in _BASE64.finditer(chars.translate(STANDARD_ALPHABET)):
        digits, size = run.group(), run.end() - run.start()
        # Other digits may precede the encoded value, so its first digit is unknown.
        parts = [digits[skipped : size - ((size - skipped) % 4 == 1)] for skipped in range(4)]
        decoded = [a2b_base64(part + "=" * (-len(part) % 4)) for part in parts]
        if _PRINTABLE.search(b"\n".join(decoded)):  # words and ids look like base64, but encode nothing printable
            for skipped, data in enumerate(decoded):
                positions = range(run.start() + skipped, run.end())
                yield from _texts(layer, data, positions, positions, 6)
    for run in _HEX.finditer(chars):
        digits = _NO_HEX_DIGIT.sub("", run.group())
        halves = [digits[skipped : len(digits) - (len(digits) - skipped) % 2] for skipped in (0, 1)]
        decoded = [bytes.fromhex(half) for half in halves]
        if _PRINTABLE.search(b"\n".join(decoded)):
            found = [run.start() + match.start() for match in _HEX_DIGIT.finditer(run.group()) if match.group(1)]
            for skipped, data in enumerate(decoded):
                yield from _texts(layer, data, found[skipped:], found[skipped:], 4)
    for run in _DECIMAL.finditer(chars):
        numbers = list(re.finditer("[0-9]+", run.group()))
        data = bytes(min(int(match.group()), 255) for match in numbers)
        begins = [run.start() + match.start() for match in numbers]
        yield from _texts(layer, data, begins, [run.start() + match.end() - 1 for match in numbers], 8)


def _texts(layer: Decoded, data: bytes, begins: Sequence[int], ends: Sequence[int], bits: int) -> Iterator[Decoded]:
    """The printable parts of `data`, whose digits of `bits` bits begin and end (last character) at these places of `layer`."""
    for text in _PRINTABLE.finditer(data):
        indexes = [at for at in range(*text.span()) if data[at] != ord(" ")]
        yield Decoded(
            bytes(data[at] for at in indexes).decode("ascii"),
            [layer.first[begins[at * 8 // bits]] for at in indexes],
            [layer.last[ends[(at * 8 + 7) // bits]] for at in indexes],
        )


def _without_space(text: str) -> Decoded:
    if text.isascii():
        chars = "".join(text.split())
        if len(chars) == len(text):
            return Decoded(chars, range(len(text)), range(1, len(text) + 1))
        first: Sequence[int] = [at for at, char in enumerate(text) if not char.isspace()]
        return Decoded(chars, first, [at + 1 for at in first])
    characters = [(at, as_bytes(char)) for at, char in enumerate(text)]
    first = [at for at, data in characters for _ in data]
    return Decoded("".join(data for _, data in characters), first, [at + 1 for at in first])


def _unescaped(layer: Decoded) -> Decoded | None:
    """`layer` with one level of escapes decoded; None if it has no escapes."""
    chars: list[str] = []
    first: list[int] = []
    last: list[int] = []
    done = 0
    for match in _ESCAPE.finditer(layer.chars):
        begin, end = match.span()
        plain = _meaning(match.group())
        if plain == match.group():  # not an entity of HTML
            continue
        chars += [layer.chars[done:begin], plain]
        first += [*layer.first[done:begin], *[layer.first[begin]] * len(plain)]
        last += [*layer.last[done:begin], *[layer.last[end - 1]] * len(plain)]
        done = end
    if not done:
        return None
    return Decoded("".join([*chars, layer.chars[done:]]), [*first, *layer.first[done:]], [*last, *layer.last[done:]])


def _meaning(escape: str) -> str:
    kind = escape[:2].lower()
    if kind in {"\\u", "%u"}:
        units = b"".join(bytes.fromhex(escape[at : at + 4]) for at in range(2, len(escape), 6))
        return as_bytes(units.decode("utf-16-be", "surrogatepass"))
    if kind == "\\x" or kind[0] == "%":
        byte = chr(int(escape[-2:], 16))
        return "" if byte.isascii() and byte.isspace() else byte
    if kind[0] == "\\":
        return as_bytes(_LETTERS.get(escape[1], escape[1]))
    return as_bytes(unescape(escape))
