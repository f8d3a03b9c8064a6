"""Microsoft Graph: the part of the directory that `az ad` and `az role assignment` read.

learn.microsoft.com/graph/api/user-get, serviceprincipal-list and directoryobject-getbyids. There are no groups.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial

from keysync.emulator.directory import Directory
from keysync.emulator.faults import Operation
from keysync.emulator.identity_data import IdentityData
from keysync.emulator.services.entra import BadToken, Entra, Token
from keysync.emulator.throttle import Clock
from keysync.emulator.wire import Call, Json, Refused, Reply, Route, as_list, json_body

_AUDIENCES = {"https://graph.microsoft.com", "00000003-0000-0000-c000-000000000000"}
_TEXT = r"'((?:[^']|'')*)'"
_FILTERS: dict[str, dict[str, Callable[[IdentityData, str], bool]]] = {
    "users": {
        rf"userPrincipalName eq {_TEXT}": lambda user, text: user.user_principal_name.lower() == text,
        rf"startswith\(displayName,\s*{_TEXT}\)": lambda user, text: user.name.lower().startswith(text),
    },
    "serviceprincipals": {
        rf"servicePrincipalNames/any\(\w+:\s*\w+ eq {_TEXT}\)": lambda each, text: each.client_id.lower() == text,
        rf"appId eq {_TEXT}": lambda each, text: each.client_id.lower() == text,
        rf"displayName eq {_TEXT}": lambda each, text: each.name.lower() == text,
        rf"startswith\(displayName,\s*{_TEXT}\)": lambda each, text: each.name.lower().startswith(text),
    },
}
_LISTS: dict[str, Operation] = {"users": "listUsers", "serviceprincipals": "listServicePrincipals"}
_ENTRIES: dict[str, Operation] = {"users": "getUser", "serviceprincipals": "getServicePrincipal"}


class Graph:
    """The directory in versions v1.0 and beta. Users may read it; an application only if it is unrestricted, as in Azure,
    where an application has no permission to read it by default.
    """

    def __init__(self, directory: Directory, entra: Entra, clock: Clock) -> None:
        self._directory = directory
        self._entra = entra
        self._clock = clock

    def route(self, call: Call) -> Route | None:
        """How to serve a call, None if it is not for Graph."""
        match [part.lower() for part in call.segments]:
            case ["v1.0" | "beta", *rest]:
                operation, run = self._operation(call, rest)
                return Route(operation, rest[0] if rest else "", run, partial(self._authorize, call), service="graph")
            case _:
                return None

    def _operation(self, call: Call, rest: list[str]) -> tuple[Operation, Callable[[], Reply]]:
        match (call.method, *rest):
            case ("GET", "me"):
                return "getMe", partial(self._me, call)
            case ("POST", "directoryobjects", "getbyids"):
                return "getDirectoryObjects", partial(self._by_ids, call)
            case ("GET", "users" | "serviceprincipals" as kind):
                return _LISTS[kind], partial(self._list, call, kind)
            case ("GET", "users" | "serviceprincipals" as kind, key):
                return _ENTRIES[kind], partial(self._get, call, kind, key)
            case _:
                message = f"Resource not found for the segment '{rest[0] if rest else ''}'."
                return "unknown", lambda: self._error(call, 400, "BadRequest", message)

    def _authorize(self, call: Call) -> Reply | None:
        try:
            self._token(call)
        except Refused as refused:
            return refused.reply
        return None

    def _token(self, call: Call) -> Token:
        refuse = partial(self._error, call, 401, "InvalidAuthenticationToken")
        if call.bearer is None:
            raise Refused(refuse("Access token is empty."))
        try:
            token = self._entra.read(call.bearer)
        except BadToken:
            raise Refused(refuse("Access token validation failure. Invalid signature.")) from None
        if _host(token.audience) not in {_host(call.base), *_AUDIENCES}:
            raise Refused(refuse("Access token validation failure. Invalid audience."))
        if token.expires <= self._clock():
            raise Refused(refuse("Lifetime validation failed, the token is expired."))
        return token

    def _reader(self, call: Call) -> Token:
        """The token of a caller that may read the directory. Raises Refused."""
        token = self._token(call)
        identity = self._directory.by_object(token.object_id)
        if token.user is None and not (identity is not None and identity.unrestricted):
            message = "Insufficient privileges to complete the operation."
            raise Refused(self._error(call, 403, "Authorization_RequestDenied", message))
        return token

    def _me(self, call: Call) -> Reply:
        token = self._token(call)
        user = self._directory.by_object(token.object_id)
        if token.user is None or user is None:
            message = "/me request is only valid with delegated authentication flow."
            return self._error(call, 400, "BadRequest", message)
        return _entity(call, "users", user)

    def _list(self, call: Call, kind: str) -> Reply:
        self._reader(call)
        found = list(self._members(kind))
        for part in re.split(r"\s+and\s+", call.query.get("$filter", "")):
            matches = self._filter(call, kind, part) if part else None
            found = [each for each in found if matches is None or matches(each)]
        return Reply(200, {"@odata.context": _context(call, kind), "value": [_body(each) for each in found]})

    def _filter(self, call: Call, kind: str, text: str) -> Callable[[IdentityData], bool]:
        for pattern, compare in _FILTERS[kind].items():
            match = re.fullmatch(pattern, text.strip(), re.IGNORECASE)
            if match is not None:
                return partial(_compares, compare, match[1].replace("''", "'").lower())
        raise Refused(
            self._error(call, 400, "Request_UnsupportedQuery", f"Unsupported or invalid query filter clause: {text}.")
        )

    def _get(self, call: Call, kind: str, key: str) -> Reply:
        self._reader(call)
        for identity in self._members(kind):
            if key == identity.object_id.lower() or (kind == "users" and key == identity.user_principal_name.lower()):
                return _entity(call, kind, identity)
        message = f"Resource '{key}' does not exist or one of its queried reference-property objects are not present."
        return self._error(call, 404, "Request_ResourceNotFound", message)

    def _by_ids(self, call: Call) -> Reply:
        self._reader(call)
        body = json_body(call)
        wanted = {str(each).lower() for each in as_list(body.get("ids")) or []}
        types = {str(each).lower() for each in as_list(body.get("types")) or []}
        found = [
            {"@odata.type": f"#microsoft.graph.{_type(each)}", **_body(each)}
            for each in self._directory.identities
            if each.object_id.lower() in wanted and (not types or _type(each).lower() in types)
        ]
        return Reply(200, {"@odata.context": _context(call, "directoryObjects"), "value": found})

    def _members(self, kind: str) -> Iterable[IdentityData]:
        return (each for each in self._directory.identities if (each.type == "user") == (kind == "users"))

    def _error(self, call: Call, status: int, code: str, message: str) -> Reply:
        request = str(uuid.uuid4())
        inner = {
            "date": f"{datetime.fromtimestamp(self._clock(), UTC):%Y-%m-%dT%H:%M:%S}",
            "request-id": request,
            "client-request-id": call.headers.get("client-request-id", request),
        }
        return Reply(status, {"error": {"code": code, "message": message, "innerError": inner}})


def _host(url: str) -> str:
    """An address or audience; 127.0.0.1 is `localhost`."""
    return url.rstrip("/").lower().replace("//127.0.0.1", "//localhost")


def _compares(compare: Callable[[IdentityData, str], bool], text: str, identity: IdentityData) -> bool:
    return compare(identity, text)


def _type(identity: IdentityData) -> str:
    return "user" if identity.type == "user" else "servicePrincipal"


def _context(call: Call, kind: str) -> str:
    return f"{call.base}/v1.0/$metadata#{'servicePrincipals' if kind == 'serviceprincipals' else kind}"


def _entity(call: Call, kind: str, identity: IdentityData) -> Reply:
    return Reply(200, {"@odata.context": f"{_context(call, kind)}/$entity", **_body(identity)})


def _body(identity: IdentityData) -> Json:
    if identity.type == "user":
        empty = ("givenName", "jobTitle", "mail", "mobilePhone", "officeLocation", "preferredLanguage", "surname")
        return {
            "businessPhones": [],
            "displayName": identity.name,
            **dict.fromkeys(empty),
            "userPrincipalName": identity.user_principal_name,
            "id": identity.object_id,
        }
    return {
        "id": identity.object_id,
        "accountEnabled": True,
        "appId": identity.client_id,
        "appDisplayName": identity.name,
        "displayName": identity.name,
        "servicePrincipalNames": [identity.client_id],
        "servicePrincipalType": "Application" if identity.type == "application" else "ManagedIdentity",
    }
