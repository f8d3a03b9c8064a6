"""Dates in headers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from keysync.http.retry_after import http_date


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 -0000",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 06 Nov 1994 09:49:37 +0100",
    ],
)
def test_each_form_of_a_date_is_read(text: str) -> None:
    """The three forms of RFC 9110, and a date without a zone, which is in UTC."""
    assert http_date(text) == datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "Sun, 99 Nov 1994 08:49:37 GMT", "1994-11-06T08:49:37Z"])
def test_other_texts_are_no_date(text: str) -> None:
    """A reply may hold anything."""
    assert http_date(text) is None
