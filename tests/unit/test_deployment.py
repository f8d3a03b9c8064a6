"""The manifests in deploy/kubernetes and the schema of the chart's values match the program.

Tests that need Helm are in tests/chart.
"""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Self

import pytest
from aiohttp import web
from jsonschema import Draft7Validator
from prometheus_client import CollectorRegistry
from ruamel.yaml import YAML

from keysync.cli.main import app
from keysync.config.formats import split_listen
from keysync.config.load import load_config
from keysync.config.model import Config
from keysync.daemon.leader_election import LeaderElector
from keysync.daemon.lease_client import LeaseClient
from keysync.sources.shard import Shard, shard_of
from keysync.web.app import make_web_app
from tests.support.kubernetes import NAMESPACE, serving_kubernetes
from tests.support.settings import election_of
from tests.support.snapshots import varied

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
SCHEMA = ROOT / "deploy" / "helm" / "keysync" / "values.schema.json"
WORKLOADS = {"Deployment", "StatefulSet", "CronJob"}
DAEMONS = [path for path in MANIFESTS if path.stem != "cronjob"]
VERBS = {"GET": "get", "POST": "create", "PUT": "update"}  # of RBAC, for each method that a Lease is called with


def read(path: Path) -> list[dict[str, Any]]:
    return [item for item in YAML(typ="safe", pure=True).load_all(path.read_text(encoding="utf-8")) if item]


def of_kind(path: Path, *kinds: str) -> dict[str, Any]:
    (document,) = (document for document in read(path) if document["kind"] in kinds)
    return document


def workload(path: Path) -> dict[str, Any]:
    """The spec of the workload that runs the pods."""
    spec: dict[str, Any] = of_kind(path, *WORKLOADS)["spec"]
    return spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec


def pod(path: Path) -> dict[str, Any]:
    template: dict[str, Any] = workload(path)["template"]
    return template


def container(path: Path) -> dict[str, Any]:
    (only_container,) = pod(path)["spec"]["containers"]
    return dict(only_container)


def variables(path: Path) -> dict[str, str]:
    """The variables that the container's environment sets by value."""
    return {variable["name"]: variable["value"] for variable in container(path)["env"] if "value" in variable}


def config_of(path: Path, folder: Path) -> Config:
    """The mounted configuration, read as in the pod."""
    (mounted,) = of_kind(path, "ConfigMap")["data"].items()
    (folder / mounted[0]).write_text(mounted[1], encoding="utf-8")
    (mount,) = (item for item in container(path)["volumeMounts"] if item["name"] == "config")
    assert variables(path)["KEYSYNC_CONFIG"] == f"{mount['mountPath']}/{mounted[0]}"
    return load_config(folder / mounted[0], variables(path))


def validator(schema: dict[str, Any]) -> Draft7Validator:
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


@pytest.fixture(scope="module")
def chart() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return schema


def of_config(chart: dict[str, Any]) -> Draft7Validator:
    """The chart's schema for `config`."""
    return validator({**chart["properties"]["config"], "definitions": chart["definitions"]})


def test_there_is_a_manifest_for_each_mode() -> None:
    """And one for a standby."""
    assert sorted(path.stem for path in MANIFESTS) == ["cronjob", "daemon", "daemon-standby", "sharded"]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
class TestEachManifest:
    """Rules for all manifests."""

    def test_the_configuration_loads(self, path: Path, tmp_path: Path) -> None:
        """With its placeholders; it signs in as the service account."""
        config = config_of(path, tmp_path)
        assert config.accounts
        assert config.credential.type == "workload_identity"
        assert pod(path)["metadata"]["labels"]["azure.workload.identity/use"] == "true"
        assert pod(path)["spec"]["serviceAccountName"] == of_kind(path, "ServiceAccount")["metadata"]["name"]

    def test_the_command_is_one_of_keysync(self, path: Path) -> None:
        """With options of that command."""
        name, *options = container(path)["args"]
        assert name == ("sync" if path.stem == "cronjob" else "run")
        command = app.commands[name]  # type: ignore[attr-defined]  # a group
        command.make_context(name, options)

    def test_nothing_is_killed_while_it_writes(self, path: Path, tmp_path: Path) -> None:
        """Kubernetes waits longer than keysync needs."""
        patience = pod(path)["spec"]["terminationGracePeriodSeconds"]
        assert patience > config_of(path, tmp_path).timeouts.shutdown.total_seconds()

    def test_a_token_for_kubernetes_is_there_for_the_lease_only(self, path: Path, tmp_path: Path) -> None:
        """An intruder finds no other token."""
        elects = config_of(path, tmp_path).leader_election is not None
        assert pod(path)["spec"]["automountServiceAccountToken"] is elects
        assert of_kind(path, "ServiceAccount")["automountServiceAccountToken"] is False
        assert any(document["kind"] == "Role" for document in read(path)) is elects

    def test_only_leader_election_allows_replicas(self, path: Path, tmp_path: Path) -> None:
        """Otherwise all of them would write, at least for a moment."""
        spec = of_kind(path, *WORKLOADS)["spec"]
        if config_of(path, tmp_path).leader_election is not None:
            assert spec["replicas"] > 1
        elif "concurrencyPolicy" in spec:
            assert spec["concurrencyPolicy"] == "Forbid"
        elif "serviceName" not in spec:
            assert spec["replicas"] == 1
            assert spec["strategy"] == {"type": "Recreate"}

    def test_selectors_match_the_pods(self, path: Path) -> None:
        """A selector with another label would match no pod."""
        labels = pod(path)["metadata"]["labels"].items()
        for document in read(path):
            spec = document.get("spec", {})
            chosen = spec.get("podSelector", spec.get("selector", {}))
            assert chosen.get("matchLabels", chosen).items() <= labels, document["kind"]


@pytest.mark.parametrize("path", DAEMONS, ids=lambda path: path.stem)
def test_all_manifests_use_the_same_port(path: Path, tmp_path: Path) -> None:
    """Configuration, container, service and network policy."""
    config = config_of(path, tmp_path)
    host, listen_port = split_listen(config.listen)
    assert host == "0.0.0.0"  # noqa: S104  # nosec B104  # within the pod
    (port,) = container(path)["ports"]
    assert port["containerPort"] == listen_port
    (served,) = of_kind(path, "Service")["spec"]["ports"]
    assert served["targetPort"] == port["name"]
    (ingress,) = of_kind(path, "NetworkPolicy")["spec"]["ingress"]
    assert ingress["ports"] == [{"port": port["name"], "protocol": "TCP"}]


@pytest.mark.parametrize("path", DAEMONS, ids=lambda path: path.stem)
def test_the_probes_use_served_paths(path: Path) -> None:
    """On the named port, each with time for a reply."""
    served = {str(route.get_info().get("path")) for route in routes()}
    for name, asked in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        probe = container(path)[name]
        assert probe["httpGet"] == {"path": asked, "port": "http"}
        assert probe["timeoutSeconds"] == 5
        assert asked in served


def routes() -> list[web.AbstractResource]:
    return list(make_web_app(varied, CollectorRegistry()).router.resources())


def test_the_stateful_set_has_as_many_shards_as_replicas() -> None:
    """Otherwise some accounts would have no shard."""
    path = ROOT / "deploy" / "kubernetes" / "sharded.yaml"
    assert of_kind(path, "StatefulSet")["spec"]["serviceName"] == of_kind(path, "Service")["metadata"]["name"]
    (index,) = (variable for variable in container(path)["env"] if "valueFrom" in variable)
    assert index["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['apps.kubernetes.io/pod-index']"
    count = workload(path)["replicas"]
    shards = [shard_of(None, None, {**variables(path), index["name"]: str(number)}) for number in range(count)]
    assert shards == [Shard(number, count) for number in range(count)]


class Pods:
    """Servers on two addresses of this machine, like the pods behind one name; whether each is ready, by its
    address."""

    def __init__(self) -> None:
        self.ready = {"127.0.0.1": True, "127.0.0.2": True}
        self.urls: list[str] = []
        self._servers: list[HTTPServer] = []

    def __enter__(self) -> Self:
        pods = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host = str(self.server.server_address[0])
                body = json.dumps({"ready": pods.ready[host], "reason": f"the reason of {host}"}).encode()
                self.send_response(200 if pods.ready[host] else 503)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        for host in self.ready:
            server = HTTPServer((host, 0), Handler)
            self._servers.append(server)
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            self.urls.append(f"http://{host}:{server.server_address[1]}/readyz")
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


def ask_ready(count: int, urls: list[str]) -> tuple[int, str]:
    """Exit code and output of the program that `helm test` runs."""
    script = ROOT / "deploy" / "helm" / "keysync" / "files" / "ask_ready.py"
    command = [sys.executable, "-c", script.read_text(encoding="utf-8"), str(count), "0", *urls]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_helm_test_asks_every_pod() -> None:
    """It fails if any pod is not ready or missing; the output has the reasons of all."""
    with Pods() as pods:
        code, output = ask_ready(2, pods.urls)
        assert (code, output.splitlines()[-1]) == (0, "2 of 2 pods are ready")
        for host in pods.ready:
            pods.ready[host] = False
            code, output = ask_ready(2, pods.urls)
            assert (code, output.splitlines()[-1]) == (1, "1 of 2 pods are ready")
            assert all(f"the reason of {item}" in output for item in pods.ready)
            pods.ready[host] = True
        code, output = ask_ready(3, pods.urls)
        assert (code, output.splitlines()[-1]) == (1, "2 of 3 pods are ready")
    code, output = ask_ready(2, pods.urls)
    assert (code, output.splitlines()[-1]) == (1, "0 of 2 pods are ready")
    assert ask_ready(1, []) == (1, "0 of 1 pods are ready\n")


async def test_the_role_grants_what_the_election_needs(tmp_path: Path) -> None:
    """The three calls on the configured Lease, and no others."""
    async with serving_kubernetes(tmp_path) as kubernetes:
        url, account = f"https://localhost:{kubernetes.port}", kubernetes.service_account("one")
        client = LeaseClient(url, NAMESPACE, "keysync", account, 5.0)
        elector = LeaderElector(client, election_of(), "one")
        await elector.try_acquire_or_renew()
        await elector.try_acquire_or_renew()
        await elector.release()
        await elector.close()
    path = ROOT / "deploy" / "kubernetes" / "daemon-standby.yaml"
    create, others = of_kind(path, "Role")["rules"]
    assert {*create["verbs"], *others["verbs"]} == {VERBS[method] for method in kubernetes.requests}
    for rule in (create, others):
        assert (rule["apiGroups"], rule["resources"]) == (["coordination.k8s.io"], ["leases"])
    # A request to create cannot be restricted by name.
    assert create == {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]}
    mounted = YAML(typ="safe", pure=True).load(of_kind(path, "ConfigMap")["data"]["keysync.yaml"])
    assert others["resourceNames"] == [mounted["leader_election"]["lease"]]
    binding = of_kind(path, "RoleBinding")
    assert binding["roleRef"]["name"] == of_kind(path, "Role")["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": pod(path)["spec"]["serviceAccountName"]}]


def test_a_cron_run_ends_before_the_next() -> None:
    """A failed run is not repeated; the next run follows."""
    path = ROOT / "deploy" / "kubernetes" / "cronjob.yaml"
    assert of_kind(path, "CronJob")["spec"]["schedule"] == "*/5 * * * *"
    assert workload(path)["activeDeadlineSeconds"] < 300
    assert workload(path)["backoffLimit"] == 0


def test_the_schema_of_the_chart_is_made_from_the_models() -> None:
    """So it refuses the same as keysync."""
    module = runpy.run_path(str(ROOT / "deploy" / "helm" / "schema.py"))
    assert SCHEMA.read_text(encoding="utf-8") == module["render"](), "run nox -s chart -- --write"


@pytest.mark.parametrize("name", ["minimal", "full", "sovereign"])
def test_the_chart_accepts_every_sample_configuration(name: str, chart: dict[str, Any]) -> None:
    """Together they use every feature."""
    document = YAML(typ="safe", pure=True).load((ROOT / "config" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert not [error.message for error in of_config(chart).iter_errors(document)]


def minimal() -> dict[str, Any]:
    account = {
        "subscription_id": "0" * 8 + "-0000-0000-0000-" + "0" * 12,
        "resource_group": "süd",
        "name": "sampleacct",
    }
    return {
        "vaults": {"main": {"url": "https://kv-render.vault.azure.net"}},
        "accounts": [{**account, "vaults": ["main"]}],
    }


@pytest.mark.parametrize("every", ["5m", "1h30m", "500ms", "1d2h3m4s5ms", "1m1ms", "${INTERVAL}"])
def test_the_chart_accepts_durations(every: str, chart: dict[str, Any]) -> None:
    """In keysync's forms, or from a variable."""
    assert of_config(chart).is_valid({**minimal(), "schedule": {"every": every}})


@pytest.mark.parametrize("every", ["", "5", "m", "5 m", "5s1m", "5msx", "1ms5s", "-5m", "$INTERVAL", 300])
def test_the_chart_refuses_invalid_durations(every: object, chart: dict[str, Any]) -> None:
    """The schema's pattern has no look-ahead, which Go does not support."""
    assert of_config(chart).is_valid(minimal())
    assert not of_config(chart).is_valid({**minimal(), "schedule": {"every": every}})


def test_every_default_of_the_chart_is_valid_except_the_missing_configuration(chart: dict[str, Any]) -> None:
    """The configuration has no default."""
    values = YAML(typ="safe", pure=True).load((SCHEMA.parent / "values.yaml").read_text(encoding="utf-8"))
    assert set(values) | {"global"} == set(chart["properties"])
    assert not validator(chart).is_valid(values)
    assert validator(chart).is_valid({**values, "config": minimal()})


def merged(values: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merges as Helm does: mappings key by key, everything else as a whole."""
    both = {**values, **over}
    for key in values.keys() & over.keys():
        if isinstance(values[key], dict) and isinstance(over[key], dict):
            both[key] = merged(values[key], over[key])
    return both


def test_the_values_in_the_document_are_valid(chart: dict[str, Any]) -> None:
    """Readers copy them."""
    text = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 5
    defaults = YAML(typ="safe", pure=True).load((SCHEMA.parent / "values.yaml").read_text(encoding="utf-8"))
    for block in blocks:
        values = merged({**defaults, "config": minimal()}, YAML(typ="safe", pure=True).load(block))
        assert not [error.message for error in validator(chart).iter_errors(values)], block
