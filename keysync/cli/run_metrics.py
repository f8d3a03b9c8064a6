"""The metrics of a one-off run, for a file or a gateway."""

from __future__ import annotations

from datetime import UTC, datetime

from prometheus_client import CollectorRegistry

from keysync.cli.options import Options
from keysync.config.model import Config
from keysync.daemon.account_state import STALE_INTERVALS
from keysync.daemon.fire_times import following, interval_of
from keysync.files import check_replaceable
from keysync.report.metrics import Metrics
from keysync.report.push import check_gateway, grouping_of, push
from keysync.sync.runtime import Runtime


class RunMetrics:
    """The metrics of one run and their destinations. Raises UsageError if one of these cannot be used."""

    def __init__(self, options: Options, config: Config) -> None:
        if options.metrics_file is not None:
            check_replaceable(options.metrics_file, "--metrics-file")
        if options.push_gateway is not None:
            check_gateway(options.push_gateway)
        self._options = options
        self._config = config
        self._registry = CollectorRegistry()
        self.metrics = Metrics(self._registry)
        self.metrics.sharded(options.shard)
        self.metrics.scheduled(interval_of(config.schedule, datetime.now(UTC)).total_seconds())

    def cover(self, runtime: Runtime) -> None:
        """Has a series for each account, vault and credential of `runtime`."""
        self.metrics.cover((account.resource_id for account in runtime.accounts), self._config.vaults)
        self.metrics.credentials(runtime.credential_expiries)

    async def finish(self) -> None:
        """Sets when the next run is overdue. Writes `--metrics-file` and pushes to `--push-gateway`, if given.

        Logs a failed push as a warning.
        """
        options, config = self._options, self._config
        overdue = following(config.schedule, datetime.now(UTC), STALE_INTERVALS)
        if overdue is not None:
            self.metrics.overdue(overdue, options.shard)
        if options.metrics_file is not None:
            self.metrics.write(options.metrics_file)
        if options.push_gateway is not None:
            grouping = grouping_of(config.owner, None if options.shard is None else str(options.shard))
            await push(self._registry, options.push_gateway, grouping)
