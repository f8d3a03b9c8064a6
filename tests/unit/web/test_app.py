"""The replies of each route, and their headers."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest
import structlog
from prometheus_client import CollectorRegistry, Counter

from keysync.sources.discovery import Unserved
from tests.support.snapshots import account, arm_id, failing, make_status, unseen, varied

from .conftest import Client, Source

ROUTES = [
    "/",
    "/api/status",
    "/healthz",
    "/readyz",
    "/metrics",
    "/static/style.css",
    "/static/page.js",
    "/static/good.svg",
]


@pytest.mark.parametrize("path", ROUTES)
async def test_routes_allow_only_get_and_head(client: Client, path: str):
    """HEAD has no body. Any other method is a 405 with the header Allow."""
    get, head = await client.request(path), await client.request(path, "HEAD")
    assert (get.status, head.status) == (200, 200)
    assert get.text
    assert not head.text
    assert head.headers["Content-Type"] == get.headers["Content-Type"]
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        refused = await client.request(path, method)
        assert refused.status == 405, method
        assert set(refused.headers["Allow"].split(",")) == {"GET", "HEAD"}


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/static/", "/static/nothing.css", "/static/..%2f__init__.py", "/static/%2e%2e/app.py", "/api", "//"],
)
async def test_an_unknown_path_is_404(client: Client, path: str):
    """This includes files beside those of the page."""
    assert (await client.request(path)).status == 404


@pytest.mark.parametrize("path", [*ROUTES, "/nothing"])
async def test_every_reply_has_the_security_headers(client: Client, path: str):
    """A 404 has them too. The policy allows only the page's own files."""
    headers = (await client.request(path)).headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["base-uri"] == "'none'"
    assert {policy[name] for name in ("style-src", "script-src", "img-src", "connect-src", "form-action")} == {"'self'"}
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Server"] == "keysync"
    assert "Set-Cookie" not in headers


async def test_a_405_has_the_security_headers(client: Client):
    """A refused method gets the same headers as any reply."""
    assert "Content-Security-Policy" in (await client.request("/", "POST")).headers


async def test_api_status_is_the_snapshot(client: Client, source: Source):
    """Times are in UTC to the second, and there are the counts."""
    source.current = varied()
    reply = await client.request("/api/status")
    body = json.loads(reply.text)
    assert reply.headers["Content-Type"] == "application/json; charset=utf-8"
    assert body["now"] == "2026-11-24T05:22:00Z"
    assert body["counts"] == {"accounts": 10, "secrets": 21, "in_sync": 12, "out_of_sync": 3, "unread": 4, "pending": 2}
    norole = next(item for item in body["accounts"] if item["name"] == "norole")
    assert norole["account"] == arm_id("norole")
    assert norole["secrets"][0]["error"]["cloud_error"]["code"] == "AuthorizationFailed"
    assert norole["secrets"][0]["error"]["hint"].startswith("grant the identity")


async def test_large_replies_are_compressed(client: Client, source: Source):
    """Only if the client accepts gzip."""
    source.current = make_status(*(account(f"acct{n}") for n in range(50)))
    for path in ("/", "/api/status"):
        plain = await client.request(path, Accept_Encoding="identity")
        compressed = await client.request(path, Accept_Encoding="gzip")
        assert "Content-Encoding" not in plain.headers
        assert compressed.headers["Content-Encoding"] == "gzip"
        assert compressed.text == plain.text


async def test_healthz_reports_the_liveness(client: Client, source: Source):
    """Live is 200, not live is 503 with the reason."""
    assert json.loads((await client.request("/healthz")).text) == {"live": True, "reason": None}
    source.current = replace(varied(), live=False, live_reason="no run has started for 15 min")
    reply = await client.request("/healthz")
    assert reply.status == 503
    assert json.loads(reply.text) == {"live": False, "reason": "no run has started for 15 min"}


async def test_failing_accounts_do_not_fail_the_probes(client: Client, source: Source):
    """Azure's errors are no reason for a restart: both probes return 200, and readiness names the stale accounts."""
    source.current = make_status(failing("norole", stale=True), stopped="a limit")
    assert (await client.request("/healthz")).status == 200
    reply = await client.request("/readyz")
    assert reply.status == 200
    assert json.loads(reply.text) == {"ready": True, "reason": None, "stale_accounts": [arm_id("norole")]}


async def test_readyz_waits_for_the_first_run(client: Client, source: Source):
    """Not ready is 503. The page is served all the same."""
    source.current = make_status(unseen("alpha"), ready=False, ready_reason="the first run is not done")
    reply = await client.request("/readyz")
    assert reply.status == 503
    assert json.loads(reply.text) == {"ready": False, "reason": "the first run is not done", "stale_accounts": []}
    assert (await client.request("/")).status == 200


async def test_a_standby_is_ready(client: Client, source: Source):
    """Else a roll-out would wait for its readiness forever. The page shows the standby."""
    reason = "standing by: another replica leads"
    source.current = make_status(unseen("alpha"), leader=False, ready_reason=reason, next_run=None)
    reply = await client.request("/readyz")
    assert reply.status == 200
    assert json.loads(reply.text)["reason"] == reason
    assert "Standing by: another replica leads" in (await client.request("/")).text
    metrics = (await client.request("/metrics")).text
    assert 'keysync_standby_unready{reason="never_read"} 0.0' in metrics


async def test_an_account_that_is_no_longer_served_is_on_the_page(client: Client, source: Source):
    """Even if all others are in sync: as the headline, a line with the reason, and a metric."""
    reason = "it is not provisioned: its state is Deleting"
    source.current = make_status(account("alpha"), unserved=(Unserved(arm_id("retired"), reason, 0.0),))
    page = (await client.request("/")).text
    assert "1 account no longer served" in page
    assert f"<li>{arm_id('retired')}: {reason}</li>" in page
    assert "keysync_accounts_unserved 1.0" in (await client.request("/metrics")).text
    many = tuple(Unserved(arm_id(f"gone{number}"), reason, 0.0) for number in range(1_021))
    source.current = make_status(account("alpha"), unserved=many)
    page = (await client.request("/")).text
    assert page.count(reason) == 20
    assert "<li>and 1,001 more</li>" in page
    source.current = make_status(account("alpha"))
    assert "keysync_accounts_unserved 0.0" in (await client.request("/metrics")).text
    assert "no longer served" not in (await client.request("/")).text


async def test_a_standby_that_cannot_read_its_lease_is_not_ready(client: Client, source: Source):
    """Probe, page and metric give the reason."""
    reason = "standing by, but could not take over: the Lease render/keysync was never read: Kubernetes answered 403"
    source.current = make_status(
        leader=False, ready=False, ready_reason=reason, lease_trouble="never_read", next_run=None
    )
    reply = await client.request("/readyz")
    assert reply.status == 503
    assert json.loads(reply.text) == {"ready": False, "reason": reason, "stale_accounts": []}
    page = (await client.request("/")).text
    assert "Standing by, but could not take over: the Lease render/keysync was never read" in page
    assert "another replica leads" not in page
    metrics = (await client.request("/metrics")).text
    assert 'keysync_standby_unready{reason="never_read"} 1.0' in metrics
    assert 'keysync_standby_unready{reason="stale"} 0.0' in metrics


@pytest.mark.parametrize(
    ("accept", "content_type", "last"),
    [
        ("*/*", "text/plain", "keysync_runs_total 2.0"),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text", "# EOF"),
    ],
)
async def test_metrics_are_those_of_the_given_registry(
    client: Client, registry: CollectorRegistry, accept: str, content_type: str, last: str
):
    """In the format that the scraper requests, without the metrics of other registries."""
    Counter("keysync_runs", "Runs.", registry=registry).inc(2)
    reply = await client.request("/metrics", Accept=accept)
    assert reply.headers["Content-Type"].startswith(content_type)
    assert "keysync_runs_total 2.0" in reply.text
    assert "python_info" not in reply.text
    assert any(line.startswith(last) for line in reply.text.splitlines())


async def test_metrics_use_a_new_snapshot_for_each_scrape(client: Client, source: Source):
    """The snapshot is taken on the event loop, because the loop changes its sources."""
    threads: list[int] = []
    source.on_status = lambda: threads.append(threading.get_ident())
    for status, stopped in ((varied(), 0), (replace(varied(), stopped="too much"), 1)):
        source.current = status
        text = (await client.request("/metrics")).text
        assert f"keysync_safety_limit_active {stopped}.0" in text
        assert 'keysync_credential_breaker{credential="client_secret"} 2.0' in text
        assert 'keysync_accounts_by_state{state="refused"} 1.0' in text
    assert threads == [threading.get_ident()] * 2


@pytest.mark.parametrize("path", ["/", "/api/status", "/healthz", "/readyz", "/metrics"])
async def test_an_internal_error_hides_its_text(client: Client, source: Source, path: str):
    """The text of an exception could contain a secret: the reply has none of it, the log has its type."""
    source.current = RuntimeError("plaintext of something")
    with structlog.testing.capture_logs() as log:
        reply = await client.request(path)
    assert reply.status == 500
    assert "plaintext" not in reply.text
    assert "Traceback" not in reply.text
    assert reply.headers["Cache-Control"] == "no-store"
    assert log == [{"event": "web.failed", "log_level": "error", "path": path, "error": "RuntimeError"}]
