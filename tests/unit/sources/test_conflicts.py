"""Accounts that would write the same secret."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from keysync.config.model import Account, SecretNames
from keysync.sources.conflicts import duplicates, has_duplicate, refuse_conflicts, secret_numbers

VAULTS = {"main": "https://a.vault.azure.net", "west": "https://w.vault.azure.net", "twin": "https://a.vault.azure.net"}


def account(
    name: str, subscription: int = 0, vaults: tuple[str, ...] = ("main",), pattern: str = "{account}"
) -> Account:
    return Account(
        subscription_id=f"00000000-0000-0000-0000-{subscription:012}",
        resource_group="rg",
        name=name,
        vaults=vaults,
        secrets=SecretNames(primary=pattern, secondary=None),
    )


def test_conflicting_discovered_accounts_are_both_refused_and_name_each_other() -> None:
    """Neither has precedence. A third account is covered."""
    one, two, three = account("alpha", 1), account("ALPHA", 2), account("beta", 1)
    kept, refused = refuse_conflicts((), [(0, one), (1, two), (1, three)], VAULTS)
    assert kept == (three,)
    assert {each.resource_id: each.entry for each in refused} == {one.resource_id: 0, two.resource_id: 1}
    for each, other in zip(refused, (two, one), strict=True):
        assert each.refused
        assert other.resource_id in each.reason
        assert "https://a.vault.azure.net" in each.reason
        assert each.account is not None


def test_an_account_under_accounts_wins() -> None:
    """It was configured explicitly."""
    listed, found = account("alpha", 1), account("alpha", 2)
    kept, (refused,) = refuse_conflicts([listed], [(0, found)], VAULTS)
    assert kept == ()
    assert listed.resource_id in refused.reason
    assert "is under `accounts` and wins" in refused.reason


def test_vaults_are_compared_by_url() -> None:
    """Two names with one URL are one vault."""
    assert refuse_conflicts((), [(0, account("alpha", 1)), (0, account("alpha", 2, ("twin",)))], VAULTS)[0] == ()
    assert len(refuse_conflicts((), [(0, account("alpha", 1)), (0, account("alpha", 2, ("west",)))], VAULTS)[0]) == 2


def test_an_account_that_would_overwrite_itself_is_refused() -> None:
    """With two names of one vault, one secret would be written twice."""
    kept, (refused,) = refuse_conflicts((), [(0, account("alpha", vaults=("main", "twin")))], VAULTS)
    assert kept == ()
    assert "two of its keys" in refused.reason


def test_secret_numbers_show_conflicts() -> None:
    """Eight bytes for each secret, equal for two spellings of a name and for two names of one vault."""
    one, two = (
        secret_numbers(("main",), ("alpha", "beta"), VAULTS),
        secret_numbers(("twin", "west"), ("ALPHA",), VAULTS),
    )
    alone = secret_numbers(("west",), ("beta",), VAULTS)
    assert [len(each) for each in (one, two, alone)] == [16, 16, 8]
    twice = duplicates([one, two, alone])
    assert len(twice) == 1
    assert [has_duplicate(each, twice) for each in (one, two, alone, b"")] == [True, True, False, False]
    assert duplicates([one, alone]) == frozenset()
    assert has_duplicate(secret_numbers(("main", "twin"), ("alpha",), VAULTS), twice)


accounts = st.builds(
    account,
    st.sampled_from(["abc", "ABC", "abd", "xyz"]),
    st.integers(0, 4),
    st.sampled_from([("main",), ("west",), ("main", "west"), ("twin", "west")]),
    st.sampled_from(["{account}", "k-{account}", "{account}-{subscription_id}"]),
)


def unique(found: list[Account]) -> list[Account]:
    return list({each.resource_id.lower(): each for each in found}.values())


@given(st.lists(accounts, max_size=8).map(unique), st.integers(0, 2), st.randoms())
def test_no_secret_has_two_writers_in_any_order(everyone: list[Account], listed: int, random: object) -> None:  # fmt: skip
    """Each secret of a covered account has one writer. A refused account shares a secret. The order has no influence."""
    fixed, found = everyone[:listed], [(0, each) for each in everyone[listed:]]
    kept, refused = refuse_conflicts(fixed, found, VAULTS)
    assert {each.resource_id for each in kept} | {each.resource_id for each in refused} == {
        each.resource_id for _, each in found
    }

    def secret_numbers(each: Account) -> set[tuple[str, str]]:
        return {(VAULTS[vault], name.lower()) for vault in each.vaults for name in each.secret_names().values()}

    written = sorted(place for each in kept for place in secret_numbers(each))
    assert all(one != two for one, two in pairwise(written))
    assert not set(written) & {place for each in fixed for place in secret_numbers(each)}
    for each in refused:
        assert each.account is not None
        others = [other for other in everyone if other is not each.account]
        assert any(secret_numbers(each.account) & secret_numbers(other) for other in others)
    again = refuse_conflicts(fixed, list(reversed(found)), VAULTS)
    assert {each.resource_id for each in again[0]} == {each.resource_id for each in kept}
