"""The commands. Nothing of Azure is imported until one runs, so that `--help` and `--version` are immediate."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from keysync import log_stream
from keysync.cli.emulator import emulator
from keysync.cli.options import (
    FILE,
    LOG_FORMATS,
    LOG_LEVELS,
    accounts_option,
    all_option,
    config_option,
    global_options,
    output_option,
    shard_options,
)
from keysync.cli.streams import guard_stdout, settled
from keysync.errors import KeysyncError
from keysync.files import check_ssl_cert_file
from keysync.report.console import strip_control_codes
from keysync.sources.shard import shard_of
from keysync.startup import exit_now, fast_imports

if TYPE_CHECKING:
    from keysync.cli.options import Options
    from keysync.config.isolated import Reading


class _InOrder(click.Group):
    """Tells its commands as they are defined: what is needed most comes first."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's own
        """Their names."""
        return list(self.commands)


@click.group(
    cls=_InOrder,
    name="keysync",
    help="Keeps Azure Key Vault in sync with the keys of Azure Batch accounts.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@global_options
@click.pass_context
def app(context: click.Context, /, **given: Any) -> None:  # noqa: ANN401  # what the options give
    """Takes the global options that stand before a command."""
    context.obj = given


@app.command(short_help="One run: write what changed, then exit.")
@config_option
@click.option("--dry-run", is_flag=True, help="Show what would be done, write nothing.")
@accounts_option
@click.option("--accept", metavar="CHECKSUM", help="Go beyond the limits for just this plan.")
@shard_options
@click.option(
    "--metrics-file", type=FILE, metavar="FILE", help="Write metrics for a textfile collector; ends in .prom."
)
@click.option(
    "--push-gateway",
    metavar="URL",
    help="Push metrics to a Pushgateway; a failure is a warning in the log and leaves the exit code alone.",
)
@all_option
@output_option
@global_options
@click.pass_context
def sync(
    context: click.Context,
    /,
    dry_run: bool,
    accept: str | None,
    metrics_file: Path | None,
    push_gateway: str | None,
    **given: Any,  # noqa: ANN401  # what the options give
) -> None:
    """One run: write the keys that changed, then exit (0 in sync, 1 failed or refused, 2 usage, 4 safety stop)."""
    _configured(
        "sync", context, given, dry_run=dry_run, accept=accept, metrics_file=metrics_file, push_gateway=push_gateway
    )


@app.command()
@config_option
@accounts_option
@shard_options
@click.option("--exit-code", is_flag=True, help="Exit with 3 if there are changes.")
@all_option
@output_option
@global_options
@click.pass_context
def plan(context: click.Context, /, exit_code: bool, **given: Any) -> None:  # noqa: ANN401
    """Show what a run would change; write nothing."""
    _configured("sync", context, given, dry_run=True, exit_code_for_changes=exit_code)


@app.command(name="run", short_help="The daemon: passes on schedule, and a page.")
@config_option
@shard_options
@global_options
@click.pass_context
def run_daemon(context: click.Context, /, **given: Any) -> None:  # noqa: ANN401
    """The daemon: passes on schedule, with a status page, probes and metrics; ends with 0 on SIGINT and SIGTERM."""
    _configured("run", context, given, reads=False)  # it looks at the file itself, again and again


@app.command(short_help="Take over secrets that are not keysync's yet.")
@config_option
@accounts_option
@shard_options
@click.option("--yes", is_flag=True, help="Do it; without, only show what would be done.")
@click.option("--secret", multiple=True, metavar="VAULT/NAME", help="Only this secret; repeatable.")
@click.option(
    "--replace",
    is_flag=True,
    help="Also where the value differs (it gets a new version) or somebody else's mark is.",
)
@all_option
@output_option
@global_options
@click.pass_context
def adopt(context: click.Context, /, yes: bool, secret: Sequence[str], replace: bool, **given: Any) -> None:  # noqa: ANN401
    """Take over secrets that are not keysync's yet: show what would be done, with --yes do it."""
    how = "replace" if replace else "unmarked"
    _configured("sync", context, given, dry_run=not yes, adopt=how, secrets=tuple(secret))


@app.command(short_help="The doctor: try all, write nothing, tell cures.")
@config_option
@accounts_option
@shard_options
@output_option
@global_options
@click.pass_context
def check(context: click.Context, /, **given: Any) -> None:  # noqa: ANN401
    """The doctor: try credentials, accounts and vaults without writing, and say what to do about each finding."""
    _configured("check", context, given)


@app.command(short_help="List the accounts that are covered.")
@config_option
@shard_options
@output_option
@global_options
@click.pass_context
def accounts(context: click.Context, /, **given: Any) -> None:  # noqa: ANN401
    """List the accounts that the configuration covers, those that are discovered included; reads no key."""
    _configured("accounts", context, given)


@app.command(short_help="Print the roles that keysync needs.")
@config_option
@click.option(
    "--principal-id",
    multiple=True,
    metavar="ID",
    help="Object id of the identity; repeatable, in the order in which identities are told.",
)
@output_option
@global_options
def role(config: Path | None, principal_id: Sequence[str], output: str, **_given: Any) -> None:  # noqa: ANN401
    """Print the least-privilege roles and assignments that the configuration needs, as a shell script; asks nobody."""
    from keysync.cli import role as roles  # noqa: PLC0415  # imports pydantic

    sys.exit(roles.run(config, output, tuple(principal_id)))


@app.command(short_help="The daemon against the embedded Azure.")
@click.option("--once", is_flag=True, help="End by itself after a few runs.")
@click.option(
    "--every",
    type=click.FloatRange(min=1.0),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between runs.",
)
@global_options
@click.pass_context
def demo(context: click.Context, /, once: bool, every: float, **given: Any) -> None:  # noqa: ANN401
    """The daemon against the embedded Azure, on sample accounts whose keys keep being regenerated."""
    log = _log(context, given, default_level="critical")
    with fast_imports():
        from keysync.cli import demo as demonstration  # noqa: PLC0415  # imports the SDKs

    sys.exit(demonstration.run(_options(config=None, **log), once=once, every=every))


@app.command(short_help="Ask the daemon on this machine whether it works.")
@config_option
@global_options
def health(config: Path | None, **_given: Any) -> None:  # noqa: ANN401  # global options are taken everywhere
    """Ask the daemon where `listen` says, on this machine; exit with 0 if it works, with 1 if not: for a health check."""
    from keysync.cli import health as asking  # noqa: PLC0415  # imports pydantic

    sys.exit(asking.run(config))


@app.command()
@global_options
def schema(**_given: Any) -> None:  # noqa: ANN401  # global options are taken everywhere
    """Print the JSON Schema of the configuration file."""
    from keysync.config.schema import render_schema  # noqa: PLC0415  # imports pydantic

    click.echo(render_schema(), nl=False)


app.add_command(emulator)


def _configured(
    module: str,
    context: click.Context,
    given: Mapping[str, Any],
    *,
    reads: bool = True,
    **more: Any,  # noqa: ANN401  # other fields of Options
) -> NoReturn:
    """Runs a command that needs a configuration, which is read while what the command needs is imported."""
    shard = shard_of(given["shard"], given["shards"], os.environ)
    log = _log(context, given)
    check_ssl_cert_file()
    reading = _begin_reading(given["config"]) if reads else None
    with fast_imports():
        command = import_module(f"keysync.cli.{module}")
    options = _options(
        config=given["config"],
        output=given.get("output", "text"),
        accounts=tuple(given.get("account", ())),
        show_all=given.get("show_all", False),
        shard=shard,
        reading=reading,
        **log,
        **more,
    )
    sys.exit(command.run(options))


def _begin_reading(config: Path | None) -> Reading:
    from keysync.config.isolated import Reading  # noqa: PLC0415  # what it takes is not to be there for `--help`

    return Reading.begin(config)


def _options(**given: Any) -> Options:  # noqa: ANN401  # its fields
    from keysync.cli.options import Options  # noqa: PLC0415  # imports the SDKs

    return Options(**given)


def _log(context: click.Context, given: Mapping[str, Any], *, default_level: str | None = None) -> dict[str, str]:
    """How the run logs: what stands after the command wins, then before it, then the environment."""
    level = given["log_level"] or context.obj["log_level"] or _from_environment("KEYSYNC_LOG_LEVEL", LOG_LEVELS)
    level = level or default_level or ("critical" if _told_by_the_result(given) else "info")
    form = given["log_format"] or context.obj["log_format"] or _from_environment("KEYSYNC_LOG_FORMAT", LOG_FORMATS)
    return {"log_level": level, "log_format": form or ("console" if sys.stderr.isatty() else "json")}


def _told_by_the_result(given: Mapping[str, Any]) -> bool:
    """On a terminal the table and its notes tell all that the log would, so the log waits until it is asked for."""
    return given.get("output") == "text" and sys.stderr.isatty() and sys.stdout.isatty()


def _from_environment(name: str, known: Sequence[str]) -> str | None:
    value = os.environ.get(name)
    if value and value.lower() not in known:
        raise click.UsageError(f"{name}={value!r} is not one of {', '.join(known)}")
    return value.lower() if value else None


def main() -> None:
    """Entry point of the console script: runs the command line, and ends the process."""
    code = invoke()
    log_stream.flush()
    exit_now(code)


def invoke() -> int:
    """Runs the command line; the exit code. Never ends with a traceback."""
    guard_stdout()
    code, told = settled(_command())
    if told is not None:
        _complain(told)
    return code


def _complain(text: str) -> None:
    """Writes to stderr, after the log; not where stderr is not read, so that the process ends all the same."""
    if log_stream.flush():
        click.echo(f"keysync: {strip_control_codes(text)}", err=True)


def _command() -> int:
    """Runs the command that was asked for; its exit code."""
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeysyncError as error:
        for line in str(error).splitlines():
            _complain(line)
        return error.exit_code
    except Exception as error:  # noqa: BLE001  # a traceback could show source lines and values
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f" in {Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else ""
        _complain(f"internal error: {type(error).__name__}{where}; please report it")
        return 1
    return 0
