"""Two replicas of `keysync run` and a Lease: one leads, the other is on standby, and both never write at the same time."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.azure import SUBSCRIPTION
from tests.support.daemon import Daemon, Holding, running
from tests.support.kubernetes import NAMESPACE, Kubernetes, running_kubernetes
from tests.support.warm_process import WarmKeysync, warm_keysync
from tests.system.conftest import World, clean_environment

QUICK = {"lease_duration": "3s", "renew_deadline": "2s", "retry_period": "1s"}
CONFIG: dict[str, Any] = {
    "schedule": {"every": "1s"},
    "timeouts": {"request": "5s", "account": "20s", "collect": "5s", "shutdown": "2s"},
    "listen": "127.0.0.1:0",
    "limits": {"changes_per_day": None},
    "leader_election": QUICK,
}
WRITTEN = ("secret.created", "secret.updated")
MakeWorld = Callable[..., World]


@pytest.fixture(scope="module")
def warm() -> Iterator[list[WarmKeysync]]:
    """Forks daemons; one for each replica, because each runs one command at a time."""
    with warm_keysync(clean_environment()) as first, warm_keysync(clean_environment()) as second:
        yield [first, second]


@pytest.fixture
def kubernetes(tmp_path: Path) -> Iterator[Kubernetes]:
    with running_kubernetes(tmp_path) as server:
        yield server


class Replicas:
    """Starts replicas that differ only in their name."""

    def __init__(self, world: World, kubernetes: Kubernetes, warm: list[WarmKeysync], stack: ExitStack) -> None:
        self.world = world
        self.kubernetes = kubernetes
        self._warm = iter(warm)
        self._stack = stack

    def start(self, name: str, *arguments: str) -> Daemon:
        """Runs `keysync run` in a pod of this name."""
        folder = self.world.folder / name
        folder.mkdir()
        config = folder / "keysync.yaml"
        config.write_bytes(self.world.path.read_bytes())
        pod = {"TEST_SERVICE_ACCOUNT": str(self.kubernetes.service_account(name)), "HOSTNAME": name}
        env = {**clean_environment(), **self.world.running.environ, **self.kubernetes.environ, **pod}
        return self._stack.enter_context(running(config, env, *arguments, warm=next(self._warm)))


@pytest.fixture
def make_replicas(
    make_world: MakeWorld, kubernetes: Kubernetes, warm: list[WarmKeysync]
) -> Iterator[Callable[..., Replicas]]:
    with ExitStack() as stack:

        def make(*accounts: str, **more: Any) -> Replicas:
            world = make_world(*accounts)
            world.configure(list(accounts), **{**CONFIG, **more})
            return Replicas(world, kubernetes, warm, stack)

        yield make


def moment(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["timestamp"]).timestamp()


def regenerate(world: World, account: str) -> str:
    world.running.do(lambda azure: azure.state.regenerate(account, "Primary"))
    return world.running.do(lambda azure: azure.state.keys(account))[0]


def newest(world: World, secret: str) -> str:
    return str(world.versions("main", secret)[-1].value)


def lead(daemon: Daemon) -> Any:
    return daemon.status()["leader"]


def test_one_replica_leads_and_the_other_is_standby(
    make_replicas: Callable[..., Replicas], kubernetes: Kubernetes
) -> None:
    """The standby is ready, reports its state, reads nothing, and takes over at once when the leader ends."""
    replicas = make_replicas("fine", discover=[{"subscription_id": SUBSCRIPTION, "vaults": ["main"]}])
    first = replicas.start("first")
    first.until_runs(1)
    assert lead(first) is True
    second = replicas.start("second")
    (standing,) = second.until_event("leader.standing_by")
    assert standing["holder"] == kubernetes.holder()
    assert standing["holder"].startswith("first_")
    assert (standing["lease"], standing["identity"][:7]) == (f"{NAMESPACE}/keysync", "second_")
    assert lead(second) is False
    ready = second.get("/readyz")
    assert (ready.status, ready.json()["reason"]) == (200, "standing by: another replica leads")
    assert second.get("/healthz").status == 200
    assert "Standing by" in second.get("/").text
    assert "keysync_leader 0.0" in second.get("/metrics").text
    assert "keysync_leader 1.0" in first.get("/metrics").text
    second.send(signal.SIGUSR1)
    second.until_event("daemon.sync_now")
    second.until(lambda: second.status()["leader"] is False)
    config = replicas.world.folder / "second" / "keysync.yaml"
    config.write_text(config.read_text().replace('"shutdown": "2s"', '"shutdown": "3s"'))
    second.send(signal.SIGHUP)
    second.until_event("config.reloaded")
    assert second.events("run.finished") == second.events("discovery.incomplete") == []
    assert "keysync_azure_requests_total{" not in second.get("/metrics").text
    assert "keysync_azure_requests_total{" in first.get("/metrics").text
    new = regenerate(replicas.world, "fine")
    first.until(lambda: newest(replicas.world, "fine-primary-key") == new)
    assert first.end() == 0
    ended = moment(first.events("daemon.ended")[0])
    second.until_runs(1)
    assert lead(second) is True
    (elected,) = second.events("leader.elected")
    assert kubernetes.holder() == elected["identity"]
    holders = [holder for _, _, _, holder in kubernetes.writes]
    assert holders[holders.index(elected["identity"]) - 1] is None  # the lease was released, not expired
    assert moment(elected) < ended + 20
    assert (first.stray, second.stray) == ([], [])


@pytest.mark.slow
def test_the_standby_takes_over_from_a_leader_that_was_killed(
    make_replicas: Callable[..., Replicas], kubernetes: Kubernetes
) -> None:
    """After the lease expires, with a run at once."""
    replicas = make_replicas("fine")
    first = replicas.start("first")
    first.until_runs(1)
    second = replicas.start("second")
    second.until_event("leader.standing_by")
    first.send(signal.SIGKILL)
    first.ended()
    new = regenerate(replicas.world, "fine")
    second.until(lambda: newest(replicas.world, "fine-primary-key") == new)
    assert [holder for _, _, _, holder in kubernetes.writes if holder is None] == []
    assert second.end() == 0


class Rotation:
    """Regenerates keys continuously, and records the time of each write of a secret."""

    def __init__(self, world: World, accounts: list[str]) -> None:
        self._world = world
        self._accounts = accounts
        self._end = threading.Event()
        self.arrivals: list[float] = []
        self._thread = threading.Thread(target=self._rotate, name="rotation")

    async def _on_request(self, _index: int, operation: str, _target: str, stage: str) -> None:
        if (operation, stage) == ("setSecret", "before"):
            self.arrivals.append(time.time())

    def _rotate(self) -> None:
        while not self._end.wait(0.1):
            for account in self._accounts:
                regenerate(self._world, account)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Until the block ends."""
        self._world.running.do(lambda azure: azure.hooks.install(self._on_request))
        self._thread.start()
        try:
            yield
        finally:
            self._end.set()
            self._thread.join()


def test_a_standby_without_access_to_the_lease_is_not_ready(
    make_replicas: Callable[..., Replicas], kubernetes: Kubernetes
) -> None:
    """A rollout waits for it and keeps the leader. It becomes ready once the role exists, without a restart."""
    replicas = make_replicas("fine")
    kubernetes.faults["first"] = "forbidden"
    first = replicas.start("first")
    (failed,) = first.until_event("leader.failed")
    assert failed["http_status"] == 403
    first.until(lambda: "403" in (first.status()["ready_reason"] or ""))
    ready = first.get("/readyz")
    reason = f"standing by, but could not take over: the Lease {NAMESPACE}/keysync was never read: Kubernetes answered 403 Forbidden"
    assert (ready.status, ready.json()["reason"]) == (503, reason)
    assert reason[1:] in first.get("/").text
    assert 'keysync_standby_unready{reason="never_read"} 1.0' in first.get("/metrics").text
    assert first.get("/healthz").status == 200
    kubernetes.faults.clear()
    first.until_runs(1)
    first.until(lambda: first.get("/readyz").status == 200)
    assert first.end() == 0
    assert first.stray == []


@pytest.mark.slow
def test_a_leader_that_is_cut_off_stops_writing_before_another_begins(
    make_replicas: Callable[..., Replicas], kubernetes: Kubernetes
) -> None:
    """It continues as a standby.

    By the logs, each write that reached the vault is from one replica, and none of the first replica's writes came
    after the second was elected.
    """
    names = ["one", "two", "three"]
    replicas = make_replicas(*names)
    rotation = Rotation(replicas.world, names)
    with rotation.going_on():
        first = replicas.start("first")
        first.until_runs(2)
        second = replicas.start("second")
        second.until_event("leader.standing_by")
        kubernetes.faults["first"] = "hang"
        second.until_runs(2)
        (lost,) = first.until_event("leader.lost")
        assert lead(first) is False
        first.until(lambda: first.get("/readyz").status == 503)
        kubernetes.faults.clear()
        kubernetes.let_go()
        (standing,) = first.until_event("leader.standing_by")
        assert standing["holder"] == kubernetes.holder()
        first.until(lambda: first.get("/readyz").status == 200)
        assert second.end() == 0
        first.until_event("leader.elected", 2)
        runs = len(first.events("run.finished"))
        first.until(lambda: len(first.events("run.finished")) > runs)
    again = moment(first.events("leader.elected")[1])
    (elected,) = second.events("leader.elected")
    writes = {
        name: [line for line in daemon.log if line["event"] in WRITTEN]
        for name, daemon in (("first", first), ("second", second))
    }
    before = [line for line in writes["first"] if moment(line) < again]
    assert before
    assert writes["second"]
    assert lost["reason"] == "it was not renewed in time"
    assert moment(lost) < moment(elected)
    assert max(map(moment, before)) < moment(elected)
    assert max(map(moment, writes["second"])) < again
    came = Counter("first" if at < moment(elected) else "second" for at in rotation.arrivals if at < again)
    assert came == {"first": len(before), "second": len(writes["second"])}
    assert first.end() == 0
    assert (first.stray, second.stray) == ([], [])


@pytest.mark.slow
def test_a_frozen_leader_writes_nothing_when_it_continues(
    make_replicas: Callable[..., Replicas], kubernetes: Kubernetes
) -> None:
    """It was frozen during a write, and did not learn of the new leader."""
    names = ["one", "two", "three"]
    replicas = make_replicas(*names)
    rotation = Rotation(replicas.world, names)
    with rotation.going_on():
        first = replicas.start("first")
        first.until_runs(2)
        second = replicas.start("second")
        second.until_event("leader.standing_by")
        first.send(signal.SIGSTOP)
        second.until_runs(2)
        first.send(signal.SIGCONT)
        first.until_event("leader.lost")
        first.until_event("leader.standing_by")
        second.until_runs(2)
    assert first.end() == 0
    assert second.end() == 0
    (elected,) = second.events("leader.elected")
    mine = [line for line in second.log if line["event"] in WRITTEN]
    assert sum(at > moment(elected) for at in rotation.arrivals) == len(mine)
    assert len(rotation.arrivals) > len(mine)
    assert kubernetes.holder() is None


@pytest.mark.slow
def test_a_write_that_hangs_is_cut_off_before_another_begins(
    make_replicas: Callable[..., Replicas], kubernetes: Kubernetes
) -> None:
    """The vault receives the request and delays its effect. Afterwards only the new leader's write has an effect."""
    replicas = make_replicas("fine")
    world = replicas.world
    first = replicas.start("first")
    first.until_runs(1)
    second = replicas.start("second")
    second.until_event("leader.standing_by")
    before = len(world.versions("main", "fine-primary-key"))
    with Holding(world.running, "setSecret") as vault:
        new = regenerate(world, "fine")
        first.until(vault.came.is_set)
        kubernetes.faults["first"] = "hang"
        (elected,) = second.until_event("leader.elected")
        (unknown,) = first.until_event("secret.unknown")
        assert moment(unknown) < moment(elected)
        assert len(world.versions("main", "fine-primary-key")) == before
    second.until(lambda: newest(world, "fine-primary-key") == new)
    second.until_runs(1)
    assert len(world.versions("main", "fine-primary-key")) == before + 1
    assert first.account("fine")["state"] == "pending"
    assert (first.end(), second.end()) == (0, 0)


def test_each_shard_has_its_own_lease(make_replicas: Callable[..., Replicas], kubernetes: Kubernetes) -> None:
    """Both lead, each its own shard."""
    accounts = [f"account{number}" for number in range(6)]
    replicas = make_replicas(*accounts)
    both = [replicas.start(f"pod-{index}", "--shard", f"{index}/2") for index in range(2)]
    for daemon in both:
        daemon.until_runs(1)
    assert sorted(kubernetes.leases) == ["keysync-0", "keysync-1"]
    served = [{account["name"] for account in daemon.status()["accounts"]} for daemon in both]
    assert served[0] | served[1] == set(accounts)
    assert not served[0] & served[1]


def test_the_start_fails_outside_a_pod(make_world: MakeWorld) -> None:
    """With exit code 2, and before any request."""
    world = make_world("fine")
    world.configure(["fine"], **CONFIG)
    ran = world.run("run")
    assert (ran.code, ran.out) == (2, "")
    assert "keysync: leader_election: no way to Kubernetes: KUBERNETES_SERVICE_HOST" in ran.err
    assert world.versions("main", "fine-primary-key") == []
