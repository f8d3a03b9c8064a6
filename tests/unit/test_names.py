"""Comparison of Azure names: the case of A to Z is ignored, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from keysync.names import fold
from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.value import SecretValue
from keysync.sources.filters import pattern_of
from keysync.sources.listing import AccountId
from keysync.sources.shard import Shard
from keysync.sync.model import Item
from keysync.sync.ownership import is_ours, own_tags
from keysync.targets.cache import SecretCache
from keysync.targets.interface import StoredSecret
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
    """A character that Unicode folds to a letter stays unchanged."""
    assert fold(name) == folded


@pytest.mark.parametrize("character", [KELVIN, LONG_S])
def test_lookalike_character_is_in_no_account_name(character: str) -> None:
    """Neither an id from a listing nor a filter treats it as the letter."""
    assert AccountId.parse(f"{GROUP}/{character}iwi") is None
    assert AccountId.parse(f"{GROUP}/kiwi") is not None
    assert AccountId.parse(f"{GROUP}/kiwis".replace("batchAccounts", f"batchAccount{character}")) is None
    assert not pattern_of("k*s").fullmatch(f"{character}iwi{character}")
    assert pattern_of("K*S").fullmatch("kiwis")


def test_lookalike_tag_does_not_mark_a_secret_as_managed() -> None:
    """A tag with U+212A does not belong to the account with the letter k."""
    item = Item(ref("kiwi"))
    tags = own_tags(item)
    assert is_ours({**tags, "keysync-source": tags["keysync-source"].upper()}, item)
    assert not is_ours({**tags, "keysync-source": tags["keysync-source"].replace("kiwi", f"{KELVIN}iwi")}, item)


def test_lookalike_secret_names_are_cached_separately() -> None:
    """Names that differ only in the case of A to Z share one entry."""
    cache, moment = SecretCache(60.0, lambda: 0.0), datetime(2026, 1, 1, tzinfo=UTC)
    cache.keep(
        "Kiwi-Key", StoredSecret("v1", Fingerprinter().of(SecretValue("x")), {}), moment, moment + timedelta(seconds=9)
    )
    assert cache.is_usable("kiwi-key")
    assert not cache.is_usable(f"{KELVIN}iwi-key")


def test_shard_of_an_account_ignores_the_case_of_its_id() -> None:
    """Shards that see different spellings agree."""
    shards = [Shard(index, 3) for index in range(3)]
    assert [shard.has(f"{GROUP}/Kiwi") for shard in shards] == [shard.has(f"{GROUP}/kIWI".upper()) for shard in shards]


def test_names_are_folded_in_one_place() -> None:
    """No module of sources, targets or sync uses Unicode case folding."""
    package = Path(__file__).parents[2] / "keysync"
    violations = [
        f"{path.relative_to(package)}: {line.strip()}"
        for part in ("sources", "targets", "sync")
        for path in sorted((package / part).glob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if (".lower()" in line or ".casefold()" in line)
    ]
    assert violations == []
