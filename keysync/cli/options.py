"""Options that several commands share, and one object with the values of all options of a command."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from keysync import __version__
from keysync.sources.shard import Shard, shard_of

if TYPE_CHECKING:  # `--help` and `--version` must not import what a sync run needs
    from keysync.sync.model import Adoption

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

LOG_LEVELS: Final = ("debug", "info", "warning", "error")
"""Least severe level that is logged."""

LOG_FORMATS: Final = ("json", "console")
"""Formats of the log."""

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
    shards = click.option(
        "--shards",
        type=int,
        metavar="N",
        help="Number of shards (KEYSYNC_SHARDS), if a Job or StatefulSet of Kubernetes sets the index of this one.",
    )(command)
    one = "Only shard I of N of the accounts, counted from 0 (KEYSYNC_SHARD)."
    return click.option("--shard", metavar="I/N", help=one)(shards)


def global_options(command: Decorated) -> Decorated:
    """--log-level, --log-format and --version, which every command accepts."""
    version = click.version_option(__version__, message="keysync %(version)s", help="Print the version and exit.")
    log_format = click.option(
        "--log-format",
        type=choice(*LOG_FORMATS),
        help="Format of the log (KEYSYNC_LOG_FORMAT); JSON if stderr is not a terminal.",
    )
    level = "Least severe level to log (KEYSYNC_LOG_LEVEL)."
    return click.option("--log-level", type=choice(*LOG_LEVELS), help=level)(log_format(version(command)))


@dataclass(frozen=True, slots=True)
class Options:
    """The values of the options of one command. An option that it does not have keeps its default."""

    log_level: str | None
    log_format: str | None
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
        for name in ("log_level", "log_format"):
            values[name] = values[name] or context.obj[name]
        if "shards" in values:
            values["shard"] = shard_of(values["shard"], values.pop("shards"), os.environ)
        command(Options(**values))

    return global_options(pass_them)
