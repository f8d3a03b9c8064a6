"""Ids of Batch accounts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysync.sources.arm_id import AccountId

SUB = "11111111-2222-3333-4444-555555555555"
ID = f"/subscriptions/{SUB}/resourceGroups/rg/providers/Microsoft.Batch/batchAccounts/alpha"


def test_an_id_is_taken_apart_as_it_is_spelt() -> None:
    """Whatever its case; in one piece again, only the group and the name keep theirs."""
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
def test_what_is_no_account_is_none(text: str) -> None:
    """Nor is what stands below one."""
    assert AccountId.parse(text) is None


@given(st.lists(st.builds(AccountId, st.just(SUB), st.text("rg-.(Z", min_size=1), st.text("aB9", min_size=3))))
def test_folder_and_name_order_accounts_as_their_ids_do(places: list[AccountId]) -> None:
    """So a listing in that order is one by id."""
    by_parts = sorted(places, key=lambda place: (place.folder, place.folded_name))
    assert [one.resource_id.lower() for one in by_parts] == sorted(one.resource_id.lower() for one in places)
