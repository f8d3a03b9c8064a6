"""The Queue service of Azure Storage, for callers with Entra tokens.

The path has the account first, https://localhost:PORT/ACCOUNT/QUEUE, which clients know from Azurite. Through the proxy it
is https://ACCOUNT.queue.core.windows.net/QUEUE, as in Azure.
https://learn.microsoft.com/rest/api/storageservices/queue-service-rest-api
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate

from keysync.emulator.access import Access
from keysync.emulator.faults import Operation
from keysync.emulator.queues import DEFAULT_TTL, NEVER, NoSuchMessage, Queue, WrongReceipt
from keysync.emulator.services import queue_xml
from keysync.emulator.services.entra import Entra
from keysync.emulator.services.queue_authentication import QueueAuthentication
from keysync.emulator.services.queue_xml import CONTENT_TYPE, queue_error
from keysync.emulator.state import State
from keysync.emulator.wire import Call, Refused, Reply, Route

_MAX_TEXT = 64 * 1024
"""Bytes of a message in UTF-8."""

_MAX_BODY = _MAX_TEXT + 1024
"""Bytes of a request with a message."""

_WEEK = 7 * 86_400
_PAGE = 5000
_NAME = re.compile(r"[a-z0-9](-?[a-z0-9])*")
_HOST = re.compile(r"https://([a-z0-9]+)\.queue\.core\.windows\.net(:\d+)?", re.IGNORECASE)
_VERSION = re.compile(r"20\d\d-\d\d-\d\d")
_OAUTH_SINCE = "2017-11-09"
"""The first version of the service with Entra tokens."""


class StorageQueue:
    """The Queue service of every storage account in the data. `authority` is the URL of the emulator's Entra."""

    def __init__(self, state: State, entra: Entra, access: Access, authority: str) -> None:
        self._queues = state.queues
        self._clock = state.clock
        self._authentication = QueueAuthentication(
            entra, access, state.queues, authority=authority, tenant_id=state.tenant_id
        )

    def route(self, call: Call) -> Route:
        """How to serve a call. One to Azure's own host name has its account there, and not in the path."""
        host = _HOST.fullmatch(call.base)
        if host is not None:
            call = replace(call, raw_path=f"/{host[1].lower()}{call.raw_path.rstrip('/')}")
        account, queue = [*call.segments[:2], "", ""][:2]
        operation, run = self._operation(call)
        return Route(
            operation,
            queue or account,
            run,
            authorize=lambda: self._refusal(call, operation, account, queue),
            service="queue",
            error=lambda status, code, message: queue_error(status, code, self._clock(), message=message),
        )

    def _refusal(self, call: Call, operation: str, account: str, queue: str) -> Reply | None:
        now = self._clock()
        if account not in self._queues.accounts:
            return queue_error(404, "ResourceNotFound", now)
        version = call.headers.get("x-ms-version", "")
        if not version:
            return queue_error(400, "MissingRequiredHeader", now, details={"HeaderName": "x-ms-version"})
        if not _VERSION.fullmatch(version) or version < _OAUTH_SINCE:
            details = {"HeaderName": "x-ms-version", "HeaderValue": version}
            return queue_error(400, "InvalidHeaderValue", now, details=details)
        if queue and not 3 <= len(queue) <= 63:
            return queue_error(400, "OutOfRangeInput", now)
        if queue and not _NAME.fullmatch(queue):
            return queue_error(400, "InvalidResourceName", now)
        return self._authentication.refusal(call, operation, now)

    def _operation(self, call: Call) -> tuple[Operation, Callable[[], Reply]]:
        match len(call.segments), call.segments[2:]:
            case 1, []:
                return self._of_service(call)
            case 2, []:
                return self._of_queue(call)
            case 3, ["messages"]:
                return self._of_messages(call)
            case 4, ["messages", message]:
                return self._of_message(call, message)
            case _:
                return self._unknown(call)

    def _of_service(self, call: Call) -> tuple[Operation, Callable[[], Reply]]:
        match call.method, call.query.get("comp"), call.query.get("restype"):
            case "GET", "list", None:
                return "listQueues", lambda: self._list(call)
            case "GET", "properties", "service":
                return "getQueueService", lambda: self._get_service(call)
            case "PUT", "properties", "service":
                return "setQueueService", lambda: self._set_service(call)
            case _:
                return self._unknown(call)

    def _of_queue(self, call: Call) -> tuple[Operation, Callable[[], Reply]]:
        match call.method, call.query.get("comp"):
            case "PUT", None:
                return "createQueue", lambda: self._create(call)
            case "DELETE", None:
                return "deleteQueue", lambda: self._delete(call)
            case "GET" | "HEAD", "metadata":
                return "getQueue", lambda: self._properties(call)
            case "PUT", "metadata":
                return "setQueueMetadata", lambda: self._set_metadata(call)
            case _:
                return self._unknown(call)

    def _of_messages(self, call: Call) -> tuple[Operation, Callable[[], Reply]]:
        peek = call.query.get("peekonly", "").lower() == "true"
        match call.method:
            case "GET" if peek:
                return "peekMessages", lambda: self._peek(call)
            case "GET":
                return "getMessages", lambda: self._get(call)
            case "POST":
                return "putMessage", lambda: self._put(call)
            case "DELETE":
                return "clearMessages", lambda: self._clear(call)
            case _:
                return self._unknown(call)

    def _of_message(self, call: Call, message: str) -> tuple[Operation, Callable[[], Reply]]:
        match call.method:
            case "PUT":
                return "updateMessage", lambda: self._update(call, message)
            case "DELETE":
                return "deleteMessage", lambda: self._delete_message(call, message)
            case _:
                return self._unknown(call)

    def _unknown(self, call: Call) -> tuple[Operation, Callable[[], Reply]]:
        known = call.method in {"GET", "HEAD", "PUT", "POST", "DELETE"}
        status, code = (400, "InvalidUri") if known else (405, "UnsupportedHttpVerb")
        return "unknown", lambda: queue_error(status, code, self._clock())

    def _list(self, call: Call) -> Reply:
        size = self._number(call, "maxresults", _PAGE, 1, _PAGE)
        prefix, marker = call.query.get("prefix", ""), call.query.get("marker", "")
        matching = [
            queue
            for queue in self._queues.all()
            if queue.account == call.segments[0] and queue.name.startswith(prefix) and queue.name >= marker
        ]
        following = matching[size].name if len(matching) > size else ""
        return Reply(200, queue_xml.queue_list(call, matching[:size], following), dict(CONTENT_TYPE))

    def _get_service(self, call: Call) -> Reply:
        stored = self._queues.service_properties.get(call.segments[0])
        return Reply(200, stored or queue_xml.service_properties(), dict(CONTENT_TYPE))

    def _set_service(self, call: Call) -> Reply:
        if not queue_xml.is_xml(call.body):
            return queue_error(400, "InvalidXmlDocument", self._clock())
        self._queues.service_properties[call.segments[0]] = call.body
        return Reply(202)

    def _create(self, call: Call) -> Reply:
        account, name = call.segments
        metadata, existing = _metadata(call), self._queues.find(account, name)
        if existing is None:
            self._queues.create(account, name, metadata)
            return Reply(201)
        return Reply(204) if existing.metadata == metadata else queue_error(409, "QueueAlreadyExists", self._clock())

    def _delete(self, call: Call) -> Reply:
        self._queues.remove(self._existing(call))
        return Reply(204)

    def _properties(self, call: Call) -> Reply:
        queue = self._existing(call)
        headers = {f"x-ms-meta-{name}": value for name, value in queue.metadata.items()}
        headers["x-ms-approximate-messages-count"] = str(len(queue.existing(self._clock())))
        return Reply(200, None, headers)

    def _set_metadata(self, call: Call) -> Reply:
        self._existing(call).metadata = _metadata(call)
        return Reply(204)

    def _put(self, call: Call) -> Reply:
        queue, text = self._existing(call), self._text(call)
        delay = self._number(call, "visibilitytimeout", 0, 0, _WEEK)
        ttl = self._number(call, "messagettl", int(DEFAULT_TTL), -1, int(NEVER))
        if ttl == 0:
            raise Refused(self._invalid(call, "messagettl", "Value must be greater than or equal to 1, or -1."))
        if ttl > 0 and delay >= ttl:
            reason = "messagettl must be greater than visibilitytimeout."
            raise Refused(self._invalid(call, "visibilitytimeout", reason))
        message = queue.put(text, self._clock(), delay=delay, ttl=float("inf") if ttl < 0 else ttl)
        return Reply(201, queue_xml.put_message(message), dict(CONTENT_TYPE))

    def _get(self, call: Call) -> Reply:
        queue = self._existing(call)
        count = self._number(call, "numofmessages", 1, 1, 32)
        timeout = self._number(call, "visibilitytimeout", 30, 1, _WEEK)
        received = queue.receive(count, self._clock(), timeout)
        return Reply(200, queue_xml.received_messages(received), dict(CONTENT_TYPE))

    def _peek(self, call: Call) -> Reply:
        queue = self._existing(call)
        peeked = queue.peek(self._number(call, "numofmessages", 1, 1, 32), self._clock())
        return Reply(200, queue_xml.peeked_messages(peeked), dict(CONTENT_TYPE))

    def _clear(self, call: Call) -> Reply:
        self._existing(call).messages.clear()
        return Reply(204)

    def _update(self, call: Call, message_id: str) -> Reply:
        queue = self._existing(call)
        text = self._text(call) if call.body else None
        self._required(call, "visibilitytimeout")
        timeout = self._number(call, "visibilitytimeout", 0, 0, _WEEK)
        receipt = self._required(call, "popreceipt")
        try:
            message = queue.update(message_id, receipt, self._clock(), timeout=timeout, text=text)
        except (NoSuchMessage, WrongReceipt) as failure:
            return self._not_received(failure)
        visible = formatdate(message.visible, usegmt=True)
        return Reply(204, None, {"x-ms-popreceipt": message.receipt, "x-ms-time-next-visible": visible})

    def _delete_message(self, call: Call, message_id: str) -> Reply:
        queue = self._existing(call)
        try:
            queue.delete(message_id, self._required(call, "popreceipt"), self._clock())
        except (NoSuchMessage, WrongReceipt) as failure:
            return self._not_received(failure)
        return Reply(204)

    def _not_received(self, failure: Exception) -> Reply:
        found = isinstance(failure, WrongReceipt)
        status, code = (400, "PopReceiptMismatch") if found else (404, "MessageNotFound")
        return queue_error(status, code, self._clock())

    def _existing(self, call: Call) -> Queue:
        queue = self._queues.find(call.segments[0], call.segments[1])
        if queue is None:
            raise Refused(queue_error(404, "QueueNotFound", self._clock()))
        return queue

    def _text(self, call: Call) -> str:
        if len(call.body) > _MAX_BODY:
            details = {"MaxLimit": str(_MAX_TEXT)}
            raise Refused(queue_error(413, "RequestBodyTooLarge", self._clock(), details=details))
        text = queue_xml.message_text(call.body)
        if text is None:
            raise Refused(queue_error(400, "InvalidXmlDocument", self._clock()))
        if len(text.encode()) > _MAX_TEXT:
            raise Refused(queue_error(400, "MessageTooLarge", self._clock()))
        return text

    def _required(self, call: Call, name: str) -> str:
        value = call.query.get(name, "")
        if not value:
            details = {"QueryParameterName": name}
            raise Refused(queue_error(400, "MissingRequiredQueryParameter", self._clock(), details=details))
        return value

    def _number(self, call: Call, name: str, default: int, lowest: int, highest: int) -> int:
        text = call.query.get(name, str(default))
        if not re.fullmatch(r"-?\d{1,15}", text, re.ASCII):
            raise Refused(self._invalid(call, name, "The value is not a number."))
        if not lowest <= int(text) <= highest:
            details = {
                "QueryParameterName": name,
                "QueryParameterValue": text,
                "MinimumAllowed": str(lowest),
                "MaximumAllowed": str(highest),
            }
            raise Refused(queue_error(400, "OutOfRangeQueryParameterValue", self._clock(), details=details))
        return int(text)

    def _invalid(self, call: Call, name: str, reason: str) -> Reply:
        details = {
            "QueryParameterName": name,
            "QueryParameterValue": call.query.get(name, ""),
            "Reason": reason,
        }
        return queue_error(400, "InvalidQueryParameterValue", self._clock(), details=details)


def _metadata(call: Call) -> dict[str, str]:
    prefix = "x-ms-meta-"
    return {
        # No reply and no file can hold the surrogates that stand for bytes that are not UTF-8.
        name[len(prefix) :]: value.encode(errors="surrogateescape").decode(errors="replace")
        for name, value in call.headers.items()
        if name.lower().startswith(prefix)
    }
