"""What the sync asks of a store of secrets, and what it may see of one: fingerprints and metadata, never a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from keysync.secret.fingerprint import Fingerprint
from keysync.secret.value import SecretValue


@dataclass(frozen=True, slots=True)
class Existing:
    """The latest version of a stored secret; `managed` says that a certificate owns it."""

    version: str
    fingerprint: Fingerprint
    tags: Mapping[str, str]
    content_type: str | None = None
    managed: bool = False


@dataclass(frozen=True, slots=True)
class Absent:
    """No secret of this name."""


@dataclass(frozen=True, slots=True)
class Disabled:
    """The latest version is disabled: its value cannot be read."""


@dataclass(frozen=True, slots=True)
class SoftDeleted:
    """A deleted secret still holds the name."""


Observation: TypeAlias = Existing | Absent | Disabled | SoftDeleted


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a secret carries beside its value."""

    tags: Mapping[str, str]
    content_type: str | None


class SecretTarget(Protocol):
    """One vault."""

    async def warm(self) -> None:
        """Makes the first call that a vault has to have before many. Raises AzureFailure."""
        ...

    async def read(self, name: str) -> Observation:
        """What stands under `name` now. Raises AzureFailure."""
        ...

    async def write(self, name: str, value: SecretValue, metadata: Metadata, *, before: str | None) -> str:
        """Makes one version and returns its id; `before` is the version that was observed, None for none.

        After an ambiguous failure it reads back rather than writing twice. Raises AzureFailure, or WriteUnknown where
        nobody can tell whether the value was written, or WriteConflict where somebody else wrote meanwhile.
        """
        ...

    async def tag(self, name: str, version: str, metadata: Metadata) -> None:
        """Sets tags and content type of `version` without making another. Raises AzureFailure."""
        ...
