"""The command line. It imports no Azure SDK before a command runs, so that `--help` and `--version` are immediate."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from keysync import log_stream
from keysync.cli.emulator import emulator
from keysync.cli.options import (
    FILE,
    LOG_FORMATS,
    LOG_LEVELS,
    Options,
    accounts_option,
    all_option,
    config_option,
    global_options,
    output_option,
    shard_options,
)
from keysync.cli.streams import final_code, guard_stdout
from keysync.config.isolated import begin_reading
from keysync.errors import KeysyncError
from keysync.files import check_ssl_cert_file
from keysync.report.console import strip_control_codes
from keysync.sources.shard import shard_of
from keysync.startup import exit_now, fast_imports


class _InOrder(click.Group):
    """Lists its commands in the order of their definition: the most used come first."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """The names of the commands."""
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
def app(context: click.Context, /, **values: Any) -> None:  # noqa: ANN401  # values of the options
    """Keeps the global options that precede a command."""
    context.obj = values


@app.command(short_help="One sync run: write what changed, then exit.")
@config_option
@click.option("--dry-run", is_flag=True, help="Show what would be done; write nothing.")
@accounts_option
@click.option("--accept", metavar="CHECKSUM", help="Allow exactly this plan to exceed the limits.")
@shard_options
@click.option(
    "--metrics-file", type=FILE, metavar="FILE", help="Write metrics for a textfile collector; ends in .prom."
)
@click.option(
    "--push-gateway",
    metavar="URL",
    help="Push metrics to a Pushgateway. A failure is logged as a warning and does not change the exit code.",
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
    **values: Any,  # noqa: ANN401  # values of the options
) -> None:
    """Sync once: write the keys that changed, then exit (0 in sync, 1 failed or refused, 2 usage, 4 stopped by a limit)."""
    _configured(
        "sync", context, values, dry_run=dry_run, accept=accept, metrics_file=metrics_file, push_gateway=push_gateway
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
def plan(context: click.Context, /, exit_code: bool, **values: Any) -> None:  # noqa: ANN401  # values of the options
    """Show what a run would change; write nothing."""
    _configured("sync", context, values, dry_run=True, exit_code_for_changes=exit_code)


@app.command(name="run", short_help="The daemon: sync runs on schedule, and a status page.")
@config_option
@shard_options
@global_options
@click.pass_context
def run_daemon(context: click.Context, /, **values: Any) -> None:  # noqa: ANN401  # values of the options
    """Run the daemon: sync on schedule, serve a status page, probes and metrics; exit with 0 on SIGINT and SIGTERM."""
    _configured("run", context, values, reads=False)  # the daemon reads the file itself, repeatedly


@app.command(short_help="Take over unmanaged secrets.")
@config_option
@accounts_option
@shard_options
@click.option("--yes", is_flag=True, help="Do it. Without this option, only show what would be done.")
@click.option("--secret", multiple=True, metavar="VAULT/NAME", help="Only this secret; repeatable.")
@click.option(
    "--replace",
    is_flag=True,
    help="Also secrets whose value differs (they get a new version) or that have another owner's tags.",
)
@all_option
@output_option
@global_options
@click.pass_context
def adopt(context: click.Context, /, yes: bool, secret: Sequence[str], replace: bool, **values: Any) -> None:  # noqa: ANN401  # values of the options
    """Take over secrets that keysync does not manage yet: show what would be done, or do it with --yes."""
    adoption = "replace" if replace else "untagged"
    _configured("sync", context, values, dry_run=not yes, adopt=adoption, secrets=tuple(secret))


@app.command(short_help="Test access to everything; write nothing.")
@config_option
@accounts_option
@shard_options
@output_option
@global_options
@click.pass_context
def check(context: click.Context, /, **values: Any) -> None:  # noqa: ANN401  # values of the options
    """Test the configuration, tokens, accounts and vaults without writing, and say how to fix each finding."""
    _configured("check", context, values)


@app.command(short_help="List the accounts that the configuration covers.")
@config_option
@shard_options
@output_option
@global_options
@click.pass_context
def accounts(context: click.Context, /, **values: Any) -> None:  # noqa: ANN401  # values of the options
    """List the accounts that the configuration covers, including discovered ones; read no key."""
    _configured("accounts", context, values)


@app.command(short_help="Print the roles that keysync needs.")
@config_option
@click.option(
    "--principal-id",
    multiple=True,
    metavar="ID",
    help="Object ID of an identity; repeatable, in the order of the identities in the output.",
)
@output_option
@global_options
def role(config: Path | None, principal_id: Sequence[str], output: str, **_values: Any) -> None:  # noqa: ANN401  # as above
    """Print the least-privilege roles and assignments that the configuration needs, as a shell script; make no request."""
    from keysync.cli import role as role_command  # noqa: PLC0415  # imports pydantic

    sys.exit(role_command.run(config, output, tuple(principal_id)))


@app.command(short_help="Run the daemon against the embedded Azure.")
@click.option("--once", is_flag=True, help="Exit after a few runs.")
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
def demo(context: click.Context, /, once: bool, every: float, **values: Any) -> None:  # noqa: ANN401  # values of the options
    """Run the daemon against the embedded Azure, with sample accounts whose keys are regenerated all the time."""
    log = _log(context, values, default_level="critical")
    with fast_imports():
        from keysync.cli import demo as demo_command  # noqa: PLC0415  # imports the SDKs

    sys.exit(demo_command.run(Options(config=None, **log), once=once, every=every))


@app.command(short_help="Check that the daemon on this machine works.")
@config_option
@global_options
def health(config: Path | None, **_values: Any) -> None:  # noqa: ANN401  # every command accepts the global options
    """Check that the daemon at the `listen` address on this machine works: exit with 0 if it does, else with 1."""
    from keysync.cli import health as health_command  # noqa: PLC0415  # imports pydantic

    sys.exit(health_command.run(config))


@app.command()
@global_options
def schema(**_values: Any) -> None:  # noqa: ANN401  # every command accepts the global options
    """Print the JSON Schema of the configuration file."""
    from keysync.config.schema import render_schema  # noqa: PLC0415  # imports pydantic

    click.echo(render_schema(), nl=False)


app.add_command(emulator)


def _configured(
    module: str,
    context: click.Context,
    values: Mapping[str, Any],
    *,
    reads: bool = True,
    **more: Any,  # noqa: ANN401  # other fields of Options
) -> NoReturn:
    """Runs a command that needs a configuration. It is read while the modules of the command are imported."""
    shard = shard_of(values["shard"], values["shards"], os.environ)
    log = _log(context, values)
    check_ssl_cert_file()
    reading = begin_reading(values["config"]) if reads else None
    with fast_imports():
        command = import_module(f"keysync.cli.{module}")
    options = Options(
        config=values["config"],
        output=values.get("output", "text"),
        accounts=tuple(values.get("account", ())),
        show_all=values.get("show_all", False),
        shard=shard,
        reading=reading,
        **log,
        **more,
    )
    sys.exit(command.run(options))


def _log(context: click.Context, values: Mapping[str, Any], *, default_level: str | None = None) -> dict[str, Any]:
    """Level and format of the log, as fields of Options. Options after the command win over options before it, and those over the environment."""
    level = values["log_level"] or context.obj["log_level"] or _from_environment("KEYSYNC_LOG_LEVEL", LOG_LEVELS)
    level = level or default_level or ("critical" if _on_terminal(values) else "info")
    log_format = (
        values["log_format"] or context.obj["log_format"] or _from_environment("KEYSYNC_LOG_FORMAT", LOG_FORMATS)
    )
    return {"log_level": level, "log_format": log_format or ("console" if sys.stderr.isatty() else "json")}


def _on_terminal(values: Mapping[str, Any]) -> bool:
    """Whether the result is text on a terminal. It says all that the log would, so logging is off by default."""
    return values.get("output") == "text" and sys.stderr.isatty() and sys.stdout.isatty()


def _from_environment(name: str, known: Sequence[str]) -> str | None:
    value = os.environ.get(name)
    if value and value.lower() not in known:
        raise click.UsageError(f"{name}={value!r} is not one of {', '.join(known)}")
    return value.lower() if value else None


def main() -> None:
    """Entry point of the console script. Runs the command line and ends the process."""
    code = invoke()
    log_stream.flush()
    exit_now(code)


def invoke() -> int:
    """Runs the command line and returns the exit code. Never shows a traceback."""
    guard_stdout()
    code, message = final_code(_command())
    if message is not None:
        _print_error(message)
    return code


def _print_error(text: str) -> None:
    """Writes to stderr after the log. Writes nothing if stderr is blocked, so that the process still ends."""
    if log_stream.flush():
        click.echo(f"keysync: {strip_control_codes(text)}", err=True)


def _command() -> int:
    """Runs the command and returns its exit code."""
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeysyncError as error:
        for line in str(error).splitlines():
            _print_error(line)
        return error.exit_code
    except Exception as error:  # noqa: BLE001  # a traceback could show source lines and values
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f" in {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
        _print_error(f"internal error: {type(error).__name__}{place}; please report it")
        return 1
    return 0
