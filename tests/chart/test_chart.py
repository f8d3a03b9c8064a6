"""The Helm chart and the plain manifests: what is rendered, what is refused, and whether Kubernetes would take it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.chart.rendering import (
    CHART,
    MODES,
    PLAIN,
    ROOT,
    RULES,
    RefusedError,
    helm,
    plain_manifest,
    render,
    rules,
    values,
    values_schema,
)

pytestmark = pytest.mark.chart

VERSIONS = "1.29 1.37"
"""The oldest Kubernetes that Chart.yaml admits, and the newest that the schemas know."""
WRITE = "run: .venv/bin/nox -s chart -- --write"

EVERYWHERE = (
    "CKV_K8S_15",  # imagePullPolicy Always: a release has a tag of its own, and image.digest settles it; it is a value
    "CKV_K8S_21",  # the namespace default: the namespace is given at the installation, so no manifest has one
    "CKV_K8S_43",  # a digest: only the operator who builds or mirrors an image knows its digest; it is a value
)
NOT_CHECKED = {
    "plain": (),
    "lease": (
        "CKV_K8S_38",  # the service account's token: leader election has to reach Kubernetes' API
        "CKV_K8S_35",  # Secrets as files: `env` is the operator's, and one of the examples takes a Secret there
    ),
    "tests": (
        "CKV_K8S_8",  # a liveness probe: the pod of `helm test` asks once and ends
        "CKV_K8S_9",  # a readiness probe: no Service sends it anything
    ),
}
"""Checks of checkov that are skipped, by folder of `rendered`, each with its reason; EVERYWHERE means all folders."""

REFUSED = [
    ("daemon", "value must be one of 'daemon', 'cronjob', 'sharded'", "--set mode=banana"),
    ("daemon", "additional properties 'modus' not allowed", "--set modus=daemon"),
    ("daemon", "additional properties 'intervall' not allowed", "--set config.intervall=5m"),
    ("daemon", "/replicas", "--set replicas=0"),
    ("daemon", "got string, want integer", "--set-string replicas=two"),
    ("daemon", "replicas: 2 needs config.leader_election", "--set replicas=2"),
    ("daemon", "replicas: 2 needs config.leader_election", "--set replicas=2 --set config.leader_election=null"),
    ("daemon", "set mode: sharded", "--set shards=3"),
    ("daemon", "/config/vaults", "--set config.vaults=null"),
    ("daemon", "missing property 'config'", "--set config=null"),
    ("daemon", "/config/accounts/0/subscription_id", "--set config.accounts[0].subscription_id=0000"),
    ("daemon", "/config/accounts/0", "--set config.accounts[0].adresource=x"),
    ("daemon", "/config/vaults/main/url", "--set config.vaults.main.url=http://kv-render.vault.azure.net"),
    ("daemon", "/config/schedule/every", "--set config.schedule.every=often"),
    ("daemon", "/config/credential", "--set config.credential.type=password"),
    ("daemon", "config.listen: the chart sets it", "--set config.listen=127.0.0.1:8080"),
    (
        "daemon",
        "workloadIdentity.clientId: the client id of the managed identity is missing",
        "--set workloadIdentity.clientId=",
    ),
    ("daemon", "/workloadIdentity/clientId", "--set workloadIdentity.clientId=keysync"),
    ("daemon", "set configMap or secret, not both", "--set caBundle.configMap=a --set caBundle.secret=b"),
    ("daemon", "/port", "--set port=80"),
    ("daemon", "/image/digest", "--set image.digest=sha256:12"),
    ("daemon", "/logLevel", "--set logLevel=loud"),
    ("daemon", "incompatible with Kubernetes", "--kube-version 1.28.0"),
    ("daemon-standby", "all replicas would have the same", "--set config.leader_election.identity=me"),
    ("daemon-standby", "/config/leader_election/lease", "--set config.leader_election.lease=Key_Sync"),
    ("sharded", "mode: sharded needs `shards`, 2 or more", "--set shards=1"),
    ("sharded", "mode: sharded needs `shards`, 2 or more", "--set shards=null"),
    ("cronjob", "/cronjob/schedule", "--set cronjob.schedule=often"),
    ("cronjob", "/cronjob/schedule", "--set-string|cronjob.schedule=* * * *"),
    ("cronjob", "a CronJob has one writer at a time", "--set replicas=2"),
    ("cronjob", "a CronJob does not use it", "--set config.leader_election.lease=keysync"),
    ("cronjob", "ends before Prometheus scrapes it", "--set metrics.serviceMonitor.enabled=true"),
    ("cronjob", "/cronjob/pushGateway", "--set cronjob.pushGateway=pushgateway:9091"),
]
"""Contradictory values: the mode, a part of the message, and the options (separated by `|` if one has a space)."""


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every mode as a file: in `lease` with leader election, in `plain` without, and in `tests` the pods of `helm test`."""
    folder = tmp_path_factory.mktemp("rendered")
    for name in NOT_CHECKED:
        (folder / name).mkdir()
    for mode in MODES:
        kind = "lease" if "leader_election" in values(mode).read_text(encoding="utf-8") else "plain"
        (folder / kind / f"{mode}.yaml").write_text(render(mode, "--skip-tests"), encoding="utf-8")
        # With the NetworkPolicy, which checkov wants to see beside the pod.
        shown = ("--show-only", "templates/tests/ready.yaml", "--show-only", "templates/networkpolicy.yaml")
        (folder / "tests" / f"{mode}.yaml").write_text(render(mode, *shown), encoding="utf-8")
    return folder


def tool(name: str) -> str:
    """A program of requirements/chart.txt."""
    return str(Path(os.environ["CHART_TOOLS"], name))


def test_the_schema_of_the_values_is_current() -> None:
    """It has keysync's own configuration in it."""
    assert (CHART / "values.schema.json").read_text(encoding="utf-8") == values_schema(), WRITE


@pytest.mark.parametrize("mode", PLAIN)
def test_the_plain_manifests_are_current(mode: str) -> None:
    """deploy/kubernetes is what the chart renders."""
    assert (ROOT / "deploy" / "kubernetes" / f"{mode}.yaml").read_text(encoding="utf-8") == plain_manifest(mode), WRITE


@pytest.mark.parametrize("name", RULES)
def test_the_rules_that_promtool_tests_are_current(name: str) -> None:
    """tests/alerts/chart has the chart's own alerts."""
    kept = ROOT / "tests" / "alerts" / "chart" / f"{name}.rules.yaml"
    assert kept.read_text(encoding="utf-8") == rules(name), WRITE


def test_a_cronjob_without_a_push_gateway_has_no_alert_on_absence() -> None:
    """It has no metrics, so the alerts would fire always or never."""
    shown = render("cronjob", "--set", "metrics.prometheusRule.enabled=true")
    assert "alert: KeysyncAbsent" not in shown
    assert "alert: KeysyncDown" not in shown


@pytest.mark.parametrize(
    ("mode", "pods"), [("daemon", 1), ("daemon-standby", 2), ("sharded", 3), ("sharded-standby", 6)]
)
def test_helm_test_asks_each_pod(mode: str, pods: int) -> None:
    """The number of ready pods that it waits for."""
    assert f'        - "{pods}"' in render(mode, "--show-only", "templates/tests/ready.yaml").splitlines()


@pytest.mark.parametrize("mode", MODES)
def test_helm_lint_finds_nothing(mode: str) -> None:
    """Warnings count."""
    helm("lint", "--strict", "--quiet", str(CHART), "--values", str(values(mode)))


def test_the_chart_can_be_packed(tmp_path: Path) -> None:
    """As for a repository of charts."""
    helm("package", "--destination", str(tmp_path), str(CHART))
    assert list(tmp_path.glob("keysync-*.tgz"))


@pytest.mark.parametrize(("mode", "message", "options"), REFUSED)
def test_contradictory_values_are_refused(mode: str, message: str, options: str) -> None:
    """The message names what is wrong."""
    with pytest.raises(RefusedError) as refused:
        render(mode, *(options.split("|") if "|" in options else options.split()))
    assert message in str(refused.value)


def test_kubernetes_takes_the_manifests(rendered: Path) -> None:
    """Strictly by its schemas, those in deploy/kubernetes too."""
    files = [*sorted(rendered.glob("*/*.yaml")), *sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))]
    assert len(files) == 2 * len(MODES) + len(PLAIN)
    script = [tool("python"), str(ROOT / ".ci" / "kubernetes_schemas.py"), VERSIONS, *map(str, files)]
    ended = subprocess.run(script, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("folder", NOT_CHECKED)
def test_checkov_finds_no_risk(rendered: Path, folder: str) -> None:
    """All its checks of manifests but those above."""
    left_out = ",".join((*EVERYWHERE, *NOT_CHECKED[folder]))
    options = ["--framework", "kubernetes", "--quiet", "--compact", "--skip-download", "--skip-check", left_out]
    command = [tool("checkov"), "--directory", str(rendered / folder), *options]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
