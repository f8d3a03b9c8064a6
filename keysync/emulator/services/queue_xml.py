"""Bodies of the Queue service: messages, lists and errors in XML."""

from __future__ import annotations

import uuid
import xml.etree.ElementTree as ET  # nosec B405  # bodies are limited in size, and expat limits the expansion of entities
from collections.abc import Iterable
from email.utils import formatdate

from keysync.emulator.queues import Message, Queue
from keysync.emulator.times import timestamp
from keysync.emulator.wire import Call, Reply

CONTENT_TYPE = {"Content-Type": "application/xml"}

_NOT_AUTHENTICATED = (
    "Server failed to authenticate the request. Please refer to the information in the www-authenticate header."
)
_MESSAGES = {
    "AuthorizationPermissionMismatch": "This request is not authorized to perform this operation using this permission.",
    "InvalidAuthenticationInfo": _NOT_AUTHENTICATED,
    "InvalidHeaderValue": "The value for one of the HTTP headers is not in the correct format.",
    "InvalidQueryParameterValue": "Value for one of the query parameters specified in the request URI is invalid.",
    "InvalidResourceName": "The specified resource name contains invalid characters.",
    "InvalidUri": "The requested URI does not represent any resource on the server.",
    "InvalidXmlDocument": "XML specified is not syntactically valid.",
    "KeyBasedAuthenticationNotPermitted": "Key based authentication is not permitted on this storage account.",
    "MessageNotFound": "The specified message does not exist.",
    "MessageTooLarge": "The message exceeds the maximum allowed size.",
    "MissingRequiredHeader": "An HTTP header that's mandatory for this request is not specified.",
    "MissingRequiredQueryParameter": "A query parameter that's mandatory for this request is not specified.",
    "NoAuthenticationInformation": _NOT_AUTHENTICATED,
    "OutOfRangeInput": "The specified resource name length is not within the permissible limits.",
    "OutOfRangeQueryParameterValue": (
        "One of the query parameters specified in the request URI is outside the permissible range."
    ),
    "PopReceiptMismatch": "The specified pop receipt did not match the pop receipt for a dequeued message.",
    "QueueAlreadyExists": "The specified queue already exists.",
    "QueueNotFound": "The specified queue does not exist.",
    "RequestBodyTooLarge": "The request body is too large and exceeds the maximum permissible limit.",
    "ResourceNotFound": "The specified resource does not exist.",
    "ServerBusy": "The server is busy.",
    "UnsupportedHttpVerb": "The resource doesn't support specified Http Verb.",
}
"""https://learn.microsoft.com/rest/api/storageservices/queue-service-error-codes, and the common codes of Storage."""


def queue_error(
    status: int,
    code: str,
    now: float,
    *,
    message: str | None = None,
    details: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
) -> Reply:
    """An error of the Queue service. `now` is in seconds since 1970, `message` replaces the usual text of `code`."""
    request_id = str(uuid.uuid4())
    root = ET.Element("Error")
    _add(root, "Code", code)
    text = message or _MESSAGES.get(code, code)
    _add(root, "Message", f"{text}\nRequestId:{request_id}\nTime:{timestamp(now)}")
    for name, value in (details or {}).items():
        _add(root, name, value)
    return Reply(
        status,
        _document(root),
        {**CONTENT_TYPE, "x-ms-request-id": request_id, "x-ms-error-code": code, **(headers or {})},
    )


def message_text(body: bytes) -> str | None:
    """The text of a message in a request, None if the body is not one."""
    root = _parsed(body)
    found = root.find("MessageText") if root is not None and root.tag == "QueueMessage" else None
    return None if found is None else found.text or ""


def is_xml(body: bytes) -> bool:
    """Whether `body` is a document."""
    return _parsed(body) is not None


def _parsed(body: bytes) -> ET.Element | None:
    """The root of a document, None if it is not valid or has a document type, whose entities could become very long."""
    try:
        return None if b"<!DOCTYPE" in body else ET.fromstring(body)  # noqa: S314  # nosec B314  # as at the import
    except (ET.ParseError, ValueError):
        return None


def received_messages(messages: Iterable[Message]) -> bytes:
    """Messages with their pop receipts."""
    return _messages(messages, "ExpirationTime", "PopReceipt", "TimeNextVisible", "DequeueCount", "MessageText")


def peeked_messages(messages: Iterable[Message]) -> bytes:
    """Messages as an onlooker sees them."""
    return _messages(messages, "ExpirationTime", "DequeueCount", "MessageText")


def put_message(message: Message) -> bytes:
    """What the sender of a message gets."""
    return _messages([message], "ExpirationTime", "PopReceipt", "TimeNextVisible")


def queue_list(call: Call, queues: list[Queue], next_marker: str) -> bytes:
    """A page of a list of queues."""
    account = call.segments[0]
    service = f"{call.base}/" if f"//{account}." in call.base else f"{call.base}/{account}"
    root = ET.Element("EnumerationResults", ServiceEndpoint=service)
    for name, parameter in (("Prefix", "prefix"), ("Marker", "marker"), ("MaxResults", "maxresults")):
        if parameter in call.query:
            _add(root, name, call.query[parameter])
    items = ET.SubElement(root, "Queues")
    for queue in queues:
        item = ET.SubElement(items, "Queue")
        _add(item, "Name", queue.name)
        if "metadata" in call.query.get("include", ""):
            metadata = ET.SubElement(item, "Metadata")
            for name, value in queue.metadata.items():
                _add(metadata, name, value)
    _add(root, "NextMarker", next_marker)
    return _document(root)


def service_properties() -> bytes:
    """The properties of a service before a client sets them."""
    root = ET.Element("StorageServiceProperties")
    logging = ET.SubElement(root, "Logging")
    _add(logging, "Version", "1.0")
    for name in ("Read", "Write", "Delete"):
        _add(logging, name, "false")
    _add(ET.SubElement(logging, "RetentionPolicy"), "Enabled", "false")
    for name in ("HourMetrics", "MinuteMetrics"):
        metrics = ET.SubElement(root, name)
        _add(metrics, "Version", "1.0")
        _add(metrics, "Enabled", "false")
        _add(ET.SubElement(metrics, "RetentionPolicy"), "Enabled", "false")
    ET.SubElement(root, "Cors")
    return _document(root)


def _messages(messages: Iterable[Message], *fields: str) -> bytes:
    root = ET.Element("QueueMessagesList")
    for message in messages:
        values = {
            "MessageId": message.id,
            "InsertionTime": formatdate(message.inserted, usegmt=True),
            "ExpirationTime": formatdate(message.expires, usegmt=True),
            "PopReceipt": message.receipt,
            "TimeNextVisible": formatdate(message.visible, usegmt=True),
            "DequeueCount": str(message.dequeue_count),
            "MessageText": message.text,
        }
        item = ET.SubElement(root, "QueueMessage")
        for name in ("MessageId", "InsertionTime", *fields):
            _add(item, name, values[name])
    return _document(root)


def _add(parent: ET.Element, name: str, text: str) -> None:
    ET.SubElement(parent, name).text = text


def _document(root: ET.Element) -> bytes:
    content: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return content
