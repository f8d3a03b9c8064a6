"""Actions on resources through Resource Manager, and the events that they cause."""

from __future__ import annotations

import base64
import json
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from keysync.emulator.times import timestamp
from keysync.emulator.wire import Call, Json, as_object

if TYPE_CHECKING:
    from keysync.emulator.state import Account

_KINDS = {"PUT": ("Write", "write"), "PATCH": ("Write", "write"), "DELETE": ("Delete", "delete")}
_ACTIONS = {"listkeys": "listKeys", "regeneratekeys": "regenerateKeys"}
"""The actions as the provider writes them. Clients may write them in any case."""

_TYPES = {"microsoft.batch/batchaccounts": "Microsoft.Batch/batchAccounts"}
_CLAIMS = {
    "oid": "http://schemas.microsoft.com/identity/claims/objectidentifier",
    "idp": "http://schemas.microsoft.com/identity/claims/identityprovider",
    "sub": "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier",
    "tid": "http://schemas.microsoft.com/identity/claims/tenantid",
}
"""The claims that events name by their URIs."""


@dataclass(frozen=True)
class Action:
    """A finished action: `kind` is Action, Write or Delete, `operation` such as Microsoft.Batch/batchAccounts/listKeys/action."""

    resource_id: str
    kind: str
    operation: str
    method: str
    url: str
    tenant_id: str
    client_request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    correlation_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    claims: Json = field(default_factory=dict[str, object], repr=False)

    @property
    def principal_id(self) -> str:
        """The object id of the caller, empty if it is not known."""
        return str(self.claims.get(_CLAIMS["oid"], ""))

    def event(self, now: float, evidence: Json) -> Json:
        """The event in Event Grid's own schema. `now` is in seconds since 1970, `evidence` the role of the caller."""
        subscription = self.resource_id.split("/")[2]
        return {
            "subject": self.resource_id,
            "eventType": f"Microsoft.Resources.Resource{self.kind}Success",
            "eventTime": timestamp(now),
            "id": str(uuid.uuid4()),
            "data": self._data(subscription, evidence),
            "dataVersion": "2",
            "metadataVersion": "1",
            "topic": f"/subscriptions/{subscription}",
        }

    def _data(self, subscription: str, evidence: Json) -> Json:
        return {
            "authorization": {
                "scope": self.resource_id,
                "action": self.operation,
                "evidence": evidence,
            },
            "claims": self.claims,
            "correlationId": self.correlation_id,
            "httpRequest": {
                "clientRequestId": self.client_request_id,
                "clientIpAddress": "127.0.0.1",
                "method": self.method,
                "url": self.url,
            },
            "resourceProvider": self.operation.partition("/")[0],
            "resourceUri": self.resource_id,
            "operationName": self.operation,
            "status": "Succeeded",
            "subscriptionId": subscription,
            "tenantId": self.tenant_id,
        }


def action_of(call: Call) -> Action | None:
    """The action that a call to Resource Manager carries out, None if it only reads or is about no single resource."""
    parts = call.segments
    lower = [part.lower() for part in parts]
    if call.method == "GET" or lower[:1] != ["subscriptions"] or "providers" not in lower:
        return None
    place = len(lower) - lower[::-1].index("providers")
    names = parts[place + 1 :]  # type, name, type, name, ..., and the action of a POST
    if len(names) < 2 or (len(names) % 2 == 1) != (call.method == "POST"):
        return None
    kind, verb = _KINDS.get(call.method, ("Action", ""))
    resource_type = "/".join([parts[place], *names[: len(names) // 2 * 2 : 2]])
    action = f"{_ACTIONS.get(names[-1].lower(), names[-1])}/action" if call.method == "POST" else verb
    resource = parts[:-1] if call.method == "POST" else parts
    claims = _claims(call.bearer or "")
    return Action(
        resource_id="/" + "/".join(resource),
        kind=kind,
        operation=f"{_TYPES.get(resource_type.lower(), resource_type)}/{action}",
        method=call.method,
        url=f"{call.base}{call.raw_path}?api-version={call.query.get('api-version', '')}",
        tenant_id=str(claims.get(_CLAIMS["tid"], "")),
        client_request_id=call.headers.get("x-ms-client-request-id") or str(uuid.uuid4()),
        correlation_id=call.headers.get("x-ms-correlation-request-id") or str(uuid.uuid4()),
        claims=claims,
    )


def regeneration_of(account: Account) -> Action:
    """The action of another client that regenerates a key of `account`."""
    return Action(
        resource_id=account.id,
        kind="Action",
        operation="Microsoft.Batch/batchAccounts/regenerateKeys/action",
        method="POST",
        url=f"https://management.azure.com{account.id}/regenerateKeys?api-version=2024-07-01",
        tenant_id=account.tenant_id,
        claims={_CLAIMS["tid"]: account.tenant_id},
    )


def _claims(token: str) -> Json:
    """The claims of a token whose signature was checked, as events show them: texts, some named by URIs."""
    payload = [*token.split("."), "", ""][1]
    try:
        content = as_object(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))) or {}
    except ValueError:
        content = {}
    return {_CLAIMS.get(name, name): str(value) for name, value in content.items()}
