"""How keysync describes a failed call to Azure, without an Azure SDK. `keysync.azure.errors` makes the records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from keysync.errors import KeysyncError
from keysync.json_values import as_mapping
from keysync.names import fold

FailureKind = Literal[
    "cloud_error",  # an error reply with a CloudError
    "http_error",  # an error status without a CloudError: a proxy's page, an empty body
    "invalid_response",  # a success status with a body that could not be parsed
    "throttled",  # 429, or a Retry-After above the cap
    "authentication",  # Entra refused a token, or a service refused the token
    "credential_unavailable",  # the credential has no means to request a token
    "shared_key_disabled",  # the account does not allow shared keys
    "challenge",  # a vault asked for a token of another domain
    "dns", "tls", "connection", "timeout",
    "conflict",  # another writer changed the secret during a write
    "internal",  # a bug in keysync
]  # fmt: skip

_MAX_DEPTH: Final = 12


@dataclass(frozen=True, slots=True)
class CloudError:
    """Azure's error object: `{"error": {code, message, target, details, innererror}}`, nested to any depth."""

    code: str | None
    message: str | None
    target: str | None = None
    details: tuple[CloudError, ...] = ()
    innererror: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The `cloud_error` object of the JSON report, with its details."""
        return {
            "code": self.code,
            "message": self.message,
            "target": self.target,
            "details": [detail.to_dict() for detail in self.details],
            "innererror": self.innererror,
        }

    def codes(self) -> Iterator[str]:
        """Yields every code, from the outermost to the innermost, then those of the details."""
        if self.code:
            yield self.code
        inner: Mapping[str, object] = self.innererror or {}
        for _ in range(_MAX_DEPTH):
            if isinstance(code := inner.get("code"), str):
                yield code
            inner = as_mapping(inner.get("innererror")) or {}
        for detail in self.details:
            yield from detail.codes()


@dataclass(frozen=True, slots=True)
class FailureRecord:
    """One failed call, as log, report and terminal show it. Its texts are redacted."""

    kind: FailureKind
    summary: str
    """One line for people."""
    http_status: int | None = None
    cloud_error: CloudError | None = None
    request_id: str | None = None
    correlation_id: str | None = None
    client_request_id: str | None = None
    hint: str | None = None
    """How to fix it."""
    retry_after: float | None = field(default=None, compare=False)
    """The wait that the service asked for, in seconds."""
    ambiguous: bool = field(default=False, compare=False)
    """Whether the request may have taken effect although it failed."""
    about: str = field(default="", compare=False)
    """What failed: ``account``, ``vault URL`` or ``credential NAME``."""
    operation: str = field(default="", compare=False)
    """The call, such as ``listKeys``."""

    @property
    def codes(self) -> tuple[str, ...]:
        """Every code of the service once, from the outermost to the innermost; empty without a CloudError."""
        return tuple(dict.fromkeys(self.cloud_error.codes())) if self.cloud_error else ()

    def to_dict(self) -> dict[str, Any]:
        """The `error` object of the JSON report."""
        return {
            "kind": self.kind,
            "http_status": self.http_status,
            "cloud_error": self.cloud_error.to_dict() if self.cloud_error else None,
            "request_id": self.request_id,
            "correlation_id": self.correlation_id,
            "client_request_id": self.client_request_id,
            "hint": self.hint,
        }

    @property
    def code(self) -> str | None:
        """The outermost code of the service. Failures are counted by it."""
        return self.cloud_error.code if self.cloud_error else None

    def has_code(self, *codes: str) -> bool:
        """Whether any code, at any depth, is one of `codes`. Case is ignored."""
        return not {fold(code) for code in codes}.isdisjoint(map(fold, self.codes))


class CallFailed(KeysyncError):
    """A call to Azure failed, and no retry remains. `record` describes the failure."""

    def __init__(self, record: FailureRecord) -> None:
        self.record = record
        super().__init__(record.summary)


def invalid_response(summary: str, *, ambiguous: bool = False) -> CallFailed:
    """The failure of a call whose reply is incomplete, or not about the request."""
    return CallFailed(FailureRecord(kind="invalid_response", summary=summary, ambiguous=ambiguous))


class StaleRead(CallFailed):
    """A change was not sent (again), because the read that it is based on is too old."""


class FailureTranslator(Protocol):
    """Turns an exception into a FailureRecord with redacted texts."""

    def record(self, error: BaseException, *, operation: str, scope: str, calling: bool = False) -> FailureRecord:
        """The record of `error`. `operation` (``listKeys``) on `scope` (an ARM id or a vault's URL) raised it.

        Set `calling` if a request, or the parsing of its reply, raised it. A parser's exception then means an invalid reply.
        """
        ...
