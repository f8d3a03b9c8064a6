"""`health`: checks the daemon in the same container or machine, as a health check."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import click

from keysync.config.files import find_config
from keysync.config.formats import split_listen
from keysync.config.load import default_listen, load_listen
from keysync.errors import ConfigError
from keysync.web.healthcheck import unhealthy_reason


def run(config: Path | None) -> int:
    """Prints the health of the daemon. Returns 0 if it is healthy, 1 if it is not or does not reply."""
    listen = _listen(config, os.environ)
    reason = _reason(listen)
    click.echo(f"healthy: {listen}" if reason is None else f"unhealthy: {listen}: {reason}")
    return 0 if reason is None else 1


def _listen(config: Path | None, environ: Mapping[str, str]) -> str:
    try:
        return load_listen(find_config(config, environ), environ)
    except ConfigError:
        # The daemon keeps its previous configuration. A failed health check would restart it with the invalid one.
        return default_listen(environ)


def _reason(listen: str) -> str | None:
    try:
        host, port = split_listen(listen)
    except ValueError:
        return "not an address and a port"
    if port == 0:
        return "the system chooses the port for 0; the daemon logs it"
    return unhealthy_reason(host, port)
