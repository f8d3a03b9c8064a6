"""Metrics reach a Pushgateway, or the log says why not; the run is not affected."""

from __future__ import annotations

import asyncio
import base64
import threading

import pytest
import structlog
from prometheus_client import CollectorRegistry, Gauge

from keysync.errors import UsageError
from keysync.report.push import check_gateway, grouping_of, push
from keysync.report.threads import in_thread
from tests.support.receiver import receiving


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    Gauge("sample", "A sample.", registry=made).set(42)
    return made


async def pushed(registry: CollectorRegistry, url: str, **options: float) -> list[dict[str, object]]:
    """What was logged."""
    with structlog.testing.capture_logs() as logged:
        await push(registry, url, {}, **options)
    return [dict(one) for one in logged]


async def test_a_push_replaces_the_group(registry: CollectorRegistry) -> None:
    """One PUT to the group of job, installation and shard."""
    async with receiving() as gateway:
        await push(registry, f"{gateway.base}/base/", grouping_of("prod", "0/3"))
    (one,) = gateway.received
    share = base64.urlsafe_b64encode(b"0/3").decode()
    assert (one.method, one.path) == ("PUT", f"/base/metrics/job/keysync/owner/prod/shard@base64/{share}")
    assert b"sample 42.0\n" in one.body


def test_an_unset_owner_or_shard_is_no_label() -> None:
    """Without both, the job alone is the group."""
    assert grouping_of(None, None) == {}
    assert grouping_of("prod", None) == {"owner": "prod"}


@pytest.mark.parametrize("status", [307, 400, 404, 503])
async def test_a_rejected_push_is_a_warning_with_its_status(registry: CollectorRegistry, status: int) -> None:
    """The log has the gateway and the status. A redirect is a failure."""
    async with receiving() as gateway:
        gateway.answers = [(status, {"Location": f"{gateway.base}/elsewhere"})]
        logged = await pushed(registry, gateway.base)
    assert logged == [
        {
            "event": "metrics.push_failed",
            "log_level": "warning",
            "gateway": gateway.base.removeprefix("http://"),
            "reason": f"HTTP {status}",
        }
    ]
    assert len(gateway.received) == 1


async def test_a_hung_gateway_ends_at_the_deadline(registry: CollectorRegistry) -> None:
    """The event loop keeps running: the hung receiver of this test runs in it."""
    async with receiving() as gateway:
        gateway.answers = ["hang"]
        logged = await pushed(registry, gateway.base, seconds=0.3)
    assert [(one["event"], one["reason"]) for one in logged] == [("metrics.push_failed", "no answer within 0.3 s")]


async def test_an_unreachable_gateway_is_a_warning(registry: CollectorRegistry, unused_tcp_port: int) -> None:
    """With the operating system's message."""
    logged = await pushed(registry, f"http://127.0.0.1:{unused_tcp_port}")
    assert [(one["event"], one["reason"]) for one in logged] == [("metrics.push_failed", "Connection refused")]


async def test_a_server_without_http_is_a_warning(registry: CollectorRegistry) -> None:
    """The log has the kind of error, without the server's bytes."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"sample 42.0\n")  # all of it: what is left unread would reset the connection
        writer.write(b"220 smtp.example.com\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        logged = await pushed(registry, f"http://127.0.0.1:{port}")
    assert [(one["event"], one["reason"]) for one in logged] == [("metrics.push_failed", "BadStatusLine")]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "pushgateway:9091",
        "ftp://pushgateway",
        "file:///etc/passwd",
        "http://",
        "http://push gateway",
        "http://a\nb",
        "http://host:port",
        "http://host/?a=b",
        "http://host/#a",
        "http://user:hunter2@host",
        "http://hunter2@host",
        "http://[hunter2",
    ],
)
def test_an_invalid_url_is_refused_without_repeating_it(url: str) -> None:
    """It is a usage error; a password in it is not shown."""
    with pytest.raises(UsageError, match="--push-gateway") as caught:
        check_gateway(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://pushgateway:9091", "https://push.example.com/base/", "http://[::1]:9091"])
def test_a_valid_url_is_unchanged(url: str) -> None:
    """http and https, with or without a port and a path."""
    assert check_gateway(url) == url


async def test_a_hung_call_blocks_neither_loop_nor_process() -> None:
    """After the timeout its daemon thread is abandoned."""
    let_go, found = threading.Event(), []

    def call() -> None:
        found.append(threading.current_thread())
        let_go.wait(20)

    try:
        with pytest.raises(TimeoutError):
            await in_thread(call, seconds=0.1, name="stuck")
        (thread,) = found
        assert thread.daemon
        assert thread.is_alive()
    finally:
        let_go.set()
    await asyncio.to_thread(thread.join, 20)


async def test_the_result_or_exception_of_a_call_is_passed_on() -> None:
    """From its thread to the caller."""
    assert await in_thread(lambda: 7, seconds=20, name="seven") == 7
    with pytest.raises(ValueError, match="nothing"):
        await in_thread(lambda: int("nothing"), seconds=20, name="nothing")
