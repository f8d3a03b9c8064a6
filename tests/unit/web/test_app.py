"""Each route over HTTP: what it answers, to whom, and with which headers."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest
import structlog
from prometheus_client import CollectorRegistry, Counter

from keysync.report.status import UnservedAccount
from tests.support.statuses import account, arm_id, failing, make_status, varied

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
async def test_a_route_is_read_and_nothing_else(client: Client, path: str):
    """GET and HEAD are answered, HEAD without a body; any other method is refused and told what is allowed."""
    got, head = await client.ask(path), await client.ask(path, "HEAD")
    assert (got.status, head.status) == (200, 200)
    assert got.text
    assert not head.text
    assert head.headers["Content-Type"] == got.headers["Content-Type"]
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        refused = await client.ask(path, method)
        assert refused.status == 405, method
        assert set(refused.headers["Allow"].split(",")) == {"GET", "HEAD"}


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/static/", "/static/nothing.css", "/static/..%2f__init__.py", "/static/%2e%2e/app.py", "/api", "//"],
)
async def test_an_unknown_path_is_404(client: Client, path: str):
    """What is not served is not there, files beside the page's own included."""
    assert (await client.ask(path)).status == 404


@pytest.mark.parametrize("path", [*ROUTES, "/nothing"])
async def test_every_reply_binds_the_browser(client: Client, path: str):
    """The headers are on all replies, also on a 404; the policy lets nothing in but the page's own files."""
    headers = (await client.ask(path)).headers
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


async def test_the_405_has_the_headers_too(client: Client):
    """A refusal is a reply like any other."""
    assert "Content-Security-Policy" in (await client.ask("/", "POST")).headers


async def test_the_json_is_the_snapshot(client: Client, source: Source):
    """`/api/status` is `to_dict`, with times in UTC to the second and the counts beside."""
    source.current = varied()
    answer = await client.ask("/api/status")
    told = json.loads(answer.text)
    assert told == source.current.to_dict()
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert told["now"] == "2026-11-24T05:22:00Z"
    assert told["counts"] == {"accounts": 10, "secrets": 21, "in_sync": 12, "out_of_sync": 3, "unread": 4, "pending": 2}
    norole = next(one for one in told["accounts"] if one["name"] == "norole")
    assert norole["account"] == arm_id("norole")
    assert norole["secrets"][0]["error"]["cloud_error"]["code"] == "AuthorizationFailed"
    assert norole["secrets"][0]["error"]["hint"].startswith("grant the identity")


async def test_what_is_large_is_compressed(client: Client, source: Source):
    """A browser that takes gzip gets it."""
    source.current = make_status(*(account(f"acct{n}") for n in range(50)))
    for path in ("/", "/api/status"):
        plain = await client.ask(path, Accept_Encoding="identity")
        packed = await client.ask(path, Accept_Encoding="gzip")
        assert "Content-Encoding" not in plain.headers
        assert packed.headers["Content-Encoding"] == "gzip"
        assert packed.text == plain.text


async def test_healthz_follows_the_daemon(client: Client, source: Source):
    """Live is 200; not live is 503 with the reason."""
    assert json.loads((await client.ask("/healthz")).text) == {"live": True, "reason": None}
    source.current = replace(varied(), live=False, live_reason="no run has started for 15 min")
    answer = await client.ask("/healthz")
    assert answer.status == 503
    assert json.loads(answer.text) == {"live": False, "reason": "no run has started for 15 min"}


async def test_failing_accounts_do_not_kill_the_daemon(client: Client, source: Source):
    """Azure's faults are no reason to restart it: both probes stay well, and readiness names the stale accounts."""
    source.current = make_status(failing("norole", stale=True), stopped="a limit")
    assert (await client.ask("/healthz")).status == 200
    answer = await client.ask("/readyz")
    assert answer.status == 200
    assert json.loads(answer.text) == {"ready": True, "reason": None, "stale_accounts": [arm_id("norole")]}


async def test_readyz_waits_for_the_first_run(client: Client, source: Source):
    """Not ready is 503, while the page can be looked at."""
    source.current = make_status(account("alpha", "pending"), ready=False, ready_reason="the first run is not done")
    answer = await client.ask("/readyz")
    assert answer.status == 503
    assert json.loads(answer.text) == {"ready": False, "reason": "the first run is not done", "stale_accounts": []}
    assert (await client.ask("/")).status == 200


async def test_a_standby_is_ready_and_says_so(client: Client, source: Source):
    """On the page too; a roll-out that waits for readiness would otherwise wait for ever."""
    reason = "standing by: another replica leads"
    source.current = make_status(account("alpha", "pending"), leader=False, ready_reason=reason, next_run=None)
    answer = await client.ask("/readyz")
    assert answer.status == 200
    assert json.loads(answer.text)["reason"] == reason
    assert "Standing by: another replica leads" in (await client.ask("/")).text
    metrics = (await client.ask("/metrics")).text
    assert 'keysync_standby_unready{reason="never_read"} 0.0' in metrics


async def test_an_account_that_is_not_served_any_more_is_on_the_page(client: Client, source: Source):
    """Also where all the others are in sync: it is the headline, a line with the reason, and a metric."""
    reason = "it is not provisioned: its state is Deleting"
    source.current = make_status(account("alpha"), unserved=(UnservedAccount(arm_id("retired"), reason),))
    page = (await client.ask("/")).text
    assert "1 account no longer served" in page
    assert f"<li>{arm_id('retired')}: {reason}</li>" in page
    assert "keysync_accounts_unserved 1.0" in (await client.ask("/metrics")).text
    many = tuple(UnservedAccount(arm_id(f"gone{number}"), reason) for number in range(1_021))
    source.current = make_status(account("alpha"), unserved=many)
    page = (await client.ask("/")).text
    assert page.count(reason) == 20
    assert "<li>and 1,001 more</li>" in page
    source.current = make_status(account("alpha"))
    assert "keysync_accounts_unserved 0.0" in (await client.ask("/metrics")).text
    assert "No longer served" not in (await client.ask("/")).text


async def test_a_standby_that_cannot_read_its_lease_is_not_ready(client: Client, source: Source):
    """Probe, page and metric say so, and give the reason."""
    reason = "standing by, but could not take over: the Lease render/keysync was never read: Kubernetes answered 403"
    source.current = make_status(
        leader=False, ready=False, ready_reason=reason, lease_trouble="never_read", next_run=None
    )
    answer = await client.ask("/readyz")
    assert answer.status == 503
    assert json.loads(answer.text) == {"ready": False, "reason": reason, "stale_accounts": []}
    page = (await client.ask("/")).text
    assert "Standing by, but could not take over: the Lease render/keysync was never read" in page
    assert "another replica leads" not in page
    metrics = (await client.ask("/metrics")).text
    assert 'keysync_standby_unready{reason="never_read"} 1.0' in metrics
    assert 'keysync_standby_unready{reason="stale"} 0.0' in metrics


@pytest.mark.parametrize(
    ("accept", "content_type", "last"),
    [
        ("*/*", "text/plain", "keysync_runs_total 2.0"),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text", "# EOF"),
    ],
)
async def test_metrics_are_the_registry_that_was_handed_in(
    client: Client, registry: CollectorRegistry, accept: str, content_type: str, last: str
):
    """In the format that the scraper asks for, and nothing of another registry."""
    Counter("keysync_runs", "Runs.", registry=registry).inc(2)
    answer = await client.ask("/metrics", Accept=accept)
    assert answer.headers["Content-Type"].startswith(content_type)
    assert "keysync_runs_total 2.0" in answer.text
    assert "python_info" not in answer.text
    assert any(line.startswith(last) for line in answer.text.splitlines())


async def test_metrics_tell_of_the_same_snapshot_as_the_page(client: Client, source: Source):
    """It is made on the event loop, where what it is made from changes, and each scrape has a new one."""
    made_in: list[int] = []
    source.made = lambda: made_in.append(threading.get_ident())
    for status, stopped in ((varied(), 0), (replace(varied(), stopped="too much"), 1)):
        source.current = status
        text = (await client.ask("/metrics")).text
        assert f"keysync_safety_limit_active {stopped}.0" in text
        assert 'keysync_credential_breaker{credential="client_secret"} 2.0' in text
        assert 'keysync_accounts_by_state{state="refused"} 1.0' in text
    assert made_in == [threading.get_ident()] * 2


@pytest.mark.parametrize("path", ["/", "/api/status", "/healthz", "/readyz", "/metrics"])
async def test_a_fault_of_ours_tells_nothing(client: Client, source: Source, path: str):
    """The text of an exception could hold anything: the reply has none of it, the log its type."""
    source.current = RuntimeError("plaintext of something")
    with structlog.testing.capture_logs() as log:
        answer = await client.ask(path)
    assert answer.status == 500
    assert "plaintext" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert log == [{"event": "web.failed", "log_level": "error", "path": path, "error": "RuntimeError"}]
