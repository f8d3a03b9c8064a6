"""How names of Azure compare: A to Z without case, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from keysync.names import fold
from keysync.sources.arm_id import AccountId
from keysync.sources.filters import pattern_of
from keysync.sources.shard import Shard
from keysync.sync.model import Item
from keysync.sync.ownership import is_ours, own_tags
from keysync.targets.cache import name_key
from tests.support.runs import GROUP, ref

KELVIN = "\u212a"  # its lower case is the letter k
LONG_S = "\u017f"  # its upper case is the letter S


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        ("Farm-K9", "farm-k9"),
        (f"{KELVIN}iwi", f"{KELVIN}iwi"),
        (f"A{LONG_S}Z", f"a{LONG_S}z"),
        ("GRÜN", "grÜn"),
        ("", ""),
    ],
)
def test_only_the_26_letters_are_folded(name: str, folded: str) -> None:
    """A sign that Unicode folds to a letter stays itself."""
    assert fold(name) == folded


@pytest.mark.parametrize("sign", [KELVIN, LONG_S])
def test_a_sign_like_a_letter_is_in_no_account_name(sign: str) -> None:
    """Neither the id of a listing nor a filter takes it for the letter."""
    assert AccountId.parse(f"{GROUP}/{sign}iwi") is None
    assert AccountId.parse(f"{GROUP}/kiwi") is not None
    assert AccountId.parse(f"{GROUP}/kiwis".replace("batchAccounts", f"batchAccount{sign}")) is None
    assert not pattern_of("k*s").fullmatch(f"{sign}iwi{sign}")
    assert pattern_of("K*S").fullmatch("kiwis")


def test_a_tag_that_only_looks_like_the_account_marks_nothing() -> None:
    """A secret whose tag names an account with U+212A is not keysync's for the account with the letter k."""
    item = Item(ref("kiwi"))
    tags = own_tags(item)
    assert is_ours({**tags, "keysync-source": tags["keysync-source"].upper()}, item)
    assert not is_ours({**tags, "keysync-source": tags["keysync-source"].replace("kiwi", f"{KELVIN}iwi")}, item)


def test_names_of_secrets_are_remembered_apart() -> None:
    """What was read of one name says nothing of the other; the same name in another case is the same."""
    assert name_key("Kiwi-Key") == name_key("kiwi-key")
    assert name_key(f"{KELVIN}iwi-key") != name_key("kiwi-key")


def test_the_share_of_an_account_does_not_depend_on_the_case_of_its_id() -> None:
    """As before: shards of one fleet agree."""
    shards = [Shard(index, 3) for index in range(3)]
    assert [one.has(f"{GROUP}/Kiwi") for one in shards] == [one.has(f"{GROUP}/kIWI".upper()) for one in shards]


def test_names_are_folded_in_one_place() -> None:
    """No module of sources, targets or sync folds by Unicode."""
    package = Path(__file__).parents[3] / "keysync"
    found = [
        f"{path.relative_to(package)}: {line.strip()}"
        for part in ("sources", "targets", "sync")
        for path in sorted((package / part).glob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if (".lower()" in line or ".casefold()" in line) and "result_truncated" not in line
    ]
    assert found == []
