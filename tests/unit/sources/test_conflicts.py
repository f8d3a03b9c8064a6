"""Accounts that would write the same secret."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from keysync.config.model import Account, SecretNames
from keysync.sources.conflicts import Writer, conflict_reason, conflicts_of, secrets_of

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


def refusals(listed: Sequence[Account], discovered: Sequence[Account]) -> dict[Account, str]:
    """The discovered accounts (found by the entries 0, 1, …) with a conflict, and the reason for each."""
    conflicts = conflicts_of(
        [
            *((Writer(each.resource_id, None), secrets_of(each, VAULTS)) for each in listed),
            *((Writer(each.resource_id, n), secrets_of(each, VAULTS)) for n, each in enumerate(discovered)),
        ]
    )
    return {
        each: conflict_reason(each, n, secrets_of(each, VAULTS), conflicts)
        for n, each in enumerate(discovered)
        if not conflicts.keys().isdisjoint(secrets_of(each, VAULTS))
    }


def test_conflicting_discovered_accounts_are_both_refused_and_name_each_other() -> None:
    """Neither has precedence. A third account is covered."""
    one, two, three = account("alpha", 1), account("ALPHA", 2), account("beta", 1)
    refused = refusals((), [one, two, three])
    assert set(refused) == {one, two}
    for each, other, entry in ((one, two, 1), (two, one, 0)):
        assert f"{other.resource_id} (discover[{entry}])" in refused[each]
        assert "the secret 'alpha' of https://a.vault.azure.net" in refused[each]


def test_an_account_under_accounts_wins() -> None:
    """It was configured explicitly. The advice depends on whether it may be the same account."""
    listed, found = account("alpha", 1), account("alpha", 2)
    reason = refusals([listed], [found])[found]
    assert f"{listed.resource_id}, which is under `accounts` and wins" in reason
    assert "change its id under `accounts`" in reason
    other = account("beta", 2, pattern="alpha")
    assert "change its id" not in refusals([listed], [other])[other]


def test_vaults_are_compared_by_url() -> None:
    """Two names with one URL are one vault."""
    assert len(refusals((), [account("alpha", 1), account("alpha", 2, ("twin",))])) == 2
    assert refusals((), [account("alpha", 1), account("alpha", 2, ("west",))]) == {}


def test_an_account_that_would_overwrite_itself_is_refused() -> None:
    """With two names of one vault, one secret would be written twice."""
    (reason,) = refusals((), [account("alpha", vaults=("main", "twin"))]).values()
    assert "two of its keys" in reason


def test_names_are_compared_without_case() -> None:
    """Two spellings are one secret, but not in another vault."""
    assert secrets_of(account("Alpha"), VAULTS) == secrets_of(account("alpha"), VAULTS)
    assert secrets_of(account("alpha"), VAULTS) != secrets_of(account("alpha", vaults=("west",)), VAULTS)


accounts = st.builds(
    account,
    st.sampled_from(["abc", "ABC", "abd", "xyz"]),
    st.integers(0, 4),
    st.sampled_from([("main",), ("west",), ("main", "west"), ("twin", "west")]),
    st.sampled_from(["{account}", "k-{account}", "{account}-{subscription_id}"]),
)


def unique(found: list[Account]) -> list[Account]:
    return list({each.key: each for each in found}.values())


@given(st.lists(accounts, max_size=8).map(unique), st.integers(0, 2))
def test_no_secret_has_two_writers_in_any_order(everyone: list[Account], listed: int) -> None:
    """Each secret of a covered account has one writer. A refused account shares a secret. The order has no influence."""
    fixed, found = everyone[:listed], everyone[listed:]
    refused = refusals(fixed, found)
    kept = [each for each in found if each not in refused]

    def secrets(each: Account) -> set[tuple[str, str]]:
        return {(VAULTS[vault], name.lower()) for vault in each.vaults for name in each.secret_names().values()}

    written = sorted(place for each in kept for place in secrets(each))
    assert all(one != two for one, two in pairwise(written))
    assert not set(written) & {place for each in fixed for place in secrets(each)}
    for each in refused:
        others = [other for other in everyone if other is not each]
        assert any(secrets(each) & secrets(other) for other in others)
    assert set(refusals(fixed, found[::-1])) == set(refused)
