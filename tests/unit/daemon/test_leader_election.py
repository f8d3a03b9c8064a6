"""The library's election on a Lease, against a server that answers, refuses, loses and hangs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.leaderelection.leaderelection import LeaderElection

from keysync.daemon import leader_election
from keysync.daemon.leader_election import LeaderElector, connect, namespace_of_pod
from keysync.daemon.lease import LeaseTimings
from keysync.errors import UsageError
from tests.support.kubernetes import NAMESPACE, Kubernetes, running_kubernetes
from tests.support.receiver import loopback_tls

TERMS = LeaseTimings(lease_duration=10.0, renew_deadline=7.0, retry_period=2.0)


class LeaderCallbacks:
    """Keeps the news; the candidate's monotonic clock is `now`."""

    def __init__(self) -> None:
        self.now = 100.0
        self.news: list[tuple[Any, ...]] = []
        self.reads: list[float] = []

    def read(self, received: float) -> None:
        self.reads.append(received)

    def renewed(self, sent: float) -> None:
        self.news.append(("renewed", sent))

    def other_holds(self, holder: str) -> None:
        self.news.append(("other_holds", holder))

    def failed(self, reason: str, http_status: int | None) -> None:
        self.news.append(("failed", reason, http_status))

    def taken(self) -> list[tuple[Any, ...]]:
        """The news since the last look."""
        news, self.news = self.news, []
        return news


@pytest.fixture(scope="module")
def server() -> Iterator[Kubernetes]:
    with running_kubernetes() as running:
        yield running


@pytest.fixture
def kubernetes(server: Kubernetes) -> Kubernetes:
    """The server, with nothing in it."""
    server.leases.clear()
    server.faults.clear()
    server.writes.clear()
    return server


class Replica:
    """A candidate whose turns the test makes, and not its thread."""

    def __init__(self, kubernetes: Kubernetes, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        path = kubernetes.kubeconfig(folder, name)
        for module in ("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION",):
            monkeypatch.setattr(module, str(path))
        self.callbacks = LeaderCallbacks()
        self.elector = LeaderElector(
            connect(in_cluster=False),
            namespace=namespace_of_pod(in_cluster=False),
            lease="keysync",
            identity=name,
            timings=TERMS,
            callbacks=self.callbacks,
            call_on_loop=lambda call, *arguments: call(*arguments),
            monotonic=lambda: self.callbacks.now,
        )
        self.elector._lock._api.seconds = 0.2
        self._election = LeaderElection(self.elector._election)

    def run_key(self, now: float) -> list[tuple[Any, ...]]:
        """One look, as it is made every `retry_period`; the news of it."""
        # The wall clock does not move: the library would not take over, and does not detect a changed clock.
        self.elector._lock._offset += self.callbacks.now - now
        self.callbacks.now = now
        self._election.try_acquire_or_renew()
        return self.callbacks.taken()

    def let_wall_clock_pass(self) -> None:
        """By the library's clock the lease that it saw has run out."""
        self._election.observed_time_milliseconds = 0


@pytest.fixture
def make(kubernetes: Kubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Replica]]:
    made: list[Replica] = []

    def make_one(name: str) -> Replica:
        made.append(Replica(kubernetes, tmp_path, name, monkeypatch))
        return made[-1]

    yield make_one
    for one in made:
        one.elector.abandon()


def test_the_first_makes_the_lease_and_renews_it(kubernetes: Kubernetes, make: Callable[[str], Replica]) -> None:
    """The time that counts is the one before the request."""
    one = make("one")
    assert one.run_key(100.0) == [("renewed", 100.0)]
    assert one.run_key(102.0) == [("renewed", 102.0)]
    assert kubernetes.holder() == "one"
    assert kubernetes.leases["keysync"]["spec"]["leaseDurationSeconds"] == 10
    assert kubernetes.leases["keysync"]["metadata"]["namespace"] == NAMESPACE


def test_the_second_is_standby_until_the_lease_was_unchanged_for_its_duration(
    kubernetes: Kubernetes, make: Callable[[str], Replica]
) -> None:
    """By its own monotonic clock: a wall clock that jumps is no reason to take over."""
    one, two = make("one"), make("two")
    one.run_key(100.0)
    assert two.run_key(500.0) == [("other_holds", "one")]
    two.let_wall_clock_pass()
    assert two.run_key(509.0) == [("other_holds", "one")]
    assert kubernetes.holder() == "one"
    assert two.run_key(510.0) == [("other_holds", "one"), ("renewed", 510.0)]
    assert kubernetes.holder() == "two"
    assert one.run_key(103.0) == [("other_holds", "two")]


def test_a_write_to_a_lease_that_has_changed_has_no_effect(
    kubernetes: Kubernetes, make: Callable[[str], Replica]
) -> None:
    """If two replicas try at once, one gets a conflict, which is not a failure."""
    one, two = make("one"), make("two")
    lock, other = one.elector._lock, two.elector._lock
    one.run_key(100.0)
    one.elector.release()
    two.run_key(500.0)
    assert kubernetes.holder() == "two"
    three = make("three")
    found, record = three.elector._lock.get("keysync", NAMESPACE)
    assert found
    two.run_key(502.0)
    three.callbacks.now = 600.0
    three.elector._lock._offset -= 500.0
    assert not three.elector._lock.update("keysync", NAMESPACE, record)
    assert three.callbacks.taken() == [("other_holds", "two")]
    assert kubernetes.holder() == "two"
    assert lock.ended.is_set()
    assert not other.ended.is_set()


def test_a_released_lease_is_taken_at_once(kubernetes: Kubernetes, make: Callable[[str], Replica]) -> None:
    """The replica that released it writes nothing afterwards."""
    one, two = make("one"), make("two")
    one.run_key(100.0)
    assert two.run_key(500.0) == [("other_holds", "one")]
    one.elector.release()
    assert kubernetes.holder() is None
    assert two.run_key(502.0) == [("renewed", 502.0)]
    with pytest.raises(leader_election._Ended):
        one.run_key(102.0)


def test_a_lease_of_another_is_not_released(kubernetes: Kubernetes, make: Callable[[str], Replica]) -> None:
    """It is not one's own to give back."""
    one, two = make("one"), make("two")
    one.run_key(100.0)
    two.run_key(500.0)
    two.elector.release()
    assert kubernetes.holder() == "one"


@pytest.mark.parametrize(
    ("fault", "reason", "status"),
    [("forbidden", "Kubernetes answered 403", 403), ("html", "Kubernetes answered 502", 502), ("hang", "no answer from Kubernetes", None)],
)  # fmt: skip
def test_a_failure_is_reported_and_is_no_lead(
    kubernetes: Kubernetes, make: Callable[[str], Replica], fault: Any, reason: str, status: int | None
) -> None:
    """A missing role, a proxy in between, a network that is gone: each is tried again, and none ends the election."""
    one = make("one")
    one.run_key(100.0)
    kubernetes.faults["one"] = fault
    ((name, callbacks, http_status),) = one.run_key(102.0)
    assert (name, http_status) == ("failed", status)
    assert callbacks.startswith(reason)
    kubernetes.faults.clear()
    assert one.run_key(104.0) == [("renewed", 104.0)]


def test_a_renewal_whose_answer_was_lost_does_not_count(kubernetes: Kubernetes, make: Callable[[str], Replica]) -> None:
    """It may have had an effect, and the next look tells."""
    one = make("one")
    one.run_key(100.0)
    kubernetes.faults["one"] = "lose_reply"
    assert [news[0] for news in one.run_key(102.0)] == ["failed"]
    assert len(kubernetes.writes) == 2
    kubernetes.faults.clear()
    assert one.run_key(104.0) == [("renewed", 104.0)]


def test_a_wall_clock_that_was_set_restarts_the_election(make: Callable[[str], Replica]) -> None:
    """The library counts by it; what it has counted so far would keep a standby waiting for hours."""
    one = make("one")
    one.run_key(100.0)
    one.elector._lock._offset += 3600
    with pytest.raises(leader_election._ClockSet):
        one.run_key(102.0)
    assert one.run_key(104.0) == [("renewed", 104.0)]


class Pod:
    """A candidate in a cluster, whose API server speaks TLS, with the files that Kubernetes mounts."""

    def __init__(self, kubernetes: Kubernetes, token: Path) -> None:
        self.kubernetes = kubernetes
        self.token = token
        self.callbacks = LeaderCallbacks()
        self.elector = LeaderElector(
            connect(in_cluster=True),
            namespace=namespace_of_pod(in_cluster=True),
            lease="keysync",
            identity="pod",
            timings=TERMS,
            callbacks=self.callbacks,
            call_on_loop=lambda call, *arguments: call(*arguments),
            in_cluster=True,
        )
        self._election = LeaderElection(self.elector._election)

    def run_key(self) -> list[tuple[Any, ...]]:
        """One look; the news of it."""
        self._election.try_acquire_or_renew()
        return self.callbacks.taken()


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pod]:
    context, authority = loopback_tls(tmp_path)
    token, namespace = tmp_path / "token", tmp_path / "namespace"
    token.write_text("of-the-pod")
    namespace.write_text(f"{NAMESPACE}\n")
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_CERT_FILENAME", str(authority))
    monkeypatch.setattr(leader_election, "_NAMESPACE_FILE", str(namespace))
    with running_kubernetes(context) as kubernetes:
        port = kubernetes.url.rpartition(":")[2]
        for name, value in {"KUBERNETES_SERVICE_HOST": "localhost", "KUBERNETES_SERVICE_PORT": port}.items():
            monkeypatch.setenv(name, value)
        one = Pod(kubernetes, token)
        yield one
        one.elector.abandon()


def test_in_a_pod_it_is_the_pods_own_account_over_tls(pod: Pod) -> None:
    """With the mounted token, authority and namespace, where Kubernetes puts them."""
    assert [news[0] for news in pod.run_key()] == ["renewed"]
    assert pod.kubernetes.holder() == "pod"
    assert pod.kubernetes.tokens == {"bearer of-the-pod"}
    pod.elector.release()
    assert pod.kubernetes.holder() is None


def test_a_401_reads_the_token_again_at_once_and_repeats_the_call_once(pod: Pod) -> None:
    """The library itself would send the old token for up to a minute, which is longer than a Lease lasts."""
    pod.run_key()
    pod.token.write_text("of-the-pod-2")
    pod.kubernetes.accepted = "bearer of-the-pod-2"
    before = pod.kubernetes.requests
    assert [news[0] for news in pod.run_key()] == ["renewed"]
    assert pod.kubernetes.requests == before + 3  # a refused read, the read, the update


def test_a_token_that_stays_refused_is_a_failure_after_one_repetition(pod: Pod) -> None:
    """It does not repeat for ever, and the next look reads the file again."""
    pod.run_key()
    pod.kubernetes.accepted = "bearer of-the-pod-2"
    before = pod.kubernetes.requests
    assert pod.run_key() == [("failed", "Kubernetes answered 401 Unauthorized", 401)]
    assert pod.kubernetes.requests == before + 2
    pod.token.write_text("of-the-pod-2")
    assert [news[0] for news in pod.run_key()] == ["renewed"]


@pytest.mark.parametrize("content", ["", None])
def test_a_token_file_that_is_empty_or_gone_is_named(pod: Pod, content: str | None) -> None:
    """The reason is the file, not the network."""
    pod.run_key()
    pod.kubernetes.accepted = "bearer of-the-pod-2"
    if content is None:
        pod.token.unlink()
    else:
        pod.token.write_text(content)
    ((name, reason, status),) = pod.run_key()
    assert (name, status) == ("failed", None)
    assert reason.startswith("the token for Kubernetes cannot be read: ")
    assert str(pod.token) in reason


def test_each_reply_with_the_lease_is_a_read(kubernetes: Kubernetes, make: Callable[[str], Replica]) -> None:
    """Whether another replica holds it or none does; a refusal, and a Lease that does not exist, are no read."""
    one, two = make("one"), make("two")
    one.run_key(100.0)
    assert one.callbacks.reads == []
    two.run_key(500.0)
    assert two.callbacks.reads == [500.0]
    kubernetes.faults["two"] = "forbidden"
    two.run_key(502.0)
    assert two.callbacks.reads == [500.0]
    kubernetes.faults.clear()
    one.elector.release()
    two.run_key(504.0)
    assert two.callbacks.reads == [500.0, 504.0]


def test_without_a_cluster_it_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is raised before the daemon serves."""
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="leader_election: no way to Kubernetes"):
        connect(in_cluster=False)
    with pytest.raises(UsageError, match=r"leader_election\.namespace: it cannot be determined here"):
        namespace_of_pod(in_cluster=False)
