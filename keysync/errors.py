"""The exceptions that keysync raises.

    KeysyncError                    exit code 1, unless a subclass has another
    ├── UsageError                  2   the command line or the environment is wrong
    ├── ConfigError                 2   a file is wrong; carries every Finding in it
    └── CallFailed                      a call to Azure failed; carries a FailureRecord (keysync.failures)
        ├── StaleRead                   a change was not sent: its read is too old (keysync.failures)
        │   └── LaterVersionListed      a change was not sent: the vault has a newer version (keysync.targets.interface)
        ├── WriteUnknown                a write may have taken effect (keysync.targets.interface)
        ├── WriteConflict               another writer changed the secret (keysync.targets.interface)
        └── NotKept                     the vault did not keep what was written (keysync.targets.interface)

A safety limit raises no exception: the report says that it stopped the run, and the command exits with 4.

Messages are for the person who runs keysync. They say what was found, what was expected and how to fix it. No message
contains the value of a secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar


class Instruction(str):
    """A sentence of keysync's own that may contain a command. A terminal shows that command on its own line, for copying.

    Text from a service is never an Instruction: a command in it could be hostile.
    """

    __slots__ = ()


class KeysyncError(Exception):
    """Base class. `exit_code` is the exit code of a command that ends with this exception."""

    exit_code: ClassVar[int] = 1


class UsageError(KeysyncError):
    """The command line or the environment is wrong; nothing was changed."""

    exit_code: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One error in a file.

    `file` is the name that the user gave. `line` and `column` count from 1; None if the error has no position. `key` is the dotted
    path of the value (``accounts[0].name``), empty for the whole file. `message` says the value found and the value expected, and
    `hint` how to fix it, if known.
    """

    file: str
    line: int | None
    column: int | None
    key: str
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        position = self.file if self.line is None else f"{self.file}:{self.line}:{self.column or 1}"
        hint = f" ({self.hint})" if self.hint else ""
        return ": ".join(filter(None, (position, self.key, self.message))) + hint


class ConfigError(KeysyncError):
    """A file is wrong. `findings` lists all of its errors."""

    exit_code: ClassVar[int] = 2

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings: tuple[Finding, ...] = tuple(findings)
        super().__init__("\n".join(str(finding) for finding in self.findings))


def raised_at(error: BaseException) -> str:
    """File and line where an exception was raised; never a value."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
