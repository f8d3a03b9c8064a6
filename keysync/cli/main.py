"""The command line. It imports no Azure SDK before a command runs, so that `--help` and `--version` are immediate."""

from __future__ import annotations

import gc
import sys
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import click

from keysync import log_stream
from keysync.cli.emulator import emulator
from keysync.cli.options import Options, global_options, with_options
from keysync.cli.streams import final_code, guard_stdout
from keysync.config.isolated import begin_reading
from keysync.errors import KeysyncError, raised_at
from keysync.files import check_ssl_cert_file
from keysync.report.console import strip_control_codes
from keysync.startup import exit_now, fast_imports

if TYPE_CHECKING:
    from keysync.sync.model import Adoption

# The results of these commands say what the log says at level INFO.
_LEVEL_INSTEAD_OF_INFO: Final = {"accounts": "critical", "check": "error"}


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
@partial(global_options, from_environment=True)
@click.pass_context
def app(context: click.Context, /, **values: Any) -> None:  # noqa: ANN401  # values of the options
    """Keeps the global options that precede a command."""
    context.obj = values


@app.command(short_help="One sync run: write what changed, then exit.")
@with_options(
    *("--config", "--dry-run", "--account", "--accept", "--shard", "--shards"),
    *("--metrics-file", "--push-gateway", "--all", "--output"),
)
def sync(options: Options) -> None:
    """Sync once: write the keys that changed, then exit (0 in sync, 1 failed or refused, 2 usage, 4 stopped by a limit)."""
    _run_once("sync", options)


@app.command()
@with_options("--config", "--account", "--shard", "--shards", "--exit-code", "--all", "--output")
def plan(options: Options) -> None:
    """Show what a run would change; write nothing."""
    _run_once("sync", replace(options, dry_run=True))


@app.command(name="run", short_help="The daemon: sync runs on schedule, and a status page.")
@with_options("--config", "--shard", "--shards")
def run_daemon(options: Options) -> None:
    """Run the daemon: sync on schedule, serve a status page, probes and metrics; exit with 0 on SIGINT and SIGTERM."""
    _import("run").run(options)


@app.command(short_help="Take over unmanaged secrets.")
@with_options("--config", "--account", "--shard", "--shards", "--yes", "--secret", "--replace", "--all", "--output")
def adopt(options: Options) -> None:
    """Take over secrets that keysync does not manage yet: show what would be done, or do it with --yes."""
    adoption: Adoption = "replace" if options.replace else "untagged"
    _run_once("sync", replace(options, adopt=adoption, dry_run=not options.yes))


@app.command(short_help="Test access to everything; write nothing.")
@with_options("--config", "--account", "--shard", "--shards", "--output")
def check(options: Options) -> None:
    """Test the configuration, tokens, accounts and vaults without writing, and say how to fix each finding."""
    _run_once("check", options)


@app.command(short_help="List the accounts that the configuration covers.")
@with_options("--config", "--shard", "--shards", "--output")
def accounts(options: Options) -> None:
    """List the accounts that the configuration covers, including discovered ones; read no key."""
    _run_once("accounts", options)


@app.command(short_help="Print the roles that keysync needs.")
@with_options("--config", "--principal-id", "--output")
def role(options: Options) -> None:
    """Print the least-privilege roles and assignments that the configuration needs, as a shell script; make no request."""
    _import("role").run(options)


@app.command(short_help="Run the daemon against the embedded Azure.")
@with_options("--once", "--every")
def demo(options: Options) -> None:
    """Run the daemon against the embedded Azure, with sample accounts whose keys are regenerated all the time."""
    _import("demo").run(options)


@app.command(short_help="Check that the daemon on this machine works.")
@with_options("--config")
def health(options: Options) -> None:
    """Check that the daemon at the `listen` address on this machine works: exit with 0 if it does, else with 1."""
    sys.exit(_import("health").run(options.config))


@app.command()
@with_options()
def schema(_options: Options) -> None:
    """Print the JSON Schema of the configuration file."""
    from keysync.config.schema import render_schema  # noqa: PLC0415  # imports pydantic

    click.echo(render_schema(), nl=False)


app.add_command(emulator)


def _import(command: str) -> Any:  # noqa: ANN401  # a module
    """The module of a command. Imported when the command runs, as it imports the SDKs or pydantic."""
    check_ssl_cert_file()
    with fast_imports():
        return import_module(f"keysync.cli.{command}")


def _run_once(command: str, options: Options) -> None:
    """Runs a one-off command. The configuration is read while the modules of the command are imported."""
    reading = begin_reading(options.config)
    module = _import(command)
    # Of a run that writes 400 secrets, collections take 10 ms, after 5,000 objects 30 to 90 ms; the process ends soon.
    gc.set_threshold(50_000)
    import asyncio  # noqa: PLC0415  # `--help` does not need them

    from keysync import logs  # noqa: PLC0415  # as above
    from keysync.secret.redact import Redactor  # noqa: PLC0415  # as above

    config, redactor = reading(), Redactor()
    # Text on a terminal says all that the log would, so logging is off by default.
    on_terminal = options.output == "text" and sys.stderr.isatty() and sys.stdout.isatty()
    level = options.log_level or ("critical" if on_terminal else "info")
    level = _LEVEL_INSTEAD_OF_INFO.get(command, level) if level == "info" else level
    logs.configure(level, options.log_format, redactor.redact)
    sys.exit(asyncio.run(module.run(options, config, redactor)))


def main() -> None:
    """Entry point of the console script. Runs the command line and ends the process."""
    code = invoke()
    log_stream.flush()
    exit_now(code)


def invoke() -> int:
    """Runs the command line and returns the exit code. Never shows a traceback."""
    guard_stdout()
    code, errors = 0, list[str]()
    try:
        app()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeysyncError as error:
        code, errors = error.exit_code, str(error).splitlines()
    except Exception as error:  # noqa: BLE001  # a traceback could show source lines and values
        code = 1
        errors = [f"internal error: {type(error).__name__} in {raised_at(error)}; please report it"]
    code, message = final_code(code)
    for text in (*errors, message):
        # After the log. If stderr is blocked, nothing is written, so that the process still ends.
        if text is not None and log_stream.flush():
            click.echo(f"keysync: {strip_control_codes(text)}", err=True)
    return code
