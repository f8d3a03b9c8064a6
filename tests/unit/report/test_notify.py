"""A webhook is told what changed, in spite of a bad network, and a run never feels it."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
import trustme
from hypothesis import given
from hypothesis import strategies as st

from keysync.azure.transport import open_transport
from keysync.config import models
from keysync.config.load import load_config
from keysync.failures import FailureRecord
from keysync.report.notify import EventQueue, Notifier
from keysync.report.webhook import Webhook, WebhookRetries
from keysync.secret.redact import Redactor
from keysync.secret.signing import Signer
from keysync.secret.value import MASK, SecretValue
from keysync.sync.model import Outcome, Report, Result
from tests.support.receiver import Receiver, receiving
from tests.support.runs import ref

ROOT = Path(__file__).parents[3]
SECRET = "correct-horse-battery-staple"
NOW = datetime(2026, 11, 24, 5, 22, tzinfo=UTC)
EVERYTHING = ("changed", "failed", "recovered", "stopped")


def report(*outcomes: tuple[str, Outcome], **fields: Any) -> Report:
    """A run over the primary keys of these accounts."""
    results = tuple(Result(ref(name), outcome) for name, outcome in outcomes)
    return replace(Report("run-1", False, "c0ffee", NOW, 1.0, len(results), results), **fields)


@dataclass
class RequestLog:
    """A `NotifyObserver` that counts."""

    by_end: dict[str, int] = field(default_factory=lambda: {"sent": 0, "failed": 0, "dropped": 0})
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def sent(self, events: int) -> None:
        self._count("sent", events)

    def failed(self, events: int, reason: str) -> None:
        self._count("failed", events)

    def dropped(self, events: int) -> None:
        self._count("dropped", events)

    def _count(self, end: str, events: int) -> None:
        self.by_end[end] += events
        self.changed.set()

    async def until(self, **wanted: int) -> None:
        """Waits for these counts."""
        async with asyncio.timeout(20):
            while not wanted.items() <= self.by_end.items():
                self.changed.clear()
                await self.changed.wait()


@dataclass
class Waits:
    """A sleep that takes no time, and remembers what it was asked for."""

    asked: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)

    def retries(self, **fields: Any) -> WebhookRetries:
        """Retries with the longest possible waits."""
        return WebhookRetries(**{"sleep": self.sleep, "uniform": lambda _low, high: high, **fields})


@dataclass
class Scene:
    """A receiver over TLS, and how to make what sends to it."""

    receiver: Receiver
    session: aiohttp.ClientSession
    counts: RequestLog = field(default_factory=RequestLog)
    waits: Waits = field(default_factory=Waits)
    redactor: Redactor = field(default_factory=Redactor)

    def webhook(self, path: str = "/hook", *, timeout: float = 10.0, **fields: Any) -> Webhook:
        options = {"retries": self.waits.retries(), "clock": NOW.timestamp, **fields}
        return Webhook(
            self.session, f"{self.receiver.base}{path}", Signer(SecretValue(SECRET)), timeout=timeout, **options
        )

    def notifier(self, webhook: Webhook | None = None, **fields: Any) -> Notifier:
        options = {"events": EVERYTHING, "installation": "prod", "drain_seconds": 20.0, **fields}
        return Notifier(
            webhook or self.webhook(), redact=self.redactor.redact, observer=self.counts, clock=lambda: NOW, **options
        )

    def events(self) -> list[dict[str, Any]]:
        """All that arrived, in order."""
        return [event for one in self.receiver.received for event in one.json()["events"]]

    def names(self) -> list[str]:
        return [event["event"] for event in self.events()]


@asynccontextmanager
async def opened(tmp_path: Path, *, trusted: bool = True) -> AsyncIterator[Scene]:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    async with receiving(context) as receiver, AsyncExitStack() as stack:
        transport = await open_transport(
            stack, ca_bundle=bundle if trusted else None, connect_seconds=5, redactor=Redactor()
        )
        yield Scene(receiver, transport.session)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with opened(tmp_path) as made:
        yield made


def is_genuine() -> Callable[..., bool]:
    """The function that the documentation shows."""
    text = (ROOT / "docs/notifications.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- verify -->\n```python\n(.*?)```\n<!-- /verify -->", text, re.DOTALL)
    assert found is not None
    namespace: dict[str, Any] = {}
    exec(found[1], namespace)  # noqa: S102  # nosec B102  # the sample is what is tested
    verify: Callable[..., bool] = namespace["is_genuine"]
    return verify


async def test_the_events_of_a_run_arrive_in_one_request(scene: Scene) -> None:
    """What changed is told with its installation and run, what is in sync is not, and each event has an id of its own."""
    async with scene.notifier() as notifier:
        notifier.finished(report(("a", "created"), ("b", "unchanged"), ("c", "failed")))
    (one,) = scene.receiver.received
    assert (one.method, one.path, one.headers["Content-Type"]) == ("POST", "/hook", "application/json")
    assert scene.names() == ["changed", "failed"]
    assert {event["installation"] for event in scene.events()} == {"prod"}
    assert {event["run_id"] for event in scene.events()} == {"run-1"}
    assert {event["time"] for event in scene.events()} == {"2026-11-24T05:22:00Z"}
    assert len({event["id"] for event in scene.events()}) == 2
    assert scene.counts.by_end == {"sent": 2, "failed": 0, "dropped": 0}


async def test_the_documented_sample_verifies_what_is_sent(scene: Scene) -> None:
    """A receiver that does as the documentation says accepts the request, and no other."""
    async with scene.notifier() as notifier:
        notifier.finished(report(("a", "created")))
    (one,) = scene.receiver.received
    header, now, verify = one.headers["X-Keysync-Signature"], NOW.timestamp(), is_genuine()
    assert verify(header, one.body, [SECRET], now)
    assert verify(header, one.body, ["the new one", SECRET], now + 299)
    assert verify(f"{header},v1=00,v2=something", one.body, [SECRET], now)
    assert not verify(header, one.body + b" ", [SECRET], now)
    assert not verify(header, one.body, ["another"], now)
    assert not verify(header, one.body, [SECRET], now + 301)
    assert not verify(header.replace("t=1", "t=2"), one.body, [SECRET], now)
    for broken in ("", "t=,v1=", "v1=00", "t=-1,v1=00", "t=²,v1=00", "t", "t=1,v1=é"):
        assert not verify(broken, one.body, [SECRET], now)


def blocks(language: str) -> list[str]:
    """The code that the documentation shows."""
    text = (ROOT / "docs/notifications.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


async def test_the_documented_event_has_the_fields_that_are_sent(scene: Scene) -> None:
    """What the documentation shows is what arrives, field by field."""
    (sample,) = blocks("json")
    (shown,) = json.loads(sample)["events"]
    record = FailureRecord(kind="timeout", summary="no answer")
    async with scene.notifier() as notifier:
        notifier.finished(replace(report(), results=(Result(ref("a"), "failed", error=record),)))
    (sent,) = scene.events()
    assert list(shown) == list(sent)
    assert list(shown["error"]) == list(sent["error"])


def test_the_documented_configuration_is_one(tmp_path: Path) -> None:
    """It can be pasted into a file, and shows the defaults."""
    (sample,) = blocks("yaml")
    (tmp_path / "notify-secret").touch()
    file = tmp_path / "keysync.yaml"
    file.write_text((ROOT / "config/minimal.yaml").read_text(encoding="utf-8") + sample, encoding="utf-8")
    shown = load_config(file, {}).notify
    assert shown is not None
    assert shown == models.Notify(url=shown.url, secret_file=shown.secret_file).plain()


async def test_the_states_are_kept_between_runs(scene: Scene) -> None:
    """A failure is told once, its end once, and a stop until it is over."""
    async with scene.notifier() as notifier:
        for told in (
            report(("a", "failed")),
            report(("a", "failed"), stopped="too much"),
            report(("a", "failed"), stopped="too much"),
            report(("a", "unchanged")),
        ):
            notifier.finished(told)
    assert scene.names() == ["failed", "stopped", "recovered", "released"]


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (["changed"], ["changed"]),
        (["failed", "recovered"], ["failed", "recovered"]),
        (["stopped"], ["stopped", "released"]),
    ],
)
async def test_only_the_configured_events_are_sent(scene: Scene, wanted: list[str], told: list[str]) -> None:
    """What nobody asked for is not sent; a release comes with the stop."""
    async with scene.notifier(events=wanted) as notifier:
        notifier.finished(report(("a", "failed"), ("b", "created"), stopped="too much"))
        notifier.finished(report(("a", "unchanged")))
    assert scene.names() == told


async def test_a_plan_that_is_only_shown_tells_nothing(scene: Scene) -> None:
    """A dry run changes nothing, so there is nothing to tell, and nothing is remembered of it."""
    async with scene.notifier() as notifier:
        notifier.finished(report(("a", "failed"), dry_run=True))
        notifier.finished(report(("a", "unchanged")))
    assert scene.receiver.received == []


async def test_an_interrupted_run_tells_what_it_wrote_only(scene: Scene) -> None:
    """What a shutdown cut short has not failed: nobody should be woken by each restart."""
    async with scene.notifier() as notifier:
        notifier.finished(report(("a", "updated"), ("b", "failed"), ("c", "unknown"), interrupted=True))
    assert scene.names() == ["changed"]


async def test_many_events_are_split_and_none_is_lost(scene: Scene) -> None:
    """No request holds more than a hundred."""
    accounts = [f"a{number}" for number in range(250)]
    async with scene.notifier() as notifier:
        notifier.finished(report(*((name, "created") for name in accounts)))
    assert [len(one.json()["events"]) for one in scene.receiver.received] == [100, 100, 50]
    assert [event["secret"] for event in scene.events()] == [f"{name}-primary-key" for name in accounts]


@given(st.lists(st.integers(0, 130), max_size=12), st.integers(1, 300), st.data())
def test_the_queue_loses_the_oldest_and_nothing_else(puts: list[int], capacity: int, data: st.DataObject) -> None:
    """However adding and taking go on, what comes out is in order, no batch is too large, and what is missing was counted."""
    queue, numbers = EventQueue(capacity), count()
    added, dropped, taken = 0, 0, []
    for size in puts:
        dropped += queue.put([{"number": next(numbers)} for _ in range(size)])
        added += size
        assert len(queue) <= capacity
        if data.draw(st.booleans()):
            batch = queue.take()
            assert len(batch) <= 100
            taken += batch
    while batch := queue.take():
        taken += batch
    told = [event["number"] for event in taken]
    assert told == sorted(set(told))
    assert len(told) + dropped == added
    assert dropped > 0 or told == list(range(added))


@pytest.mark.parametrize("first", [408, 429, 500, 502, 503, 504, "break"])
async def test_what_may_run_is_tried_again(scene: Scene, first: int | str) -> None:
    """The same body is sent again, signed anew, and the event counts as sent once."""
    scene.receiver.answers = [first, first]
    moments = iter([1000.0, 2000.0, 3000.0])
    async with scene.notifier(scene.webhook(clock=lambda: next(moments))) as notifier:
        notifier.finished(report(("a", "created")))
    assert scene.counts.by_end == {"sent": 1, "failed": 0, "dropped": 0}
    assert len({one.body for one in scene.receiver.received}) == 1
    starts = [one.headers["X-Keysync-Signature"].split(",")[0] for one in scene.receiver.received]
    assert starts == ["t=1000", "t=2000", "t=3000"]
    assert scene.waits.asked == [1.0, 2.0]


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 403, 404, 410, 413])
async def test_what_will_not_run_is_given_up_at_once(scene: Scene, status: int) -> None:
    """A refusal stays one; a redirect is not followed, wherever it points."""
    scene.receiver.answers = [(status, {"Location": f"{scene.receiver.base}/elsewhere"})]
    delivery = await scene.webhook().post(b"{}")
    assert (delivery.http_status, delivery.attempts) == (status, 1)
    assert delivery.reason is not None
    assert [one.path for one in scene.receiver.received] == ["/hook"]


async def test_attempts_are_bounded(scene: Scene) -> None:
    """After five attempts the request is given up, and the next one has its own."""
    scene.receiver.answers = [503] * 5
    async with scene.notifier() as notifier:
        notifier.finished(report(("a", "created")))
        await scene.counts.until(failed=1)
        notifier.finished(report(("a", "updated")))
    assert len(scene.receiver.received) == 6
    assert scene.counts.by_end == {"sent": 1, "failed": 1, "dropped": 0}
    assert scene.waits.asked == [1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize(("asked", "waited"), [("7", 7.0), ("0", 0.0), ("3600", 30.0), ("soon", 1.0)])
async def test_retry_after_is_heard_up_to_half_a_minute(scene: Scene, asked: str, waited: float) -> None:
    """The receiver knows best when to come back, unless it says much later; nonsense is no wish."""
    scene.receiver.answers = [(429, {"Retry-After": asked})]
    assert (await scene.webhook().post(b"{}")).reason is None
    assert scene.waits.asked == [waited]


def test_waits_are_random_over_the_whole_span() -> None:
    """Full jitter: from nothing up to a span that doubles and has an end."""
    spans: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        spans.append((low, high))
        return low

    retries = WebhookRetries(uniform=uniform)
    assert [retries.delay(attempt, None) for attempt in range(1, 7)] == [0.0] * 6
    assert spans == [(0.0, high) for high in (1.0, 2.0, 4.0, 8.0, 15.0, 15.0)]


async def test_a_receiver_that_never_answers_costs_one_timeout(scene: Scene) -> None:
    """A hung receiver is given up after the configured time, and what comes next is sent still."""
    scene.receiver.answers = ["hang"]
    async with scene.notifier(scene.webhook(timeout=0.3)) as notifier:
        notifier.finished(report(("a", "created")))
        await scene.counts.until(failed=1)
        notifier.finished(report(("a", "updated")))
    assert scene.counts.by_end == {"sent": 1, "failed": 1, "dropped": 0}


async def test_everything_together_has_a_deadline(scene: Scene) -> None:
    """Waiting between attempts ends with the deadline too."""
    scene.receiver.answers = [503]

    async def forever(_seconds: float) -> None:
        await asyncio.Event().wait()

    delivery = await scene.webhook(retries=WebhookRetries(sleep=forever, deadline=0.2)).post(b"{}")
    assert (delivery.reason, delivery.attempts) == ("not accepted within 0.2 s", 1)


async def test_a_host_that_is_not_there_is_tried_again(scene: Scene, unused_tcp_port: int) -> None:
    """No connection may pass by itself."""
    hook = Webhook(
        scene.session,
        f"https://127.0.0.1:{unused_tcp_port}/",
        Signer(SecretValue(SECRET)),
        timeout=5,
        retries=scene.waits.retries(),
    )
    delivery = await hook.post(b"{}")
    assert (delivery.reason, delivery.attempts) == ("no connection", 5)


async def test_a_receiver_that_is_not_trusted_gets_nothing(tmp_path: Path) -> None:
    """A certificate of an unknown authority is no matter of trying again."""
    async with opened(tmp_path, trusted=False) as scene:
        delivery = await scene.webhook().post(b"{}")
    assert (delivery.reason, delivery.attempts) == ("no trusted TLS connection", 1)
    assert scene.receiver.received == []


async def test_a_full_queue_drops_the_oldest(scene: Scene) -> None:
    """A storm keeps the newest events, and the others are counted and logged."""
    names = [f"a{number}" for number in range(13)]
    with structlog.testing.capture_logs() as logged:
        async with scene.notifier(capacity=10) as notifier:
            notifier.finished(report(*((name, "created") for name in names)))
    assert [event["secret"] for event in scene.events()] == [f"{name}-primary-key" for name in names[3:]]
    assert scene.counts.by_end == {"sent": 10, "failed": 0, "dropped": 3}
    assert {"event": "notify.dropped", "log_level": "warning", "events": 3, "reason": "queue_full"} in logged


async def test_the_end_waits_for_what_is_queued_but_not_longer_than_it_may(scene: Scene) -> None:
    """A hung receiver does not hold a shutdown up; what it did not take, and what waited behind it, is told as dropped."""
    scene.receiver.answers = ["hang"]
    arrived = asyncio.Event()
    scene.receiver.on_request = arrived.set
    with structlog.testing.capture_logs() as logged:
        async with scene.notifier(drain_seconds=0.1) as notifier:
            notifier.finished(report(("a", "created"), ("b", "created")))
            await arrived.wait()
            notifier.finished(report(("c", "created")))
    assert scene.counts.by_end == {"sent": 0, "failed": 0, "dropped": 3}
    assert {"event": "notify.dropped", "log_level": "warning", "events": 3, "reason": "shutdown"} in logged
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "notify"]


async def test_a_fault_within_is_no_fault_of_the_run(scene: Scene) -> None:
    """Should telling itself break, the run does not notice, the log does, and the next run is told."""

    def broken(_text: str) -> str:
        raise RuntimeError("of the scrubber")

    with structlog.testing.capture_logs() as logged:
        async with Notifier(
            scene.webhook(), events=EVERYTHING, installation=None, redact=broken, drain_seconds=1, observer=scene.counts
        ) as notifier:
            notifier.finished(report(("a", "created")))
    assert [one["event"] for one in logged] == ["notify.failed"]
    assert "of the scrubber" not in json.dumps(logged)


async def test_the_sender_outlives_what_nobody_foresaw(scene: Scene) -> None:
    """An exception of a kind that no one expects gives up one request, not the task."""
    moments = iter([NOW.timestamp()])
    broken = iter([RuntimeError("a clock that broke")])

    def clock() -> float:
        for error in broken:
            raise error
        return next(moments)

    async with scene.notifier(scene.webhook(clock=clock)) as notifier:
        notifier.finished(report(("a", "created")))
        await scene.counts.until(failed=1)
        notifier.finished(report(("a", "updated")))
    assert scene.counts.by_end == {"sent": 1, "failed": 1, "dropped": 0}


async def test_no_secret_is_in_what_is_sent_or_logged(scene: Scene) -> None:
    """A key that a service repeats in its message is masked even if it is forgotten before it is sent; neither the signing
    secret nor the URL's own token is in the log."""
    key = base64.b64encode(b"k" * 64).decode()
    value = scene.redactor.remember(SecretValue("short-but-secret"))
    record = FailureRecord(kind="http_error", summary="", hint=f"you sent {key}")
    failed = Result(ref("a"), "failed", reason="you sent short-but-secret \ud800", error=record)
    scene.receiver.answers = [503, 400]
    with structlog.testing.capture_logs() as logged:
        async with scene.notifier(scene.webhook("/hook?token=of-the-url")) as notifier:
            notifier.finished(replace(report(), results=(failed,)))
            del value
    (event,) = scene.receiver.received[0].json()["events"]
    assert event["reason"] == f"you sent {MASK} \ud800"
    assert event["error"]["hint"] == f"you sent {MASK}"
    assert [one["event"] for one in logged] == ["notify.failed"]
    told = json.dumps(logged) + repr(notifier) + repr(notifier.__dict__)
    for secret in (key, SECRET, "of-the-url", "a body that no output may repeat"):
        assert secret not in told


async def test_what_was_sent_is_logged_quietly(scene: Scene) -> None:
    """A webhook that works is no news to whoever reads the log."""
    with structlog.testing.capture_logs() as logged:
        async with scene.notifier() as notifier:
            notifier.finished(report(("a", "created")))
    assert logged == [{"event": "notify.sent", "log_level": "debug", "events": 1, "attempts": 1, "http_status": 200}]
