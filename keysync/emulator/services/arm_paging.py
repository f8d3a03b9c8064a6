"""Pages of the listings of Resource Manager."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import quote, urlencode

from keysync.emulator.services.arm import ArmRequest
from keysync.emulator.services.paging import decode_index, encode_token
from keysync.emulator.wire import Json, Reply

T = TypeVar("T")


def page_of(
    request: ArmRequest, items: Sequence[T], body: Callable[[T], Json], size: int, *, position: str = "%24skiptoken"
) -> Reply:
    """The requested page of `items`, at most `size` or ``$top`` of them.

    The link to the next page keeps the query. `position` is the name of the skip token in it, as the service writes it.
    """
    query = {name: value for name, value in request.call.query.items() if name.lower() != "$skiptoken"}
    top = query.get("$top", "")
    size = min(size, int(top)) if top.isdigit() and int(top) > 0 else size
    first = decode_index(request.call.query.get("$skiptoken", ""))
    last = first + size
    page: Json = {"value": [body(item) for item in items[first:last]]}
    if last < len(items):
        link = f"{request.call.base}{request.call.raw_path}?{urlencode(query, quote_via=quote)}"
        page["nextLink"] = f"{link}&{position}={encode_token(str(last))}"
    return Reply(200, page)
