"""`health`: checks the daemon in the same container or machine, as a health check."""

from __future__ import annotations

import os
from pathlib import Path

import click

from keysync.config.formats import split_listen
from keysync.config.load import load_listen
from keysync.web.healthcheck import unhealthy_reason


def run(config: Path | None) -> int:
    """Prints the health of the daemon. Returns 0 if it is healthy, 1 if it is not or does not reply."""
    listen = load_listen(config, os.environ)
    try:
        host, port = split_listen(listen)
        reason = unhealthy_reason(host, port) if port else "the system chooses the port for 0; the daemon logs it"
    except ValueError:
        reason = "not an address and a port"
    click.echo(f"healthy: {listen}" if reason is None else f"unhealthy: {listen}: {reason}")
    return int(reason is not None)
