"""Undoes the encodings in which a service may repeat a secret, and keeps the place of each character.

Decoding the text once is linear. It costs less than searching for each secret in every encoded form.
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import unescape
from typing import Final

STANDARD_ALPHABET: Final = str.maketrans("-_", "+/")
"""From the alphabet of base64url to that of base64."""

# That of ASCII alone: the bytes of another kind are part of a value, as an escape of them is.
_WITHOUT_SPACE: Final = dict.fromkeys(code for code in range(128) if chr(code).isspace())
_LAYERS: Final = 6  # a hostile text could nest escapes without end
_ESCAPE: Final = re.compile(
    r"%[0-9A-Fa-f]{2}|\\x[0-9A-Fa-f]{2}"
    r"|\\u[dD][89abAB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2}|[\\%]u[0-9A-Fa-f]{4}|\\[\"'/\\nrtbf]"
    r"|&#[xX]0*[0-9A-Fa-f]{1,6};|&#0*[0-9]{1,7};|&[A-Za-z][A-Za-z0-9]{1,30};"
)
_LETTERS: Final = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{11,}")  # 11 digits hold 8 bytes
_HEX: Final = re.compile(r"[0-9A-Fa-fxX:,;-]{16,}")
_HEX_DIGIT: Final = re.compile(r"0[xX]|([0-9A-Fa-f])")
_DECIMAL: Final = re.compile(r"(?:[0-9]{1,3}[,;]){7,}[0-9]{1,3}")
# Keys and client secrets are printable ASCII; the bytes that ordinary words decode to rarely are.
_PRINTABLE: Final = re.compile(rb"[\x20-\x7e]{8,}")


@dataclass(frozen=True, slots=True)
class Decoded:
    """Decoded text: its UTF-8 bytes as Latin-1 characters, without white space.

    `first` and `last` hold where each character begins and ends in the original text.
    """

    chars: str
    first: Sequence[int]
    last: Sequence[int]

    def span(self, begin: int, end: int) -> tuple[int, int]:
        """Where the characters from `begin` to `end` stand in the original text."""
        return self.first[begin], self.last[end - 1]


def as_bytes(text: str) -> str:
    """`text` as in `Decoded.chars`. A lone surrogate, which JSON can carry, stays what it is."""
    return text.translate(_WITHOUT_SPACE).encode("utf-8", "surrogatepass").decode("latin-1")


def layers(text: str) -> Iterator[Decoded]:
    """`text` without white space, then with one more level of escapes undone each time: URL, JSON, HTML."""
    layer: Decoded | None = _without_space(text)
    for _ in range(_LAYERS):
        if layer is None:
            return
        yield layer
        layer = _unescaped(layer)


def unpacked(layer: Decoded) -> Iterator[Decoded]:
    """What `layer` holds in base64, in hex or as a list of byte values, where that is printable text."""
    yield from _from_base64(layer)
    yield from _from_hex(layer)
    yield from _from_decimal(layer)


def _without_space(text: str) -> Decoded:
    if text.isascii():
        first: Sequence[int] = [at for at, char in enumerate(text) if not char.isspace()]
        return Decoded(text.translate(_WITHOUT_SPACE), first, [at + 1 for at in first])
    kept = [(at, as_bytes(char)) for at, char in enumerate(text)]
    first = [at for at, data in kept for _ in data]
    return Decoded("".join(data for _, data in kept), first, [at + 1 for at in first])


def _unescaped(layer: Decoded) -> Decoded | None:
    """`layer` with one level of escapes undone; None where there are none."""
    chars: list[str] = []
    first: list[int] = []
    last: list[int] = []
    done = 0
    for found in _ESCAPE.finditer(layer.chars):
        begin, end = found.span()
        plain = _meaning(found.group())
        if plain == found.group():  # an entity that HTML does not have
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


def _from_base64(layer: Decoded) -> Iterator[Decoded]:
    for run in _BASE64.finditer(layer.chars):
        digits = run.group().translate(STANDARD_ALPHABET)
        # Where the encoded bytes begin is unknown, as other digits may precede them.
        for skipped in range(4):
            part = digits[skipped : len(digits) - ((len(digits) - skipped) % 4 == 1)]
            places = range(run.start() + skipped, run.end())
            yield from _printable(layer, a2b_base64(part + "=" * (-len(part) % 4)), places, places, 6)


def _from_hex(layer: Decoded) -> Iterator[Decoded]:
    for run in _HEX.finditer(layer.chars):
        digits = [run.start() + one.start() for one in _HEX_DIGIT.finditer(run.group()) if one.group(1)]
        for skipped in (0, 1):
            places = digits[skipped : len(digits) - (len(digits) - skipped) % 2]
            data = bytes.fromhex("".join(layer.chars[at] for at in places))
            yield from _printable(layer, data, places, places, 4)


def _from_decimal(layer: Decoded) -> Iterator[Decoded]:
    for run in _DECIMAL.finditer(layer.chars):
        numbers = list(re.finditer("[0-9]+", run.group()))
        data = bytes(min(int(one.group()), 255) for one in numbers)
        begins, ends = (
            [run.start() + at for at in part] for part in zip(*(one.span() for one in numbers), strict=True)
        )
        yield from _printable(layer, data, begins, [at - 1 for at in ends], 8)


def _printable(layer: Decoded, data: bytes, begins: Sequence[int], ends: Sequence[int], bits: int) -> Iterator[Decoded]:
    """The printable parts of `data`. Each of its digits holds so many `bits`, and has its place in `layer` in `begins` and `ends`."""
    for text in _PRINTABLE.finditer(data):
        kept = [at for at in range(*text.span()) if data[at] != ord(" ")]
        yield Decoded(
            bytes(data[at] for at in kept).decode("ascii"),
            [layer.first[begins[at * 8 // bits]] for at in kept],
            [layer.last[ends[(at * 8 + 7) // bits]] for at in kept],
        )
