"""`sync` and `plan`: one pass, its report, and the exit code."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from keysync import logs
from keysync.azure.retry import Operation
from keysync.cli.compose import Extras, Wired, wire
from keysync.cli.options import Options, load
from keysync.cli.progress import ProgressBar
from keysync.cli.signals import interruptible
from keysync.config.formats import fold
from keysync.config.settings import Account, Config
from keysync.errors import Instruction, UsageError
from keysync.files import check_replaceable
from keysync.report import json, text
from keysync.report.console import paper_for
from keysync.report.log import PassLog
from keysync.report.tracing import open_tracing
from keysync.secret.redact import Scrubber
from keysync.sync.inventory import Coverage, beforehand, resolve, selected
from keysync.sync.items import Asked
from keysync.sync.messages import command
from keysync.sync.model import Report
from keysync.sync.observers import Observers
from keysync.sync.orphans import OrphanSearch
from keysync.sync.run import run_pass
from keysync.sync.shard import Shard, share_of

if TYPE_CHECKING:
    from keysync.cli.run_metrics import Measured


def run(options: Options) -> int:
    """Runs one pass and prints its report; returns the exit code. Raises KeysyncError before the first request."""
    config = load(options)
    if options.metrics_file is not None:
        check_replaceable(options.metrics_file, "--metrics-file")  # an exit code of 2 says that nothing was touched
    measured = _measured(options, config)
    scrubber = Scrubber()
    logs.configure(options.log_level, options.log_format, scrubber.scrub)
    return asyncio.run(_run(options, config, scrubber, measured))


def _measured(options: Options, config: Config) -> Measured | None:
    """None where nobody asked for metrics: their library takes its time to come. Raises UsageError."""
    if options.metrics_file is None and options.push_gateway is None:
        return None
    from keysync.cli.run_metrics import Measured  # noqa: PLC0415  # as above

    return Measured(options, config)


def _uncounted(operation: Operation, status: str) -> None:
    """A call that no metric counts."""


async def _run(options: Options, config: Config, scrubber: Scrubber, measured: Measured | None) -> int:
    asked = Asked(options.adopt, frozenset(fold(name) for name in options.secrets), options.told)
    shard = _shard_to_find(options)
    rest = options.shard if shard is None else None  # the share that is still to be taken of what was found
    with interruptible() as interruption, ProgressBar() as bar:
        async with (
            open_tracing(scrubber.scrub) as tracer,
            wire(
                config,
                (),
                scrubber,
                measured.metrics.called if measured else _uncounted,
                Extras(tracer=tracer, mine=share_of(shard)),
            ) as wired,
        ):
            coverage = await resolve(config, wired.discovery, interruption.stop)
            accounts = selected(coverage, options.accounts, rest)
            _check_secrets(options, coverage, accounts)
            if measured:
                measured.metrics.cover((account.resource_id for account in accounts), config.vaults)
            await wired.cover(accounts)
            if measured:
                measured.metrics.credentials(wired.credential_expiries)
            observer = Observers((PassLog(), *((measured.metrics,) if measured else ()), bar))
            job = wired.make_pass(
                observer,
                interruption.stop,
                dry_run=options.dry_run,
                accept=options.accept,
                asked=asked,
                orphans=_orphan_search(options, wired, coverage),
                beforehand=beforehand(coverage, options.accounts, rest, asked.is_about),
            )
            report = await run_pass(job)
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


def _orphan_search(options: Options, wired: Wired, coverage: Coverage) -> OrphanSearch | None:
    """None in a run about some accounts only, or about taking secrets over."""
    if options.accounts or options.secrets or options.adopt is not None:
        return None
    return wired.orphan_search(coverage=coverage, is_mine=share_of(options.shard))


def _print(options: Options, report: Report) -> None:
    if options.output == "json":
        sys.stdout.write(json.render(report) + "\n")
    else:
        paper = paper_for(sys.stdout)
        text.print_report(paper, report, accepted_by=None if options.adopt else "checksum", show_all=options.show_all)
        if options.adopt is not None and options.dry_run and report.has_changes:
            told = Instruction(f"This is what would be done. To do it: {_adopt_command(options)}")
            text.print_told(paper, told)


def _adopt_command(options: Options) -> str:
    named = [word for name in options.secrets for word in ("--secret", name)]
    replace = ["--replace"] if options.adopt == "replace" else []
    return command("adopt", " ".join(filter(None, (options.told, shlex.join([*named, *replace, "--yes"])))))


def _check_secrets(options: Options, coverage: Coverage, accounts: Sequence[Account]) -> None:
    """Raises UsageError for a `--secret` that no selected account has, unless not all could be listed."""
    if not coverage.complete:
        return
    accounts = [*accounts, *(one.account for one in coverage.refused if one.account is not None)]
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
