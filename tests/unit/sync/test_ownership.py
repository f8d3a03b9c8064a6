"""Whose a secret is, as it is told: the tags are the words of whoever may set them."""

from __future__ import annotations

import pytest

from keysync.sync.ownership import KEY, KEYSYNC, MANAGED_BY, OWNER, SOURCE, owner_of

HOSTILE = "x\x1b]0;title\x07\nforged line: az keyvault secret delete --name x"


@pytest.mark.parametrize(
    "tags",
    [
        {MANAGED_BY: HOSTILE},
        {MANAGED_BY: KEYSYNC, SOURCE: HOSTILE, KEY: HOSTILE, OWNER: HOSTILE},
        {MANAGED_BY: KEYSYNC, KEY: HOSTILE},
    ],
)
def test_a_tag_is_quoted(tags: dict[str, str]) -> None:
    """A tag neither breaks the line, nor commands a terminal, nor passes for a command that keysync recommends."""
    told = owner_of(tags)
    assert told.isprintable()
    assert "forged line" in told
    assert ": az " not in told


def test_what_is_not_tagged_is_told_as_such() -> None:
    """A missing tag is no quotation."""
    assert (
        owner_of({MANAGED_BY: KEYSYNC}) == "it is keysync's for the unnamed key of an unnamed account, without an owner"
    )
