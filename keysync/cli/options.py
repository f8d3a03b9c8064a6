"""Options that several commands share, and one object with the values of all options of a command."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from keysync import __version__
from keysync.sources.shard import Shard, shard_of

if TYPE_CHECKING:  # `--help` and `--version` must not import what a sync run needs
    from keysync.logs import LogFormat
    from keysync.sync.model import Adoption

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

FILE: Final = click.Path(path_type=Path)


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
    "--account", "accounts", multiple=True, metavar="NAME", help="Only this account, by name or ARM id; repeatable."
)


def shard_options(command: Decorated) -> Decorated:
    """--shard and --shards."""
    shards = "Number of shards (KEYSYNC_SHARDS), if a Job or StatefulSet of Kubernetes sets the index of this one."
    command = click.option("--shards", type=int, metavar="N", help=shards)(command)
    one = "Only shard I of N of the accounts, counted from 0 (KEYSYNC_SHARD)."
    return click.option("--shard", metavar="I/N", help=one)(command)


def global_options(command: Decorated, *, from_environment: bool = False) -> Decorated:
    """--log-level, --log-format and --version, which every command accepts. `from_environment`: also from variables."""
    levels, formats = choice("debug", "info", "warning", "error"), choice("json", "console")
    level, log_format = ("KEYSYNC_LOG_LEVEL", "KEYSYNC_LOG_FORMAT") if from_environment else (None, None)
    text = "Format of the log; JSON if stderr is not a terminal."
    for add in (
        click.version_option(__version__, message="keysync %(version)s", help="Print the version and exit."),
        click.option("--log-format", type=formats, envvar=log_format, show_envvar=True, help=text),
        click.option("--log-level", type=levels, envvar=level, show_envvar=True, help="Least severe level to log."),
    ):
        command = add(command)
    return command


@dataclass(frozen=True, slots=True)
class Options:
    """The values of the options of one command. An option that it does not have keeps its default."""

    log_level: str | None
    log_format: LogFormat
    config: Path | None = None
    output: str | None = None
    show_all: bool = False
    accounts: tuple[str, ...] = ()
    shard: Shard | None = None
    dry_run: bool = False
    accept: str | None = None
    metrics_file: Path | None = None
    push_gateway: str | None = None
    exit_code_for_changes: bool = False
    adopt: Adoption | None = None
    yes: bool = False
    replace: bool = False
    secrets: tuple[str, ...] = ()
    principal_ids: tuple[str, ...] = ()
    once: bool = False
    every: float = 0.0

    @property
    def options_hint(self) -> str:
        """Options to repeat in suggested commands (-c, --account, --shard)."""
        words = ["-c", str(self.config)] if self.config is not None else []
        for name in self.accounts:
            words += ["--account", name]
        if self.shard is not None:
            words += ["--shard", str(self.shard)]
        return shlex.join(words)


def pass_options(command: Callable[[Options], None]) -> Callable[..., None]:
    """Adds the global options to `command`, and passes the values of all its options as one object.

    A log option after the command wins over one before it.
    """

    @click.pass_context
    @wraps(command)
    def pass_them(context: click.Context, /, **values: Any) -> None:  # noqa: ANN401  # values of the options
        values["log_level"] = values["log_level"] or context.obj["log_level"]
        log_format = values["log_format"] or context.obj["log_format"]
        values["log_format"] = log_format or ("console" if sys.stderr.isatty() else "json")
        if "shards" in values:
            values["shard"] = shard_of(values["shard"], values.pop("shards"), os.environ)
        command(Options(**values))

    return global_options(pass_them)
