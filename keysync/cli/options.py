"""Options that several commands share, and the values of all options for one command."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import click

from keysync import __version__
from keysync.config.isolated import begin_reading

if TYPE_CHECKING:  # `--help` and `--version` must not import what a sync run needs
    from keysync.config.model import Config
    from keysync.logs import LogFormat
    from keysync.sources.shard import Shard
    from keysync.sync.model import Adoption

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Option: TypeAlias = Callable[[Decorated], Decorated]

LOG_LEVELS: Final = ("debug", "info", "warning", "error")
"""Least severe level that is logged."""

LOG_FORMATS: Final = ("json", "console")
"""Formats of the log."""

FILE: Final = click.Path(path_type=Path)


def several(*options: Option[Any]) -> Option[Any]:
    """One decorator that adds all `options`, in this order."""

    def decorate(command: Decorated) -> Decorated:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def choice(*known: str) -> click.Choice[str]:
    """A type that accepts the words `known`, in any case."""
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
    click.option("--shard", metavar="I/N", help="Only shard I of N of the accounts, counted from 0 (KEYSYNC_SHARD)."),
    click.option(
        "--shards",
        type=int,
        metavar="N",
        help="Number of shards (KEYSYNC_SHARDS), if a Job or StatefulSet of Kubernetes sets the index of this one.",
    ),
)
global_options: Final = several(
    click.option("--log-level", type=choice(*LOG_LEVELS), help="Least severe level to log (KEYSYNC_LOG_LEVEL)."),
    click.option(
        "--log-format",
        type=choice(*LOG_FORMATS),
        help="Format of the log (KEYSYNC_LOG_FORMAT); JSON if stderr is not a terminal.",
    ),
    click.version_option(__version__, message="keysync %(version)s", help="Print the version and exit."),
)


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one command. `reading` returns the configuration, which is being read; None if the command needs none."""

    config: Path | None
    log_level: str
    log_format: LogFormat
    output: str = "text"
    accounts: tuple[str, ...] = ()
    dry_run: bool = False
    accept: str | None = None
    shard: Shard | None = None
    metrics_file: Path | None = None
    push_gateway: str | None = None
    exit_code_for_changes: bool = False
    adopt: Adoption | None = None
    secrets: tuple[str, ...] = ()
    show_all: bool = False
    reading: Callable[[], Config] | None = None

    @property
    def options_hint(self) -> str:
        """Options to repeat in suggested commands (-c, --account, --shard)."""
        words = ["-c", str(self.config)] if self.config is not None else []
        for name in self.accounts:
            words += ["--account", name]
        if self.shard is not None:
            words += ["--shard", str(self.shard)]
        return shlex.join(words)


def load(options: Options) -> Config:
    """The configuration that the options or the environment name. Raises ConfigError."""
    reading = options.reading or begin_reading(options.config)
    return reading()
