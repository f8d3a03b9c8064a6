"""Who may call the Queue service: Entra tokens with roles. The storage accounts do not permit keys."""

from __future__ import annotations

from keysync.emulator.access import Access
from keysync.emulator.queues import Queues
from keysync.emulator.services.entra import BadToken, Entra, Token
from keysync.emulator.services.queue_xml import queue_error
from keysync.emulator.wire import Call, Reply

STORAGE_AUDIENCE = "https://storage.azure.com"

_SERVICES = "Microsoft.Storage/storageAccounts/queueServices/"
_QUEUE, _MESSAGES = f"{_SERVICES}queues/", f"{_SERVICES}queues/messages/"
_ACTIONS = {
    "listQueues": (f"{_QUEUE}read",),
    "getQueueService": (f"{_SERVICES}read",),
    "setQueueService": (f"{_SERVICES}write",),
    "createQueue": (f"{_QUEUE}write",),
    "deleteQueue": (f"{_QUEUE}delete",),
    "getQueue": (f"{_QUEUE}read",),
    "setQueueMetadata": (f"{_QUEUE}write",),
}
_DATA_ACTIONS = {
    "putMessage": (f"{_MESSAGES}add/action", f"{_MESSAGES}write"),
    "getMessages": (f"{_MESSAGES}process/action",),
    "peekMessages": (f"{_MESSAGES}read",),
    "clearMessages": (f"{_MESSAGES}delete",),
    "updateMessage": (f"{_MESSAGES}write",),
    "deleteMessage": (f"{_MESSAGES}process/action", f"{_MESSAGES}delete"),
}
"""For each operation the actions of which one is enough.

https://learn.microsoft.com/rest/api/storageservices/authorize-with-azure-active-directory has the list.
"""


class QueueAuthentication:
    """Checks who calls. `authority` is the emulator's Entra, `tenant_id` the tenant of the storage accounts."""

    def __init__(self, entra: Entra, access: Access, queues: Queues, *, authority: str, tenant_id: str) -> None:
        self._entra = entra
        self._access = access
        self._queues = queues
        self._authority = authority
        self._tenant_id = tenant_id

    def refusal(self, call: Call, operation: str, now: float) -> Reply | None:
        """The reply to a caller that may not carry out `operation`, None if it may."""
        if call.bearer is None and (call.headers.get("Authorization") or "sig" in call.query):
            return queue_error(403, "KeyBasedAuthenticationNotPermitted", now)
        if call.bearer is None:
            return self._refused("NoAuthenticationInformation", now)
        account, queue = [*call.segments[:2], "", ""][:2]
        try:
            token = self._entra.read(call.bearer)
        except BadToken:
            detail = "Signature validation failed. Signature did not match."
            return self._refused("InvalidAuthenticationInfo", now, detail)
        problem = self._problem(token, account, now)
        if problem is not None:
            return self._refused("InvalidAuthenticationInfo", now, problem)
        if operation != "unknown" and not self._may(token, operation, self._queues.resource_id(account, queue)):
            return queue_error(403, "AuthorizationPermissionMismatch", now)
        return None

    def _problem(self, token: Token, account: str, now: float) -> str | None:
        if token.audience.rstrip("/") not in {STORAGE_AUDIENCE, f"https://{account}.queue.core.windows.net"}:
            return "Audience validation failed. Audience did not match."
        if token.expires <= now:
            return "Lifetime validation failed. The token is expired."
        if token.tenant_id.lower() != self._tenant_id.lower():
            return "Issuer validation failed. Issuer did not match."
        return None

    def _may(self, token: Token, operation: str, scope: str) -> bool:
        if operation in self._queues.denied.get(scope, ()):
            return False
        data = operation in _DATA_ACTIONS
        actions = _DATA_ACTIONS[operation] if data else _ACTIONS[operation]
        return any(self._access.decide(token, action, scope, data=data).allowed for action in actions)

    def _refused(self, code: str, now: float, detail: str | None = None) -> Reply:
        authorization = f"{self._authority}/{self._tenant_id}/oauth2/authorize"
        challenge = f"Bearer authorization_uri={authorization} resource_id={STORAGE_AUDIENCE}"
        details = {} if detail is None else {"AuthenticationErrorDetail": detail}
        return queue_error(401, code, now, details=details, headers={"WWW-Authenticate": challenge})
