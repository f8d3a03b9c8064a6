"""Failures as every layer may show them. Nothing here knows an Azure SDK."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from keysync.errors import KeysyncError
from keysync.names import fold

FailureKind = Literal[
    "cloud_error",  # the service answered with an error of its own shape
    "http_error",  # a failing status whose body is no such error: a proxy's page, nothing at all
    "invalid_response",  # a status of success whose body could not be understood
    "throttled",  # 429, or a Retry-After above the cap
    "authentication",  # Entra refused, or the token did
    "credential_unavailable",  # the credential has nothing to ask a token with
    "shared_key_disabled",  # the account gives no keys by design
    "challenge",  # a vault asked for a token of another domain
    "dns",
    "tls",
    "connection",
    "timeout",
    "conflict",  # another writer overtook a write
    "internal",  # a fault of keysync
]


_DEPTH: Final = 12


@dataclass(frozen=True, slots=True)
class CloudError:
    """`{"error": {code, message, target, details, innererror}}`, nested to any depth that a service sends."""

    code: str | None
    message: str | None
    target: str | None = None
    details: tuple[CloudError, ...] = ()
    innererror: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The contract's shape, details included."""
        return {
            "code": self.code,
            "message": self.message,
            "target": self.target,
            "details": [detail.to_dict() for detail in self.details],
            "innererror": self.innererror,
        }

    def codes(self) -> Iterator[str]:
        """Every code, from the outside to the inside."""
        if self.code:
            yield self.code
        inner: Any = self.innererror
        for _ in range(_DEPTH):
            if not isinstance(inner, Mapping):
                break
            if isinstance(inner.get("code"), str):
                yield inner["code"]
            inner = inner.get("innererror")
        for detail in self.details:
            yield from detail.codes()


@dataclass(frozen=True, slots=True)
class FailureRecord:
    """One failure as it stands in the log, the report and on the terminal.

    `summary` is one line for people; `retry_after` is what the service asked for, in seconds; `ambiguous` says that the
    request may have taken effect although it failed. `about` names the credential or the vault that failed, or says
    ``account``; `operation` is the call.
    """

    kind: FailureKind
    summary: str
    http_status: int | None = None
    cloud_error: CloudError | None = None
    request_id: str | None = None
    correlation_id: str | None = None
    client_request_id: str | None = None
    hint: str | None = None
    retry_after: float | None = field(default=None, compare=False)
    ambiguous: bool = field(default=False, compare=False)
    about: str = field(default="", compare=False)
    operation: str = field(default="", compare=False)

    @property
    def codes(self) -> tuple[str, ...]:
        """Every code of the service once, from the outside to the inside; none where it named none."""
        return tuple(dict.fromkeys(self.cloud_error.codes())) if self.cloud_error else ()

    def to_dict(self) -> dict[str, Any]:
        """The contract's `error` object."""
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
        """The outermost code of the service, by which failures are counted."""
        return self.cloud_error.code if self.cloud_error else None

    def has_code(self, *codes: str) -> bool:
        """Whether any code, inner ones included, is one of `codes` (without regard to case)."""
        wanted = {fold(code) for code in codes}
        return self.cloud_error is not None and any(fold(code) in wanted for code in self.cloud_error.codes())


class CallFailed(KeysyncError):
    """A call to Azure failed for good; `record` is all that is to be told of it."""

    def __init__(self, record: FailureRecord) -> None:
        self.record = record
        super().__init__(record.summary)


class StaleRead(CallFailed):
    """A change was not sent (any more), since the look that it rests on had grown too old."""


class FailureTranslator(Protocol):
    """Turns an exception into a FailureRecord whose texts are redacted."""

    def record(self, error: BaseException, *, operation: str, scope: str, calling: bool = False) -> FailureRecord:
        """The record of `error`, which `operation` (``listKeys``) on `scope` (an ARM id, or the URL of a vault) raised.

        `calling` says that one request or the reading of its reply raised it. A parser's exception is then the reply's fault.
        """
        ...
