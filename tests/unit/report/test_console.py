"""What is anybody's text commands no terminal, and a program reads it as it was."""

from __future__ import annotations

import json

import pytest

from keysync.report.console import strip_control_codes, to_json

HOSTILE = ["\x1b[2J", "\x9b2J", "\x7f", "a\u202eb", "a\rb", "\x00", "\u2066x\u2069"]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_document_shows_no_command_and_says_what_it_was(text: str):
    """A terminal is not commanded, and whoever parses the document gets the text whole."""
    document = to_json({"reason": text})
    assert document == strip_control_codes(document)
    assert json.loads(document) == {"reason": text}


def test_what_is_no_command_is_left_as_it_is():
    """Other languages' letters are read by people too."""
    assert to_json({"name": "Ünïcødé 日本 …"}) == '{\n  "name": "Ünïcødé 日本 …"\n}'
