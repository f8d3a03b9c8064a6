"""Azure Resource Graph, and of its language KQL just what a listing of accounts takes.

A table (`resources`, `resourcecontainers`), then `where COLUMN =~ 'TEXT'`, `where COLUMN in~ (…)`, `project`, `order by`
and `limit`. Accounts of a subscription that is not there are left out without a word, as the service does with those that an
identity may not see.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence

from keysync.emulator.paging import decode_token, encode_token
from keysync.emulator.state import Account, State
from keysync.emulator.wire import Call, Json, Refused, Reply, error, json_body

GRAPH_VERSIONS = ("2021-03-01", "2022-10-01", "2024-04-01")
"""The api-versions that queries are served with."""

_TEXT = r"'((?:[^'\\]|\\.)*)'"
_STEP = re.compile(r"(?:[^'|]|'(?:[^'\\]|\\.)*')+", re.DOTALL)
_EQUALS = re.compile(rf"where\s+([\w.]+)\s*=~\s*{_TEXT}", re.DOTALL)
_AMONG = re.compile(rf"where\s+([\w.]+)\s+in~\s*\(\s*({_TEXT}(?:\s*,\s*{_TEXT})*)\s*\)", re.DOTALL)
_COLUMN = re.compile(r"(?:(\w+)\s*=\s*)?(?:tostring\(\s*([\w.]+)\s*\)|([\w.]+))")
_ORDER = re.compile(r"order\s+by\s+([\w.]+)(?:\s+(asc|desc))?")
_LIMIT = re.compile(r"(?:limit|take)\s+(\d+)")


def table_of(call: Call) -> str:
    """The table that a query is about, by which faults are aimed; empty where there is none."""
    try:
        told = json.loads(call.body or b"{}")
    except ValueError:
        return ""
    query = told.get("query") if isinstance(told, dict) else None
    return query.partition("|")[0].strip().lower() if isinstance(query, str) else ""


class ResourceGraph:
    """Queries about `state`; `body` is an account as Resource Manager shows it."""

    def __init__(self, state: State, body: Callable[[Account], Json], *, page_size: int) -> None:
        self._state = state
        self._body = body
        self._page_size = page_size

    def query(self, call: Call) -> Reply:
        """The reply to one query."""
        if call.query.get("api-version") not in GRAPH_VERSIONS:
            return _bad("InvalidApiVersionParameter", "The api-version is not supported.")
        told = json_body(call)
        query = told.get("query")
        if not isinstance(query, str) or not query.strip():
            return _bad("BadRequest", "The query is missing.")
        table, *steps = (step.strip() for step in _STEP.findall(query))
        rows, limited = _run(list(self._table(table.lower(), self._visible(told))), steps)
        return self._page(told, rows, limited)

    def _visible(self, told: Json) -> list[str]:
        asked = told.get("subscriptions")
        known = self._state.by_subscription
        if not isinstance(asked, list) or not asked:
            return list(known)
        found = [str(one).lower() for one in asked if str(one).lower() in known]
        if not found:
            told_why = "The query request has no valid subscriptions."
            details = [{"code": "NoValidSubscriptionsInQueryRequest", "message": told_why}]
            raise Refused(error(400, "BadRequest", told_why, details=details))
        return found

    def _table(self, name: str, subscriptions: Sequence[str]) -> Iterator[Json]:
        if name == "resources":
            for subscription in subscriptions:
                for account in self._state.by_subscription[subscription]:
                    yield self._row(account)
        elif name == "resourcecontainers":
            for subscription in subscriptions:
                where = f"/subscriptions/{subscription}"
                yield {"id": where, "type": "microsoft.resources/subscriptions", "subscriptionId": subscription}
        else:
            raise Refused(_bad("InvalidQuery", f"There is no table {name!r}."))

    def _row(self, account: Account) -> Json:
        # Resource Graph writes types and groups in lower case, and the rest as the resource provider does.
        return {
            **self._body(account),
            "type": "microsoft.batch/batchaccounts",
            "resourceGroup": account.resource_group.lower(),
            "subscriptionId": account.subscription_id,
        }

    def _page(self, told: Json, rows: list[Json], limited: bool) -> Reply:  # part of one answer
        options = told.get("options")
        options = options if isinstance(options, dict) else {}
        start = decode_token(str(options.get("$skipToken") or ""))
        if start and not start.isdigit():
            return _bad("InvalidSkipToken", "The skip token is not one of this service.")
        top = options.get("$top")
        wanted = min(top if isinstance(top, int) else 100, self._page_size)
        first = int(start or 0)
        page = rows[first : first + wanted]
        answer: Json = {
            "totalRecords": len(rows),
            "count": len(page),
            "data": page,
            "facets": [],
            "resultTruncated": "true" if limited else "false",
        }
        if first + wanted < len(rows) and not limited:
            answer["$skipToken"] = encode_token(str(first + wanted))
        return Reply(200, answer)


def _run(rows: list[Json], steps: Sequence[str]) -> tuple[list[Json], bool]:
    """The rows that the steps leave, and whether a limit kept pages from being made."""
    limited = False
    for step in steps:
        if found := _EQUALS.fullmatch(step):
            rows = [row for row in rows if _text(row, found[1]).lower() == _plain(found[2]).lower()]
        elif found := _AMONG.fullmatch(step):
            among = {_plain(each[1]).lower() for each in re.finditer(_TEXT, found[2])}
            rows = [row for row in rows if _text(row, found[1]).lower() in among]
        elif found := _ORDER.fullmatch(step):
            column = found[1]
            rows = sorted(rows, key=lambda row: _text(row, column), reverse=found[2] == "desc")
        elif found := _LIMIT.fullmatch(step):
            rows, limited = rows[: int(found[1])], True
        elif step.startswith("project "):
            rows = _project(rows, step.removeprefix("project "))
        else:
            raise Refused(_bad("InvalidQuery", f"The emulator does not know {step!r}."))
    return rows, limited


def _project(rows: list[Json], columns: str) -> list[Json]:
    wanted: list[tuple[str, str, bool]] = []
    for column in columns.split(","):
        found = _COLUMN.fullmatch(column.strip())
        if found is None:
            raise Refused(_bad("InvalidQuery", f"The emulator does not know the column {column.strip()!r}."))
        path = found[2] or found[3]
        wanted.append((found[1] or path.replace(".", "_"), path, found[2] is not None))
    return [{name: _text(row, path) if text else _value(row, path) for name, path, text in wanted} for row in rows]


def _value(row: Json, path: str) -> object:
    value: object = row
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _text(row: Json, path: str) -> str:
    value = _value(row, path)
    return "" if value is None else str(value)


def _plain(literal: str) -> str:
    return re.sub(r"\\(.)", r"\1", literal)


def _bad(code: str, message: str) -> Reply:
    details = [{"code": code, "message": message}]
    return error(400, "BadRequest", "Please provide below info when asking for support.", details=details)
