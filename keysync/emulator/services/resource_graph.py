"""Azure Resource Graph, with the part of KQL that a listing of accounts needs.

A query is a table (`resources`, `resourcecontainers`), then `where COLUMN =~ 'TEXT'`, `where COLUMN in~ (…)`, `project`,
`order by` and `limit`. Unknown subscriptions are ignored, as the service ignores subscriptions that the identity may not
read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from keysync.emulator.services.arm import ArmOperation, ArmRequest
from keysync.emulator.services.batch_bodies import account_body
from keysync.emulator.services.gateway import Gateway
from keysync.emulator.services.paging import decode_token, encode_token
from keysync.emulator.services.resources import Resource, resources_of
from keysync.emulator.state import State
from keysync.emulator.throttle import GRAPH_QUERIES, TokenBuckets
from keysync.emulator.wire import Call, Json, Refused, Reply, as_list, as_object, error, json_body, parse_json

GRAPH_VERSIONS = ("2021-03-01", "2022-10-01", "2024-04-01")
"""The supported api-versions of queries."""

_TEXT = r"'((?:[^'\\]|\\.)*)'"
_STEP = re.compile(r"(?:[^'|]|'(?:[^'\\]|\\.)*')+", re.DOTALL)
_EQUALS = re.compile(rf"where\s+([\w.]+)\s*=~\s*{_TEXT}", re.DOTALL)
_AMONG = re.compile(rf"where\s+([\w.]+)\s+in~\s*\(\s*({_TEXT}(?:\s*,\s*{_TEXT})*)\s*\)", re.DOTALL)
_COLUMN = re.compile(r"(?:(\w+)\s*=\s*)?(?:tostring\(\s*([\w.]+)\s*\)|([\w.]+))")
_ORDER = re.compile(r"order\s+by\s+([\w.]+)(?:\s+(asc|desc))?")
_LIMIT = re.compile(r"(?:limit|take)\s+(\d+)")


def table_of(call: Call) -> str:
    """The table of a query, which is the target for faults; empty if the body is no query."""
    try:
        body = as_object(parse_json(call.body or b"{}"))
    except ValueError:
        return ""
    query = body.get("query") if body is not None else None
    return query.partition("|")[0].strip().lower() if isinstance(query, str) else ""


class ResourceGraph:
    """The provider Microsoft.ResourceGraph: queries of what the caller may read. `buckets` is None without limits."""

    namespace: ClassVar[str] = "Microsoft.ResourceGraph"
    versions: ClassVar[Mapping[str, tuple[str, ...]]] = {"resources": GRAPH_VERSIONS}

    def __init__(self, state: State, gateway: Gateway, buckets: TokenBuckets | None, *, page_size: int) -> None:
        self._state = state
        self._gateway = gateway
        self._buckets = buckets
        self._page_size = page_size

    def find(self, request: ArmRequest) -> ArmOperation | None:
        """The operation that a request is for, None if there is none."""
        if request.call.method != "POST" or request.words != ("resources",) or request.scope:
            return None
        return ArmOperation("queryResources", table_of(request.call), lambda: self._limited(request.call))

    def _limited(self, call: Call) -> Reply:
        if self._buckets is None:
            return self.query(call)
        decision = self._buckets.take(("graph", self._gateway.token(call).object_id), GRAPH_QUERIES)
        quota = {"x-ms-user-quota-remaining": str(decision.remaining), "x-ms-user-quota-resets-after": "00:00:05"}
        if decision.allowed:
            reply = self.query(call)
            reply.headers = {**quota, **reply.headers}
            return reply
        message = (
            "Client application has been throttled and should not attempt to repeat the request until an amount of time "
            "has elapsed."
        )
        return error(429, "RateLimiting", message, headers={**quota, "Retry-After": str(decision.retry_after)})

    def query(self, call: Call) -> Reply:
        """The reply to one query."""
        body = json_body(call)
        query = body.get("query")
        if not isinstance(query, str) or not query.strip():
            return _bad("BadRequest", "The query is missing.")
        table, *steps = (step.strip() for step in _STEP.findall(query))
        rows, limited = _run(list(self._table(call, table.lower(), self._visible(call, body))), steps)
        return self._page(body, rows, limited)

    def _visible(self, call: Call, body: Json) -> list[str]:
        requested = as_list(body.get("subscriptions"))
        existing = [each for each in self._state.by_subscription if self._gateway.sees(call, f"/subscriptions/{each}")]
        if not requested:
            return existing
        visible = [str(subscription).lower() for subscription in requested if str(subscription).lower() in existing]
        if not visible:
            message = "The query request has no valid subscriptions."
            details = [{"code": "NoValidSubscriptionsInQueryRequest", "message": message}]
            raise Refused(error(400, "BadRequest", message, details=details))
        return visible

    def _table(self, call: Call, name: str, subscriptions: Sequence[str]) -> Iterator[Json]:
        if name == "resources":
            for subscription in subscriptions:
                for resource in resources_of(self._state, subscription):
                    if self._gateway.may_read(call, f"{resource.type}/read", resource.id):
                        yield self._row(resource)
        elif name == "resourcecontainers":
            for subscription in subscriptions:
                arm_id = f"/subscriptions/{subscription}"
                yield {"id": arm_id, "type": "microsoft.resources/subscriptions", "subscriptionId": subscription}
        else:
            raise Refused(_bad("InvalidQuery", f"There is no table {name!r}."))

    def _row(self, resource: Resource) -> Json:
        # Resource Graph returns types and groups in lower case, and the rest as the resource provider returns it.
        account = self._state.accounts.get(resource.id.lower())
        return {
            **(account_body(account) if account is not None else resource.body()),
            "type": resource.type.lower(),
            "resourceGroup": resource.group.lower(),
            "subscriptionId": resource.id.split("/")[2],
        }

    def _page(self, body: Json, rows: list[Json], limited: bool) -> Reply:
        options = as_object(body.get("options")) or {}
        start = decode_token(str(options.get("$skipToken") or ""))
        if start and not start.isdigit():
            return _bad("InvalidSkipToken", "The skip token is not one of this service.")
        top = options.get("$top")
        size = min(top if isinstance(top, int) else 100, self._page_size)
        first = int(start or 0)
        page = rows[first : first + size]
        content: Json = {
            "totalRecords": len(rows),
            "count": len(page),
            "data": page,
            "facets": [],
            "resultTruncated": "true" if limited else "false",
        }
        if first + size < len(rows) and not limited:
            content["$skipToken"] = encode_token(str(first + size))
        return Reply(200, content)


def _run(rows: list[Json], steps: Sequence[str]) -> tuple[list[Json], bool]:
    """The rows after all steps, and whether a `limit` step truncated them. Such a result has no next page."""
    limited = False
    for step in steps:
        if match := _EQUALS.fullmatch(step):
            rows = [row for row in rows if _text(row, match[1]).lower() == _plain(match[2]).lower()]
        elif match := _AMONG.fullmatch(step):
            accepted = {_plain(text[1]).lower() for text in re.finditer(_TEXT, match[2])}
            rows = [row for row in rows if _text(row, match[1]).lower() in accepted]
        elif match := _ORDER.fullmatch(step):
            column = match[1]
            rows = sorted(rows, key=lambda row: _text(row, column), reverse=match[2] == "desc")
        elif match := _LIMIT.fullmatch(step):
            rows, limited = rows[: int(match[1])], True
        elif step.startswith("project "):
            rows = _project(rows, step.removeprefix("project "))
        else:
            raise Refused(_bad("InvalidQuery", f"The emulator does not support {step!r}."))
    return rows, limited


def _project(rows: list[Json], columns: str) -> list[Json]:
    selected: list[tuple[str, str, bool]] = []
    for column in columns.split(","):
        match = _COLUMN.fullmatch(column.strip())
        if match is None:
            raise Refused(_bad("InvalidQuery", f"The emulator does not support the column {column.strip()!r}."))
        path = match[2] or match[3]
        selected.append((match[1] or path.replace(".", "_"), path, match[2] is not None))
    return [{name: _text(row, path) if text else _value(row, path) for name, path, text in selected} for row in rows]


def _value(row: Json, path: str) -> object:
    value: object = row
    for part in path.split("."):
        value = (as_object(value) or {}).get(part)
    return value


def _text(row: Json, path: str) -> str:
    value = _value(row, path)
    return "" if value is None else str(value)


def _plain(literal: str) -> str:
    return re.sub(r"\\(.)", r"\1", literal)


def _bad(code: str, message: str) -> Reply:
    details = [{"code": code, "message": message}]
    return error(400, "BadRequest", "Please provide below info when asking for support.", details=details)
