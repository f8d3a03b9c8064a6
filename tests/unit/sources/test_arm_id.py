"""Ids of Batch accounts."""

from __future__ import annotations

import pytest

from keysync.sources.listing import AccountId

SUB = "11111111-2222-3333-4444-555555555555"
ID = f"/subscriptions/{SUB}/resourceGroups/rg/providers/Microsoft.Batch/batchAccounts/alpha"


def test_an_id_keeps_its_spelling() -> None:
    """In any case. The whole id keeps only the spelling of the group and the name."""
    assert AccountId.parse(ID) == AccountId(SUB, "rg", "alpha")
    assert AccountId.parse(ID).resource_id == ID  # type: ignore[union-attr]
    assert AccountId.parse(ID.upper()) == AccountId(SUB, "RG", "ALPHA")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "alpha",
        f"{ID}/",
        f"{ID}/pools/p",
        f"{ID}-2",
        f"x{ID}",
        f"{ID}\n",
        ID.replace("alpha", "ab"),
        ID.replace("rg", "r/g"),
        ID.replace("Batch/", "Storage/"),
        ID.replace(SUB, "nobody"),
    ],
)
def test_other_ids_are_rejected(text: str) -> None:
    """Also the id of a resource below an account."""
    assert AccountId.parse(text) is None


def test_spellings_of_one_account_have_one_key() -> None:
    """In any case of its parts."""
    assert AccountId(SUB.upper(), "RG", "Alpha").key == AccountId(SUB, "rg", "alpha").key == ID.lower()
