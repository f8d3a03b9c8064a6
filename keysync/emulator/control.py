"""The control address: faults, key rotations and counts, over plain HTTP on loopback."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import ValidationError

from keysync.emulator.entra import Entra
from keysync.emulator.faults import Fault, Faults
from keysync.emulator.request_log import RequestLog
from keysync.emulator.state import State
from keysync.emulator.wire import Call, Refused, Reply, error, json_body

_OFFERS = {
    "GET /faults": "the faults in force",
    "POST /faults": "add a fault: operation, target, kind, status, code, times, ...",
    "DELETE /faults": "lift every fault",
    "POST /accounts/NAME/regenerate": 'replace a key: {"keyName": "Primary"}',
    "DELETE /tokens": "revoke every token issued so far",
    "GET /counts": "requests by operation",
    "GET /statuses": "replies by status",
    "DELETE /counts": "count from nought",
    "GET /vaults/NAME/secrets": "names, versions and tags; no values",
    "GET /msi/token": "a managed identity's endpoint (IDENTITY_ENDPOINT)",
}


class Control:
    """What the control address offers."""

    def __init__(self, state: State, faults: Faults, counts: RequestLog, entra: Entra, identity_header: str) -> None:
        self._state = state
        self._faults = faults
        self._counts = counts
        self._entra = entra
        self._identity_header = identity_header

    def answer(self, call: Call) -> Reply:
        """The reply to any call; refusals included."""
        try:
            return self._find(call)()
        except Refused as refused:
            return refused.reply
        except KeyError as unknown:
            return error(404, "NotFound", f"There is no {unknown}.")
        except ValidationError as wrong:
            details = wrong.errors(include_url=False, include_input=False, include_context=False)
            return error(400, "BadRequest", f"That is not a fault: {_told(wrong)}.", details=details)
        except ValueError as wrong:
            return error(400, "BadRequest", str(wrong))

    def managed_identity(self, call: Call) -> Reply:
        """A token for the managed identity."""
        return self._entra.managed_identity(call, self._identity_header)

    def _find(self, call: Call) -> Callable[[], Reply]:
        match (call.method, *call.segments):
            case ("GET",):
                return lambda: Reply(200, _OFFERS)
            case ("GET", "faults"):
                return lambda: Reply(200, [fault.model_dump(exclude_unset=True) for fault in self._faults.active()])
            case ("POST", "faults"):
                return lambda: self._add_fault(call)
            case ("POST", "accounts", name, "regenerate"):
                return lambda: self._regenerate(call, name)
            case ("GET", "counts"):
                return lambda: Reply(200, dict(self._counts.by_operation))
            case ("GET", "statuses"):
                return lambda: Reply(200, dict(self._counts.by_status))
            case ("DELETE", "faults" | "counts" | "tokens" as what):
                clear = {"faults": self._faults.clear, "counts": self._counts.clear, "tokens": self._entra.revoke}
                return lambda: _done(clear[what])
            case ("GET", "vaults", name, "secrets"):
                return lambda: self._secrets(name)
        return lambda: error(404, "NotFound", f"Not offered: {call.method} {call.raw_path}; GET / tells what is.")

    def _add_fault(self, call: Call) -> Reply:
        self._faults.add(Fault.model_validate(json_body(call)))
        return Reply(204)

    def _regenerate(self, call: Call, name: str) -> Reply:
        self._state.regenerate(name, str(json_body(call).get("keyName")))
        return Reply(204)

    def _secrets(self, name: str) -> Reply:
        told = [
            {"name": secret, "versions": len(versions), "tags": versions[-1].tags}
            for secret, versions in self._state.vault(name).secrets.items()
        ]
        return Reply(200, told)


def _told(wrong: ValidationError) -> str:
    parts = []
    for part in wrong.errors(include_url=False, include_input=False):
        hint = part.get("ctx", {}).get("hint")
        place = ".".join(str(step) for step in part["loc"])
        parts.append(f"{place}: {part['msg']}" + (f" ({hint})" if hint else ""))
    return "; ".join(parts)


def _done(action: Callable[[], None]) -> Reply:
    action()
    return Reply(204)
