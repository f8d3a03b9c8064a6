"""The image as it is run: without capabilities, on a read-only root, against the embedded Azure."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import keysync
from tests.image.azure import FAULTS, Azure, ask, readable, wait_until
from tests.image.build import ROOT
from tests.image.containers import Containers
from tests.image.store import Store

pytestmark = pytest.mark.image

IMAGE = f"localhost/keysync:{keysync.__version__}"
READY = "http://127.0.0.1:8080/readyz"
DENIED, WRONG = 1, 2  # exit codes


@pytest.fixture(scope="module", autouse=True)
def _own_network() -> None:
    """This network namespace is new: nothing but a loopback that is down."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # crun takes cgroups of version 1 or 2, and no mixture. The mounts of this namespace are ours alone.
    subprocess.run(["umount", "/sys/fs/cgroup/unified"], check=False, capture_output=True)


@pytest.fixture(autouse=True)
def _removed(store: Store) -> Iterator[None]:
    """What a test started ends with it, so that a failure has no second one."""
    yield
    store.podman("pod", "rm", "--all", "--force", "--time", "0")
    store.podman("rm", "--all", "--force", "--time", "0")


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory, _own_network: None) -> Iterator[Azure]:
    """An embedded Azure whose keys are known, so that outputs can be searched for them."""
    with Azure(tmp_path_factory.mktemp("azure")).running() as running:
        yield running


@pytest.fixture(scope="module")
def containers(store: Store, azure: Azure) -> Containers:
    """What runs keysync."""
    return Containers(store, IMAGE, azure.secrets)


@pytest.fixture(scope="module")
def well(azure: Azure) -> Path:
    """A configuration without a fault."""
    return azure.configuration("well", "farm1", "farm2")


def test_it_tells_its_version(containers: Containers) -> None:
    """The wheel in it is this tree's."""
    ended = containers.run("--version")
    assert (ended.code, ended.stdout) == (0, f"keysync {keysync.__version__}\n")


def test_the_demo_runs_once(containers: Containers) -> None:
    """It needs no configuration and no network but loopback."""
    ended = containers.run("demo", "--once")
    assert ended.code == 0, ended.log


def test_a_sync_writes_and_a_second_has_nothing_to_do(containers: Containers, azure: Azure) -> None:
    """Two keys of two accounts, in a vault that was empty. The log is not."""
    config = azure.configuration("empty", "farm1", "farm2", vault="empty")
    first = containers.run("sync", "--output", "json", config=config)
    assert first.code == 0, first.log
    assert json.loads(first.stdout)["summary"]["created"] == 4
    assert re.search(r'"event": ?"\w+\.finished"', first.log)
    second = containers.run("sync", "--output", "json", config=config)
    assert second.code == 0, second.log
    assert json.loads(second.stdout)["summary"]["created"] == 0


def test_an_account_that_is_denied_is_a_failure(containers: Containers, azure: Azure) -> None:
    """Exit code 1."""
    ended = containers.run("sync", config=azure.configuration("denied", "farm1", "denied"))
    assert ended.code == DENIED, ended.log


def test_a_wrong_configuration_is_an_error_of_usage(containers: Containers, tmp_path: Path) -> None:
    """Exit code 2."""
    (tmp_path / "keysync.yaml").write_text("vaults: {}\naccounts: []\ncolour: red\n", encoding="utf-8")
    readable(tmp_path)
    ended = containers.run("sync", config=tmp_path)
    assert ended.code == WRONG, ended.log


def test_sigterm_ends_a_sync_under_way(containers: Containers, azure: Azure) -> None:
    """As process 1, which the kernel protects from signals without a handler."""
    azure.forget_requests()
    name = containers.start("sync", config=azure.configuration("stuck", "farm1", "stuck"))
    wait_until(azure.keys_were_asked_for, 30)  # farm1's keys have come, those of `stuck` never will
    ended = containers.stop(name, "TERM")
    assert ended.code == 143, ended.log


def test_health_fails_where_no_daemon_runs(containers: Containers, well: Path) -> None:
    """Exit code 1."""
    ended = containers.run("health", config=well)
    assert ended.code == 1, ended.log


@pytest.mark.parametrize("signal", ["TERM", "INT"])
def test_the_daemon_serves_until_a_signal(containers: Containers, store: Store, well: Path, signal: str) -> None:
    """`run` is the image's command; its own HEALTHCHECK passes; either signal ends it with 0."""
    name = containers.start(config=well)
    wait_until(lambda: ask(READY), 30)
    health = containers.exec(name, "/opt/keysync/bin/keysync", "health")
    assert health.returncode == 0, health.stdout + health.stderr
    store.podman("healthcheck", "run", name)
    check_process(store, name)
    ended = containers.stop(name, signal)
    assert ended.code == 0, ended.log


def check_process(store: Store, name: str) -> None:
    """What the kernel says of the process: its user, no capability, no way to gain one, a root that is read-only."""
    proc = Path("/proc", store.podman("inspect", "--format", "{{.State.Pid}}", name))
    status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines())
    assert status["Uid"].split() == ["65532"] * 4
    assert status["NoNewPrivs"] == "1"
    assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    mounts = [line.split() for line in (proc / "mounts").read_text().splitlines()]
    assert "ro" in next(mount[3] for mount in mounts if mount[1] == "/").split(",")


@pytest.mark.parametrize("name", ["daemon", "cronjob"])
def test_podman_plays_the_manifest(containers: Containers, store: Store, well: Path, tmp_path: Path, name: str) -> None:
    """The pods of deploy/kubernetes, with the image from here and the embedded Azure; each ends with 0."""
    manifest, played = ROOT / "deploy" / "kubernetes" / f"{name}.yaml", tmp_path / "play.yaml"
    script = [sys.executable, str(ROOT / ".ci" / "playable.py"), str(manifest), IMAGE, str(well)]
    played.write_bytes(subprocess.run(script, check=True, stdout=subprocess.PIPE).stdout)
    store.podman("kube", "play", "--network", "host", str(played))
    pod = store.podman("pod", "ps", "--quiet")
    container, *_ = store.podman(
        "ps", "--all", "--filter", f"ancestor={IMAGE}", "--filter", f"pod={pod}", "--format", "{{.Names}}"
    ).splitlines()
    if name == "daemon":
        wait_until(lambda: ask(READY), 30)
        check_process(store, container)
        # A pod of a Deployment is started again when it ends by itself, so it is stopped, as a node does.
        store.podman("stop", "--time", "10", container)
    else:
        store.podman("wait", container, timeout=60)
    log = containers.log(container)
    assert store.podman("inspect", "--format", "{{.State.ExitCode}}", container) == "0", log
    store.podman("kube", "down", str(played))


def test_the_search_for_secrets_finds_one(containers: Containers, azure: Azure) -> None:
    """Two keys an account and the client secret; an output with one of them fails the test that it is of."""
    assert len(azure.secrets) == 2 * len(FAULTS) + 1
    for secret in azure.secrets:
        with pytest.raises(AssertionError, match="key or secret"):
            containers.checked(f"x{secret}x")
