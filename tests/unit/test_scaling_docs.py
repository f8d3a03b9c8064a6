"""The snippets of docs/scaling.md are what keysync reads and calls."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from keysync.sync.shard import Shard, shard_of
from tests.support.settings import election_of

TEXT = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")


def snippets() -> list[dict[str, Any]]:
    """Every document in a block of YAML."""
    found = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    return [document for text in found for document in YAML(typ="safe", pure=True).load_all(text)]


def of_kind(kind: str) -> dict[str, Any]:
    (one,) = (document for document in snippets() if document.get("kind") == kind)
    return one


def variables(pod: dict[str, Any]) -> dict[str, str]:
    """What the container's environment sets by value."""
    (container,) = pod["spec"]["containers"]
    return {one["name"]: one["value"] for one in container["env"] if "value" in one}


def test_the_shards_of_a_job_are_as_many_as_its_completions() -> None:
    """Otherwise some accounts would be nobody's."""
    job = of_kind("CronJob")["spec"]["jobTemplate"]["spec"]
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"]
    for index in range(job["completions"]):
        environ = {**variables(job["template"]), "JOB_COMPLETION_INDEX": str(index)}
        assert shard_of(None, None, environ) == Shard(index, job["completions"])


def test_the_shards_of_a_stateful_set_are_as_many_as_its_replicas() -> None:
    """The index comes from the pod's label, under the name that is read."""
    spec = of_kind("StatefulSet")["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    (index,) = (one for one in container["env"] if "valueFrom" in one)
    assert index["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['apps.kubernetes.io/pod-index']"
    environ = {**variables(spec["template"]), index["name"]: "2"}
    assert shard_of(None, None, environ) == Shard(2, spec["replicas"])


def test_the_role_is_for_the_lease_of_the_configuration() -> None:
    """And for nothing else."""
    (document,) = (one for one in snippets() if "leader_election" in one)
    lease = election_of(**document["leader_election"]).lease
    rules = of_kind("Role")["rules"]
    assert {(*rule["apiGroups"], *rule["resources"]) for rule in rules} == {("coordination.k8s.io", "leases")}
    assert [rule["verbs"] for rule in rules] == [["create"], ["get", "update"]]
    assert rules[1]["resourceNames"] == [lease]
    assert of_kind("Deployment")["spec"]["template"]["spec"]["automountServiceAccountToken"]


def test_the_times_in_the_text_are_those_of_the_defaults() -> None:
    """Somebody relies on them."""
    election = election_of()
    lease, deadline, retry = (
        getattr(election, name).total_seconds() for name in ("lease_duration", "renew_deadline", "retry_period")
    )
    assert f"within `retry_period`: {retry:.0f} s" in TEXT
    assert f"twice `retry_period`: {lease + 2 * retry:.0f} s" in TEXT
    assert f"after `renew_deadline`: {deadline:.0f} s" in TEXT
    assert f"at {deadline + 0.8 * (lease - deadline):.1f} s" in TEXT
    assert f"{lease:.0f} s at the soonest" in TEXT
