"""The metrics of a one-off run, for a file or a gateway."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from keysync.cli.invocation import Options
from keysync.report.metrics import Metrics
from keysync.report.push import check_gateway, grouping_of, push


class Measured:
    """Where a run is counted, and where that goes afterwards. Raises UsageError where it could not go there."""

    def __init__(self, options: Options) -> None:
        self._options = options
        if options.push_gateway is not None:
            check_gateway(options.push_gateway)
        self._registry = CollectorRegistry()
        self.metrics = Metrics(self._registry)

    def write(self) -> None:
        """Writes `--metrics-file`, if it was asked for."""
        if self._options.metrics_file is not None:
            self.metrics.write(self._options.metrics_file)

    async def push(self, owner: str | None) -> None:
        """Pushes to `--push-gateway`, if it was asked for; a failure is a warning in the log."""
        shard = self._options.shard
        if self._options.push_gateway is not None:
            of_shard = None if shard is None else f"{shard.index}/{shard.count}"
            await push(self._registry, self._options.push_gateway, grouping_of(owner, of_shard))
