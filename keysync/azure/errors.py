"""Turns exceptions of calls to Azure into failure records: the complete CloudError if there is one, or the kind of the cause."""

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

from keysync.azure.hints import with_hint
from keysync.azure.sign_in import UNKNOWN, SignIn
from keysync.azure.transport import UnreadableBody
from keysync.failures import CallFailed, CloudError, FailureKind, FailureRecord
from keysync.http.proxy import ProxyFailed, hint_in
from keysync.http.retry_after import parse_retry_after
from keysync.json_values import as_list, as_mapping
from keysync.secret.redact import Redactor

_MAX_DEPTH: Final = 12
_MAX_TEXT: Final = 4096
# The limit of redacted characters in one failure, all texts together. Redaction blocks the event loop: 1 ms for a thousand
# characters with 10,000 remembered values.
_MAX_REDACTED: Final = 16 * 1024
_AADSTS: Final = re.compile(r"AADSTS\d+")
# Batch puts ids into the message; the record has separate fields for them.
_IDS_IN_TEXT: Final = re.compile(r"\s*RequestId:\S+\s+Time:\S+")
_MAX_DETAILS_IN_SUMMARY: Final = 3
_READ_ONLY: Final = "read-only state"
# One credential of DefaultAzureCredential and why it got no token, without the common beginning of these messages.
_ATTEMPT: Final = re.compile(r"^\t(\w+): (?:\w+ authentication unavailable[.,:] )?(.+)$", re.MULTILINE)
_SENTENCE: Final = re.compile(r"[.,] |\.$")
# What raised the exception, the kind, a prefix for the summary, and whether the request may have taken effect.
# The first match counts, for the exception or for the outermost of its causes that has one.
_KINDS: Final[tuple[tuple[tuple[type[BaseException], ...], FailureKind, str, bool], ...]] = (
    ((CredentialUnavailableError,), "credential_unavailable", "", False),
    ((ssl.SSLError, aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError), "tls", "TLS", False),
    ((socket.gaierror, aiohttp.ClientConnectorDNSError), "dns", "the host name does not resolve", False),
    ((aiohttp.ClientConnectorError, ConnectionRefusedError), "connection", "no connection", False),
    ((aiohttp.ConnectionTimeoutError,), "timeout", "no connection in time", False),
    ((asyncio.TimeoutError,), "timeout", "no answer within the deadline", True),
    ((json.JSONDecodeError,), "invalid_response", "the body of the reply is not JSON", True),
    ((aiohttp.ClientError, OSError), "connection", "the connection broke", True),
)
# Exceptions of a parser for an unexpected shape, too large a number or too deep nesting.
_PARSER_ERRORS: Final = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class AzureFailureTranslator:
    """Fulfils `FailureTranslator` for exceptions of the SDKs, of aiohttp and of parsers."""

    def __init__(self, redactor: Redactor) -> None:
        self._redact = redactor.redact
        self._remaining = _MAX_REDACTED

    def record(self, error: BaseException, *, operation: str, scope: str, calling: bool = False) -> FailureRecord:
        """The record of `error`; see `FailureTranslator`."""
        if isinstance(error, CallFailed):
            return error.record
        self._remaining = _MAX_REDACTED
        if isinstance(error, HttpResponseError) and not isinstance(error, CredentialUnavailableError):
            record = self._from_response(error)
        else:
            record = self._from_exception(error, calling=calling)
        about, sign_in = "account" if scope.startswith("/") else f"vault {scope}", UNKNOWN
        for cause in _causes(error):
            if isinstance(
                found := vars(cause).get("sign_in"), SignIn
            ):  # the credential that raised it has left its marks
                about, sign_in = f"credential {vars(cause)['credential']}", found
                break
        record = replace(record, about=about, operation=operation)
        return record if record.hint is not None else with_hint(record, scope, sign_in)

    def _from_response(self, error: HttpResponseError) -> FailureRecord:
        response: Any = error.response
        headers: Mapping[str, str] = response.headers if response is not None else {}
        request = getattr(response, "request", None)
        status = error.status_code
        body = _json_body(response)
        cloud_error = self._entra_error(body) or self._cloud_error(body)
        # Without a response the message is the SDK's own. With one it may quote an unknown body, so it is dropped.
        message, proxy_hint = error.message if isinstance(error, UnreadableBody) else "", None
        if response is None:
            message = self._redacted(_shorten_attempts(str(error.message or "")))
            proxy_hint = hint_in(str(error.message))
        kind = "connection" if proxy_hint else _kind_of_status(error, cloud_error)
        client_request_id = self._header(headers, "x-ms-client-request-id")
        return FailureRecord(
            kind=kind,
            summary=_summary(kind, status, cloud_error, message),
            http_status=status,
            cloud_error=cloud_error,
            request_id=self._header(headers, "x-ms-request-id"),
            correlation_id=self._header(headers, "x-ms-correlation-request-id"),
            client_request_id=client_request_id or (request and request.headers.get("x-ms-client-request-id")),
            hint=proxy_hint,
            retry_after=parse_retry_after(headers),
            ambiguous=proxy_hint is None and _may_have_taken_effect(kind, status, cloud_error),
        )

    def _from_exception(self, error: BaseException, *, calling: bool) -> FailureRecord:
        # `message` without the body of the reply, which the SDK adds to str(error).
        text = self._redacted(str(error.message if isinstance(error, HttpResponseError) else error))
        for cause in _causes(error):
            if isinstance(cause, ProxyFailed):
                # Without a tunnel no request was sent.
                proxy_kind: FailureKind = "connection" if cause.status is None else "http_error"
                return FailureRecord(proxy_kind, self._redact(str(cause)), cause.status, hint=cause.hint)
            if isinstance(cause, ValueError) and "challenge" in str(cause).lower():
                return FailureRecord("challenge", _join("", text))
            for types, kind, prefix, ambiguous in _KINDS:
                if isinstance(cause, types):
                    return FailureRecord(kind, _join(prefix, text), ambiguous=ambiguous)
        if isinstance(error, AzureError):
            return FailureRecord("connection", _join("", text) or type(error).__name__, ambiguous=True)
        if calling and isinstance(error, _PARSER_ERRORS):
            summary = f"the body of the reply could not be understood ({type(error).__name__})"
            return FailureRecord("invalid_response", summary, ambiguous=True)
        # An unexpected exception: only its type, as its text could contain anything.
        return FailureRecord("internal", f"unexpected {type(error).__name__}", ambiguous=True)

    def _header(self, headers: Mapping[str, str], name: str) -> str | None:
        value = headers.get(name)
        return self._redact(str(value))[:128] if value else None

    def _entra_error(self, body: object) -> CloudError | None:
        """Entra's error (`error`, `error_description`, `error_codes`) as a CloudError whose code is AADSTS…"""
        reply = as_mapping(body) or {}
        error = reply.get("error")
        if not isinstance(error, str):
            return None
        description = self._text_or_none(reply.get("error_description")) or ""
        code = _AADSTS.search(description)
        return CloudError(code.group() if code else self._text_or_none(error), description, self._text_or_none(error))

    def _cloud_error(self, body: object, depth: int = 0) -> CloudError | None:
        reply = as_mapping(body) or {}
        error = as_mapping(reply.get("error", reply))
        if error is None or not ({"code", "message"} & set(error)):
            return None
        code, message, target = (self._text_or_none(error.get(name)) for name in ("code", "message", "target"))
        # A hostile reply could be nested endlessly.
        entries = (as_list(error.get("details")) or [])[:100] if depth < _MAX_DEPTH else []
        details = [self._cloud_error(entry, depth + 1) for entry in entries]
        kept = tuple(detail for detail in details if detail is not None)
        return CloudError(code, message, target, kept, self._code_chain(error))

    def _code_chain(self, error: Mapping[str, object], depth: int = 0) -> dict[str, Any] | None:
        """The `innererror` of `error`, with its codes only: the rest may repeat the request in any shape."""
        inner = as_mapping(error.get("innererror", error.get("innerError")))
        if inner is None or depth >= _MAX_DEPTH:
            return None
        code = inner.get("code")
        chain: dict[str, Any] = {"code": self._text_or_none(code)} if isinstance(code, str) else {}
        deeper = self._code_chain(inner, depth + 1)
        return {**chain, "innererror": deeper} if deeper is not None else chain or None

    def _text_or_none(self, value: object) -> str | None:
        # A list or a mapping is not a text of Azure, and could be the bytes of a request.
        if not isinstance(value, str | int | float):
            return None
        try:
            return self._redacted(str(value))
        except ValueError:
            return None  # a number with too many digits for str()

    def _redacted(self, text: str) -> str:
        part = text[: self._remaining]
        if len(part) < len(text) and len(part) < 2 * _MAX_TEXT:
            part = ""  # the start of a cut-off key might not be recognised as one
        self._remaining -= len(part)
        return self._redact(part)[:_MAX_TEXT]


def _json_body(response: Any) -> object:  # noqa: ANN401  # the SDK has two response types
    try:
        return json.loads(response.text()) if response is not None else None
    except Exception:  # noqa: BLE001  # an unread stream, a wrong charset or invalid JSON: there is no body to show
        return None


def _kind_of_status(error: HttpResponseError, cloud_error: CloudError | None) -> FailureKind:
    status = error.status_code
    if isinstance(error, DecodeError) or (status is not None and status < 300):
        return "invalid_response"
    if status == 429:
        return "throttled"
    if isinstance(error, ClientAuthenticationError):
        # DefaultAzureCredential may have found no credential that could request a token, so that Entra refused none.
        text = str(error.message)
        none_found = error.response is None and _ATTEMPT.search(text) is not None and _AADSTS.search(text) is None
        return "credential_unavailable" if none_found else "authentication"
    return "cloud_error" if cloud_error is not None else "http_error"


def _may_have_taken_effect(kind: FailureKind, status: int | None, cloud_error: CloudError | None) -> bool:
    if status is None:
        return kind not in {"authentication", "credential_unavailable"}  # no token, no request
    if status == 503 and cloud_error is not None and _READ_ONLY in (cloud_error.message or ""):
        return False  # a vault in a failover carries out no writes
    return status >= 500 or status == 408 or status < 300


def _summary(kind: FailureKind, status: int | None, cloud_error: CloudError | None, message: str) -> str:
    prefix = f"HTTP {status}" if status is not None or kind == "invalid_response" else ""
    if kind == "invalid_response":
        return f"{prefix}: {message or 'the body of the reply could not be understood'}"
    if cloud_error is None:
        return _join(prefix, message or "the body of the reply is not an error of Azure")
    return _join(prefix, _text_of(cloud_error))


def _text_of(error: CloudError) -> str:
    """Code and message, each once, then those of `details` that add something."""
    message = _IDS_IN_TEXT.sub("", error.message or "").strip()
    repeated = error.code is None or message.startswith(error.code)
    texts = [message if repeated else _join(error.code, message)]
    for detail in error.details[:_MAX_DETAILS_IN_SUMMARY]:
        if (detail.message or detail.code or "") not in texts[0]:
            texts.append(_text_of(detail))
    return "; ".join(filter(None, texts))


def _join(prefix: str | None, text: str) -> str:
    return ": ".join(filter(None, (prefix, " ".join(text.split()))))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and its causes, outermost first, each once."""
    found = [error]
    for current in found:  # grows meanwhile
        yield current
        causes = (getattr(current, "inner_exception", None), current.__cause__, current.__context__)
        found += [each for each in causes if isinstance(each, BaseException) and not any(each is one for one in found)]


def _shorten_attempts(text: str) -> str:
    """The credentials that DefaultAzureCredential tried, each with the first sentence of its message and without advice."""
    attempts = [f"{name}: {_SENTENCE.split(reason)[0].rstrip('.')}" for name, reason in _ATTEMPT.findall(text)]
    return f"no credential got a token ({'; '.join(attempts)})" if attempts else text
