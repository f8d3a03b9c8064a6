"""The shard of a process, from options and from the environment that Kubernetes sets."""

from __future__ import annotations

import pytest

from keysync.errors import UsageError
from keysync.sources.shard import Shard, shard_of

JOB, POD, HOST = {"JOB_COMPLETION_INDEX": "1"}, {"POD_INDEX": "2"}, {"HOSTNAME": "keysync-3"}


@pytest.mark.parametrize(
    ("shard", "shards", "environ", "expected"),
    [
        (None, None, {}, None),
        (None, None, {"KEYSYNC_SHARD": "", "KEYSYNC_SHARDS": ""}, None),
        (None, None, {**JOB, **POD, **HOST}, None),
        ("0/4", None, {"KEYSYNC_SHARD": "1/4", "KEYSYNC_SHARDS": "9"}, Shard(0, 4)),
        (None, None, {"KEYSYNC_SHARD": "1/4", "KEYSYNC_SHARDS": "4", **POD}, Shard(1, 4)),
        (None, None, {"KEYSYNC_SHARDS": "4", **JOB, **POD, **HOST}, Shard(1, 4)),
        (None, None, {"KEYSYNC_SHARDS": "4", **POD, **HOST}, Shard(2, 4)),
        (None, None, {"KEYSYNC_SHARDS": "4", **HOST}, Shard(3, 4)),
        (None, None, {"KEYSYNC_SHARDS": "4", "JOB_COMPLETION_INDEX": "", **HOST}, Shard(3, 4)),
        (None, 5, {"KEYSYNC_SHARDS": "4", "KEYSYNC_SHARD": "0/2", **POD}, Shard(2, 5)),
        (None, 1, {"HOSTNAME": "keysync-0"}, Shard(0, 1)),
    ],
)
def test_precedence_of_shard_settings(
    shard: str | None, shards: int | None, environ: dict[str, str], expected: Shard | None
) -> None:
    """The command line before the environment, a whole shard before a count, a Job before a StatefulSet."""
    assert shard_of(shard, shards, environ) == expected


@pytest.mark.parametrize(
    ("shard", "shards", "environ", "expected"),
    [
        ("4/3", None, {}, "--shard 4/3: expected I/N"),
        ("0/3", 3, {}, "--shard and --shards"),
        (None, 0, POD, "--shards=0: expected"),
        (None, -1, POD, "--shards=-1: expected"),
        (None, 2, POD, "POD_INDEX=2: --shards=2 has the shards 0 to 1"),
        (None, 2, {"HOSTNAME": "keysync-7d9f8b6c5-x2k4q"}, "None of JOB_COMPLETION_INDEX, POD_INDEX or HOSTNAME"),
        (None, None, {"KEYSYNC_SHARD": "3/3"}, "KEYSYNC_SHARD=3/3: expected I/N"),
        (
            None,
            None,
            {"KEYSYNC_SHARD": "1/4", "KEYSYNC_SHARDS": "9"},
            "KEYSYNC_SHARD=1/4 and KEYSYNC_SHARDS=9 contradict",
        ),
        (None, None, {"KEYSYNC_SHARD": "1/4", "KEYSYNC_SHARDS": "x"}, "KEYSYNC_SHARDS=x: expected a whole number"),
        (None, None, {"KEYSYNC_SHARDS": "some"}, "KEYSYNC_SHARDS=some: expected a whole number"),
        (None, None, {"KEYSYNC_SHARDS": "0", **JOB}, "KEYSYNC_SHARDS=0: expected"),
        (None, None, {"KEYSYNC_SHARDS": "4"}, "KEYSYNC_SHARDS=4: the index of this shard is unknown"),
        (None, None, {"KEYSYNC_SHARDS": "4", "JOB_COMPLETION_INDEX": "first"}, "JOB_COMPLETION_INDEX=first: expected"),
        (None, None, {"KEYSYNC_SHARDS": "4", "POD_INDEX": "-1"}, "POD_INDEX=-1: expected"),
        (None, None, {"KEYSYNC_SHARDS": "4", "HOSTNAME": "keysync-4"}, "HOSTNAME=keysync-4: KEYSYNC_SHARDS=4 has the"),
    ],
)
def test_an_invalid_shard_is_a_usage_error(
    shard: str | None, shards: int | None, environ: dict[str, str], expected: str
) -> None:
    """It names the option or the variable; nothing is guessed."""
    with pytest.raises(UsageError) as caught:
        shard_of(shard, shards, environ)
    assert expected in str(caught.value)
    assert caught.value.exit_code == 2
