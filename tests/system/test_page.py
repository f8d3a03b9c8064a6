"""The status page in a real browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from keysync.report.status import Status
from keysync.web.app import make_web_app
from keysync.web.server import open_server
from tests.support.chromium import Tab, chromium_tab
from tests.support.snapshots import account, ago, failing, fleet, make_status, varied

pytestmark = pytest.mark.slow

# Every text whose contrast with its background is below WCAG's AA, except disabled and hidden ones.
CONTRAST = """
(() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const part = (value) => { const s = value / 255; return s <= 0.03928 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4; };
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    const says = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!says || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const [one, other] = [light(parse(style.color)), light(ground(element))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    if (ratio < 4.5) found.push(`${element.tagName}.${element.className}: ${ratio.toFixed(2)}`);
  }
  return [...new Set(found)];
})()
"""
FOCUSED = (
    "(({ id, name, tagName, className }) => ({ id, name, tag: tagName, class: className }))(document.activeElement)"
)


class Shown:
    """A running page in a tab; `status` can be changed while it runs."""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab
        self.url = ""
        self.current = varied()

    def status(self) -> Status:
        return self.current

    async def open(self, query: str = "") -> None:
        await self.tab.open(f"{self.url}/{query}")

    async def names(self) -> list[str]:
        """The visible accounts, from the top."""
        js = (
            "[...document.querySelectorAll('section:has(#accounts) tbody th')].map((one) => one.firstChild.data.trim())"
        )
        results: list[str] = await self.tab.js(js)
        return results

    async def tree(self) -> list[tuple[str, str]]:
        """Role and name of everything that a screen reader finds."""
        nodes = (await self.tab.send("Accessibility.getFullAXTree"))["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")
        ]


@pytest.fixture
async def shown() -> AsyncIterator[Shown]:
    async with chromium_tab() as tab:
        page = Shown(tab)
        async with open_server(make_web_app(page.status, CollectorRegistry()), "127.0.0.1", 0) as bound:
            page.url = bound.url
            await tab.size(1280, 900)
            yield page


async def test_the_browser_reports_no_error(shown: Shown):
    """No error in the console or of the network, and no breach of the content policy, for any kind of snapshot."""
    for status in (varied(), make_status(), fleet(500), replace(varied(), stopped="a limit", config_error="wrong")):
        shown.current = status
        await shown.open()
        await shown.open("?refresh=off&q=acct&sort=-name&page=2")
    assert await shown.tab.js("document.styleSheets.length") == 1
    assert shown.tab.complaints() == []


async def test_it_is_accessible_to_screen_readers(shown: Shown):
    """Landmarks, one main heading with the state, a heading and a named table for each part, named controls."""
    await shown.open()
    tree = await shown.tree()
    headings = [name for role, name in tree if role == "heading"]
    assert headings == [
        "3 of 21 secrets out of sync, 4 could not be read, 2 not checked yet",
        "Accounts no longer served (last 24 hours); their secrets stay unchanged",
        "Causes that affect several accounts",
        "Accounts",
        "Vaults",
        "Recent writes",
    ]
    tables = {name for role, name in tree if role == "table"}
    assert tables == {"Accounts and their secrets", "Vaults", "Recent writes, the newest first"}
    for landmark in ("banner", "main", "contentinfo", "search"):
        assert [role for role, _ in tree].count(landmark) == 1, landmark
    assert ("rowheader", "norole default-azurebatch-japaneast") in tree
    assert ("columnheader", "State") in tree
    assert ("link", "2 failing") in tree
    assert {name for role, name in tree if role in {"searchbox", "combobox"}} == {"Find", "State", "Vault", "Order"}
    assert ("button", "Show") in tree


async def test_cards_on_a_phone_are_still_a_table_for_screen_readers(shown: Shown):
    """The narrow layout does not change the accessibility tree."""
    await shown.tab.size(320, 700, phone=True)
    await shown.open()
    tree = await shown.tree()
    assert ("table", "Accounts and their secrets") in tree
    assert [role for role, _ in tree].count("rowheader") == 10 + 2 + 3


async def test_the_keyboard_reaches_everything_in_order(shown: Shown):
    """Tab moves to the skip link, which becomes visible, then to the header and the filter. Enter on the skip link
    skips them.
    """
    await shown.open()
    await shown.tab.key("Tab")
    assert (await shown.tab.js(FOCUSED))["class"] == "skip"
    assert await shown.tab.js("document.activeElement.getBoundingClientRect().left >= 0")
    visited: list[Any] = []
    for _ in range(9):
        await shown.tab.key("Tab")
        visited.append(await shown.tab.js(FOCUSED))
        ring = await shown.tab.js("getComputedStyle(document.activeElement).outlineStyle")
        assert ring != "none", visited[-1]
    names = [control["name"] for control in visited if control["name"]]
    assert names == ["q", "state", "vault", "sort"]
    await shown.tab.js("document.querySelector('.skip').focus()")
    await shown.tab.key("Enter")
    assert (await shown.tab.js(FOCUSED))["id"] == "main"


async def test_an_error_opens_by_keyboard(shown: Shown):
    """Its hint is hidden until it is opened."""
    await shown.open()
    assert not await shown.tab.js("document.querySelector('.problem .hint').checkVisibility()")
    await shown.tab.js("document.querySelector('.problem:has(.hint) summary').focus()")
    await shown.tab.key("Enter")
    assert await shown.tab.js("document.querySelector('.problem .hint').checkVisibility()")


async def test_it_works_without_javascript(shown: Shown):
    """The form filters, a heading sorts, and the browser itself refreshes the page with the same query."""
    await shown.open()
    await shown.tab.send("Emulation.setScriptExecutionDisabled", value=True)
    await shown.open()
    await shown.tab.js("document.querySelector('input[name=q]').focus()")
    await shown.tab.send("Input.insertText", text="norole")
    since = len(shown.tab.events)
    await shown.tab.key("Enter")
    await shown.tab.seen("Page.loadEventFired", since)
    assert await shown.names() == ["norole"]
    assert await shown.tab.js("document.querySelectorAll('meta[http-equiv=refresh]').length") == 1
    await shown.open("?sort=name")
    link = "document.querySelector('[aria-sort] a').click()"
    since = len(shown.tab.events)
    await shown.tab.js(link)
    await shown.tab.seen("Page.loadEventFired", since)
    assert (await shown.names())[0] == "watched"
    assert await shown.tab.js("document.querySelector('[aria-sort]').ariaSort") == "descending"


async def test_a_refresh_keeps_the_reading_position(shown: Shown):
    """The script updates the page; open details, focus, typed text and scroll position stay."""
    # The page's own timer, which fires when the test says so.
    hurry = "window.waiting = []; window.setTimeout = (action) => window.waiting.push(action);"
    await shown.tab.send("Page.addScriptToEvaluateOnNewDocument", source=hurry)
    shown.current = make_status(*(failing(f"acct{n:03}") for n in range(60)))
    await shown.open()
    await shown.tab.js("document.querySelectorAll('.problem')[40].open = true")
    await shown.tab.js("document.querySelectorAll('.problem summary')[40].focus()")
    await shown.tab.js("document.querySelector('input[name=q]').value = 'half a w'")
    before = await shown.tab.js("scrollY")
    assert before > 0
    shown.current = make_status(
        *(failing(f"acct{n:03}", failures=77) for n in range(60)), stopped="a limit was reached"
    )
    await shown.tab.js("window.waiting.pop()()")
    assert await shown.tab.js("document.body.innerText.includes('a limit was reached')")
    assert await shown.tab.js("document.querySelectorAll('.problem[open]').length") == 1
    assert await shown.tab.js("document.querySelectorAll('.problem')[40].open")
    assert await shown.tab.js("document.activeElement === document.querySelectorAll('.problem summary')[40]")
    assert await shown.tab.js("document.querySelector('input[name=q]').value") == "half a w"
    assert await shown.tab.js("document.querySelectorAll('tbody .number .bad')[0].textContent") == "77"
    assert await shown.tab.js("document.title") == "stopped by a limit · keysync"
    assert await shown.tab.js("document.getElementById('headline').textContent") == "Stopped by a safety limit"
    assert await shown.tab.js("window.waiting.length") == 1
    assert shown.tab.complaints() == []


async def test_the_page_shows_that_the_daemon_is_gone(shown: Shown):
    """Old data is marked as old until the daemon answers again."""
    hurry = "window.waiting = []; window.setTimeout = (action) => window.waiting.push(action);"
    await shown.tab.send("Page.addScriptToEvaluateOnNewDocument", source=hurry)
    await shown.open()
    await shown.tab.send(
        "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1
    )
    await shown.tab.js("window.waiting.pop()()")
    assert await shown.tab.js("document.getElementById('lost').checkVisibility()")
    assert len(await shown.names()) == 10
    await shown.tab.send(
        "Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1
    )
    await shown.tab.js("window.waiting.pop()()")
    assert not await shown.tab.js("document.getElementById('lost').checkVisibility()")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 320])
async def test_everything_can_be_read_in_both_schemes(shown: Shown, scheme: str, width: int):
    """Text has a contrast of at least 4.5, also in details and banners; the dark scheme is dark."""
    shown.current = replace(
        varied(), stopped="a limit: keysync sync --accept 0123", config_error="wrong", read_only=True
    )
    await shown.tab.prefer(prefers_color_scheme=scheme)
    await shown.tab.size(width, 900)
    await shown.open()
    await shown.tab.js("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert await shown.tab.js(CONTRAST) == []
    ground = await shown.tab.js("getComputedStyle(document.body).backgroundColor")
    red = int(ground.removeprefix("rgb(").split(",")[0])
    assert (red < 64) == (scheme == "dark")


@pytest.mark.parametrize("width", [320, 390, 768, 900, 1024])
async def test_no_page_scrolls_sideways(shown: Shown, width: int):
    """At any width, also with names of Azure's maximum length."""
    (denied, _) = failing("x").results
    results = (replace(denied, ref=replace(denied.ref, secret="s" * 127, vault="v" * 60)),)
    long = account("a" * 24, group="g" * 90, last_success=ago(days=400), results=results)
    other = account("other", subscription_id="9" * 36, group="g" * 90, results=results)
    shown.current = replace(
        varied(), accounts=(*varied().accounts, long, other), stopped="n" * 200, config_error="c" * 200
    )
    await shown.tab.size(width, 700, phone=width < 500)
    await shown.open()
    await shown.tab.js("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert await shown.tab.js("document.documentElement.scrollWidth <= innerWidth")
    assert await shown.tab.js("innerWidth") == width


async def test_nothing_moves_with_reduced_motion(shown: Shown):
    """With reduced motion there is no transition and no animation."""
    await shown.tab.prefer(prefers_reduced_motion="reduce")
    await shown.open()
    moving = (
        "[...document.querySelectorAll('*')].filter((one) => getComputedStyle(one).transitionDuration !== '0s').length"
    )
    assert await shown.tab.js(moving) == 0
    assert await shown.tab.js("document.getAnimations().length") == 0
