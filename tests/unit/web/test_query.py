"""What an address asks for: filters, orders, pages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysync.web.query import SORTS, Query
from keysync.web.view import make_view
from tests.support.statuses import NOW, account, ago, failing, fleet, make_status, refused, secret, varied

NOTHING = Query()


def names(parameters: dict[str, str], *accounts: object) -> list[str]:
    shown = make_view(make_status(*accounts) if accounts else varied(), Query.parse(parameters))  # type: ignore[arg-type]
    return [row.account.name for row in shown.accounts]


def test_what_needs_a_person_comes_first():
    """Failing before refused before held before drift; what is in sync comes last, but stale before that."""
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
    ("parameters", "found"),
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
def test_a_filter_leaves_what_was_asked_for(parameters: dict[str, str], found: set[str]):
    """By state, by vault, by text anywhere in names, ids and reasons, without regard to case."""
    assert set(names(parameters)) == found


def test_every_order_and_its_reverse():
    """Each order does what its name says; accounts that are equal in it go by name."""
    first = account("beta", last_success=ago(hours=1), next_try=NOW)
    second = account("Alpha", last_success=ago(hours=2), next_try=None)
    third = failing("gamma", failures=5)
    three = (first, second, third)
    assert names({"sort": "name"}, *three) == ["Alpha", "beta", "gamma"]
    assert names({"sort": "-name"}, *three) == ["gamma", "beta", "Alpha"]
    assert names({"sort": "success"}, *three) == ["gamma", "Alpha", "beta"]
    assert names({"sort": "next"}, *three) == ["beta", "gamma", "Alpha"]
    assert names({"sort": "failures"}, *three) == ["gamma", "Alpha", "beta"]
    assert names({"sort": "-failures"}, *three) == ["Alpha", "beta", "gamma"]
    assert names({"sort": "state"}, *three) == ["gamma", "Alpha", "beta"]


def test_one_column_tells_that_it_is_sorted():
    """`aria-sort` stands on the column in force, in the direction in which its values run."""

    def directions(sort: str) -> dict[str, str | None]:
        return {column.title: column.direction for column in make_view(varied(), Query(sort=sort)).columns}

    assert [title for title, way in directions("name").items() if way] == ["Account"]
    assert directions("name")["Account"] == "ascending"
    assert directions("-name")["Account"] == "descending"
    assert directions("failures")["Failures in a row"] == "descending"
    assert directions("-failures")["Failures in a row"] == "ascending"


def test_a_heading_turns_its_order_around():
    """The first click orders, the next reverses, the third goes back; filters stay."""
    query = Query(text="a b", sort="name")
    there = {column.title: column.href for column in make_view(varied(), query).columns}
    assert there["Account"] == "?q=a+b&sort=-name"
    assert there["Last success"] == "?q=a+b&sort=success"
    back = {column.title: column.href for column in make_view(varied(), Query(sort="-name")).columns}
    assert back["Account"] == "?sort=name"


def test_pages_hold_all_accounts_once():
    """Each page has its share, the last one the rest; a page beyond the last is the last."""
    status = fleet(450)
    pages = [make_view(status, Query.parse({"page": str(page)})) for page in (1, 2, 3, 99)]
    assert [(page.first, page.last, page.found, page.pages) for page in pages] == [
        (1, 200, 450, 3),
        (201, 400, 450, 3),
        (401, 450, 450, 3),
        (401, 450, 450, 3),
    ]
    assert pages[3].query.page == 3
    told = [row.account.name for page in pages[:3] for row in page.accounts]
    assert len(set(told)) == len(told) == 450


def test_a_page_beyond_the_last_keeps_the_rest_of_the_question():
    """Also where refreshing is paused."""
    shown = make_view(varied(), Query.parse({"q": "key", "sort": "-name", "page": "7", "refresh": "off"}))
    assert shown.query == Query(text="key", sort="-name", page=1, refresh=False)


@pytest.mark.parametrize("page", ["0", "-1", "x", "1e3", "²", "9" * 5000, ""])
def test_a_page_that_is_no_number_is_the_first(page: str):
    """Nonsense is not an error."""
    assert Query.parse({"page": page}).page == 1


@given(st.dictionaries(st.sampled_from(["q", "state", "vault", "sort", "page", "refresh"]), st.text()))
def test_any_address_gives_a_page(parameters: dict[str, str]):
    """Whatever is asked, there is an answer, and its order is one that exists."""
    query = Query.parse(parameters)
    assert query.sort.removeprefix("-") in SORTS
    shown = make_view(varied(), query)
    assert shown.found <= 10


def test_a_link_leaves_out_what_is_as_usual():
    """So that the plain page has a plain address; what matters is kept and escaped."""
    assert NOTHING.href() == "?"
    assert Query(text='"&<', refresh=False).href(state="failing") == "?q=%22%26%3C&state=failing&refresh=off"


def test_refusals_and_writes_of_many_secrets_open_on_request():
    """An account with many secrets shows how many are in sync."""
    many = account("wide", secrets=tuple(secret("wide", vault=f"v{n}") for n in range(9)))
    row = make_view(make_status(many, refused("other", "why")), NOTHING).accounts[-1]
    assert row.secrets_told == "9 of 9 in sync"
