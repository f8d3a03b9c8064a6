"""The token endpoints of managed identities: App Service's, and the metadata service of a virtual machine (IMDS).

learn.microsoft.com/azure/app-service/overview-managed-identity and
learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token; the errors are those of `msi-*` in
tests/data/real_replies.
"""

from __future__ import annotations

from keysync.emulator.directory import Directory
from keysync.emulator.identity_data import IdentityData
from keysync.emulator.throttle import Clock
from keysync.emulator.tokens import Tokens
from keysync.emulator.wire import Call, Json, Reply

IMDS_PATH = ("metadata", "identity", "oauth2", "token")
_IMDS_HEADERS = {"Server": "IMDS/150.870.65.1325"}


class ManagedIdentities:
    """Both endpoints. App Service's wants `header` as X-IDENTITY-HEADER."""

    def __init__(self, directory: Directory, tokens: Tokens, clock: Clock, header: str) -> None:
        self._directory = directory
        self._tokens = tokens
        self._clock = clock
        self._header = header

    def app_service(self, call: Call) -> Reply:
        """The reply of App Service (2019-08-01)."""
        if call.headers.get("X-IDENTITY-HEADER") != self._header:
            return Reply(401, {"statusCode": 401, "message": "The X-IDENTITY-HEADER is missing or wrong."})
        if not call.query.get("resource") or not call.query.get("api-version"):
            return Reply(400, {"statusCode": 400, "message": "Both resource and api-version are needed."})
        identity = self._identity(call)
        if identity is None:
            return Reply(400, {"statusCode": 400, "message": "No User Assigned or Delegated Managed Identity found."})
        return Reply(200, self._token(call, identity))

    def imds(self, call: Call) -> Reply:
        """The reply of the metadata service (2018-02-01)."""
        if call.headers.get("Metadata", "").lower() != "true":
            return _refused("Required metadata header not specified")
        if not call.query.get("resource"):
            return _refused("The required field 'resource' is missing")
        identity = self._identity(call)
        if identity is None:
            return _refused("Identity not found")
        lifetime = str(self._tokens.lifetime)
        times = {"expires_in": lifetime, "ext_expires_in": lifetime, "not_before": str(int(self._clock()))}
        return Reply(200, {**self._token(call, identity), **times}, dict(_IMDS_HEADERS))

    def _identity(self, call: Call) -> IdentityData | None:
        asked = (call.query.get(name) for name in ("client_id", "principal_id", "object_id"))
        return self._directory.managed_identity(next((value for value in asked if value), None))

    def _token(self, call: Call, identity: IdentityData) -> Json:
        resource = call.query["resource"]
        return {
            "access_token": self._tokens.issue(identity, self._directory.tenant_of(identity), resource),
            "client_id": identity.client_id,
            "expires_on": str(int(self._clock()) + self._tokens.lifetime),
            "resource": resource,
            "token_type": "Bearer",  # nosec B105  # the type of a token
        }


def _refused(description: str) -> Reply:
    return Reply(400, {"error": "invalid_request", "error_description": description}, dict(_IMDS_HEADERS))
