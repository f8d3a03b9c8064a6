"""What the command line says of one run, and the configuration that it names."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from keysync.config.isolated import Reading
from keysync.config.settings import Config
from keysync.logs import LogFormat
from keysync.sync.model import Adoption
from keysync.sync.shard import Shard


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says of one run. `reading` is the configuration that it names, None for a command that needs none."""

    config: Path | None
    log_level: str
    log_format: LogFormat
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
    show_all: bool = False
    reading: Reading | None = None

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
    reading = options.reading or Reading.begin(options.config)
    return reading.result()
