"""Faults that can be aimed at any operation, and which of them strikes next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator
from pydantic_core import PydanticCustomError

FaultKind = Literal[
    "status", "reset", "hang", "truncated", "html", "empty", "null_keys", "body", "misrouted", "stale", "ignored"
]  # fmt: skip

AccountOperation = Literal["getAccount", "listKeys", "regenerateKeys"]
VaultOperation = Literal[
    "listSecrets", "setSecret", "deleteSecret", "getSecret", "listVersions", "updateSecret", "listDeletedSecrets",
    "getDeletedSecret", "purgeSecret", "recoverSecret",
]  # fmt: skip
Operation = Literal[
    "token", "discovery", "metadata", "listTenants", "queryResources", "listSubscriptions", "getSubscription", "listGroups",
    "listAccounts", AccountOperation, VaultOperation, "unknown",
]  # fmt: skip
"""What a call can be; `unknown` is one that is not served."""

OPERATIONS: Final[tuple[str, ...]] = get_args(Operation)

FaultName = Literal["shared_key_disabled", "role_missing", "throttled", "locked", "hang"]
"""Faults of an account that the data file can call by name."""


def no_operation(word: str, known: Iterable[str]) -> PydanticCustomError:
    """What a validator raises for the name of an operation that there is not."""
    from keysync.config.formats import nearest  # noqa: PLC0415  # as above
    from keysync.config.yaml import problem  # noqa: PLC0415  # costs a YAML parser, not needed otherwise

    meant = nearest(word, known)
    return problem(
        f"there is no operation {word!r}", f"did you mean {meant!r}?" if meant else f"there are {', '.join(known)}"
    )


class Fault(BaseModel):
    """What goes wrong, where, and how often.

    `operation` and `target` are patterns (``*`` and ``?``), compared without case; the target of a call is the
    account's name, or ``vault/secret``, or the vault's name where no secret is meant. A pattern without a slash
    also takes every secret of the vault it names.

    With `after` the operation takes effect and then the fault strikes the reply. ``truncated`` and ``null_keys``
    always work that way, as they are made out of the true reply. `status` is 500 unless given; ``empty`` and
    ``body`` answer 200 unless it is given. The text of ``html`` and ``body`` is sent `repeat` times; with `gzip` it is compressed, and the
    header says so. With `after` and `delay` the effect comes `delay` seconds after the fault,
    even if the client has gone by then.

    ``misrouted`` sends the reply about the account or secret named `other`; a change still takes effect where it was
    meant. The next two are for operations of one secret. ``stale`` carries the operation out and replies truly, but the
    next `reads` GETs of the secret show it as it was before. ``ignored`` replies as usual and changes nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    operation: str = "*"
    target: str = "*"
    kind: FaultKind = "status"
    status: int = 500
    code: str | None = None
    message: str | None = None
    inner_code: str | None = None
    details: list[dict[str, JsonValue]] | None = None
    retry_after: str | None = None
    body: str | None = None
    repeat: int = Field(default=1, ge=1)
    gzip: bool = False
    times: int | None = None
    after: bool = False
    delay: float = Field(default=0.0, ge=0)
    other: str | None = None
    reads: int = Field(default=1, ge=1)
    headers: dict[str, str] = {}

    @field_validator("operation")
    @classmethod
    def _means_an_operation(cls, pattern: str) -> str:
        if not any(fnmatchcase(name.lower(), pattern.lower()) for name in OPERATIONS):
            raise no_operation(pattern, OPERATIONS)
        return pattern

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.kind == "misrouted" and self.other is None:
            raise ValueError("a misrouted reply needs `other`: the account or the secret that the reply is about")
        return self

    @property
    def answer_status(self) -> int:
        """The status to send, with the default that suits the kind."""
        if self.kind in {"empty", "body"} and "status" not in self.model_fields_set:
            return 200
        return self.status

    def matches(self, operation: str, target: str) -> bool:
        """Whether this fault is aimed at such a call."""
        wanted, pattern = self.target.lower(), target.lower()
        places = {pattern, pattern.partition("/")[0]} if "/" not in wanted else {pattern}
        return fnmatchcase(operation.lower(), self.operation.lower()) and any(
            fnmatchcase(place, wanted) for place in places
        )


@dataclass
class _Armed:
    fault: Fault
    left: int | None


class Faults:
    """The faults in force, in the order in which they were added: the first that matches strikes."""

    def __init__(self) -> None:
        self._armed: list[_Armed] = []

    def add(self, fault: Fault) -> None:
        """Put a fault in force behind those already there."""
        self._armed.append(_Armed(fault, fault.times))

    def clear(self) -> None:
        """Lift every fault, those of the data file too."""
        self._armed.clear()

    def active(self) -> list[Fault]:
        """The faults that can still strike."""
        return [armed.fault for armed in self._armed if armed.left is None or armed.left > 0]

    def take(self, operation: str, target: str) -> Fault | None:
        """The fault that strikes this call, if any; one of its `times` is spent."""
        for armed in self._armed:
            if armed.left == 0 or not armed.fault.matches(operation, target):
                continue
            if armed.left is not None:
                armed.left -= 1
            return armed.fault
        return None
