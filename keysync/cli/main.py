"""The commands. Nothing of Azure is imported until one runs, so that `--help` and `--version` are immediate."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keysync.cli.emulator import emulator
from keysync.cli.options import (
    AccountsOption,
    ConfigOption,
    FormatOption,
    LevelOption,
    LogFormat,
    LogLevel,
    Output,
    OutputOption,
    ShardOption,
    ShardsOption,
    VersionOption,
)
from keysync.cli.sharing import shard_of
from keysync.cli.stdout import settle_streams, settled
from keysync.errors import KeysyncError
from keysync.startup import importing, leave

if TYPE_CHECKING:
    from keysync.cli.invocation import Options


app = typer.Typer(
    name="keysync",
    help="Keeps Azure Key Vault in step with the keys of Azure Batch accounts.",
    no_args_is_help=True,
    rich_markup_mode=None,  # the rich one takes 0.2 s to come
    pretty_exceptions_enable=False,  # a traceback with local variables could show a key
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def common(
    context: typer.Context,
    log_level: LevelOption = None,
    log_format: FormatOption = None,
    version: VersionOption = False,  # noqa: ARG001  # the callback has done its work by then
) -> None:
    """Keeps Azure Key Vault in step with the keys of Azure Batch accounts."""
    context.obj = {"log_level": log_level, "log_format": log_format}


@app.command(short_help="One pass: write what changed, then exit.")
def sync(
    context: typer.Context,
    config: ConfigOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, write nothing.")] = False,
    account: AccountsOption = None,
    accept: Annotated[
        str | None, typer.Option("--accept", metavar="CHECKSUM", help="Go beyond the limits for just this plan.")
    ] = None,
    shard: ShardOption = None,
    shards: ShardsOption = None,
    metrics_file: Annotated[
        Path | None,
        typer.Option("--metrics-file", metavar="FILE", help="Write metrics for a textfile collector; ends in .prom."),
    ] = None,
    push_gateway: Annotated[
        str | None,
        typer.Option(
            "--push-gateway",
            metavar="URL",
            help="Push metrics to a Pushgateway; a failure is a warning in the log and leaves the exit code alone.",
        ),
    ] = None,
    output: OutputOption = Output.text,
    log_level: LevelOption = None,
    log_format: FormatOption = None,
    version: VersionOption = False,  # noqa: ARG001
) -> None:
    """One pass: write the keys that changed, then exit (0 in step, 1 failed or refused, 2 usage, 4 safety stop)."""
    with importing():
        from keysync.cli import one_off  # noqa: PLC0415  # imports the SDKs

    options = _options(
        context, config, log_level, log_format,
        output=output.value, accounts=tuple(account or ()), dry_run=dry_run, accept=accept, metrics_file=metrics_file,
        push_gateway=push_gateway, shard=shard_of(shard, shards, os.environ),
    )  # fmt: skip
    raise typer.Exit(one_off.run(options))


@app.command()
def plan(
    context: typer.Context,
    config: ConfigOption = None,
    account: AccountsOption = None,
    shard: ShardOption = None,
    shards: ShardsOption = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 3 if there are changes.")] = False,
    output: OutputOption = Output.text,
    log_level: LevelOption = None,
    log_format: FormatOption = None,
    version: VersionOption = False,  # noqa: ARG001
) -> None:
    """Show what a pass would change; write nothing."""
    with importing():
        from keysync.cli import one_off  # noqa: PLC0415  # imports the SDKs

    options = _options(
        context, config, log_level, log_format,
        output=output.value, accounts=tuple(account or ()), dry_run=True, exit_code_for_changes=exit_code,
        shard=shard_of(shard, shards, os.environ),
    )  # fmt: skip
    raise typer.Exit(one_off.run(options))


@app.command(name="run", short_help="The daemon: passes on schedule, and a page.")
def run_daemon(
    context: typer.Context,
    config: ConfigOption = None,
    shard: ShardOption = None,
    shards: ShardsOption = None,
    log_level: LevelOption = None,
    log_format: FormatOption = None,
    version: VersionOption = False,  # noqa: ARG001
) -> None:
    """The daemon: passes on schedule, with a status page, probes and metrics; ends with 0 on SIGINT and SIGTERM."""
    with importing():
        from keysync.cli import daemon  # noqa: PLC0415  # imports the SDKs

    options = _options(context, config, log_level, log_format, shard=shard_of(shard, shards, os.environ))
    raise typer.Exit(daemon.run(options))


@app.command(short_help="Take over secrets that are not keysync's yet.")
def adopt(
    context: typer.Context,
    config: ConfigOption = None,
    account: AccountsOption = None,
    shard: ShardOption = None,
    shards: ShardsOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only show what would be done.")] = False,
    secret: Annotated[
        list[str] | None, typer.Option("--secret", metavar="VAULT/NAME", help="Only this secret; repeatable.")
    ] = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Also where the value differs (it gets a new version) or somebody else's mark is."
        ),
    ] = False,
    output: OutputOption = Output.text,
    log_level: LevelOption = None,
    log_format: FormatOption = None,
    version: VersionOption = False,  # noqa: ARG001
) -> None:
    """Take over secrets that are not keysync's yet: show what would be done, with --yes do it."""
    with importing():
        from keysync.cli import one_off  # noqa: PLC0415  # imports the SDKs

    options = _options(
        context, config, log_level, log_format,
        output=output.value, accounts=tuple(account or ()), dry_run=not yes, adopt="replace" if replace else "unmarked",
        secrets=tuple(secret or ()), shard=shard_of(shard, shards, os.environ),
    )  # fmt: skip
    raise typer.Exit(one_off.run(options))


@app.command(short_help="The doctor: try all, write nothing, tell cures.")
def check(
    context: typer.Context,
    config: ConfigOption = None,
    account: AccountsOption = None,
    shard: ShardOption = None,
    shards: ShardsOption = None,
    output: OutputOption = Output.text,
    log_level: LevelOption = None,
    log_format: FormatOption = None,
    version: VersionOption = False,  # noqa: ARG001
) -> None:
    """The doctor: try credentials, accounts and vaults without writing, and say what to do about each finding."""
    with importing():
        from keysync.cli import doctor  # noqa: PLC0415  # imports the SDKs

    options = _options(
        context, config, log_level, log_format, output=output.value, accounts=tuple(account or ()),
        shard=shard_of(shard, shards, os.environ),
    )  # fmt: skip
    raise typer.Exit(doctor.run(options))


@app.command(short_help="List the accounts that are covered.")
def accounts(
    context: typer.Context,
    config: ConfigOption = None,
    shard: ShardOption = None,
    shards: ShardsOption = None,
    output: OutputOption = Output.text,
    log_level: LevelOption = None,
    log_format: FormatOption = None,
    version: VersionOption = False,  # noqa: ARG001
) -> None:
    """List the accounts that the configuration covers, those that are discovered included; reads no key."""
    with importing():
        from keysync.cli import accounts as listing  # noqa: PLC0415  # imports the SDKs

    options = _options(
        context, config, log_level, log_format, output=output.value, shard=shard_of(shard, shards, os.environ)
    )
    raise typer.Exit(listing.run(options))


@app.command(short_help="Print the roles that keysync needs.")
def role(
    config: ConfigOption = None,
    principal_id: Annotated[
        list[str] | None,
        typer.Option(
            "--principal-id",
            metavar="ID",
            help="Object id of the identity; repeatable, in the order in which identities are told.",
        ),
    ] = None,
    output: OutputOption = Output.text,
    log_level: LevelOption = None,  # noqa: ARG001  # global options are taken everywhere
    log_format: FormatOption = None,  # noqa: ARG001
    version: VersionOption = False,  # noqa: ARG001
) -> None:
    """Print the least-privilege roles and assignments that the configuration needs, as a shell script; asks nobody."""
    from keysync.cli import role as roles  # noqa: PLC0415  # imports pydantic

    raise typer.Exit(roles.run(config, output.value, tuple(principal_id or ())))


@app.command(short_help="The daemon against the embedded Azure.")
def demo(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="End by itself after a few passes.")] = False,
    every: Annotated[float, typer.Option("--every", min=1.0, metavar="SECONDS", help="Time between passes.")] = 3.0,
    log_level: LevelOption = None,
    log_format: FormatOption = None,
    version: VersionOption = False,  # noqa: ARG001
) -> None:
    """The daemon against the embedded Azure, on sample accounts whose keys keep being regenerated."""
    with importing():
        from keysync.cli import demo as demonstration  # noqa: PLC0415  # imports the SDKs

    options = _options(context, None, log_level, log_format, default_level="critical")
    raise typer.Exit(demonstration.run(options, once=once, every=every))


@app.command(short_help="Ask the daemon on this machine whether it works.")
def health(
    config: ConfigOption = None,
    log_level: LevelOption = None,  # noqa: ARG001  # global options are taken everywhere; it logs nothing
    log_format: FormatOption = None,  # noqa: ARG001
    version: VersionOption = False,  # noqa: ARG001
) -> None:
    """Ask the daemon where `listen` says, on this machine; exit with 0 if it works, with 1 if not: for a health check."""
    from keysync.cli import health as asking  # noqa: PLC0415  # imports pydantic

    raise typer.Exit(asking.run(config))


@app.command()
def schema(
    log_level: LevelOption = None,  # noqa: ARG001  # global options are taken everywhere
    log_format: FormatOption = None,  # noqa: ARG001
    version: VersionOption = False,  # noqa: ARG001
) -> None:
    """Print the JSON Schema of the configuration file."""
    from keysync.config.schema import render_schema  # noqa: PLC0415  # imports pydantic

    typer.echo(render_schema(), nl=False)


app.command(short_help="Serve the embedded Azure for tests of your own.")(emulator)


def _options(
    context: typer.Context,
    config: Path | None,
    log_level: LogLevel | None,
    log_format: LogFormat | None,
    *,
    default_level: str | None = None,
    **more: Any,  # noqa: ANN401  # fields of Options
) -> Options:
    from keysync.cli.invocation import Options  # noqa: PLC0415  # imports the SDKs

    level = log_level or context.obj["log_level"] or _from_environment("KEYSYNC_LOG_LEVEL", LogLevel) or default_level
    level = level or ("critical" if _told_by_the_result(more) else "info")
    form = log_format or context.obj["log_format"] or _from_environment("KEYSYNC_LOG_FORMAT", LogFormat)
    fallback = "console" if sys.stderr.isatty() else "json"
    return Options(config=config, log_level=str(level), log_format=str(form or fallback), **more)  # type: ignore[arg-type]


def _told_by_the_result(more: Mapping[str, object]) -> bool:
    """On a terminal the table and its notes tell all that the log would, so the log waits until it is asked for."""
    return more.get("output") == Output.text and sys.stderr.isatty() and sys.stdout.isatty()


def _from_environment(name: str, kind: type[LogLevel | LogFormat]) -> LogLevel | LogFormat | None:
    value = os.environ.get(name)
    if not value:
        return None
    try:
        return kind(value.lower())
    except ValueError:
        known = ", ".join(kind)
        raise typer.BadParameter(f"{name}={value!r} is not one of {known}") from None


def main() -> None:
    """Entry point of the console script: runs the command line, and ends the process."""
    leave(invoke())


def invoke() -> int:
    """Runs the command line; the exit code. Never ends with a traceback."""
    settle_streams()
    code, told = settled(_command())
    if told is not None:
        typer.echo(f"keysync: {told}", err=True)
    return code


def _command() -> int:
    """Runs the command that was asked for; its exit code."""
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeysyncError as error:
        for line in str(error).splitlines():
            typer.echo(f"keysync: {line}", err=True)
        return error.exit_code
    except Exception as error:  # noqa: BLE001  # a traceback could show source lines and values
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f" in {Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else ""
        typer.echo(f"keysync: internal error: {type(error).__name__}{where}; please report it", err=True)
        return 1
    return 0
