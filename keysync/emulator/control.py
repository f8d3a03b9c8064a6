"""The control address: faults, key regenerations and request counts, over plain HTTP on loopback."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import ValidationError

from keysync.emulator.faults import Fault, Faults
from keysync.emulator.request_log import RequestLog
from keysync.emulator.services.entra import Entra
from keysync.emulator.state import State
from keysync.emulator.wire import Call, Refused, Reply, error, json_body

_OPERATIONS = {
    "GET /faults": "the active faults",
    "POST /faults": "add a fault: operation, target, kind, status, code, times, ...",
    "DELETE /faults": "remove every fault",
    "POST /accounts/NAME/regenerate": 'replace a key: {"keyName": "Primary"}',
    "DELETE /tokens": "revoke every token issued so far",
    "GET /counts": "requests by operation",
    "GET /statuses": "replies by status",
    "DELETE /counts": "reset the counts",
    "GET /vaults/NAME/secrets": "names, versions and tags; no values",
    "GET /msi/token": "a managed identity's endpoint (IDENTITY_ENDPOINT)",
}


class Control:
    """The operations of the control address."""

    def __init__(
        self, state: State, faults: Faults, request_log: RequestLog, entra: Entra, identity_header: str
    ) -> None:
        self._state = state
        self._faults = faults
        self._request_log = request_log
        self._entra = entra
        self._identity_header = identity_header

    def answer(self, call: Call) -> Reply:
        """The reply to any call, also an error."""
        try:
            return self._find(call)()
        except Refused as refused:
            return refused.reply
        except KeyError as unknown:
            return error(404, "NotFound", f"There is no {unknown}.")
        except ValidationError as failure:
            details = failure.errors(include_url=False, include_input=False, include_context=False)
            return error(400, "BadRequest", f"Invalid fault: {_describe(failure)}.", details=details)
        except ValueError as failure:
            return error(400, "BadRequest", str(failure))

    def managed_identity(self, call: Call) -> Reply:
        """The reply of the managed identity's token endpoint."""
        return self._entra.managed_identity(call, self._identity_header)

    def _find(self, call: Call) -> Callable[[], Reply]:
        match (call.method, *call.segments):
            case ("GET",):
                return lambda: Reply(200, _OPERATIONS)
            case ("GET", "faults"):
                return lambda: Reply(200, [fault.model_dump(exclude_unset=True) for fault in self._faults.active()])
            case ("POST", "faults"):
                return lambda: self._add_fault(call)
            case ("POST", "accounts", name, "regenerate"):
                return lambda: self._regenerate(call, name)
            case ("GET", "counts"):
                return lambda: Reply(200, dict(self._request_log.by_operation))
            case ("GET", "statuses"):
                return lambda: Reply(200, dict(self._request_log.by_status))
            case ("DELETE", "faults" | "counts" | "tokens" as what):
                clear = {"faults": self._faults.clear, "counts": self._request_log.clear, "tokens": self._entra.revoke}
                return lambda: _done(clear[what])
            case ("GET", "vaults", name, "secrets"):
                return lambda: self._secrets(name)
            case _:
                message = f"Unknown operation {call.method} {call.raw_path}; GET / lists the operations."
                return lambda: error(404, "NotFound", message)

    def _add_fault(self, call: Call) -> Reply:
        self._faults.add(Fault.model_validate(json_body(call)))
        return Reply(204)

    def _regenerate(self, call: Call, name: str) -> Reply:
        self._state.regenerate(name, str(json_body(call).get("keyName")))
        return Reply(204)

    def _secrets(self, name: str) -> Reply:
        secrets = [
            {"name": secret, "versions": len(versions), "tags": versions[-1].tags}
            for secret, versions in self._state.vault(name).secrets.items()
        ]
        return Reply(200, secrets)


def _describe(failure: ValidationError) -> str:
    parts: list[str] = []
    for part in failure.errors(include_url=False, include_input=False):
        path = ".".join(str(step) for step in part["loc"])
        parts.append(f"{path}: {part['msg'].removeprefix('Value error, ')}")
    return "; ".join(parts)


def _done(action: Callable[[], None]) -> Reply:
    action()
    return Reply(204)
