"""`sync`, `plan` and `adopt`: one run, its report and the exit code."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

from keysync.cli.compose import open_clients, open_runtime
from keysync.cli.options import Options
from keysync.cli.signals import interruptible
from keysync.cli.streams import console_for
from keysync.config.model import Account, Config
from keysync.errors import Instruction, UsageError
from keysync.names import fold
from keysync.report import text
from keysync.report.console import to_json
from keysync.report.log import RunLog
from keysync.report.progress import progress_bar
from keysync.report.tracing import open_tracing
from keysync.secret.redact import Redactor
from keysync.sources.discovery import Inventory
from keysync.sync.inventory import resolve, selected
from keysync.sync.items import Selection
from keysync.sync.messages import command
from keysync.sync.model import Report
from keysync.sync.run import run_sync
from keysync.sync.runtime import Shared


async def run(options: Options, config: Config, redactor: Redactor) -> int:
    """Runs once, prints the report and returns the exit code. Raises KeysyncError before the first request."""
    run_metrics = None
    if options.metrics_file is not None or options.push_gateway is not None:
        from keysync.cli.run_metrics import RunMetrics  # noqa: PLC0415  # importing their library takes time

        run_metrics = RunMetrics(options, config)
    selection = Selection(
        options.adopt,
        frozenset(fold(name) for name in options.secrets),
        options.options_hint,
        options.accounts,
        options.dry_run,
        options.accept,
    )
    with interruptible() as interruption, progress_bar() as bar:
        observers = (RunLog(), *([run_metrics.metrics] if run_metrics else []), bar)
        shared = Shared(redactor, observers, lambda: interruption.stop, selection, options.shard)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(open_tracing(redactor.redact))
            observe = run_metrics.metrics.called if run_metrics else None
            clients = await open_clients(stack, config, redactor, observe=observe)
            runtime = await open_runtime(stack, clients, shared)
            inventory = await resolve(runtime.discovery, interruption.stop)
            accounts = selected(inventory, options.accounts, options.shard)
            _check_secrets(options, inventory, accounts)
            await runtime.cover(inventory, accounts)
            if run_metrics:
                run_metrics.cover(runtime)
            report = await run_sync(runtime.make_run(accounts))
    _print(options, report)
    if run_metrics:
        sys.stdout.flush()  # the reader of the result need not wait for a slow gateway
        await run_metrics.finish()
    if report.stopped:
        return interruption.exit_code or 4
    changed = options.exit_code_for_changes and report.has_changes
    return interruption.exit_code or (1 if report.failed else 3 if changed else 0)


def _print(options: Options, report: Report) -> None:
    if options.output == "json":
        sys.stdout.write(to_json(report.to_dict()) + "\n")
        return
    console = console_for(sys.stdout)
    text.print_report(console, report, accepted_by=None if options.adopt else "checksum", show_all=options.show_all)
    if options.adopt is not None and options.dry_run and report.has_changes:
        words = [word for name in options.secrets for word in ("--secret", name)]
        words += ["--replace", "--yes"] if options.adopt == "replace" else ["--yes"]
        adopt = command("adopt", " ".join(filter(None, (options.options_hint, shlex.join(words)))))
        text.print_message(console, Instruction(f"This is what would be done. To do it: {adopt}"))


def _check_secrets(options: Options, inventory: Inventory, accounts: Sequence[Account]) -> None:
    """Raises UsageError for a `--secret` that no selected account has. Checks nothing if the listing is incomplete."""
    if not inventory.complete:
        return
    accounts = [*accounts, *(skipped.account for skipped in inventory.refused if skipped.account is not None)]
    secrets = ((vault, name) for each in accounts for vault in each.vaults for name in each.secret_names().values())
    known = {fold(f"{vault}/{name}") for vault, name in secrets}
    for name in options.secrets:
        if fold(name) not in known:
            example = f", such as {min(known)}" if known else ""
            raise UsageError(f"--secret {name}: the configuration writes no such secret; write VAULT/NAME{example}")
