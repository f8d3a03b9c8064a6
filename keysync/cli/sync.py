"""`sync`, `plan` and `adopt`: one run, its report and the exit code."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from keysync import logs
from keysync.cli.compose import open_clients, open_runtime, uncounted
from keysync.cli.options import Options, load
from keysync.cli.signals import interruptible
from keysync.cli.streams import console_for
from keysync.config.model import Account, Config
from keysync.errors import Instruction, UsageError
from keysync.files import check_replaceable
from keysync.names import fold
from keysync.report import json, text
from keysync.report.log import RunLog
from keysync.report.progress import ProgressBar
from keysync.report.tracing import open_tracing
from keysync.secret.redact import Redactor
from keysync.sources.discovery import Inventory
from keysync.sync.inventory import resolve, selected
from keysync.sync.items import Selection
from keysync.sync.messages import command
from keysync.sync.model import Report
from keysync.sync.observers import Observers
from keysync.sync.run import run_sync
from keysync.sync.runtime import Shared

if TYPE_CHECKING:
    from keysync.cli.run_metrics import RunMetrics


def run(options: Options) -> int:
    """Runs once, prints the report and returns the exit code. Raises KeysyncError before the first request."""
    config = load(options)
    if options.metrics_file is not None:
        check_replaceable(
            options.metrics_file, "--metrics-file"
        )  # before the run: exit code 2 means that nothing was done
    run_metrics = _run_metrics(options, config)
    redactor = Redactor()
    logs.configure(options.log_level, options.log_format, redactor.redact)
    return asyncio.run(_run(options, config, redactor, run_metrics))


def _run_metrics(options: Options, config: Config) -> RunMetrics | None:
    """None without an option for metrics: importing their library takes time. Raises UsageError."""
    if options.metrics_file is None and options.push_gateway is None:
        return None
    from keysync.cli.run_metrics import RunMetrics  # noqa: PLC0415  # as above

    return RunMetrics(options, config)


async def _run(options: Options, config: Config, redactor: Redactor, run_metrics: RunMetrics | None) -> int:
    selection = Selection(
        options.adopt,
        frozenset(fold(name) for name in options.secrets),
        options.options_hint,
        options.accounts,
        dry_run=options.dry_run,
        accept=options.accept,
    )
    metrics = () if run_metrics is None else (run_metrics.metrics,)
    with interruptible() as interruption, ProgressBar() as bar:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(open_tracing(redactor.redact))
            shared = Shared(
                redactor,
                Observers((RunLog(), *metrics, bar)),
                lambda: interruption.stop,
                selection,
                options.shard,
            )
            observe = run_metrics.metrics.called if run_metrics else uncounted
            clients = await open_clients(stack, config, redactor, observe=observe)
            runtime = await open_runtime(stack, clients, shared)
            inventory = await resolve(runtime.discovery, interruption.stop)
            accounts = selected(inventory, options.accounts, options.shard)
            _check_secrets(options, inventory, accounts)
            await runtime.cover(inventory, accounts)
            if run_metrics:
                run_metrics.metrics.cover((account.resource_id for account in accounts), config.vaults)
                run_metrics.metrics.credentials(runtime.credential_expiries)
            report = await run_sync(runtime.make_run(accounts))
    if run_metrics:
        run_metrics.finish()
    _print(options, report)
    if run_metrics:
        # The reader of the result need not wait for a slow gateway.
        sys.stdout.flush()
        await run_metrics.push()
    return interruption.exit_code or _exit_code(options, report)


def _print(options: Options, report: Report) -> None:
    if options.output == "json":
        sys.stdout.write(json.render(report) + "\n")
    else:
        console = console_for(sys.stdout)
        text.print_report(console, report, accepted_by=None if options.adopt else "checksum", show_all=options.show_all)
        if options.adopt is not None and options.dry_run and report.has_changes:
            message = Instruction(f"This is what would be done. To do it: {_adopt_command(options)}")
            text.print_message(console, message)


def _adopt_command(options: Options) -> str:
    named = [word for name in options.secrets for word in ("--secret", name)]
    replace = ["--replace"] if options.adopt == "replace" else []
    return command("adopt", " ".join(filter(None, (options.options_hint, shlex.join([*named, *replace, "--yes"])))))


def _check_secrets(options: Options, inventory: Inventory, accounts: Sequence[Account]) -> None:
    """Raises UsageError for a `--secret` that no selected account has. Checks nothing if the listing is incomplete."""
    if not inventory.complete:
        return
    accounts = [*accounts, *(skipped.account for skipped in inventory.refused if skipped.account is not None)]
    known = {
        fold(f"{vault}/{name}")
        for account in accounts
        for vault in account.vaults
        for name in account.secret_names().values()
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
