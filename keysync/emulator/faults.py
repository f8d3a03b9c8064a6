"""Faults to inject into operations, and which of them applies to a call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

FaultKind = Literal[
    "status", "reset", "hang", "truncated", "html", "empty", "null_keys", "body", "misrouted", "stale", "ignored"
]  # fmt: skip

AccountOperation = Literal[
    "getAccount", "listKeys", "regenerateKeys", "updateAccount", "createAccount", "deleteAccount", "listApplications",
    "getApplication",
]  # fmt: skip
ArmOperationName = Literal[
    "metadata", "listTenants", "queryResources", "listSubscriptions", "getSubscription", "listLocations", "listGroups",
    "getGroup", "listResources", "listProviders", "getProvider", "registerProvider", "listAccounts", "getQuota", "listVaults",
    "getVault",
]  # fmt: skip
VaultOperation = Literal[
    "listSecrets", "setSecret", "deleteSecret", "getSecret", "listVersions", "updateSecret", "listDeletedSecrets",
    "getDeletedSecret", "purgeSecret", "recoverSecret", "backupSecret", "restoreSecret",
]  # fmt: skip
BatchOperation = Literal[
    "listSupportedImages", "listNodeCounts", "listJobs", "getJob", "listPools", "getPool",
]  # fmt: skip
QueueOperation = Literal[
    "listQueues", "getQueueService", "setQueueService", "createQueue", "deleteQueue", "getQueue", "setQueueMetadata",
    "putMessage", "getMessages", "peekMessages", "clearMessages", "updateMessage", "deleteMessage",
]  # fmt: skip
RoleOperation = Literal[
    "listRoleDefinitions", "getRoleDefinition", "setRoleDefinition", "deleteRoleDefinition", "listRoleAssignments",
    "getRoleAssignment", "setRoleAssignment", "deleteRoleAssignment", "listDenyAssignments",
]  # fmt: skip
DirectoryOperation = Literal[
    "getMe", "listUsers", "getUser", "listServicePrincipals", "getServicePrincipal", "getDirectoryObjects",
]  # fmt: skip
Operation = Literal[
    "token", "deviceCode", "authorize", "discovery", ArmOperationName, AccountOperation, VaultOperation, BatchOperation,
    QueueOperation, RoleOperation, DirectoryOperation, "unknown",
]  # fmt: skip
"""The operation of a call; `unknown` if the emulator does not serve it."""

OPERATIONS: Final[tuple[str, ...]] = get_args(Operation)

_WRITES: Final = ("setSecret", "updateSecret", "deleteSecret")
_OF_KIND: Final[dict[FaultKind, tuple[str, ...]]] = {
    "misrouted": ("getAccount", "listKeys", "regenerateKeys", "getSecret", "listVersions", *_WRITES),
    "null_keys": ("token", "listKeys", "regenerateKeys", "getSecret", "setSecret", "backupSecret"),
    "stale": _WRITES,
    "ignored": _WRITES,
}
"""The operations of a kind that is not for all of them."""

FaultName = Literal["shared_key_disabled", "role_missing", "throttled", "locked", "hang"]
"""The names of predefined faults of an account in the data file."""


HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
"""A field name of HTTP (RFC 9110, section 5.6.2)."""

HeaderText = Annotated[str, Field(pattern=r"^[^\x00-\x08\x0a-\x1f\x7f]*$")]
"""A field value of HTTP: no control characters, so that it cannot add headers."""


def invalid(message: str, hint: str | None = None) -> ValueError:
    """The error that a validator raises, whose message is complete without "found …, expected …"."""
    from keysync.config.rules import Invalid, Problem  # noqa: PLC0415  # needed only for an error

    return Invalid(Problem(message, hint))


def unknown_operation(name: str, known: Iterable[str]) -> ValueError:
    """The error that a validator raises for an unknown operation."""
    from keysync.config.formats import nearest  # noqa: PLC0415  # needed only for an error

    nearest_name = nearest(name, known)
    hint = f"did you mean {nearest_name!r}?" if nearest_name else f"there are {', '.join(known)}"
    return invalid(f"there is no operation {name!r}", hint)


_ONLY_FOR: dict[str, tuple[FaultKind, ...]] = {
    "body": ("html", "body"),
    "repeat": ("html", "body"),
    "gzip": ("html", "body"),
    "other": ("misrouted",),
    "reads": ("stale",),
}


class Fault(BaseModel):
    """A fault of the given `kind` in `times` calls (all calls if None) of an operation.

    `operation` and `target` are patterns (``*`` and ``?``) that ignore case. The target of a call is the account's name,
    ``vault/secret``, or the vault's name for a call about no single secret. A pattern without a slash also matches every
    secret of the vault that it names.

    With `after` the operation takes effect before the fault replaces the reply. ``truncated`` and ``null_keys`` (keys,
    values of secrets and tokens are null) always work that way, because they alter the real reply. With `after` and `delay` the effect comes `delay` seconds after the
    fault, even if the client has disconnected. The default of `status` is 500, and 200 for ``empty`` and ``body``. The text
    of ``html`` and ``body`` is sent `repeat` times; with `gzip` it is compressed, with the header Content-Encoding.

    ``misrouted`` sends the reply about another account or secret, named `other`; a change still applies to the requested
    one. ``stale`` and ``ignored`` are for writes of one secret: ``stale`` carries out the operation, but the next `reads`
    GETs return the secret as it was before. ``ignored`` sends the usual reply and changes nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    operation: str = "*"
    target: str = "*"
    kind: FaultKind = "status"
    status: int = Field(default=500, ge=200, le=599)
    code: str | None = None
    message: str | None = None
    inner_code: str | None = None
    details: list[dict[str, JsonValue]] | None = None
    retry_after: HeaderText | None = None
    body: str | None = None
    repeat: int = Field(default=1, ge=1, le=16_777_216)
    gzip: bool = False
    times: int | None = Field(default=None, ge=1)
    after: bool = False
    delay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    other: str | None = None
    reads: int = Field(default=1, ge=1)
    headers: dict[HeaderName, HeaderText] = {}

    @field_validator("operation")
    @classmethod
    def _matches_an_operation(cls, pattern: str) -> str:
        if not any(fnmatchcase(name.lower(), pattern.lower()) for name in OPERATIONS):
            raise unknown_operation(pattern, OPERATIONS)
        return pattern

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if not any(self._names(operation) for operation in self._possible):
            raise invalid(f"the kind {self.kind} is for the operations {', '.join(self._possible)}")
        for name, kinds in _ONLY_FOR.items():
            if name in self.model_fields_set and self.kind not in kinds:
                raise invalid(f"`{name}` has no effect here: it is for the kind {' or '.join(kinds)}")
        if self.delay and not self.after:
            raise invalid("`delay` has no effect here: it needs `after: true`")
        if self.kind == "misrouted" and self.other is None:
            raise invalid("a misrouted reply needs `other`: the account or the secret that the reply is about")
        return self

    @property
    def answer_status(self) -> int:
        """The status to send, with the default of the kind."""
        if self.kind in {"empty", "body"} and "status" not in self.model_fields_set:
            return 200
        return self.status

    def matches(self, operation: str, target: str) -> bool:
        """Whether this fault applies to a call of `operation` on `target`."""
        pattern, target = self.target.lower(), target.lower()
        names = {target} if "/" in pattern else {target, target.partition("/")[0]}
        is_possible = operation in self._possible and self._names(operation)
        return is_possible and any(fnmatchcase(name, pattern) for name in names)

    @property
    def _possible(self) -> tuple[str, ...]:
        return _OF_KIND.get(self.kind, OPERATIONS)

    def _names(self, operation: str) -> bool:
        return fnmatchcase(operation.lower(), self.operation.lower())


@dataclass
class _Armed:
    fault: Fault
    left: int | None


class Faults:
    """The active faults in the order in which they were added. The first that matches a call applies."""

    def __init__(self) -> None:
        self._armed: list[_Armed] = []

    def add(self, fault: Fault) -> None:
        """Add a fault after the existing ones."""
        self._armed.append(_Armed(fault, fault.times))

    def clear(self) -> None:
        """Remove every fault, also those of the data file."""
        self._armed.clear()

    def active(self) -> list[Fault]:
        """The faults that have calls left."""
        return [armed.fault for armed in self._armed if armed.left is None or armed.left > 0]

    def take(self, operation: str, target: str) -> Fault | None:
        """The fault that applies to this call, if any. It uses up one of its `times`."""
        for armed in self._armed:
            if armed.left == 0 or not armed.fault.matches(operation, target):
                continue
            if armed.left is not None:
                armed.left -= 1
            return armed.fault
        return None
