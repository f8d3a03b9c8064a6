"""Control codes in text do not reach a terminal, and a program reads the original text."""

from __future__ import annotations

import json

import pytest

from keysync.report.console import strip_control_codes, to_json

HOSTILE = ["\x1b[2J", "\x9b2J", "\x7f", "a\u202eb", "a\rb", "\x00", "\u2066x\u2069"]


@pytest.mark.parametrize("text", HOSTILE)
def test_control_codes_in_json_are_escaped(text: str):
    """The document contains no control code, and its parser gets the original text."""
    document = to_json({"reason": text})
    assert document == strip_control_codes(document)
    assert json.loads(document) == {"reason": text}


def test_other_characters_are_not_escaped():
    """Letters of other languages stay readable."""
    assert to_json({"name": "Ünïcødé 日本 …"}) == '{\n  "name": "Ünïcødé 日本 …"\n}'
