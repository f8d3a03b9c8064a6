"""Taking secrets out of text that others wrote: a service's error message may echo what it was sent."""

from __future__ import annotations

import base64
import re
from typing import Final
from urllib.parse import quote
from weakref import WeakKeyDictionary

from keysync.secret.reveal import reveal
from keysync.secret.value import MASK, SecretValue

# A Batch key is 88 characters of base64 and a token starts with "eyJ": no word, path or id of Azure looks like these.
_LOOKS_SECRET: Final = re.compile(
    r"(?:[A-Za-z0-9+/]|%2[BbFf]|\\u002[BbFf]|\\/|&#4[37];|&#x2[BbFf];){60,}(?:=|%3[Dd]|\\u003[Dd]|&#61;){0,2}|eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]+){0,2}|(?i:(?<=bearer )[^\s\"',]{16,})"
)
_PATH: Final = re.compile(r"/(?:subscriptions|resourceGroups|providers|batchAccounts)/", re.IGNORECASE)
_SHORTEST: Final = 8
_HEAD: Final = 12


class Scrubber:
    """Masks every value that it was told of, as it stands, in base64 and URL-encoded, and what looks like a secret.

    Values are held weakly: once nobody else has one, it is forgotten.
    """

    def __init__(self) -> None:
        # Each value's forms are made once: every string of every log line is searched for all of them.
        self._forms: WeakKeyDictionary[SecretValue, tuple[str, ...]] = WeakKeyDictionary()

    def remember(self, value: SecretValue) -> SecretValue:
        """Masks `value` from now on; returns it, so that a value can be wrapped and remembered in one expression."""
        self._forms[value] = _forms(reveal(value))
        return value

    def scrub(self, text: str) -> str:
        """`text` without any remembered value and without anything that looks like a key or a token."""
        remembered = tuple(self._forms.values())
        forms = {form for forms_of_one in remembered for form in forms_of_one}
        # The longest first: a value that is a part of another must not break that one up.
        for form in sorted(forms, key=len, reverse=True):
            text = text.replace(form, MASK)
        for forms_of_one in remembered:
            text = _without_beginning(text, forms_of_one[0]) if forms_of_one else text
        return _LOOKS_SECRET.sub(_mask_unless_path, text)


def _forms(plain: str) -> tuple[str, ...]:
    # A very short "secret" would turn ordinary words into masks.
    if len(plain) < _SHORTEST:
        return ()
    # A reply may hold half of a surrogate pair, which is text to Python and nothing to UTF-8.
    encoded = base64.b64encode(plain.encode("utf-8", "surrogatepass")).decode()
    return (plain, encoded, quote(plain, safe="", errors="surrogatepass"))


def _without_beginning(text: str, plain: str) -> str:
    """A message may be cut off within a value: as much of it as stands there is masked."""
    head = plain[:_HEAD]
    if len(plain) < 2 * _HEAD or head not in text:
        return text
    before, _, after = text.partition(head)
    same = next((at for at, (a, b) in enumerate(zip(after, plain[_HEAD:], strict=False)) if a != b), len(plain) - _HEAD)
    return before + MASK + _without_beginning(after[same:], plain)


def _mask_unless_path(found: re.Match[str]) -> str:
    # An ARM id is made of letters and slashes too, where no name in it has a dash or a dot.
    return found.group() if _PATH.search(found.group()) else MASK
