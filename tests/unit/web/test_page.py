"""The page for people and screen readers, and against injection."""

from __future__ import annotations

import gzip
import re
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser

import pytest

from keysync.failures import CloudError, FailureRecord
from keysync.report.status import AccountStatus, Status, VaultStatus, WriteRecord, sync_state_of
from keysync.sync.model import ItemRef, Result
from keysync.web.page import render_page
from keysync.web.query import Query
from tests.support.snapshots import (
    DENIED,
    GROUP,
    NOW,
    SUBSCRIPTION,
    account,
    ago,
    arm_id,
    failing,
    make_status,
    refused,
    secret,
    unseen,
    varied,
)

from .conftest import Client, Source

STOP = (
    "vault main: 40 of the 42 secrets managed there (95%) would be updated, limits.update_percent is 50. "
    "Nothing was written. If this is meant: keysync sync --accept 0123456789abcdef0123456789abcdef"
)
VOID = {"meta", "link", "input", "rect", "path", "circle", "use", "br"}


class Document(HTMLParser):
    """The elements and the text of a page. Fails if the elements are not nested correctly."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def document(status: Status, **parameters: str) -> Document:
    return Document(render_page(status, Query.parse(parameters)))


def headline_of(status: Status) -> tuple[str, str]:
    html = render_page(status, Query())
    heading = re.search(r'<h1 id="headline" class="(\w+)">.*</svg>(.*)</h1>', html)
    title = re.search(r"<title>(.*?)</title>", html)
    assert heading
    assert title
    assert re.search(rf'<link rel="icon" [^>]*href="static/{heading[1]}\.svg">', html)
    assert "keysync" in title[1]
    return heading[1], heading[2]


@pytest.mark.parametrize(
    ("status", "tone", "text"),
    [
        (make_status(account("a"), account("b")), "good", "All 4 secrets in sync"),
        (make_status(account("a", results=(secret("a"),))), "good", "The secret is in sync"),
        (make_status(account("a"), failing("b")), "bad", "2 of 4 secrets could not be read"),
        (make_status(account("a"), refused("b", "why")), "bad", "1 of 4 secrets out of sync"),
        (make_status(account("a"), stopped=STOP), "bad", "Stopped by a safety limit"),
        (make_status(account("a"), live=False, live_reason="hangs"), "bad", "keysync is not working"),
        (make_status(account("a", stale=True)), "warn", "1 account not seen in sync for too long"),
        (
            make_status(account("a", results=(secret("a", outcome="refused"),), needs_accept=True), stopped=STOP),
            "bad",
            "Stopped by a safety limit",
        ),
        (make_status(), "wait", "No accounts to keep in sync"),
        (make_status(unseen("a"), ready=False), "wait", "The first run is not done yet"),
    ],
)
def test_the_headline_is_the_most_serious_state(status: Status, tone: str, text: str):
    """As text, icon and favicon."""
    assert headline_of(status) == (tone, text)


def test_unchecked_secrets_are_not_in_sync():
    """The page does not say that all is in sync until every secret was checked."""
    assert headline_of(make_status(account("a"), unseen("b"))) == (
        "wait",
        "2 of 4 secrets in sync, the others not checked yet",
    )


@pytest.mark.parametrize(
    ("outcome", "verdict", "state"),
    [
        ("unchanged", "in_sync", "in_sync"),
        ("unchanged", "unmanaged", "in_sync"),
        ("updated", "stale", "in_sync"),
        ("created", "missing", "in_sync"),
        ("refused", "unmanaged", "out_of_sync"),
        ("skipped", "disabled", "out_of_sync"),
        ("failed", "unknown", "unread"),
        ("failed", "stale", "out_of_sync"),
        ("unknown", "stale", "unread"),
        ("update", "stale", "out_of_sync"),
    ],
)
def test_the_state_of_a_secret_follows_its_outcome(outcome: str, verdict: str, state: str):
    """The outcome of a run outweighs the verdict before it."""
    assert sync_state_of(secret("a", outcome=outcome, verdict=verdict)) == state


def test_the_page_has_all_that_an_operator_needs():
    """State, verdicts, times, failures, reasons with hints, vaults, writes and the schedule."""
    text = document(varied()).text
    for words in (
        "3 of 21 secrets out of sync, 4 could not be read, 2 not checked yet",
        "unmanaged, refused",
        "swapped, would be updated",
        "stale, skipped",
        "not checked yet",
        "5 h ago 00:22:00",
        "in 3 min 05:25:20",
        "1,200",
        "HTTP 403 AuthorizationFailed",
        "What to do: grant the identity Microsoft.Batch/batchAccounts/listKeys/action",
        "0f1e2d3c-correlation",
        "(managed by 'terraform')",
        "Schedule",
        "every 5m",
        "failed in 0.41 s: 1 updated, 11 unchanged, 1 refused, 4 failed",
        "https://kv-render-dr.vault.azure.net",
        "calls paused, next try in 42 s",
        "HTTP 429 throttled",
        "simulation-primary-key",
        "00000000000000000000000000000002",
        "read-only",
        "every 1h",
        "running",
        "tokyo",
    ):
        assert words in text, words


def test_a_cause_is_shown_once_per_account():
    """If an account cannot be read, all its secrets have the same reason."""
    html = render_page(make_status(failing("norole")), Query())
    assert html.count("What to do:") == 1


def test_a_shared_cause_is_shown_once_above_the_table():
    """With a count, three names in natural order and the hint. Each row links to it and keeps its own ids."""
    names = [f"farm{number}" for number in range(300, 0, -1)]
    html = render_page(make_status(*(failing(name) for name in names), refused("handmade", "why")), Query())
    page = Document(html)
    cause = page.text[: page.text.index("Accounts and their secrets")]
    assert cause.count("300 accounts: farm1, farm2, farm3 and 297 more") == 1
    assert page.text.count(DENIED.hint or "no hint") == cause.count(DENIED.hint or "no hint") == 1
    assert html.count(DENIED.summary) == 1
    assert page.all("a").count({"href": "#cause-1"}) == 200
    assert [item["id"] for item in page.all("li") if "id" in item] == ["cause-1"]
    assert page.text.count("0f1e2d3c-request") == 200


def test_200_rows_with_one_cause_are_small():
    """Less than 40 KiB with gzip."""
    html = render_page(make_status(*(failing(f"farm{number}") for number in range(1, 301))), Query())
    assert html.count("#cause-1") == 200
    assert len(gzip.compress(html.encode())) < 40 * 1024


def test_messages_of_a_shared_cause_may_differ():
    """Different times, ids and scopes are still one cause. If hints differ, the page names the account of the shown one."""

    def about(name: str) -> AccountStatus:
        return failing(name, error=replace(DENIED, summary=f"denied at {name}", hint=f"grant it on {name}"))

    text = document(make_status(about("farm10"), about("farm2"))).text
    assert "2 accounts: farm2, farm10" in text
    assert "for farm2, and likewise for the others: grant it on farm2" in text
    assert [text.count(f"denied at {name}") for name in ("farm2", "farm10")] == [1, 1]
    assert [text.count(f"What to do: grant it on {name}") for name in ("farm2", "farm10")] == [0, 1]


def test_secrets_are_in_natural_order():
    """farm2 comes before farm10."""
    secrets = tuple(secret(name) for name in ("farm10", "farm2"))
    text = document(make_status(account("farms", results=secrets))).text
    assert text.index("farm2-primary-key") < text.index("farm10-primary-key")


def test_a_safety_limit_has_its_numbers_and_the_command():
    """The command is in an element of its own, for copying."""
    status = make_status(account("a"), stopped=STOP)
    html = render_page(status, Query())
    assert "40 of the 42 secrets managed there (95%)" in html
    assert "<code>keysync sync --accept 0123456789abcdef0123456789abcdef</code>" in html
    without = render_page(replace(status, stopped="another checksum"), Query())
    assert "<p>another checksum</p>" in without


def test_refused_reload_is_reported():
    """With the lines of the error."""
    page = document(make_status(account("a"), config_error="keysync.yaml:7:5: vaults: found 'mian'\nand more"))
    assert "The new configuration is invalid" in page.text
    assert "keysync.yaml:7:5: vaults: found 'mian' and more" in page.text


def test_a_hanging_daemon_gives_its_reason():
    """The page shows the reason of the probe."""
    assert "no run for 15 min" in document(make_status(account("a"), live=False, live_reason="no run for 15 min")).text


def test_times_are_relative_and_absolute():
    """The absolute time is in UTC, with the date if it is another day."""
    html = render_page(make_status(account("a", last_success=ago(days=2, hours=1))), Query())
    assert (
        '<time datetime="2026-11-22T04:22:00Z"><span>2 d ago</span> <small>2026-11-22 04:22:00</small></time>' in html
    )


HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'`{{7*7}}"


def hostile() -> Status:
    """A snapshot with an injection attempt in every text."""
    cloud = CloudError(HOSTILE, HOSTILE, HOSTILE, (CloudError(HOSTILE, HOSTILE),))
    error = FailureRecord(HOSTILE, HOSTILE, 403, cloud, HOSTILE, HOSTILE, HOSTILE, HOSTILE)  # type: ignore[arg-type]
    ref = ItemRef(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    bad = Result(ref, "failed", HOSTILE, HOSTILE, error)
    target = account(HOSTILE, group=HOSTILE, subscription_id=HOSTILE, schedule=HOSTILE, results=(bad,) * 7)
    return make_status(
        target,
        account("other"),
        owner=HOSTILE,
        every=HOSTILE,
        version=HOSTILE,
        stopped=f"{HOSTILE} keysync sync --accept {HOSTILE}",
        config_error=HOSTILE,
        live_reason=HOSTILE,
        live=False,
        vaults=(VaultStatus(HOSTILE, HOSTILE, "failing", error=error),),
        writes=(WriteRecord(NOW, replace(bad, outcome="updated")),),
    )


async def test_texts_are_escaped(client: Client, source: Source):
    """Names, reasons, hints, errors and the query are text everywhere."""
    source.current = hostile()
    reply = await client.request(
        "/?q=%22%3E%3Cscript%3Ealert(3)%3C/script%3E&vault=%22%20onfocus=alert(4)&state=%3Cb%3E"
    )
    assert reply.status == 200
    plain = Document((await client.request("/")).text)
    searched = Document(reply.text)
    for page in (plain, searched):
        assert page.all("script") == [{"src": "static/page.js", "defer": None}]
        assert page.all("img") == []
        assert not [name for _, attributes in page.elements for name in attributes if name.startswith(("on", "style"))]
    assert plain.text.count("<script>alert(1)</script>") > 20
    assert "49" not in plain.text
    assert searched.all("input")[0]["value"] == '"><script>alert(3)</script>'


@pytest.mark.parametrize("status", [varied(), make_status(), hostile()], ids=["varied", "empty", "hostile"])
def test_the_markup_is_valid(status: Status):
    """Correct nesting, one h1, captions and labels, unique ids, and only files of this server."""
    page = document(status)
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == len(page.all("main")) == len(page.all("header")) == len(page.all("footer")) == 1
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(cell.get("scope") in {"col", "row"} for cell in page.all("th"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    marks = [attributes["data-mark"] for attributes in page.all("details")]
    assert len(set(marks)) == len(marks)
    assert len(page.all("label")) == len(page.all("select")) + 1
    files = [
        attributes.get("href") or attributes.get("src") or ""
        for tag in ("link", "script")
        for attributes in page.all(tag)
    ]
    assert files
    assert all(name.startswith("static/") for name in files)
    assert all("style" not in attributes for _, attributes in page.elements)
    assert page.all("style") == []


def test_refreshing_can_be_paused():
    """With and without JavaScript. A filter keeps the pause."""
    running = document(varied(), q="norole")
    assert {"http-equiv": "refresh", "content": "10"} in running.all("meta")
    assert running.all("body") == [{"data-refresh": "10"}]
    assert {"href": "?q=norole&refresh=off"} in running.all("a")
    paused = document(varied(), q="norole", refresh="off")
    assert not [meta for meta in paused.all("meta") if "http-equiv" in meta]
    assert paused.all("script") == []
    assert {"href": "?q=norole"} in paused.all("a")
    assert {"type": "hidden", "name": "refresh", "value": "off"} in paused.all("input")


def test_the_form_shows_the_current_filter():
    """Text, state, vault and order."""
    page = document(varied(), q="sample", state="in_sync", vault="main", sort="-name")
    chosen = [option["value"] for option in page.all("option") if "selected" in option]
    assert chosen == ["in_sync", "main", "-name"]
    assert page.all("input")[0]["value"] == "sample"
    assert "Show all" in page.text


def test_an_empty_result_links_to_all_accounts():
    """Else it would look like a configuration without accounts."""
    page = document(varied(), q="no such thing")
    assert "No account matches. Show all" in page.text
    assert "covers no account" not in page.text


def test_a_single_subscription_is_shown_once():
    """Several subscriptions are shown in the rows."""
    assert document(make_status(account("a"), account("b"))).text.count(SUBSCRIPTION) == 1
    other = account("b", subscription_id=SUBSCRIPTION.replace("0", "9"))
    two = document(make_status(account("a"), other)).text
    assert f"{GROUP} {SUBSCRIPTION}" in two
    assert f"{GROUP} {SUBSCRIPTION.replace('0', '9')}" in two


def test_a_read_only_installation_says_so():
    """It explains why nothing is written."""
    assert "read-only: writes nothing" in document(make_status(account("a"), read_only=True)).text


def test_a_failing_vault_shows_its_hint():
    """As an account does."""
    vault = VaultStatus(
        "main",
        "https://kv-render.vault.azure.net",
        "failing",
        "half_open",
        2,
        2,
        DENIED,
        NOW + timedelta(seconds=5),
    )
    text = document(make_status(account("a"), vaults=(vault,))).text
    assert "trying again, next try in 5 s" in text
    assert "What to do: grant the identity" in text


def test_a_snapshot_can_be_logged():
    """Its repr contains no secret value."""
    assert arm_id("norole") in repr(varied())
