"""Query parameters: filters, orders, page numbers."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysync.web.page import page_data, render_page
from keysync.web.query import SORTS, Query
from tests.support.snapshots import NOW, account, ago, failing, fleet, make_status, refused, secret, varied

DEFAULT = Query()


def names(parameters: dict[str, str], *accounts: object) -> list[str]:
    shown = page_data(make_status(*accounts) if accounts else varied(), Query.parse(parameters))  # type: ignore[arg-type]
    return [row.account.name for row in shown["accounts"]]


def test_the_most_urgent_accounts_come_first():
    """Failing, refused, needs_accept, drift, stale, and in_sync last."""
    assert names({}) == [
        "entraonly",
        "norole",
        "handmade",
        "waiting",
        "watched",
        "nightly",
        "newcomer",
        "simulation",
        "renderfarm",
        "sampleacct",
    ]


@pytest.mark.parametrize(
    ("parameters", "matching"),
    [
        ({"state": "failing"}, {"entraonly", "norole"}),
        ({"state": "stale"}, {"entraonly", "norole", "nightly"}),
        ({"state": "attention"}, {"entraonly", "norole", "handmade", "waiting", "watched", "nightly"}),
        ({"vault": "disaster"}, {"renderfarm"}),
        ({"vault": "none"}, set()),
        ({"q": "NOROLE"}, {"norole"}),
        ({"q": "sampleacct-secondary"}, {"sampleacct"}),
        ({"q": "terraform"}, {"handmade"}),
        ({"q": "safety limit"}, {"waiting"}),
        ({"q": "norole", "state": "in_sync"}, set()),
    ],
)
def test_a_filter_selects_the_matching_accounts(parameters: dict[str, str], matching: set[str]):
    """By state, by vault, and by text in names, ids and reasons, ignoring case."""
    assert set(names(parameters)) == matching


def test_every_order_and_its_reverse():
    """Equal accounts are sorted by name."""
    first = account("beta", last_success=ago(hours=1), next_try=NOW)
    second = account("Alpha", last_success=ago(hours=2), next_try=None)
    third = failing("gamma", failures=5)
    accounts = (first, second, third)
    assert names({"sort": "name"}, *accounts) == ["Alpha", "beta", "gamma"]
    assert names({"sort": "-name"}, *accounts) == ["gamma", "beta", "Alpha"]
    assert names({"sort": "success"}, *accounts) == ["gamma", "Alpha", "beta"]
    assert names({"sort": "next"}, *accounts) == ["beta", "gamma", "Alpha"]
    assert names({"sort": "failures"}, *accounts) == ["gamma", "Alpha", "beta"]
    assert names({"sort": "-failures"}, *accounts) == ["Alpha", "beta", "gamma"]
    assert names({"sort": "state"}, *accounts) == ["gamma", "Alpha", "beta"]


def test_one_column_has_aria_sort():
    """The sorted column has it, with the direction of its values."""

    def directions(sort: str) -> list[tuple[str, str]]:
        html = render_page(varied(), Query(sort=sort))
        return re.findall(r'aria-sort="(\w+)"><a href="[^"]*">([^<]+)<', html)

    assert directions("name") == [("ascending", "Account")]
    assert directions("-name") == [("descending", "Account")]
    assert directions("failures") == [("descending", "Failures in a row")]
    assert directions("-failures") == [("ascending", "Failures in a row")]


def test_a_heading_reverses_its_order():
    """The first click sorts, the second reverses, the third sorts again. Filters stay."""
    query = Query(text="a b", sort="name")
    assert query.sorted_href("name") == "?q=a+b&sort=-name"
    assert query.sorted_href("success") == "?q=a+b&sort=success"
    assert Query(sort="-name").sorted_href("name") == "?sort=name"


def test_each_account_is_on_one_page():
    """A page number beyond the last page shows the last page."""
    status = fleet(450)
    pages = [page_data(status, Query.parse({"page": str(page)})) for page in (1, 2, 3, 99)]
    assert [(page["first"], page["last"], page["matching"], page["pages"]) for page in pages] == [
        (1, 200, 450, 3),
        (201, 400, 450, 3),
        (401, 450, 450, 3),
        (401, 450, 450, 3),
    ]
    assert pages[3]["query"].page == 3
    names_shown = [row.account.name for page in pages[:3] for row in page["accounts"]]
    assert len(set(names_shown)) == len(names_shown) == 450


def test_a_page_beyond_the_last_keeps_the_other_parameters():
    """Also a paused refresh."""
    shown = page_data(varied(), Query.parse({"q": "key", "sort": "-name", "page": "7", "refresh": "off"}))
    assert shown["query"] == Query(text="key", sort="-name", page=1, refresh=False)


@pytest.mark.parametrize("page", ["0", "-1", "x", "1e3", "²", "9" * 5000, ""])
def test_an_invalid_page_number_is_the_first_page(page: str):
    """It is no error."""
    assert Query.parse({"page": page}).page == 1


@given(st.dictionaries(st.sampled_from(["q", "state", "vault", "sort", "page", "refresh"]), st.text()))
def test_any_parameters_give_a_page(parameters: dict[str, str]):
    """With a valid order."""
    query = Query.parse(parameters)
    assert query.sort.removeprefix("-") in SORTS
    shown = page_data(varied(), query)
    assert shown["matching"] <= 10


def test_a_link_omits_default_values():
    """Other values are escaped."""
    assert DEFAULT.href() == "?"
    assert Query(text='"&<', refresh=False).href(state="failing") == "?q=%22%26%3C&state=failing&refresh=off"


def test_many_secrets_are_summarised():
    """The row says how many of them are in sync."""
    many = account("wide", results=tuple(secret("wide", vault=f"v{n}") for n in range(9)))
    assert "<summary>9 of 9 in sync</summary>" in render_page(make_status(many, refused("other", "why")), DEFAULT)
