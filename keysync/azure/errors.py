"""Failures of Azure as records: a CloudError in full structure, or what else went wrong, by kind; never a traceback."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import aiohttp
from azure.core.exceptions import AzureError, ClientAuthenticationError, DecodeError, HttpResponseError
from azure.identity import CredentialUnavailableError

from keysync.azure.body import UnreadableBody
from keysync.azure.hints import hint_for
from keysync.azure.sign_in import UNKNOWN, SignIn
from keysync.failures import CallFailed, CloudError, FailureKind, FailureRecord
from keysync.http.proxy import ProxyFailed, hint_in
from keysync.http.reply import parse_retry_after
from keysync.secret.redact import Redactor

_DEPTH: Final = 12
_TEXT: Final = 4096
# Redacting takes time in proportion to the text, 1 ms for a thousand characters with 10,000 remembered values, and the event
# loop waits meanwhile: this is how many characters of one failure are redacted, all its texts together.
_REDACTED: Final = 16 * 1024
# What a parser raises that meets another shape than it expects, a number that is too large, or nesting that is too deep.
_PARSING: Final = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_AADSTS: Final = re.compile(r"AADSTS\d+")
# Batch writes its ids into the message; the record has them in fields of their own.
_IDS_IN_TEXT: Final = re.compile(r"\s*RequestId:\S+\s+Time:\S+")
_DETAILS_SHOWN: Final = 3
_READ_ONLY: Final = "read-only state"
# One credential of DefaultAzureCredential and why it gave no token, without the words that each of them begins with.
_ATTEMPT: Final = re.compile(r"^\t(\w+): (?:\w+ authentication unavailable[.,:] )?(.+)$", re.MULTILINE)
_SENTENCE: Final = re.compile(r"[.,] |\.$")


class AzureFailureTranslator:
    """Turns whatever a call raised into a FailureRecord, with every text scrubbed."""

    def __init__(self, redactor: Redactor) -> None:
        self._redact = redactor.redact
        self._left = _REDACTED

    def record(self, error: BaseException, *, operation: str, scope: str, calling: bool = False) -> FailureRecord:
        """The record of `error`, which `operation` (``listKeys``) on `scope` (an ARM id, a vault's URL) raised.

        With `calling` it was raised by sending one request or reading its reply: what a parser raises is then the reply's fault.
        """
        if isinstance(error, CallFailed):
            return error.record
        self._left = _REDACTED
        if isinstance(error, HttpResponseError) and not isinstance(error, CredentialUnavailableError):
            found = self._from_response(error)
        else:
            found = self._from_exception(error, calling=calling)
        found = replace(found, about=_about(error, scope), operation=operation)
        return _with_hint(found, operation=operation, scope=scope, sign_in=_sign_in_of(error))

    def _from_response(self, error: HttpResponseError) -> FailureRecord:
        response: Any = error.response
        headers: Mapping[str, str] = response.headers if response is not None else {}
        status = error.status_code
        body = _json_body(response)
        cloud_error = self._entra_error(body) or self._cloud_error(body)
        # DefaultAzureCredential drops the error of a proxy, and keeps its text.
        proxy = hint_in(str(error.message)) if response is None else None
        kind = "connection" if proxy else _kind_of_status(error, status, cloud_error)
        return FailureRecord(
            kind=kind,
            summary=_summary_of_status(kind, status, cloud_error, self._plain_message(error, response)),
            http_status=status,
            cloud_error=cloud_error,
            request_id=self._header(headers, "x-ms-request-id"),
            correlation_id=self._header(headers, "x-ms-correlation-request-id"),
            client_request_id=self._header(headers, "x-ms-client-request-id") or _sent_client_request_id(response),
            hint=proxy,
            retry_after=parse_retry_after(headers),
            ambiguous=proxy is None and _may_have_taken_effect(kind, status, cloud_error),
        )

    def _plain_message(self, error: HttpResponseError, response: Any) -> str:  # noqa: ANN401
        # Without a response the message is the SDK's own; with one it may be a body that nobody knows: drop that.
        if response is None and error.message:
            return self._redacted(_attempts(str(error.message)))
        return error.message if isinstance(error, UnreadableBody) else ""

    def _header(self, headers: Mapping[str, str], name: str) -> str | None:
        value = headers.get(name)
        return self._redact(str(value))[:128] if value else None

    def _entra_error(self, body: object) -> CloudError | None:
        """Entra's own shape (`error`, `error_description`, `error_codes`), as a CloudError whose code is AADSTS…"""
        if not isinstance(body, Mapping) or not isinstance(body.get("error"), str):
            return None
        description = self._text(body.get("error_description")) or ""
        code = _AADSTS.search(description)
        return CloudError(code.group() if code else self._text(body["error"]), description, self._text(body["error"]))

    def _cloud_error(self, body: object, depth: int = 0) -> CloudError | None:
        if not isinstance(body, Mapping):
            return None
        error = body.get("error", body)
        if not isinstance(error, Mapping) or not ({"code", "message"} & set(error)):
            return None
        details = error.get("details")
        return CloudError(
            code=self._text(error.get("code")),
            message=self._text(error.get("message")),
            target=self._text(error.get("target")),
            details=self._details(details, depth),
            innererror=self._code_chain(error),
        )

    def _details(self, details: object, depth: int) -> tuple[CloudError, ...]:
        # A hostile reply could nest without end.
        if not isinstance(details, list) or depth >= _DEPTH:
            return ()
        found = (self._cloud_error(detail, depth + 1) for detail in details[:100])
        return tuple(detail for detail in found if detail is not None)

    def _code_chain(self, error: Mapping[str, Any], depth: int = 0) -> dict[str, Any] | None:
        """The `innererror` of `error` with nothing but its codes, however deep: the rest may repeat a request in any shape."""
        inner = error.get("innererror", error.get("innerError"))
        if not isinstance(inner, Mapping) or depth >= _DEPTH:
            return None
        code = inner.get("code")
        chain: dict[str, Any] = {"code": self._text(code)} if isinstance(code, str) else {}
        deeper = self._code_chain(inner, depth + 1)
        return {**chain, "innererror": deeper} if deeper is not None else chain or None

    def _text(self, value: object) -> str | None:
        # A list or a mapping here is no text of Azure's, and could be the bytes of a request.
        if not isinstance(value, str | int | float):
            return None
        try:
            return self._redacted(str(value))
        except ValueError:
            return None  # a number with too many digits

    def _redacted(self, text: str) -> str:
        part = text[: self._left]
        if len(part) < len(text) and len(part) < 2 * _TEXT:
            part = ""  # what is cut off would be kept, and the head of an unknown key is not recognised
        self._left -= len(part)
        return self._redact(part)[:_TEXT]

    def _from_exception(self, error: BaseException, *, calling: bool) -> FailureRecord:
        # Without the body of a reply, which the SDK appends to its message.
        said = error.message if isinstance(error, HttpResponseError) else error
        text = self._redacted(str(said))
        for cause in _causes(error):
            if isinstance(cause, ProxyFailed):
                return self._from_proxy(cause)
            known = _kind_of_cause(cause)
            if known is not None:
                kind, prefix, ambiguous = known
                return FailureRecord(kind=kind, summary=_join(prefix, text), ambiguous=ambiguous)
        if isinstance(error, AzureError):
            return FailureRecord(kind="connection", summary=_join("", text) or type(error).__name__, ambiguous=True)
        if calling and isinstance(error, _PARSING):
            told = f"the body of the reply could not be understood ({type(error).__name__})"
            return FailureRecord(kind="invalid_response", summary=told, ambiguous=True)
        # An exception that nobody foresaw: its type tells where to look, its text could hold anything.
        return FailureRecord(kind="internal", summary=f"unexpected {type(error).__name__}", ambiguous=True)

    def _from_proxy(self, error: ProxyFailed) -> FailureRecord:
        # No tunnel, so nothing was sent.
        kind: FailureKind = "connection" if error.status is None else "http_error"
        return FailureRecord(kind=kind, summary=self._redact(str(error)), http_status=error.status, hint=error.hint)


def _about(error: BaseException, scope: str) -> str:
    """What a failure is about: the credential that got no token, the account, or the vault."""
    for cause in _causes(error):
        name = vars(cause).get("credential")
        if isinstance(name, str):
            return f"credential {name}"
    return "account" if scope.startswith("/") else f"vault {scope}"


def _may_have_taken_effect(kind: FailureKind, status: int | None, cloud_error: CloudError | None) -> bool:
    if status is None:
        return kind not in {"authentication", "credential_unavailable"}  # no token, no request
    if status == 503 and cloud_error is not None and _READ_ONLY in (cloud_error.message or ""):
        return False  # a vault after a failover says that it carries out nothing
    return status >= 500 or status == 408 or status < 300


def _json_body(response: Any) -> object:  # noqa: ANN401
    try:
        return json.loads(response.text()) if response is not None else None
    except Exception:  # noqa: BLE001  # an unread stream, a wrong charset, no JSON: all mean that there is no body to tell
        return None


def _sent_client_request_id(response: Any) -> str | None:  # noqa: ANN401
    request = getattr(response, "request", None)
    return request.headers.get("x-ms-client-request-id") if request is not None else None


def _kind_of_status(error: HttpResponseError, status: int | None, cloud_error: CloudError | None) -> FailureKind:
    if isinstance(error, DecodeError) or (status is not None and status < 300):
        return "invalid_response"
    if status == 429:
        return "throttled"
    if isinstance(error, ClientAuthenticationError):
        return "credential_unavailable" if _found_nothing(error) else "authentication"
    return "cloud_error" if cloud_error is not None else "http_error"


def _summary_of_status(kind: FailureKind, status: int | None, cloud_error: CloudError | None, plain: str) -> str:
    if kind == "invalid_response":
        return f"HTTP {status}: {plain or 'the body of the reply could not be understood'}"
    prefix = f"HTTP {status}" if status is not None else ""
    if cloud_error is None:
        return _join(prefix, plain or "the body of the reply is no error of Azure's")
    return _join(prefix, _text_of(cloud_error))


def _text_of(error: CloudError) -> str:
    """Code and message, each once, then what `details` say beyond them."""
    message = _IDS_IN_TEXT.sub("", error.message or "").strip()
    repeated = error.code is None or message.startswith(error.code)
    texts = [message if repeated else ": ".join(filter(None, (error.code, message)))]
    for detail in error.details[:_DETAILS_SHOWN]:
        told = _text_of(detail)
        if (detail.message or detail.code or "") not in texts[0]:
            texts.append(told)
    return "; ".join(filter(None, texts))


def _join(prefix: str, text: str) -> str:
    text = " ".join(text.split())
    return f"{prefix}: {text}" if prefix and text else prefix or text


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and what it came from, outermost first, each once."""
    seen: set[int] = set()
    pending: list[BaseException] = [error]
    while pending:
        current = pending.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        inner = getattr(current, "inner_exception", None)
        candidates = (inner, current.__cause__, current.__context__)
        pending.extend(cause for cause in candidates if isinstance(cause, BaseException))


def _kind_of_cause(cause: BaseException) -> tuple[FailureKind, str, bool] | None:
    """Kind, a prefix for people, and whether the request may have taken effect."""
    match cause:
        case CredentialUnavailableError():
            return "credential_unavailable", "", False
        case ssl.SSLError() | aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return "tls", "TLS", False
        case socket.gaierror() | aiohttp.ClientConnectorDNSError():
            return "dns", "the host name does not resolve", False
        case aiohttp.ClientConnectorError() | ConnectionRefusedError():
            return "connection", "no connection", False
        case aiohttp.ConnectionTimeoutError():
            return "timeout", "no connection in time", False
        case asyncio.TimeoutError():
            return "timeout", "no answer within the deadline", True
        case json.JSONDecodeError():
            return "invalid_response", "the body of the reply is not JSON", True
        case ValueError() if "challenge" in str(cause).lower():
            return "challenge", "", False
        case aiohttp.ClientPayloadError() | aiohttp.ClientError() | OSError():
            return "connection", "the connection broke", True
    return None


def _sign_in_of(error: BaseException) -> SignIn:
    """Where the credential that raised `error` has its parts from."""
    found = (getattr(cause, "sign_in", None) for cause in _causes(error))
    return next((each for each in found if isinstance(each, SignIn)), UNKNOWN)


def _found_nothing(error: ClientAuthenticationError) -> bool:
    """Whether DefaultAzureCredential has no credential that could ask for a token; Entra refused none of them."""
    text = str(error.message)
    return error.response is None and _ATTEMPT.search(text) is not None and _AADSTS.search(text) is None


def _attempts(text: str) -> str:
    """What DefaultAzureCredential tried, without its advice: each credential with the first sentence of its message."""
    tried = [f"{name}: {_SENTENCE.split(why)[0].rstrip('.')}" for name, why in _ATTEMPT.findall(text)]
    return f"no credential gave a token ({'; '.join(tried)})" if tried else text


def _with_hint(record: FailureRecord, *, operation: str, scope: str, sign_in: SignIn) -> FailureRecord:
    if record.hint is not None:
        return record
    message = (record.cloud_error.message if record.cloud_error else record.summary) or ""
    hint = hint_for(
        kind=record.kind,
        status=record.http_status,
        codes=record.codes,
        message=message,
        operation=operation,
        scope=scope,
        sign_in=sign_in,
    )
    return record if hint is None else replace(record, hint=hint)
