"""Every failure becomes a record: complete for an error of Azure, safe for anything else."""

from __future__ import annotations

import json
import socket
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import aiohttp
import pytest
from azure.core.exceptions import (
    ClientAuthenticationError,
    DecodeError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.identity import CredentialUnavailableError

from keysync.azure.errors import AzureFailureTranslator
from keysync.failures import CallFailed, FailureRecord
from keysync.http.retry_after import parse_retry_after
from keysync.secret.redact import Redactor
from keysync.secret.value import SecretValue
from tests.support.replies import IDS, Reply, cloud_error, http_error

SCOPE = "https://kv-render.vault.azure.net"
KEY = "QUJD" * 21 + "QUI="


def record_of(error: BaseException, operation: str = "getSecret", scope: str = SCOPE) -> FailureRecord:
    return AzureFailureTranslator(Redactor()).record(error, operation=operation, scope=scope)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 429, 500, 503])
def test_a_cloud_error_is_complete(status: int):
    """For each error status, with every level of the CloudError and all three ids."""
    deepest = {"code": "Deepest", "message": "third", "target": "c"}
    detail = {"code": "Detail", "message": "second", "target": "b", "details": [deepest]}
    inner = {"code": "Inner", "innererror": {"code": "Innermost", "more": [1, True, None]}}
    record = record_of(
        http_error(status, cloud_error("Outer", "first", target="a", details=[detail], innererror=inner), IDS)
    )
    assert record.http_status == status
    assert record.kind == ("throttled" if status == 429 else "cloud_error")
    assert (record.request_id, record.correlation_id, record.client_request_id) == (
        "request-1",
        "correlation-1",
        "client-1",
    )
    error_object = record.to_dict()
    assert set(error_object) == {
        "kind",
        "http_status",
        "cloud_error",
        "request_id",
        "correlation_id",
        "client_request_id",
        "hint",
    }
    none = {"details": [], "innererror": None}
    assert error_object["cloud_error"] == {
        "code": "Outer",
        "message": "first",
        "target": "a",
        "details": [{**detail, "innererror": None, "details": [{**deepest, **none}]}],
        "innererror": {"code": "Inner", "innererror": {"code": "Innermost"}},
    }
    assert record.code == "Outer"
    assert record.has_code("INNERMOST")
    assert record.has_code("deepest")
    assert not record.has_code("other")
    assert str(status) in record.summary
    assert "Outer: first" in record.summary
    assert record.ambiguous is (status >= 500)


def test_the_client_request_id_is_that_of_the_request_if_the_reply_has_none():
    """Some replies do not return it."""
    reply = Reply(503, "", sent={"x-ms-client-request-id": "sent-1"})
    assert record_of(HttpResponseError(response=reply)).client_request_id == "sent-1"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html><body>502 Bad Gateway</body></html>",
        '{"error": {"code": "Trunc',
        "null",
        "[]",
        "42",
        '"text"',
        "{}",
        '{"error": null}',
        '{"error": []}',
        '{"error": {}}',
        "[" * 100_000,
        "9" * 10_000,
    ],
    ids=[
        "empty",
        "html",
        "truncated",
        "null",
        "list",
        "number",
        "string",
        "object",
        "null-error",
        "list-error",
        "empty-error",
        "brackets",
        "digits",
    ],
)
def test_a_body_that_is_not_an_azure_error_is_not_quoted(body: str):
    """The record of a proxy's reply has the status and nothing of the body."""
    record = record_of(http_error(502, body, IDS))
    assert record.kind == "http_error"
    assert record.http_status == 502
    assert record.cloud_error is None
    assert record.request_id == "request-1"
    assert "html" not in record.summary
    assert "proxy" in (record.hint or "")


def nested(levels: int, *, by: str) -> str:
    opening, closing = ('"details":[', "]") if by == "details" else ('"innererror":', "")
    return (
        '{"error":' + f'{{"code":"c","message":"m",{opening}' * levels + '{"code":"e"}' + f"{closing}}}" * levels + "}"
    )


def test_the_redacted_text_of_one_failure_is_limited():
    """Redaction blocks the event loop for at most 16 KiB of text. No kept text is cut off."""
    redacted: list[str] = []

    class Counting(Redactor):
        def redact(self, text: str) -> str:
            redacted.append(text)
            return super().redact(text)

    details = [{"code": f"Code{number}", "message": "word " * 200} for number in range(60)]
    record = AzureFailureTranslator(Counting()).record(
        http_error(400, cloud_error("Outer", "first", details=details), IDS), operation="getSecret", scope=SCOPE
    )
    assert 12 * 1024 < sum(map(len, redacted)) < 18 * 1024
    assert record.cloud_error is not None
    messages = [detail.message or "" for detail in record.cloud_error.details]
    assert {len(message) for message in messages} == {0, 1000}
    assert record.codes[:3] == ("Outer", "Code0", "Code1")


@pytest.mark.parametrize("by", ["details", "innererror"])
@pytest.mark.parametrize("levels", [5, 50, 300, 50_000])
def test_nesting_is_limited(by: str, levels: int):
    """The record of a deeply nested reply can be printed as JSON."""
    record = record_of(http_error(400, nested(levels, by=by)))
    assert len(json.dumps(record.to_dict())) < 10_000
    if levels <= 50:
        assert record.code == "c"


def test_a_huge_reply_gives_a_small_record():
    """Lists, mappings and texts are cut to the size of a log line."""
    body = cloud_error(
        "c",
        "m" * 1_000_000,
        details=[{"code": "d"}] * 50_000,
        innererror={"list": list(range(50_000)), **{f"k{index}": 1 for index in range(50_000)}},
    )
    assert len(json.dumps(record_of(http_error(400, body)).to_dict())) < 30_000


@pytest.mark.parametrize("odd", [1, True, ["x"], {"y": 1}, None])
def test_fields_of_the_wrong_type_do_not_break_the_record(odd: Any):
    """Such as a number as code, or a list as message."""
    record = record_of(http_error(400, {"error": {"code": odd, "message": odd, "details": odd, "innererror": odd}}))
    json.dumps(record.to_dict())


def test_lists_of_numbers_are_dropped():
    """They could be the bytes of a request. `innererror` keeps its codes only."""
    numbers = list(b"a request with a key")
    inner = {
        "code": "Inner",
        "body": numbers,
        "innererror": {"code": "Innermost", "message": str(numbers), "was": [numbers]},
    }
    body = {"error": {"code": "Outer", "message": numbers, "target": {"body": numbers}, "innererror": inner}}
    record = record_of(http_error(400, body))
    assert record.cloud_error is not None
    assert record.cloud_error.innererror == {"code": "Inner", "innererror": {"code": "Innermost"}}
    assert (record.cloud_error.message, record.cloud_error.target) == (None, None)
    assert str(numbers[0]) not in f"{record.summary} {record.to_dict()}"


def test_secrets_are_redacted_at_every_level():
    """A service may repeat the request in its error."""
    redactor = Redactor()
    value = redactor.remember(SecretValue("hunter2-hunter2"))
    echo = f"bad {KEY} and hunter2-hunter2"
    body = cloud_error(echo, echo, target=echo, details=[{"code": echo}], innererror={echo: [echo]})
    record = AzureFailureTranslator(redactor).record(
        http_error(400, body, {"x-ms-request-id": echo}), operation="setSecret", scope=SCOPE
    )
    printed = f"{record} {json.dumps(record.to_dict())}"
    assert KEY not in printed
    assert "hunter2" not in printed
    del value


def test_a_summary_is_one_line():
    """Also for a message of several lines."""
    record = record_of(http_error(403, cloud_error("Forbidden", "Caller is not authorized.\r\nAction: 'x'\n")))
    assert len(record.summary.splitlines()) == 1


ENTRA = {
    "error": "invalid_client",
    "error_description": "AADSTS7000222: The provided client secret keys are expired. Trace ID: t",
    "error_codes": [7000222],
}


def test_an_error_of_entra_has_its_aadsts_code():
    """The code is AADSTS…, the target is Entra's `error`, and the hint is that for an expired secret."""
    record = record_of(ClientAuthenticationError(response=Reply(401, ENTRA, IDS)))
    assert record.kind == "authentication"
    assert record.code == "AADSTS7000222"
    assert record.cloud_error is not None
    assert record.cloud_error.target == "invalid_client"
    assert "AADSTS7000222" in record.summary
    assert "expired" in (record.hint or "")


def test_an_error_of_entra_without_a_reply_has_a_hint():
    """The code is found in the SDK's message."""
    record = record_of(ClientAuthenticationError(message="Authentication failed: AADSTS7000215: Invalid client secret"))
    assert record.kind == "authentication"
    assert "AADSTS7000215" in record.summary
    assert "client secret is wrong" in (record.hint or "")


def test_a_failure_to_get_a_token_is_not_ambiguous():
    """Without a token no request was sent."""
    assert not record_of(ClientAuthenticationError(message="DefaultAzureCredential failed")).ambiguous
    assert not record_of(CredentialUnavailableError(message="no identity endpoint")).ambiguous


class Host:
    host, port, ssl, is_ssl = "kv.example", 443, True, True


GAI = socket.gaierror(-2, "Name or service not known")
CHAINS: dict[str, tuple[BaseException, str, bool]] = {
    "dns": (ServiceRequestError("x", error=aiohttp.ClientConnectorDNSError(Host, GAI)), "dns", False),
    "gaierror": (ServiceRequestError("x", error=GAI), "dns", False),
    "tls": (
        ServiceRequestError("x", error=aiohttp.ClientConnectorCertificateError(Host, ssl.SSLError())),
        "tls",
        False,
    ),
    "ssl": (ServiceRequestError("x", error=ssl.SSLCertVerificationError("self-signed")), "tls", False),
    "refused": (
        ServiceRequestError("x", error=aiohttp.ClientConnectorError(Host, ConnectionRefusedError())),
        "connection",
        False,
    ),
    "connect timeout": (ServiceRequestError("x", error=aiohttp.ConnectionTimeoutError()), "timeout", False),
    "timeout": (TimeoutError(), "timeout", True),
    "response timeout": (ServiceResponseError("x", error=TimeoutError()), "timeout", True),
    "reset": (ServiceResponseError("x", error=ConnectionResetError()), "connection", True),
    "disconnected": (ServiceResponseError("x", error=aiohttp.ServerDisconnectedError()), "connection", True),
    "payload": (ServiceResponseError("x", error=aiohttp.ClientPayloadError()), "connection", True),
    "unknown of the SDK": (ServiceRequestError("something"), "connection", True),
    "json": (json.JSONDecodeError("x", "doc", 0), "invalid_response", True),
    "decode": (DecodeError(response=Reply(200, "<html>")), "invalid_response", True),
    "challenge": (
        ValueError("The challenge resource 'evil.example' does not match the requested domain"),
        "challenge",
        False,
    ),
    "no credential": (CredentialUnavailableError(message="nothing here"), "credential_unavailable", False),
    "value error": (ValueError("a bug"), "internal", True),
    "unexpected": (ZeroDivisionError("QUJD"), "internal", True),
}


@pytest.mark.parametrize(("error", "kind", "ambiguous"), CHAINS.values(), ids=CHAINS)
def test_the_kind_of_a_failure_without_a_reply_is_that_of_its_cause(error: BaseException, kind: str, ambiguous: bool):
    """However the SDK wraps the cause. It also decides whether the request may have taken effect."""
    record = record_of(error)
    assert (record.kind, record.ambiguous) == (kind, ambiguous)
    assert record.summary


def test_the_summary_of_an_unexpected_exception_is_its_type():
    """Its text could contain anything."""
    assert record_of(ZeroDivisionError("hunter2")).summary == "unexpected ZeroDivisionError"


def test_circular_causes_are_handled():
    """Each exception is visited once."""
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert record_of(first).kind == "internal"


def test_the_record_of_call_failed_is_kept():
    """It is not translated again."""
    record = FailureRecord(kind="dns", summary="s")
    assert record_of(CallFailed(record)) is record


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"x-ms-retry-after-ms": "1500", "Retry-After": "9"}, 1.5),
        ({"x-ms-retry-after-ms": "soon", "Retry-After": "9"}, 9),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00"}, 0),
        # By the service's clock, not by this machine's.
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:05 GMT", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 5),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "1e999"}, None),
        ({"Retry-After": "in a while"}, None),
        ({"Retry-After": "Mon, 32 Foo 2015"}, None),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 +99999999999999999"}, None),
        ({"Retry-After": "Wed, 21 Oct 99999999999999999999 07:28:00 GMT"}, None),
    ],
)
def test_retry_after_is_parsed(headers: dict[str, str], seconds: float | None):
    """Seconds, milliseconds and dates; invalid values are ignored."""
    assert parse_retry_after(headers) == seconds


def test_a_date_in_the_future_is_parsed_to_seconds():
    """The seconds until then."""
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 80 < (parse_retry_after({"Retry-After": until}) or 0) <= 90
