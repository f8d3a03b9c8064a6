"""`sync` and `plan`: one run, its report, and the exit code."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from keysync import logs
from keysync.calls import Operation
from keysync.cli.compose import App, AppOptions, open_app
from keysync.cli.options import Options, load
from keysync.cli.progress import ProgressBar
from keysync.cli.signals import interruptible
from keysync.config.settings import Account, Config
from keysync.errors import Instruction, UsageError
from keysync.files import check_replaceable
from keysync.names import fold
from keysync.report import json, text
from keysync.report.console import console_for
from keysync.report.log import RunLog
from keysync.report.tracing import open_tracing
from keysync.secret.redact import Redactor
from keysync.sources.shard import Shard, share_of
from keysync.sync.inventory import Inventory, preflight, resolve, selected
from keysync.sync.items import Selection
from keysync.sync.messages import command
from keysync.sync.model import Report
from keysync.sync.observers import Observers
from keysync.sync.orphans import OrphanSearch
from keysync.sync.run import run_sync

if TYPE_CHECKING:
    from keysync.cli.run_metrics import RunMetrics


def run(options: Options) -> int:
    """Runs one run and prints its report; returns the exit code. Raises KeysyncError before the first request."""
    config = load(options)
    if options.metrics_file is not None:
        check_replaceable(options.metrics_file, "--metrics-file")  # an exit code of 2 says that nothing was touched
    measured = _measured(options, config)
    redactor = Redactor()
    logs.configure(options.log_level, options.log_format, redactor.redact)
    return asyncio.run(_run(options, config, redactor, measured))


def _measured(options: Options, config: Config) -> RunMetrics | None:
    """None where nobody asked for metrics: their library takes its time to come. Raises UsageError."""
    if options.metrics_file is None and options.push_gateway is None:
        return None
    from keysync.cli.run_metrics import RunMetrics  # noqa: PLC0415  # as above

    return RunMetrics(options, config)


def _uncounted(operation: Operation, status: str) -> None:
    """A call that no metric counts."""


async def _run(options: Options, config: Config, redactor: Redactor, measured: RunMetrics | None) -> int:
    asked = Selection(options.adopt, frozenset(fold(name) for name in options.secrets), options.options_hint)
    shard = _shard_to_find(options)
    rest = options.shard if shard is None else None  # the share that is still to be taken of what was found
    with interruptible() as interruption, ProgressBar() as bar:
        async with (
            open_tracing(redactor.redact) as tracer,
            open_app(
                config,
                (),
                redactor,
                measured.metrics.called if measured else _uncounted,
                AppOptions(tracer=tracer, is_mine=share_of(shard)),
            ) as app,
        ):
            inventory = await resolve(config, app.discovery, interruption.stop)
            accounts = selected(inventory, options.accounts, rest)
            _check_secrets(options, inventory, accounts)
            if measured:
                measured.metrics.cover((account.resource_id for account in accounts), config.vaults)
            await app.cover(accounts)
            if measured:
                measured.metrics.credentials(app.credential_expiries)
            observer = Observers((RunLog(), *((measured.metrics,) if measured else ()), bar))
            job = app.runs.make_run(
                app.accounts,
                observer,
                interruption.stop,
                selection=asked,
                dry_run=options.dry_run,
                accept=options.accept,
                orphans=_orphan_search(options, app, inventory),
                preflight=preflight(inventory, options.accounts, rest, asked.is_about),
            )
            report = await run_sync(job)
    if measured:
        measured.finish()
    _print(options, report)
    if measured:
        # Whoever reads the result need not wait for a gateway that is slow.
        sys.stdout.flush()
        await measured.push()
    return interruption.exit_code or _exit_code(options, report)


def _shard_to_find(options: Options) -> Shard | None:
    """None for all: what is named may be another shard's, and is then no slip of the pen."""
    return None if options.accounts or options.secrets else options.shard


def _orphan_search(options: Options, app: App, inventory: Inventory) -> OrphanSearch | None:
    """None in a run about some accounts only, or about taking secrets over."""
    if options.accounts or options.secrets or options.adopt is not None:
        return None
    return app.runs.orphan_search(inventory, is_mine=share_of(options.shard))


def _print(options: Options, report: Report) -> None:
    if options.output == "json":
        sys.stdout.write(json.render(report) + "\n")
    else:
        console = console_for(sys.stdout)
        text.print_report(console, report, accepted_by=None if options.adopt else "checksum", show_all=options.show_all)
        if options.adopt is not None and options.dry_run and report.has_changes:
            told = Instruction(f"This is what would be done. To do it: {_adopt_command(options)}")
            text.print_message(console, told)


def _adopt_command(options: Options) -> str:
    named = [word for name in options.secrets for word in ("--secret", name)]
    replace = ["--replace"] if options.adopt == "replace" else []
    return command("adopt", " ".join(filter(None, (options.options_hint, shlex.join([*named, *replace, "--yes"])))))


def _check_secrets(options: Options, inventory: Inventory, accounts: Sequence[Account]) -> None:
    """Raises UsageError for a `--secret` that no selected account has, unless not all could be listed."""
    if not inventory.complete:
        return
    accounts = [*accounts, *(one.account for one in inventory.refused if one.account is not None)]
    known = {
        fold(f"{vault}/{name}") for one in accounts for vault in one.vaults for name in one.secret_names().values()
    }
    for name in options.secrets:
        if fold(name) not in known:
            example = f", such as {min(known)}" if known else ""
            raise UsageError(f"--secret {name}: the configuration writes no such secret; write VAULT/NAME{example}")


def _exit_code(options: Options, report: Report) -> int:
    if report.stopped:
        return 4
    if report.failed:
        return 1
    return 3 if options.exit_code_for_changes and report.has_changes else 0
