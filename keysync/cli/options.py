"""Options that commands share. The global ones are accepted before and after a command."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from keysync import __version__


class Output(StrEnum):
    """How the result is printed."""

    text = "text"
    json = "json"


class LogFormat(StrEnum):
    """How the log is written."""

    json = "json"
    console = "console"


class LogLevel(StrEnum):
    """The least severe record that is written."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Configuration file; else KEYSYNC_CONFIG, ./keysync.yaml, /etc/keysync/keysync.yaml.",
    ),
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How to print the result.", case_sensitive=False)]
LevelOption = Annotated[
    LogLevel | None,
    typer.Option("--log-level", help="Least severe record of the log (KEYSYNC_LOG_LEVEL).", case_sensitive=False),
]
FormatOption = Annotated[
    LogFormat | None,
    typer.Option(
        "--log-format",
        help="Format of the log (KEYSYNC_LOG_FORMAT); JSON where stderr is no terminal.",
        case_sensitive=False,
    ),
]
AccountsOption = Annotated[
    list[str] | None,
    typer.Option("--account", metavar="NAME", help="Only this account, by name or ARM id; repeatable."),
]
ShardOption = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Only share I of N of the accounts, counted from 0 (KEYSYNC_SHARD)."),
]
ShardsOption = Annotated[
    int | None,
    typer.Option(
        "--shards",
        metavar="N",
        help="The number of shares (KEYSYNC_SHARDS), where a Job or StatefulSet of Kubernetes tells which one this is.",
    ),
]


def _print_version(wanted: bool) -> None:  # typer's callback
    if wanted:
        typer.echo(f"keysync {__version__}")
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]
