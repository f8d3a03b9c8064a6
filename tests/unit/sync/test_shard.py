"""Shares of accounts."""

import pytest

from keysync.errors import UsageError
from keysync.sync.shard import Shard

IDS = [
    f"/subscriptions/s/resourceGroups/g/providers/Microsoft.Batch/batchAccounts/account{number}"
    for number in range(600)
]


def owner(resource_id, count):
    (index,) = [index for index in range(count) if Shard(index, count).has(resource_id)]
    return index


def test_each_account_is_in_exactly_one_share():
    """No account is left out and none is served twice, however its id is spelt."""
    for resource_id in IDS:
        assert owner(resource_id, 5) == owner(resource_id.upper(), 5)


def test_one_more_shard_moves_only_its_own_share():
    """Going from four shards to five, an account stays or goes to the new one."""
    moved = [one for one in IDS if owner(one, 4) != owner(one, 5)]
    assert {owner(one, 5) for one in moved} == {4}
    assert 60 < len(moved) < 180


@pytest.mark.parametrize("text", ["4/3", "3/3", "1", "a/b", "-1/3", "0/0", ""])
def test_a_share_that_cannot_be_is_a_usage_error(text):
    """The error says how shares are counted."""
    with pytest.raises(UsageError, match="from 0 to N-1"):
        Shard.parse(text)
