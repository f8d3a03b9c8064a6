"""Characters that command a terminal or turn the direction of writing: what is anybody's text is printed without them."""

from __future__ import annotations

import json
import re
from typing import Final

# All controls but newline and tab; U+009B alone begins a command to many terminals.
_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def without_controls(text: str) -> str:
    """`text` with U+FFFD in place of each."""
    return _CONTROLS.sub("\ufffd", text)


def to_json(value: object) -> str:
    """`value` as an indented JSON document that reads as it stands: only such characters are escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return _CONTROLS.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
