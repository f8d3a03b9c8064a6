"""The election on a Lease, against a server over TLS that answers, refuses, loses, hangs and pauses."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
import time_machine
from structlog.testing import capture_logs

from keysync.config.operation import LeaderElection
from keysync.daemon import leader_election
from keysync.daemon.leader_election import LeaderElector, open_election
from keysync.daemon.lease_client import LeaseClient
from keysync.errors import UsageError
from keysync.failures import CallFailed, FailureRecord
from keysync.sources.shard import Shard
from tests.support.kubernetes import NAMESPACE, Fault, Kubernetes, serving_kubernetes
from tests.support.settings import election_of
from tests.support.warp import Warp, WarpLoop

TERMS = election_of(lease_duration="10s", renew_deadline="7s", retry_period="2s")
MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


class Recorder(LeaderElector):
    """An elector that keeps the results of its calls."""

    def __init__(self, client: LeaseClient, settings: LeaderElection, identity: str, **more: Any) -> None:
        super().__init__(client, settings, identity, **more)
        self.news: list[tuple[Any, ...]] = []
        self.reads: list[float] = []
        self.failure = asyncio.Event()

    def _read(self, received: float, other: str | None) -> None:
        self.reads.append(received)
        if other is not None:
            self.news.append(("other_holds", other))
        super()._read(received, other)

    def _renewed(self, sent: float) -> None:
        self.news.append(("renewed", sent))
        super()._renewed(sent)

    def _failed(self, record: FailureRecord) -> None:
        super()._failed(record)
        self.failure.set()


class Replica:
    """A replica that tries when the test says so, at the monotonic time `now`."""

    def __init__(self, kubernetes: Kubernetes, name: str, seconds: float = 5.0) -> None:
        self.now = 100.0
        url = f"https://localhost:{kubernetes.port}"
        self.client = LeaseClient(url, NAMESPACE, "keysync", kubernetes.service_account(name), seconds)
        self.elector = Recorder(self.client, TERMS, name, clock=lambda: self.now)

    async def try_at(self, now: float) -> list[tuple[Any, ...]]:
        """One try, and what it reported."""
        self.now = now
        self.elector.news.clear()
        await self.elector.try_acquire_or_renew()
        return self.elector.news


@pytest.fixture
async def kubernetes(tmp_path: Path) -> AsyncIterator[Kubernetes]:
    async with serving_kubernetes(tmp_path) as server:
        yield server


@pytest.fixture
async def make(kubernetes: Kubernetes) -> AsyncIterator[Callable[..., Replica]]:
    async with AsyncExitStack() as stack:

        def make_one(name: str, **more: Any) -> Replica:
            one = Replica(kubernetes, name, **more)
            stack.push_async_callback(one.elector.close)
            return one

        yield make_one


async def test_the_first_makes_the_lease_and_renews_it(kubernetes: Kubernetes, make: Callable[..., Replica]) -> None:
    """The Lease has the fields and formats of `coordination.k8s.io/v1`."""
    one = make("one")
    assert await one.try_at(100.0) == [("renewed", 100.0)]
    created = kubernetes.leases["keysync"]
    assert (created["apiVersion"], created["kind"]) == ("coordination.k8s.io/v1", "Lease")
    assert created["metadata"]["namespace"] == NAMESPACE
    spec = created["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("one", 10, 0)
    assert MICRO_TIME.fullmatch(spec["acquireTime"])
    assert await one.try_at(102.0) == [("renewed", 102.0)]
    renewed = kubernetes.leases["keysync"]["spec"]
    assert MICRO_TIME.fullmatch(renewed["renewTime"])
    assert renewed["renewTime"] > spec["renewTime"]
    assert (renewed["acquireTime"], renewed["leaseTransitions"]) == (spec["acquireTime"], 0)


async def test_a_lead_counts_from_before_its_renewal_was_sent(
    kubernetes: Kubernetes, make: Callable[..., Replica]
) -> None:
    """The reply takes three seconds."""
    one = make("one")
    await one.try_at(100.0)
    kubernetes.on_write = lambda: setattr(one, "now", 105.0)
    assert await one.try_at(102.0) == [("renewed", 102.0)]
    one.now = 108.9
    assert one.elector.leads()
    one.now = 109.0
    assert not one.elector.leads()


async def test_the_second_stands_by_until_the_lease_was_unchanged_for_its_duration(
    kubernetes: Kubernetes, make: Callable[..., Replica]
) -> None:
    """By its own monotonic clock: no wall clock, and no time in the Lease, is a reason to take over."""
    one, two = make("one"), make("two")
    await one.try_at(100.0)
    acquired = kubernetes.leases["keysync"]["spec"]["acquireTime"]
    with time_machine.travel(0.0):
        assert await two.try_at(500.0) == [("other_holds", "one")]
    with time_machine.travel(4e9):
        assert await two.try_at(509.9) == [("other_holds", "one")]
    assert kubernetes.holder() == "one"
    assert await two.try_at(510.0) == [("other_holds", "one"), ("renewed", 510.0)]
    spec = kubernetes.leases["keysync"]["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("two", 1)
    assert spec["acquireTime"] > acquired
    assert await one.try_at(103.0) == [("other_holds", "two")]
    assert not one.elector.leads()


@pytest.mark.parametrize(("theirs", "free_at"), [(30, 530.0), (3, 510.0)])
async def test_the_longer_of_two_durations_holds(
    kubernetes: Kubernetes, make: Callable[..., Replica], theirs: int, free_at: float
) -> None:
    """While a roll-out changes it, each has its own."""
    one, two = make("one"), make("two")
    await one.try_at(100.0)
    kubernetes.leases["keysync"]["spec"]["leaseDurationSeconds"] = theirs
    for now in (500.0, free_at - 0.1):
        assert await two.try_at(now) == [("other_holds", "one")]
    assert await two.try_at(free_at) == [("other_holds", "one"), ("renewed", free_at)]


async def test_each_write_to_a_lease_restarts_its_time(kubernetes: Kubernetes, make: Callable[..., Replica]) -> None:
    """Reading it again does not."""
    one, two = make("one"), make("two")
    await one.try_at(100.0)
    await two.try_at(500.0)
    await one.try_at(102.0)
    for now in (505.0, 510.0, 514.9):
        assert await two.try_at(now) == [("other_holds", "one")]
    assert await two.try_at(515.0) == [("other_holds", "one"), ("renewed", 515.0)]


async def test_a_write_to_a_lease_that_has_changed_has_no_effect(
    kubernetes: Kubernetes, make: Callable[..., Replica]
) -> None:
    """Whether another replica renewed or created it in between. A conflict is not a failure."""
    one, two = make("one"), make("two")
    await one.try_at(100.0)
    read = await two.client.get()
    await one.try_at(102.0)
    assert read is not None
    assert await two.client.write(read, {"holderIdentity": "two"}) is None
    assert await two.client.write(None, {"holderIdentity": "two"}) is None
    assert kubernetes.holder() == "one"


async def test_of_replicas_that_try_at_once_one_leads(kubernetes: Kubernetes, make: Callable[..., Replica]) -> None:
    """The others learn it at their next try."""
    replicas = [make(name) for name in ("one", "two", "three")]
    await asyncio.gather(*(replica.try_at(100.0) for replica in replicas))
    assert sum(replica.elector.leads() for replica in replicas) == 1
    for replica in replicas:
        await replica.try_at(102.0)
    assert [replica.elector.leads() for replica in replicas] == [kubernetes.holder() == name for name in ("one", "two", "three")]  # fmt: skip


async def test_a_released_lease_is_taken_at_once(kubernetes: Kubernetes, make: Callable[..., Replica]) -> None:
    """Its fields that keysync does not know stay as they are."""
    one, two = make("one"), make("two")
    await one.try_at(100.0)
    kubernetes.leases["keysync"]["metadata"]["labels"] = {"team": "render"}
    kubernetes.leases["keysync"]["spec"]["preferredHolder"] = "three"
    assert await two.try_at(500.0) == [("other_holds", "one")]
    await one.elector.release()
    assert kubernetes.holder() is None
    assert await two.try_at(502.0) == [("renewed", 502.0)]
    lease = kubernetes.leases["keysync"]
    assert lease["metadata"]["labels"] == {"team": "render"}
    assert (lease["spec"]["preferredHolder"], lease["spec"]["leaseTransitions"]) == ("three", 1)


async def test_a_lease_of_another_is_not_released(kubernetes: Kubernetes, make: Callable[..., Replica]) -> None:
    """It is not one's own to give back."""
    one, two = make("one"), make("two")
    await one.try_at(100.0)
    await two.try_at(500.0)
    await two.elector.release()
    assert kubernetes.holder() == "one"


@pytest.mark.parametrize("fault", ["forbidden", "hang"])
async def test_a_lease_that_cannot_be_released_expires(
    kubernetes: Kubernetes, make: Callable[..., Replica], fault: Fault
) -> None:
    """The end of the process does not wait for it."""
    one = make("one", seconds=0.2)
    await one.try_at(100.0)
    kubernetes.faults["one"] = fault
    await one.elector.release()
    assert kubernetes.holder() == "one"


@pytest.mark.parametrize(
    ("fault", "reason", "status"),
    [
        ("forbidden", "Kubernetes answered 403 Forbidden", 403),
        ("html", "Kubernetes answered 502 Bad Gateway", 502),
        ("hang", "no answer from Kubernetes: TimeoutError", None),
        ("no_json", "no answer from Kubernetes: JSONDecodeError", None),
        ("another", "the reply of Kubernetes is not about this Lease", None),
    ],
)
async def test_a_failure_is_named_and_is_no_lead(
    kubernetes: Kubernetes, make: Callable[..., Replica], fault: Fault, reason: str, status: int | None
) -> None:
    """A missing role, a proxy in between, a network that is gone, a reply to another request."""
    one = make("one", seconds=0.2)
    await one.try_at(100.0)
    kubernetes.faults["one"] = fault
    with pytest.raises(CallFailed) as failure:
        await one.try_at(102.0)
    assert (failure.value.record.summary, failure.value.record.http_status) == (reason, status)
    assert one.elector.news == []
    kubernetes.faults.clear()
    assert await one.try_at(104.0) == [("renewed", 104.0)]


async def test_a_renewal_whose_answer_was_lost_does_not_count(
    kubernetes: Kubernetes, make: Callable[..., Replica]
) -> None:
    """It may have had an effect, and the next try shows it."""
    one = make("one", seconds=0.2)
    await one.try_at(100.0)
    kubernetes.faults["one"] = "lose_reply"
    with pytest.raises(CallFailed):
        await one.try_at(102.0)
    assert len(kubernetes.writes) == 2
    assert one.elector.news == []
    kubernetes.faults.clear()
    assert await one.try_at(104.0) == [("renewed", 104.0)]


async def test_each_reply_with_the_lease_is_a_read(kubernetes: Kubernetes, make: Callable[..., Replica]) -> None:
    """Whether another replica holds it or none does; a refusal, and a Lease that does not exist, are no read."""
    one, two = make("one"), make("two")
    await one.try_at(100.0)
    assert one.elector.reads == []
    await two.try_at(500.0)
    assert two.elector.reads == [500.0]
    kubernetes.faults["two"] = "forbidden"
    with pytest.raises(CallFailed):
        await two.try_at(502.0)
    assert two.elector.reads == [500.0]


async def test_a_namespace_that_does_not_exist_is_named_with_its_fix(kubernetes: Kubernetes) -> None:
    """The API server answers 404 to both calls, and only the first means that there is no Lease yet."""
    kubernetes.namespaces.clear()
    assert await failure_of(kubernetes, "one") == {
        "reason": "Kubernetes answered 404 Not Found",
        "http_status": 404,
        "hint": "the namespace of the Lease does not exist: create it, or fix leader_election.namespace",
    }


async def test_a_missing_role_is_named_with_its_fix(kubernetes: Kubernetes) -> None:
    """The service account may do nothing without one."""
    kubernetes.faults["one"] = "forbidden"
    failure = await failure_of(kubernetes, "one")
    assert failure["http_status"] == 403
    assert "needs a Role with `create` of Leases, and `get` and `update` of this one" in failure["hint"]


async def failure_of(kubernetes: Kubernetes, name: str) -> dict[str, Any]:
    """What the log says of the first failure of an election."""
    one = Replica(kubernetes, name)
    with capture_logs() as log:
        one.elector.start()
        await asyncio.wait_for(one.elector.failure.wait(), 20)
        await one.elector.close()
    (line,) = (line for line in log if line["event"] == "leader.failed")
    return {key: line[key] for key in ("reason", "http_status", "hint")}


# In a pod


@pytest.fixture
def in_pod(kubernetes: Kubernetes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the token of this process's pod."""
    account = kubernetes.service_account("pod")
    monkeypatch.setattr(leader_election, "SERVICE_ACCOUNT", account)
    return account


@asynccontextmanager
async def elector_of(kubernetes: Kubernetes, shard: Shard | None = None, **given: Any) -> AsyncIterator[LeaderElector]:
    """The election of a configuration, whose tries the test makes."""
    elector = open_election(election_of(**given), shard, kubernetes.environ)
    assert elector is not None
    try:
        yield elector
    finally:
        await elector.close()


@pytest.mark.usefixtures("in_pod")
async def test_in_a_pod_it_uses_the_pods_own_account(kubernetes: Kubernetes) -> None:
    """With the mounted token, authority and namespace, where Kubernetes puts them. The identity is unique."""
    async with elector_of(kubernetes) as elector, elector_of(kubernetes, Shard(1, 2), identity="me") as other:
        await elector.try_acquire_or_renew()
        await other.try_acquire_or_renew()
    assert sorted(kubernetes.leases) == ["keysync", "keysync-1"]
    assert re.fullmatch(r".+_[0-9a-f]{8}", str(kubernetes.holder()))
    assert kubernetes.holder("keysync-1") == "me"
    assert kubernetes.tokens == {"Bearer pod"}


@pytest.mark.usefixtures("in_pod")
async def test_a_proxy_is_never_used(kubernetes: Kubernetes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API server of the cluster is not behind it."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with elector_of(kubernetes) as elector:
        await elector.try_acquire_or_renew()
        assert elector.leads()


async def test_the_server_needs_a_certificate_of_the_clusters_authority(
    kubernetes: Kubernetes, in_pod: Path, tmp_path: Path
) -> None:
    """The token is for nothing else."""
    other = tmp_path / "other"
    other.mkdir()
    (in_pod / "ca.crt").write_bytes((Kubernetes(other).service_account("pod") / "ca.crt").read_bytes())
    async with elector_of(kubernetes) as elector:
        with pytest.raises(CallFailed, match="no answer from Kubernetes: ClientConnectorCertificateError"):
            await elector.try_acquire_or_renew()
    assert kubernetes.tokens == set()


async def test_a_renewed_token_is_sent_from_then_on(kubernetes: Kubernetes, in_pod: Path) -> None:
    """Kubernetes replaces the file before the old token expires."""
    async with elector_of(kubernetes) as elector:
        await elector.try_acquire_or_renew()
        (in_pod / "token").write_text("renewed")
        kubernetes.accepted = "Bearer renewed"
        await elector.try_acquire_or_renew()
    assert kubernetes.requests == ["GET", "POST", "GET", "PUT"]


async def test_a_401_reads_the_token_again_and_repeats_the_call_once(kubernetes: Kubernetes, in_pod: Path) -> None:
    """The file was replaced after it was read."""
    async with elector_of(kubernetes) as elector:
        await elector.try_acquire_or_renew()
        kubernetes.accepted = "Bearer renewed"
        kubernetes.on_refusal = lambda: (in_pod / "token").write_text("renewed")
        await elector.try_acquire_or_renew()
    assert kubernetes.requests == ["GET", "POST", "GET", "GET", "PUT"]


@pytest.mark.usefixtures("in_pod")
async def test_a_token_that_stays_refused_is_a_failure_after_one_repetition(kubernetes: Kubernetes) -> None:
    """It does not repeat for ever."""
    async with elector_of(kubernetes) as elector:
        kubernetes.accepted = "Bearer renewed"
        with pytest.raises(CallFailed, match="Kubernetes answered 401 Unauthorized"):
            await elector.try_acquire_or_renew()
    assert kubernetes.requests == ["GET", "GET"]


@pytest.mark.parametrize("content", ["", None])
async def test_a_token_file_that_is_empty_or_gone_is_named(
    kubernetes: Kubernetes, in_pod: Path, content: str | None
) -> None:
    """The reason is the file, not the network."""
    token = in_pod / "token"
    async with elector_of(kubernetes) as elector:
        token.unlink() if content is None else token.write_text(content)
        with pytest.raises(CallFailed, match=f"the token for Kubernetes cannot be read: .*{re.escape(str(token))}"):
            await elector.try_acquire_or_renew()


async def test_outside_a_pod_it_is_a_usage_error() -> None:
    """The error is raised before the daemon serves."""
    with pytest.raises(UsageError, match="leader_election: no way to Kubernetes: KUBERNETES_SERVICE_HOST"):
        open_election(election_of(), None, {})


@pytest.mark.parametrize("name", ["token", "ca.crt", "namespace"])
async def test_a_pod_without_a_file_of_its_account_is_a_usage_error(
    kubernetes: Kubernetes, in_pod: Path, name: str
) -> None:
    """As with `automountServiceAccountToken: false`."""
    (in_pod / name).unlink()
    with pytest.raises(
        UsageError, match=f"leader_election: no way to Kubernetes: .*/{name}.*automountServiceAccountToken"
    ):
        open_election(election_of(), None, kubernetes.environ)


@pytest.mark.usefixtures("in_pod")
@pytest.mark.parametrize(("host", "url"), [("10.0.0.1", "https://10.0.0.1:443"), ("fd00::1", "https://[fd00::1]:443")])
async def test_the_api_server_is_where_kubernetes_says(host: str, url: str) -> None:
    """A cluster may have IPv6 addresses only."""
    elector = open_election(election_of(), None, {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "443"})
    assert elector is not None
    assert elector._client._url == f"{url}/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
    await elector.close()


async def test_without_leader_election_there_is_none() -> None:
    """Such a replica always leads."""
    assert open_election(None, None, {}) is None


# Whole elections on a clock that the test moves, over real connections

Script = Callable[[Kubernetes, "Cast"], Awaitable[None]]


class Cast:
    """Starts replicas in the running loop."""

    def __init__(self, kubernetes: Kubernetes, stack: AsyncExitStack, random: Random) -> None:
        self.random = random
        self.elected: list[tuple[str, float]] = []
        self.lost: list[str] = []
        self._kubernetes = kubernetes
        self._stack = stack

    def start(self, name: str) -> LeaderElector:
        account = self._kubernetes.service_account(name)
        client = LeaseClient(f"https://localhost:{self._kubernetes.port}", NAMESPACE, "keysync", account, 7 / 4)
        elector = LeaderElector(client, TERMS, name)
        elector.elected = lambda: self.elected.append((name, asyncio.get_running_loop().time()))
        elector.lost = lambda: self.lost.append(name)
        self._stack.push_async_callback(elector.close)
        elector.start()
        return elector

    async def pass_time(self, least: float, most: float) -> float:
        """Lets a random time pass, and returns the time."""
        await asyncio.sleep(self.random.uniform(least, most))
        return asyncio.get_running_loop().time()


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Script, int], None]:
    """Runs a script on a clock that moves only when everything waits."""

    def run(script: Script, seed: int) -> None:
        warp = Warp()

        async def main() -> None:
            async with serving_kubernetes(tmp_path) as kubernetes, AsyncExitStack() as stack:
                await script(kubernetes, Cast(kubernetes, stack, Random(seed)))  # noqa: S311  # chance for a simulation

        with warp.installed(), asyncio.Runner(loop_factory=lambda: WarpLoop(warp)) as runner:
            runner.run(main())

    return run


@pytest.mark.parametrize("seed", range(8))
def test_a_standby_takes_over_within_11_s_of_a_kill(play: Callable[[Script, int], None], seed: int) -> None:
    """At any moment between two renewals, and never before the Lease has ended."""

    async def script(_: Kubernetes, cast: Cast) -> None:
        first = cast.start("first")
        await cast.pass_time(1.0, 20.0)
        cast.start("second")
        killed = await cast.pass_time(5.0, 20.0)
        await first.close()
        await asyncio.sleep(15)
        assert [name for name, _ in cast.elected] == ["first", "second"]
        assert 8.0 <= cast.elected[1][1] - killed <= 11.0

    play(script, seed)


@pytest.mark.parametrize("seed", range(4))
def test_a_standby_takes_over_within_a_second_of_a_release(play: Callable[[Script, int], None], seed: int) -> None:
    """A leader that ends on SIGTERM releases the Lease."""

    async def script(kubernetes: Kubernetes, cast: Cast) -> None:
        first = cast.start("first")
        await cast.pass_time(1.0, 20.0)
        cast.start("second")
        released = await cast.pass_time(5.0, 20.0)
        await first.release()
        await asyncio.sleep(5)
        assert [name for name, _ in cast.elected] == ["first", "second"]
        assert cast.elected[1][1] - released <= 1.0
        assert kubernetes.leases["keysync"]["spec"]["leaseTransitions"] == 1

    play(script, seed)


@pytest.mark.parametrize("seed", range(8))
def test_no_lead_is_lost_while_the_api_server_pauses_for_5_s(play: Callable[[Script, int], None], seed: int) -> None:
    """Etcd elects a leader, or the server is restarted."""

    async def script(kubernetes: Kubernetes, cast: Cast) -> None:
        cast.start("first")
        await asyncio.sleep(1)
        cast.start("second")
        for _ in range(5):
            await cast.pass_time(5.0, 9.0)
            kubernetes.running.clear()
            await asyncio.sleep(5)
            kubernetes.running.set()
        await asyncio.sleep(5)
        assert ([name for name, _ in cast.elected], cast.lost) == (["first"], [])

    play(script, seed)


def test_a_leader_without_an_api_server_stops_and_leads_again(play: Callable[[Script, int], None]) -> None:
    """Seven seconds after it sent its last renewal. No error ends the election."""

    async def script(kubernetes: Kubernetes, cast: Cast) -> None:
        first = cast.start("first")
        await asyncio.sleep(4)
        kubernetes.faults["first"] = "hang"
        await asyncio.sleep(4)
        assert first.leads()
        await asyncio.sleep(3)
        assert not first.leads()
        assert cast.lost == ["first"]
        kubernetes.faults.clear()
        await asyncio.sleep(3)
        assert first.leads()

    play(script, 0)


def test_renewals_are_two_seconds_apart_at_most(play: Callable[[Script, int], None]) -> None:
    """A standby reads twice as often and writes nothing."""

    async def script(kubernetes: Kubernetes, cast: Cast) -> None:
        cast.start("first")
        await asyncio.sleep(1)
        cast.start("second")
        await asyncio.sleep(60)
        times = [time for time, *_ in kubernetes.writes]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert 1.6 <= min(gaps) <= max(gaps) <= 2.0
        assert {replica for _, replica, *_ in kubernetes.writes} == {"first"}
        assert 60 <= kubernetes.requests.count("GET") - len(times) <= 60 / 0.8

    play(script, 0)
