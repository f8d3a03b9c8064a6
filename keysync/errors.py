"""Every error that keysync raises on purpose.

    KeysyncError                    exit code 1 unless a subclass says otherwise
    ├── UsageError                  2   the command line asks for something that cannot be
    ├── ConfigError                 2   a file that was read is wrong; carries every Finding in it
    └── CallFailed                1   a call to Azure failed; carries a FailureRecord (keysync.azure.errors)

A safety limit raises nothing: its stop is part of the report, and the command then ends with 4.

A message is for the person who runs keysync: it says what was found, what was expected and what to do. No
message holds a value of a secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class Instruction(str):
    """A sentence of keysync's own that may name a command. A terminal shows that command on a line of its own, to be copied.

    A text of a service is never one: a command in it could be hostile.
    """

    __slots__ = ()


class KeysyncError(Exception):
    """Root of the tree; `exit_code` is what a command that ends with it returns to the shell."""

    exit_code: ClassVar[int] = 1


class UsageError(KeysyncError):
    """The command line is wrong; nothing was touched."""

    exit_code: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong in a file.

    `file` as the user named it; `line` and `column` count from 1, None where the fault has no place in the file;
    `key` is the dotted path of the value (``accounts[0].name``), empty for the whole file; `message` says what
    was found and what was expected; `hint` is the cure, where there is one to name.
    """

    file: str
    line: int | None
    column: int | None
    key: str
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}:{self.column or 1}"
        subject = f"{self.key}: " if self.key else ""
        cure = f" ({self.hint})" if self.hint else ""
        return f"{place}: {subject}{self.message}{cure}"


class ConfigError(KeysyncError):
    """A file that was read is wrong. All that is wrong in it is told at once."""

    exit_code: ClassVar[int] = 2

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings: tuple[Finding, ...] = tuple(findings)
        super().__init__("\n".join(str(finding) for finding in self.findings))
