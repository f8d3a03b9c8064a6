"""Options that commands share. The global ones are accepted before and after a command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import click

from keysync import __version__

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Option: TypeAlias = Callable[[Decorated], Decorated]

LOG_LEVELS: Final = ("debug", "info", "warning", "error")
"""The least severe record that is written."""

LOG_FORMATS: Final = ("json", "console")
"""How the log is written."""

FILE: Final = click.Path(path_type=Path)


def several(*options: Option[Any]) -> Option[Any]:
    """One decorator for all of `options`, told in this order."""

    def decorate(command: Decorated) -> Decorated:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def choice(*known: str) -> click.Choice[str]:
    """One of the words, in whatever case."""
    return click.Choice(known, case_sensitive=False)


config_option: Final = click.option(
    "--config",
    "-c",
    type=FILE,
    metavar="FILE",
    help="Configuration file; else KEYSYNC_CONFIG, ./keysync.yaml, /etc/keysync/keysync.yaml.",
)
output_option: Final = click.option(
    "--output", "-o", type=choice("text", "json"), default="text", show_default=True, help="How to print the result."
)
all_option: Final = click.option(
    "--all", "show_all", is_flag=True, help="Show each secret, not only changes and problems."
)
accounts_option: Final = click.option(
    "--account", multiple=True, metavar="NAME", help="Only this account, by name or ARM id; repeatable."
)
shard_options: Final = several(
    click.option("--shard", metavar="I/N", help="Only share I of N of the accounts, counted from 0 (KEYSYNC_SHARD)."),
    click.option(
        "--shards",
        type=int,
        metavar="N",
        help="The number of shares (KEYSYNC_SHARDS), where a Job or StatefulSet of Kubernetes tells which one this is.",
    ),
)
global_options: Final = several(
    click.option("--log-level", type=choice(*LOG_LEVELS), help="Least severe record of the log (KEYSYNC_LOG_LEVEL)."),
    click.option(
        "--log-format",
        type=choice(*LOG_FORMATS),
        help="Format of the log (KEYSYNC_LOG_FORMAT); JSON where stderr is no terminal.",
    ),
    click.version_option(__version__, message="keysync %(version)s", help="Print the version and exit."),
)
