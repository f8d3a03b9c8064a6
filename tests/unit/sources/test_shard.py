"""Shards of accounts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keysync.errors import UsageError
from keysync.sources.shard import Shard

IDS = [
    f"/subscriptions/s/resourceGroups/g/providers/Microsoft.Batch/batchAccounts/account{number}"
    for number in range(600)
]


def owner(resource_id, count):
    (index,) = [index for index in range(count) if Shard(index, count).has(resource_id)]
    return index


def test_each_account_is_in_exactly_one_shard():
    """In any spelling of its id."""
    for resource_id in IDS:
        assert owner(resource_id, 5) == owner(resource_id.upper(), 5)


def test_one_more_shard_moves_only_its_own_accounts():
    """From four shards to five, an account stays or moves to the new shard."""
    moved = [one for one in IDS if owner(one, 4) != owner(one, 5)]
    assert {owner(one, 5) for one in moved} == {4}
    assert 60 < len(moved) < 180


NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=3, max_size=24)
ARM_IDS = st.builds("/subscriptions/{}/resourceGroups/{}/providers/Microsoft.Batch/batchAccounts/{}".format, NAMES, NAMES, NAMES)  # fmt: skip


@given(ARM_IDS, st.integers(1, 40))
def test_for_any_count_an_account_is_in_exactly_one_shard(resource_id, count):
    """With one more shard it stays or moves to the new one."""
    before, after = owner(resource_id, count), owner(resource_id.swapcase(), count + 1)
    assert after in {before, count}


@given(st.builds(lambda seed: [f"{one}{seed}" for one in IDS], st.integers(0, 2**32)), st.integers(2, 9))
@settings(max_examples=10)
def test_shards_have_similar_sizes_and_one_more_takes_from_all(ids, count):
    """Within a tolerance that chance exceeds once in a million cases."""
    even = len(ids) / (count + 1)
    slack = 5 * (even * (1 - 1 / (count + 1))) ** 0.5
    sizes = [sum(owner(one, count + 1) == index for one in ids) for index in range(count + 1)]
    assert all(abs(size - even) < slack for size in sizes)
    moved = sum(owner(one, count) != owner(one, count + 1) for one in ids)
    assert moved == sizes[count]


@pytest.mark.parametrize("text", ["4/3", "3/3", "1", "a/b", "-1/3", "0/0", ""])
def test_an_invalid_shard_is_a_usage_error(text):
    """The error says how shards are numbered."""
    with pytest.raises(UsageError, match="from 0 to N-1"):
        Shard.parse(text)
