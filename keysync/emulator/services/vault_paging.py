"""Pages of Key Vault's lists."""

from __future__ import annotations

from keysync.emulator.services.paging import decode_token, encode_token
from keysync.emulator.services.secret_body import bad_parameter
from keysync.emulator.wire import Call, Json, Refused, Reply

MAX_PAGE = 25


def requested_page(call: Call) -> tuple[str, int]:
    """The name or version after which the requested page starts, and its size. Raises Refused for an invalid size."""
    size = call.query.get("maxresults", str(MAX_PAGE))
    if not size.isdigit() or not 1 <= int(size) <= MAX_PAGE:
        raise Refused(bad_parameter(f"maxresults is between 1 and {MAX_PAGE}."))
    return decode_token(call.query.get("$skiptoken", "")), int(size)


def page_reply(call: Call, items: list[Json], size: int, next_after: str | None) -> Reply:
    """The reply with one page. `next_after` is where the next page starts, None if this is the last one."""
    link = None
    if next_after is not None:
        query = f"api-version={call.query['api-version']}&$skiptoken={encode_token(next_after)}&maxresults={size}"
        link = f"{call.base}{call.raw_path}?{query}"
    return Reply(200, {"value": items, "nextLink": link})
