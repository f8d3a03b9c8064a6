"""The control address: faults, key regenerations and request counts, over plain HTTP on loopback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from keysync.emulator import control_guard
from keysync.emulator.control_bodies import guess, parse
from keysync.emulator.control_queues import QueueControl
from keysync.emulator.data import VaultSettings
from keysync.emulator.faults import OPERATIONS, Fault, Faults
from keysync.emulator.queue_data import DeliveryFaults
from keysync.emulator.request_log import RequestLog
from keysync.emulator.services.entra import Entra
from keysync.emulator.services.managed_identity import IMDS_PATH, ManagedIdentities
from keysync.emulator.state import State
from keysync.emulator.wire import Call, Refused, Reply, error

_NAME = "NAME"
"""Stands for any segment in the path of an endpoint."""


@dataclass(frozen=True)
class _Endpoint:
    """What an endpoint is for, and how to serve a call to it."""

    purpose: str
    serve: Callable[[Call], Reply]


class _Regeneration(BaseModel):
    """The body of a regeneration."""

    model_config = ConfigDict(extra="forbid")

    key_name: Literal["Primary", "Secondary"] = Field(alias="keyName")


class Control:
    """The endpoints of the control address."""

    def __init__(
        self, state: State, faults: Faults, request_log: RequestLog, entra: Entra, identities: ManagedIdentities
    ) -> None:
        self._state = state
        self._faults = faults
        self._request_log = request_log
        self._entra = entra
        self._identities = identities
        self._endpoints = self._make_endpoints()

    def _make_endpoints(self) -> dict[str, _Endpoint]:
        faults, log, queues = self._faults, self._request_log, QueueControl(self._state)
        fault_fields = ", ".join(Fault.model_fields)
        return {
            "GET /": _Endpoint("this list", self._list),
            "GET /operations": _Endpoint("the operations that a fault can name", lambda _: Reply(200, OPERATIONS)),
            "GET /faults": _Endpoint("the active faults", self._active_faults),
            "POST /faults": _Endpoint(f"add a fault (JSON): {fault_fields}", self._add_fault),
            "DELETE /faults": _Endpoint("remove every fault", _then(faults.clear)),
            "POST /accounts/NAME/regenerate": _Endpoint('replace a key: {"keyName": "Primary"}', self._regenerate),
            "DELETE /tokens": _Endpoint("revoke every token issued so far", _then(self._entra.tokens.revoke)),
            "GET /counts": _Endpoint("requests by operation", lambda _: Reply(200, dict(log.by_operation))),
            "GET /statuses": _Endpoint("replies by status", lambda _: Reply(200, dict(log.by_status))),
            "DELETE /counts": _Endpoint("reset the counts", _then(log.clear)),
            "GET /vaults/NAME/secrets": _Endpoint("names, versions and tags; no values", self._secrets),
            "PATCH /vaults/NAME": _Endpoint(
                f"change settings (JSON): {', '.join(VaultSettings.model_fields)}", self._change_vault
            ),
            "DELETE /vaults/NAME/tokens": _Endpoint(
                "refuse the tokens that the vault has accepted, with a claims challenge", self._refuse_known_tokens
            ),
            "GET /queues/NAME": _Endpoint("the number of messages, and what will go wrong with events", queues.show),
            "POST /queues/NAME/messages": _Endpoint('put a message: {"text": "..."}', queues.put),
            "DELETE /queues/NAME/messages": _Endpoint("remove every message", queues.clear),
            "POST /queues/NAME/delivery": _Endpoint(
                f"what goes wrong with the next events (JSON): {', '.join(DeliveryFaults.model_fields)}",
                queues.set_delivery,
            ),
            "GET /msi/token": _Endpoint(
                "a managed identity's endpoint in App Service (IDENTITY_ENDPOINT)", self._identities.app_service
            ),
            f"GET /{'/'.join(IMDS_PATH)}": _Endpoint(
                "the metadata service of a machine (AZURE_POD_IDENTITY_AUTHORITY_HOST)", self._identities.imds
            ),
        }

    def answer(self, call: Call) -> Reply:
        """The reply to any call, also an error."""
        try:
            return control_guard.refusal(call) or self._serve(call)
        except Refused as refused:
            return refused.reply
        except KeyError as unknown:
            return error(404, "NotFound", f"There is no {unknown}.")

    def _serve(self, call: Call) -> Reply:
        for name, endpoint in self._endpoints.items():
            method, _, path = name.partition(" ")
            if method == call.method and _matches(path, call.segments):
                return endpoint.serve(call)
        request = f"{call.method} {call.raw_path}"
        return error(404, "NotFound", f"There is no endpoint {request!r}{guess(request, self._endpoints)}.")

    def _list(self, _call: Call) -> Reply:
        return Reply(200, {name: endpoint.purpose for name, endpoint in self._endpoints.items()})

    def _active_faults(self, _call: Call) -> Reply:
        return Reply(200, [fault.model_dump(exclude_unset=True) for fault in self._faults.active()])

    def _add_fault(self, call: Call) -> Reply:
        self._faults.add(parse(call, Fault, "fault"))
        return Reply(204)

    def _regenerate(self, call: Call) -> Reply:
        self._state.regenerate(call.segments[1], parse(call, _Regeneration, "body").key_name)
        return Reply(204)

    def _secrets(self, call: Call) -> Reply:
        secrets = [
            {"name": secret, "versions": len(versions), "tags": versions[-1].tags}
            for secret, versions in self._state.vault(call.segments[1]).secrets.items()
        ]
        return Reply(200, secrets)

    def _change_vault(self, call: Call) -> Reply:
        self._state.vault(call.segments[1]).change(parse(call, VaultSettings, "settings"))
        return Reply(204)

    def _refuse_known_tokens(self, call: Call) -> Reply:
        self._state.vault(call.segments[1]).refuse_known_tokens()
        return Reply(204)


def _matches(path: str, segments: list[str]) -> bool:
    expected = path.split("/")[1:] if path != "/" else []
    return len(expected) == len(segments) and all(
        part in {segment, _NAME} for part, segment in zip(expected, segments, strict=True)
    )


def _then(action: Callable[[], None]) -> Callable[[Call], Reply]:
    def serve(_call: Call) -> Reply:
        action()
        return Reply(204)

    return serve
