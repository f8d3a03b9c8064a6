"""`health`: whether the daemon beside it works, for the health check of a container."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import click

from keysync.config.formats import split_listen
from keysync.config.load import default_listen, load_listen
from keysync.config.locate import find_config
from keysync.errors import ConfigError
from keysync.web.healthcheck import why_unwell


def run(config: Path | None) -> int:
    """Prints what the daemon says of itself; returns 0 if it is well and 1 if not, or if it cannot be asked."""
    listen = _listen(config, os.environ)
    reason = _reason(listen)
    click.echo(f"healthy: {listen}" if reason is None else f"unhealthy: {listen}: {reason}")
    return 0 if reason is None else 1


def _listen(config: Path | None, environ: Mapping[str, str]) -> str:
    try:
        return load_listen(find_config(config, environ), environ)
    except ConfigError:
        # The daemon goes on with the file that it had: a restart for the sake of a bad edit would end what works.
        return default_listen(environ)


def _reason(listen: str) -> str | None:
    try:
        host, port = split_listen(listen)
    except ValueError:
        return "this is no address and port"
    if port == 0:
        return "with port 0 the system chose one, and only the daemon's log tells which"
    return why_unwell(host, port)
