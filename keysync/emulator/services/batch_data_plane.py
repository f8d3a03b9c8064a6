"""The Batch service of an account (its data plane): enough of it for a client to see that it is signed in."""

from __future__ import annotations

import re
from collections.abc import Callable

from keysync.emulator.access import Access
from keysync.emulator.faults import Operation
from keysync.emulator.services.batch_authentication import BatchAuthentication
from keysync.emulator.services.batch_error import batch_error
from keysync.emulator.services.batch_resources import SUPPORTED_IMAGES, job_body, node_counts_body, pool_body
from keysync.emulator.services.entra import Entra
from keysync.emulator.services.paging import decode_index, encode_token
from keysync.emulator.services.shared_key import shared_key_of
from keysync.emulator.state import Account, State
from keysync.emulator.wire import Call, Json, Refused, Reply, Route

DATA_PLANE_VERSIONS = (
    "2019-08-01.10.0", "2020-03-01.11.0", "2020-09-01.12.0", "2021-06-01.14.0", "2022-01-01.15.0", "2022-10-01.16.0",
    "2023-05-01.17.0", "2023-11-01.18.0", "2024-02-01.19.0", "2024-07-01.20.0", "2025-06-01",
)  # fmt: skip
"""The supported api-versions, from the first that has `supportedimages`."""

_MAX_RESULTS = 1000
_HOST = re.compile(r"https://([a-z0-9]+)\.[a-z0-9]+\.(localhost|batch\.azure\.com)(:\d+)?", re.IGNORECASE)
_CONTENT_TYPE = {"Content-Type": "application/json;odata=minimalmetadata"}


class BatchDataPlane:
    """The data plane of all accounts. `authority` is the URL of the emulator's Entra."""

    def __init__(self, state: State, entra: Entra, access: Access, authority: str) -> None:
        self._state = state
        self._authentication = BatchAuthentication(entra, access, authority)

    def route(self, call: Call, account: Account | None = None) -> Route:
        """How to serve a call to the endpoint of `account`. None: the call itself says which account it is for."""
        account = account or self._account_of(call)
        if account is None or account is not self._state.accounts.get(account.id.lower()):
            values = {
                "Reason": "No account is here. An address of many needs a signature, or NAME.REGION.localhost as host."
            }
            refused = batch_error(call, 404, "ResourceNotFound", self._state.clock(), values=values)
            return Route("unknown", call.raw_path, lambda: refused, service="batch")
        operation, run = _operation(call, account)
        return Route(
            operation,
            account.name,
            run,
            authorize=lambda: _version_refusal(call, account) or self._authentication.refusal(call, account, operation),
            service="batch",
            error=lambda status, code, message: batch_error(call, status, code, account.clock(), message=message),
        )

    def _account_of(self, call: Call) -> Account | None:
        host, signed = _HOST.fullmatch(call.base), shared_key_of(call)
        name = host[1] if host else signed.account if signed else ""
        try:
            return self._state.account(name)
        except KeyError:
            only = list(self._state.accounts.values())
            return only[0] if len(only) == 1 else None


def _operation(call: Call, account: Account) -> tuple[Operation, Callable[[], Reply]]:
    match call.method, *call.segments:
        case "GET", "supportedimages":
            return "listSupportedImages", lambda: _page(call, account, SUPPORTED_IMAGES)
        case "GET", "nodecounts":
            return "listNodeCounts", lambda: _page(call, account, [node_counts_body(pool) for pool in account.pools])
        case "GET", "jobs":
            return "listJobs", lambda: _page(call, account, [job_body(call.base, account, job) for job in account.jobs])
        case "GET", "pools":
            return "listPools", lambda: _page(
                call, account, [pool_body(call.base, account, pool) for pool in account.pools]
            )
        case "GET", "jobs", name:
            return "getJob", lambda: _one(call, account, "Job", name)
        case "GET" | "HEAD", "pools", name:
            return "getPool", lambda: _one(call, account, "Pool", name)
        case _, "supportedimages" | "nodecounts":
            return "unknown", lambda: batch_error(call, 405, "UnsupportedHttpVerb", account.clock())
        case _, "jobs" | "pools", *rest if len(rest) <= 1:
            return "unknown", lambda: batch_error(call, 405, "UnsupportedHttpVerb", account.clock())
        case _:
            return "unknown", lambda: batch_error(call, 400, "InvalidUri", account.clock())


def _version_refusal(call: Call, account: Account) -> Reply | None:
    version = call.query.get("api-version")
    if version is None:
        values = {"QueryParameterName": "api-version"}
        return batch_error(call, 400, "MissingRequiredQueryParameter", account.clock(), values=values)
    if version not in DATA_PLANE_VERSIONS:
        return _invalid(call, account, "api-version", "The specified api version string is invalid")
    return None


def _page(call: Call, account: Account, items: list[Json]) -> Reply:
    if "$filter" in call.query:
        raise Refused(_invalid(call, account, "$filter", "The emulator serves no filters"))
    size = call.query.get("maxresults", str(_MAX_RESULTS))
    if not size.isdecimal() or not 1 <= int(size) <= _MAX_RESULTS:
        code = "OutOfRangeQueryParameterValue" if size.lstrip("-").isdecimal() else "InvalidQueryParameterValue"
        values = {"QueryParameterName": "maxresults", "QueryParameterValue": size}
        raise Refused(batch_error(call, 400, code, account.clock(), values=values))
    first = _first(call, account)
    body: Json = {
        "odata.metadata": f"{call.base}/$metadata#{call.segments[0]}",
        "value": items[first : first + int(size)],
    }
    if first + int(size) < len(items):
        token = encode_token(str(first + int(size)))
        version = call.query["api-version"]
        link = f"{call.base}{call.raw_path}?api-version={version}&maxresults={size}&$skiptoken={token}"
        body["odata.nextLink"] = link
    return Reply(200, body, dict(_CONTENT_TYPE))


def _first(call: Call, account: Account) -> int:
    try:
        return decode_index(call.query.get("$skiptoken", ""))
    except Refused:
        raise Refused(_invalid(call, account, "$skiptoken", "The continuation token is malformed")) from None


def _one(call: Call, account: Account, kind: str, name: str) -> Reply:
    names, body = (account.jobs, job_body) if kind == "Job" else (account.pools, pool_body)
    if name not in names:
        return batch_error(call, 404, f"{kind}NotFound", account.clock())
    content: Json = {"odata.metadata": f"{call.base}/$metadata#{kind.lower()}s/@Element"}
    content.update(body(call.base, account, name))
    return Reply(200, content, {**_CONTENT_TYPE, "ETag": str(content["eTag"])})


def _invalid(call: Call, account: Account, parameter: str, reason: str) -> Reply:
    values = {
        "QueryParameterName": parameter,
        "QueryParameterValue": call.query.get(parameter, ""),
        "Reason": reason,
    }
    return batch_error(call, 400, "InvalidQueryParameterValue", account.clock(), values=values)
