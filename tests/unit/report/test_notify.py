"""A webhook gets the changes in spite of a bad network, and runs are not affected."""

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
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
import trustme

from keysync.azure.transport import open_transport
from keysync.config.load import load_config
from keysync.config.operation import Notify
from keysync.failures import FailureRecord
from keysync.report.notify import Notifier
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
    """Counts events by their end."""

    by_end: dict[str, int] = field(default_factory=lambda: {"sent": 0, "failed": 0, "dropped": 0})
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def count(self, end: str, events: int) -> None:
        self.by_end[end] += events
        self.changed.set()

    async def until(self, **wanted: int) -> None:
        """Waits for these counts."""
        async with asyncio.timeout(20):
            while not wanted.items() <= self.by_end.items():
                self.changed.clear()
                await self.changed.wait()


@dataclass
class FakeSleep:
    """A sleep that takes no time and records its arguments."""

    asked: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)

    def retries(self, **fields: Any) -> WebhookRetries:
        """Retries with the longest possible waits."""
        return WebhookRetries(**{"sleep": self.sleep, "uniform": lambda _low, high: high, **fields})


@dataclass
class Scene:
    """A receiver over TLS, and what sends to it."""

    receiver: Receiver
    session: aiohttp.ClientSession
    counts: RequestLog = field(default_factory=RequestLog)
    waits: FakeSleep = field(default_factory=FakeSleep)
    redactor: Redactor = field(default_factory=Redactor)

    def webhook(self, path: str = "/hook", *, timeout: float = 10.0, **fields: Any) -> Webhook:
        options = {"retries": self.waits.retries(), "clock": NOW.timestamp, **fields}
        return Webhook(
            self.session, f"{self.receiver.base}{path}", Signer(SecretValue(SECRET)), timeout=timeout, **options
        )

    def notifier(self, webhook: Webhook | None = None, **fields: Any) -> Notifier:
        options = {"events": EVERYTHING, "installation": "prod", "drain_seconds": 20.0, **fields}
        return Notifier(
            webhook or self.webhook(),
            redact=self.redactor.redact,
            count=self.counts.count,
            clock=lambda: NOW,
            **options,
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
    """Each change has the installation, the run and its own id. A secret in sync causes no event."""
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


async def test_the_documented_sample_verifies_requests(scene: Scene) -> None:
    """A receiver that follows the documentation accepts the request and no other."""
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


async def test_the_documented_event_has_the_sent_fields(scene: Scene) -> None:
    """The documentation and the request have the same fields."""
    (sample,) = blocks("json")
    (shown,) = json.loads(sample)["events"]
    record = FailureRecord(kind="timeout", summary="no answer")
    async with scene.notifier() as notifier:
        notifier.finished(replace(report(), results=(Result(ref("a"), "failed", error=record),)))
    (sent,) = scene.events()
    assert list(shown) == list(sent)
    assert list(shown["error"]) == list(sent["error"])


def test_the_documented_configuration_is_valid(tmp_path: Path) -> None:
    """It can be pasted into a file, and shows the defaults."""
    (sample,) = blocks("yaml")
    (tmp_path / "notify-secret").touch()
    file = tmp_path / "keysync.yaml"
    file.write_text((ROOT / "config/minimal.yaml").read_text(encoding="utf-8") + sample, encoding="utf-8")
    shown = load_config(file, {}).notify
    assert shown is not None
    assert shown == Notify(url=shown.url, secret_file=shown.secret_file)


async def test_states_are_kept_between_runs(scene: Scene) -> None:
    """A failure and its end are one event each; a stop is one event until it is over."""
    async with scene.notifier() as notifier:
        for run_report in (
            report(("a", "failed")),
            report(("a", "failed"), stopped="too much"),
            report(("a", "failed"), stopped="too much"),
            report(("a", "unchanged")),
        ):
            notifier.finished(run_report)
    assert scene.names() == ["failed", "stopped", "recovered", "released"]


@pytest.mark.parametrize(
    ("events", "sent"),
    [
        (["changed"], ["changed"]),
        (["failed", "recovered"], ["failed", "recovered"]),
        (["stopped"], ["stopped", "released"]),
    ],
)
async def test_only_the_configured_events_are_sent(scene: Scene, events: list[str], sent: list[str]) -> None:
    """``stopped`` includes ``released``."""
    async with scene.notifier(events=events) as notifier:
        notifier.finished(report(("a", "failed"), ("b", "created"), stopped="too much"))
        notifier.finished(report(("a", "unchanged")))
    assert scene.names() == sent


async def test_a_dry_run_causes_no_events(scene: Scene) -> None:
    """It changes nothing, and its results are not kept."""
    async with scene.notifier() as notifier:
        notifier.finished(report(("a", "failed"), dry_run=True))
        notifier.finished(report(("a", "unchanged")))
    assert scene.receiver.received == []


async def test_an_interrupted_run_reports_only_its_writes(scene: Scene) -> None:
    """Items that a shutdown interrupted have not failed: a restart must not cause an alarm."""
    async with scene.notifier() as notifier:
        notifier.finished(report(("a", "updated"), ("b", "failed"), ("c", "unknown"), interrupted=True))
    assert scene.names() == ["changed"]


async def test_many_events_are_split_and_none_is_lost(scene: Scene) -> None:
    """A request has at most 100 events."""
    accounts = [f"a{number}" for number in range(250)]
    async with scene.notifier() as notifier:
        notifier.finished(report(*((name, "created") for name in accounts)))
    assert [len(one.json()["events"]) for one in scene.receiver.received] == [100, 100, 50]
    assert [event["secret"] for event in scene.events()] == [f"{name}-primary-key" for name in accounts]


@pytest.mark.parametrize("first", [408, 429, 500, 502, 503, 504, "break"])
async def test_a_temporary_failure_is_retried(scene: Scene, first: int | str) -> None:
    """The same body is sent with a new signature, and each event counts as sent once."""
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
async def test_a_permanent_failure_is_not_retried(scene: Scene, status: int) -> None:
    """A redirect is not followed."""
    scene.receiver.answers = [(status, {"Location": f"{scene.receiver.base}/elsewhere"})]
    delivery = await scene.webhook().post(b"{}")
    assert (delivery.http_status, delivery.attempts) == (status, 1)
    assert delivery.reason is not None
    assert [one.path for one in scene.receiver.received] == ["/hook"]


async def test_attempts_are_limited(scene: Scene) -> None:
    """After five attempts the request fails. The next request has its own five."""
    scene.receiver.answers = [503] * 5
    async with scene.notifier() as notifier:
        notifier.finished(report(("a", "created")))
        await scene.counts.until(failed=1)
        notifier.finished(report(("a", "updated")))
    assert len(scene.receiver.received) == 6
    assert scene.counts.by_end == {"sent": 1, "failed": 1, "dropped": 0}
    assert scene.waits.asked == [1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize(("asked", "waited"), [("7", 7.0), ("0", 0.0), ("3600", 30.0), ("soon", 1.0)])
async def test_retry_after_is_respected_up_to_30_seconds(scene: Scene, asked: str, waited: float) -> None:
    """An invalid value is ignored."""
    scene.receiver.answers = [(429, {"Retry-After": asked})]
    assert (await scene.webhook().post(b"{}")).reason is None
    assert scene.waits.asked == [waited]


def test_waits_have_full_jitter() -> None:
    """From zero to a limit that doubles up to a maximum."""
    spans: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        spans.append((low, high))
        return low

    retries = WebhookRetries(uniform=uniform)
    assert [retries.delay(attempt, None) for attempt in range(1, 7)] == [0.0] * 6
    assert spans == [(0.0, high) for high in (1.0, 2.0, 4.0, 8.0, 15.0, 15.0)]


async def test_a_hung_receiver_costs_one_timeout(scene: Scene) -> None:
    """After the configured timeout, later events are still sent."""
    scene.receiver.answers = ["hang"]
    async with scene.notifier(scene.webhook(timeout=0.3)) as notifier:
        notifier.finished(report(("a", "created")))
        await scene.counts.until(failed=1)
        notifier.finished(report(("a", "updated")))
    assert scene.counts.by_end == {"sent": 1, "failed": 1, "dropped": 0}


async def test_all_attempts_together_have_a_deadline(scene: Scene) -> None:
    """It also ends a wait between attempts."""
    scene.receiver.answers = [503]

    async def forever(_seconds: float) -> None:
        await asyncio.Event().wait()

    delivery = await scene.webhook(retries=WebhookRetries(sleep=forever, deadline=0.2)).post(b"{}")
    assert (delivery.reason, delivery.attempts) == ("not accepted within 0.2 s", 1)


async def test_a_refused_connection_is_retried(scene: Scene, unused_tcp_port: int) -> None:
    """It may be temporary."""
    hook = Webhook(
        scene.session,
        f"https://127.0.0.1:{unused_tcp_port}/",
        Signer(SecretValue(SECRET)),
        timeout=5,
        retries=scene.waits.retries(),
    )
    delivery = await hook.post(b"{}")
    assert (delivery.reason, delivery.attempts) == ("no connection", 5)


async def test_an_untrusted_receiver_gets_nothing(tmp_path: Path) -> None:
    """An unknown certificate authority is not retried."""
    async with opened(tmp_path, trusted=False) as scene:
        delivery = await scene.webhook().post(b"{}")
    assert (delivery.reason, delivery.attempts) == ("no trusted TLS connection", 1)
    assert scene.receiver.received == []


async def test_a_full_queue_drops_the_oldest(scene: Scene) -> None:
    """The dropped events are counted and logged."""
    names = [f"a{number}" for number in range(1003)]
    with structlog.testing.capture_logs() as logged:
        async with scene.notifier() as notifier:
            notifier.finished(report(*((name, "created") for name in names[:500])))
            notifier.finished(report(*((name, "created") for name in names[500:])))
    assert [event["secret"] for event in scene.events()] == [f"{name}-primary-key" for name in names[3:]]
    assert scene.counts.by_end == {"sent": 1000, "failed": 0, "dropped": 3}
    assert {"event": "notify.dropped", "log_level": "warning", "events": 3, "reason": "queue_full"} in logged


async def test_shutdown_waits_for_queued_events_until_its_deadline(scene: Scene) -> None:
    """A hung receiver does not block a shutdown. Unsent events are reported as dropped."""
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


async def test_a_bug_in_the_notifier_does_not_affect_the_run(scene: Scene) -> None:
    """It is logged, and the events of the next run are sent."""

    def broken(_text: str) -> str:
        raise RuntimeError("of the redactor")

    with structlog.testing.capture_logs() as logged:
        async with Notifier(
            scene.webhook(),
            events=EVERYTHING,
            installation=None,
            redact=broken,
            drain_seconds=1,
            count=scene.counts.count,
        ) as notifier:
            notifier.finished(report(("a", "created")))
    assert [one["event"] for one in logged] == ["notify.failed"]
    assert "of the redactor" not in json.dumps(logged)


async def test_the_sender_survives_unexpected_exceptions(scene: Scene) -> None:
    """One request fails, not the task."""
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


async def test_no_secret_is_sent_or_logged(scene: Scene) -> None:
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
    text = json.dumps(logged) + repr(notifier) + repr(notifier.__dict__)
    for secret in (key, SECRET, "of-the-url", "a body that no output may repeat"):
        assert secret not in text


async def test_a_delivery_is_logged_at_debug(scene: Scene) -> None:
    """A working webhook causes no log lines at the default level."""
    with structlog.testing.capture_logs() as logged:
        async with scene.notifier() as notifier:
            notifier.finished(report(("a", "created")))
    assert logged == [{"event": "notify.sent", "log_level": "debug", "events": 1, "attempts": 1, "http_status": 200}]
