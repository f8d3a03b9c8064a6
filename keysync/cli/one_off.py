"""`sync` and `plan`: one pass, its report, and the exit code."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from keysync import logs
from keysync.cli.compose import Extras, Wired, wire
from keysync.cli.coverage import Asked
from keysync.cli.progress import Observers, ProgressBar
from keysync.cli.resolve import Coverage, beforehand, resolve, selected
from keysync.cli.signals import interruptible
from keysync.config.loading import find_config, load_config
from keysync.config.models import Account, Config
from keysync.errors import UsageError
from keysync.report import json, text
from keysync.report.log import PassLog
from keysync.report.metrics import Metrics
from keysync.report.push import check_gateway, grouping_of, push
from keysync.report.tracing import open_tracing
from keysync.secret.scrub import Scrubber
from keysync.sync.model import Adoption, Report
from keysync.sync.orphans import OrphanSearch
from keysync.sync.refusals import command
from keysync.sync.run import run_pass
from keysync.sync.shard import Shard


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says of one pass."""

    config: Path | None
    log_level: str
    log_format: logs.LogFormat
    output: str = "text"
    accounts: tuple[str, ...] = ()
    dry_run: bool = False
    accept: str | None = None
    shard: Shard | None = None
    metrics_file: Path | None = None
    push_gateway: str | None = None
    exit_code_for_changes: bool = False
    adopt: Adoption | None = None
    secrets: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """The options that a command which is told needs, to be about what this run is about."""
        words = ["-c", str(self.config)] if self.config is not None else []
        for name in self.accounts:
            words += ["--account", name]
        if self.shard is not None:
            words += ["--shard", str(self.shard)]
        return shlex.join(words)


def load(options: Options) -> Config:
    """The configuration that the options and the environment name. Raises ConfigError."""
    return load_config(find_config(options.config, os.environ), os.environ)


def run(options: Options) -> int:
    """Runs one pass and prints its report; returns the exit code. Raises KeysyncError before the first request."""
    config = load(options)
    _check_writable(options.metrics_file)
    if options.push_gateway is not None:
        check_gateway(options.push_gateway)
    scrubber = Scrubber()
    logs.configure(options.log_level, options.log_format, scrubber.scrub)
    return asyncio.run(_run(options, config, scrubber))


def _check_writable(path: Path | None) -> None:
    # Before the first request: afterwards "nothing was touched" would be a lie.
    if path is not None and not (path.absolute().parent.is_dir() and os.access(path.absolute().parent, os.W_OK)):
        raise UsageError(f"--metrics-file {path}: its folder is not there or cannot be written to")


async def _run(options: Options, config: Config, scrubber: Scrubber) -> int:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    asked = Asked(options.adopt, frozenset(name.lower() for name in options.secrets), options.told)
    with interruptible() as interruption, ProgressBar() as bar:
        async with (
            open_tracing(scrubber.scrub) as tracer,
            wire(config, (), scrubber, metrics.called, Extras(tracer=tracer)) as wired,
        ):
            coverage = await resolve(config, wired.discovery, interruption.stop)
            accounts = selected(coverage, options.accounts, options.shard)
            _check_secrets(options, coverage, accounts)
            metrics.cover((account.resource_id for account in accounts), config.vaults)
            await wired.cover(accounts)
            observer = Observers((PassLog(), metrics, bar))
            job = wired.make_pass(
                observer,
                interruption.stop,
                dry_run=options.dry_run,
                accept=options.accept,
                asked=asked,
                orphans=_orphan_search(options, wired, coverage),
                beforehand=beforehand(coverage, options.accounts, options.shard, asked.is_about),
            )
            report = await run_pass(job)
    if options.metrics_file is not None:
        metrics.write(options.metrics_file)
    _print(options, report)
    if options.push_gateway is not None:
        # Whoever reads the result need not wait for a gateway that is slow.
        sys.stdout.flush()
        shard = None if options.shard is None else f"{options.shard.index}/{options.shard.count}"
        await push(registry, options.push_gateway, grouping_of(config.owner, shard))
    return interruption.exit_code or _exit_code(options, report)


def _orphan_search(options: Options, wired: Wired, coverage: Coverage) -> OrphanSearch | None:
    """None in a run about some accounts only, or about taking secrets over."""
    if options.accounts or options.secrets or options.adopt is not None:
        return None
    shard = options.shard
    if shard is None:
        return wired.orphan_search(coverage=coverage)
    return wired.orphan_search(coverage=coverage, is_mine=shard.has)


def _print(options: Options, report: Report) -> None:
    if options.output == "json":
        sys.stdout.write(json.render(report) + "\n")
    else:
        console = text.console_for(sys.stdout)
        text.print_report(console, report, accepted_by=None if options.adopt else "checksum")
        if options.adopt is not None and options.dry_run and report.has_changes:
            text.print_told(console, f"This is what would be done. To do it: {_adopt_command(options)}")


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
        f"{vault}/{name}".lower() for one in accounts for vault in one.vaults for name in one.secret_names().values()
    }
    for name in options.secrets:
        if name.lower() not in known:
            example = f", such as {min(known)}" if known else ""
            raise UsageError(f"--secret {name}: the configuration writes no such secret; write VAULT/NAME{example}")


def _exit_code(options: Options, report: Report) -> int:
    if report.stopped:
        return 4
    if report.failed:
        return 1
    return 3 if options.exit_code_for_changes and report.has_changes else 0
