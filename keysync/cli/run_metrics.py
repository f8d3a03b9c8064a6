"""The metrics of a one-off run, for a file or a gateway."""

from __future__ import annotations

from datetime import UTC, datetime

from prometheus_client import CollectorRegistry

from keysync.cli.options import Options
from keysync.config.model import Config
from keysync.daemon.account_state import STALE_INTERVALS
from keysync.daemon.fire_times import following, interval_of
from keysync.report.metrics import Metrics
from keysync.report.push import check_gateway, grouping_of, push


class RunMetrics:
    """The metrics of one run and their destinations. Raises UsageError if `--push-gateway` is not a valid URL."""

    def __init__(self, options: Options, config: Config) -> None:
        self._options = options
        self._config = config
        if options.push_gateway is not None:
            check_gateway(options.push_gateway)
        self._registry = CollectorRegistry()
        self.metrics = Metrics(self._registry)
        self.metrics.sharded(options.shard)
        self.metrics.scheduled(interval_of(config.schedule, datetime.now(UTC)).total_seconds())

    def finish(self) -> None:
        """Sets when the next run is overdue, and writes `--metrics-file`, if given."""
        overdue = following(self._config.schedule, datetime.now(UTC), STALE_INTERVALS)
        if overdue is not None:
            self.metrics.overdue(overdue, self._options.shard)
        if self._options.metrics_file is not None:
            self.metrics.write(self._options.metrics_file)

    async def push(self) -> None:
        """Pushes to `--push-gateway`, if given. Logs a failure as a warning."""
        shard = self._options.shard
        if self._options.push_gateway is not None:
            grouping = grouping_of(self._config.owner, None if shard is None else str(shard))
            await push(self._registry, self._options.push_gateway, grouping)
