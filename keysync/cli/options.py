"""The options of the commands, and one object with their values."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping
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


def _flag(name: str, text: str, *names: str) -> Callable[[Decorated], Decorated]:
    return click.option(name, *names, is_flag=True, help=text)


def _words(name: str, field: str, metavar: str, text: str) -> Callable[[Decorated], Decorated]:
    return click.option(name, field, multiple=True, metavar=metavar, help=text)


_CONFIG = "Configuration file; else KEYSYNC_CONFIG, ./keysync.yaml, /etc/keysync/keysync.yaml."
_SHARDS = "Number of shards (KEYSYNC_SHARDS), if a Job or StatefulSet of Kubernetes sets the index of this one."
_METRICS = "Write metrics for a textfile collector; ends in .prom."
_PUSH = "Push metrics to a Pushgateway. A failure is logged as a warning and does not change the exit code."
_REPLACE = "Also secrets whose value differs (they get a new version) or that have another owner's tags."
_PRINCIPAL = "Object ID of an identity; repeatable, in the order of the identities in the output."
_OPTIONS: Final[Mapping[str, Callable[[Callable[..., Any]], Callable[..., Any]]]] = {
    "--config": click.option("--config", "-c", type=FILE, metavar="FILE", help=_CONFIG),
    "--dry-run": _flag("--dry-run", "Show what would be done; write nothing."),
    "--account": _words("--account", "accounts", "NAME", "Only this account, by name or ARM id; repeatable."),
    "--accept": click.option("--accept", metavar="CHECKSUM", help="Allow exactly this plan to exceed the limits."),
    "--shard": click.option(
        "--shard", metavar="I/N", help="Only shard I of N of the accounts, counted from 0 (KEYSYNC_SHARD)."
    ),
    "--shards": click.option("--shards", type=int, metavar="N", help=_SHARDS),
    "--metrics-file": click.option("--metrics-file", type=FILE, metavar="FILE", help=_METRICS),
    "--push-gateway": click.option("--push-gateway", metavar="URL", help=_PUSH),
    "--exit-code": _flag("--exit-code", "Exit with 3 if there are changes.", "exit_code_for_changes"),
    "--yes": _flag("--yes", "Do it. Without this option, only show what would be done."),
    "--secret": _words("--secret", "secrets", "VAULT/NAME", "Only this secret; repeatable."),
    "--replace": _flag("--replace", _REPLACE),
    "--principal-id": _words("--principal-id", "principal_ids", "ID", _PRINCIPAL),
    "--once": _flag("--once", "Exit after a few runs."),
    "--every": click.option(
        "--every",
        type=click.FloatRange(1),
        default=3.0,
        show_default=True,
        metavar="SECONDS",
        help="Time between runs.",
    ),
    "--all": _flag("--all", "Show each secret, not only changes and problems.", "show_all"),
    "--output": click.option(
        "--output",
        "-o",
        type=choice("text", "json"),
        default="text",
        show_default=True,
        help="How to print the result.",
    ),
}


def global_options(command: Decorated, *, from_environment: bool = False) -> Decorated:
    """--log-level, --log-format and --version, which every command accepts. `from_environment`: also from variables."""
    levels, formats = choice("debug", "info", "warning", "error"), choice("json", "console")
    level, log_format = ("KEYSYNC_LOG_LEVEL", "KEYSYNC_LOG_FORMAT") if from_environment else (None, None)
    text = "Format of the log; JSON if stderr is not a terminal."
    for add in (
        click.version_option(__version__, message="keysync %(version)s", help="Print the version and exit."),
        click.option("--log-format", type=formats, envvar=log_format, show_envvar=log_format is not None, help=text),
        click.option(
            "--log-level", type=levels, envvar=level, show_envvar=level is not None, help="Least severe level to log."
        ),
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


def with_options(*names: str) -> Callable[[Callable[[Options], None]], Callable[..., None]]:
    """Adds these options and the global ones to a command, and passes the values of all as one object.

    A log option after the command wins over one before it.
    """

    def decorate(command: Callable[[Options], None]) -> Callable[..., None]:
        @click.pass_context
        @wraps(command)
        def pass_them(context: click.Context, /, **values: Any) -> None:  # noqa: ANN401  # values of the options
            values["log_level"] = values["log_level"] or context.obj["log_level"]
            log_format = values["log_format"] or context.obj["log_format"]
            values["log_format"] = log_format or ("console" if sys.stderr.isatty() else "json")
            if "shards" in values:
                values["shard"] = shard_of(values["shard"], values.pop("shards"), os.environ)
            command(Options(**values))

        decorated: Callable[..., None] = global_options(pass_them)
        for name in reversed(names):
            decorated = _OPTIONS[name](decorated)
        return decorated

    return decorate
