"""Pages of Key Vault's lists."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from keysync.emulator.services.paging import decode_token, encode_token
from keysync.emulator.services.secret_body import bad_parameter
from keysync.emulator.vault import Vault
from keysync.emulator.wire import Call, Json, Refused, Reply, as_object, parse_json

MAX_PAGE: Final = 25

Fetch = Callable[[str, int], tuple[list[Json], str | None]]
"""Returns at most that many items after a name or version, and where the next page starts, None after the last one."""


def paged(call: Call, vault: Vault, fetch: Fetch) -> Reply:
    """The reply with the requested page of a list. Raises Refused for an invalid page."""
    size = call.query.get("maxresults", str(MAX_PAGE))
    if not size.isdecimal() or not 1 <= int(size) <= MAX_PAGE:
        raise Refused(bad_parameter(f"maxresults is between 1 and {MAX_PAGE}."))
    token = call.query.get("$skiptoken")
    if token is None and vault.empty_page:
        return _reply(call, [], "")
    return _reply(call, *fetch("" if token is None else _position(token), int(size)))


def _reply(call: Call, items: list[Json], next_after: str | None) -> Reply:
    """The reply with one page. `next_after` is where the next page starts, None if this is the last one.

    As in Azure, the link to the next page names the port, and has `maxresults` only if the request had it.
    """
    link = None
    if next_after is not None:
        port = "" if urlsplit(call.base).port else ":443"
        link = (
            f"{call.base}{port}{call.raw_path}?api-version={call.query['api-version']}&$skiptoken={_token(next_after)}"
        )
        if "maxresults" in call.query:
            link += f"&maxresults={call.query['maxresults']}"
    return Reply(200, {"value": items, "nextLink": link})


def _token(position: str) -> str:
    """The skip token for a position: the same fields as in Azure's."""
    return encode_token(json.dumps({"NextMarker": position, "TargetLocation": 0}))


def _position(token: str) -> str:
    try:
        fields = as_object(parse_json(decode_token(token).encode()))
    except ValueError:
        fields = None
    position = fields.get("NextMarker") if fields is not None else None
    if not isinstance(position, str):
        raise Refused(bad_parameter("The skip token is not one of this service."))
    return position
