"""docs/scaling.md: how shards find their index, and how long a takeover takes. tests/unit/test_deployment.py checks the
manifests.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from keysync.sources.shard import Shard, shard_of
from tests.support.settings import election_of

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("variable", "value"), [("JOB_COMPLETION_INDEX", "2"), ("POD_INDEX", "2"), ("HOSTNAME", "keysync-2")]
)
def test_each_documented_variable_gives_the_index(variable: str, value: str) -> None:
    """With the number of shards in KEYSYNC_SHARDS."""
    assert f"| `{variable}` |" in TEXT
    assert shard_of(None, None, {"KEYSYNC_SHARDS": "3", variable: value}) == Shard(2, 3)


def test_the_documented_variables_are_in_order_of_precedence() -> None:
    """The first one that is set counts."""
    documented = re.findall(r"^\| `([A-Z_]+)` \|", TEXT, re.MULTILINE)
    environ = {"KEYSYNC_SHARDS": "3", "JOB_COMPLETION_INDEX": "0", "POD_INDEX": "1", "HOSTNAME": "keysync-2"}
    for index, variable in enumerate(documented):
        assert shard_of(None, None, environ) == Shard(index, 3)
        del environ[variable]
    assert environ == {"KEYSYNC_SHARDS": "3"}


def test_an_indexed_job_has_as_many_completions_as_shards() -> None:
    """Otherwise some accounts would not be served. The chart's template is the only manifest of an Indexed Job."""
    template = (ROOT / "deploy" / "helm" / "keysync" / "templates" / "cronjob.yaml").read_text(encoding="utf-8")
    assert "completionMode: Indexed" in template
    assert dict(re.findall(r"(completions|parallelism): \{\{ (\S+) \}\}", template)) == {
        "completions": "$shards",
        "parallelism": "$shards",
    }
    assert '"name" "KEYSYNC_SHARDS" "value" (toString .Values.shards)' in template


def test_the_documented_times_are_those_of_the_defaults() -> None:
    """Operators rely on them."""
    election = election_of()
    lease, deadline, retry = (
        getattr(election, name).total_seconds() for name in ("lease_duration", "renew_deadline", "retry_period")
    )
    assert f"within half a `retry_period`: {retry / 2:.0f} s" in TEXT
    assert f"half a `retry_period`: {lease + retry / 2:.0f} s" in TEXT
    assert f"after `renew_deadline`: {deadline:.0f} s" in TEXT
    assert f"at {deadline + 0.8 * (lease - deadline):.1f} s" in TEXT
    assert f"{lease:.0f} s at the soonest" in TEXT
