"""The owner of a secret in messages. Anyone with access to the vault may write its tags."""

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
    """A tag cannot break the line, control the terminal or imitate a suggested command."""
    text = owner_of(tags)
    assert text.isprintable()
    assert "forged line" in text
    assert ": az " not in text


def test_missing_tags_are_named() -> None:
    """A missing tag is not quoted."""
    assert (
        owner_of({MANAGED_BY: KEYSYNC}) == "it is keysync's for the unnamed key of an unnamed account, without an owner"
    )
