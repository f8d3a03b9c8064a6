"""`keysync emulator`: an Azure on loopback, and how to reach it from keysync and from az."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from keysync.cli.options import FILE, choice, global_options
from keysync.errors import KeysyncError, UsageError
from keysync.files import check_replaceable, check_ssl_cert_file

if TYPE_CHECKING:
    from keysync.emulator import Emulator, EmulatorData

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s)")
_SECONDS = {"ms": 0.001, "s": 1.0}


@click.command(short_help="Serve the embedded Azure for tests of your own.", context_settings={"show_default": True})
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=0,
    metavar="PORT",
    help="Port of Entra and ARM; 0 takes a free one.",
)
@click.option("--data", type=FILE, metavar="FILE", help="YAML with accounts and vaults; without it, a small sample.")
@click.option(
    "--ready-file",
    type=FILE,
    metavar="FILE",
    help="Written once it serves: where everything is, and what to sign in with.",
)
@click.option("--latency", default="0ms", metavar="TIME", help="How late each reply is, such as 40ms or 1s.")
@click.option(
    "--limits", type=choice("azure", "off"), default="off", help="Throttle as Azure documents it, or not at all."
)
@click.option(
    "--state",
    type=FILE,
    metavar="FOLDER",
    help="Folder that keys and secrets are kept in; without it nothing is kept.",
)
@global_options
def emulator(
    port: int,
    data: Path | None,
    ready_file: Path | None,
    latency: str,
    limits: str,
    state: Path | None,
    **_given: Any,  # noqa: ANN401  # global options are taken everywhere; it logs nothing
) -> None:
    """Serve an Azure of your own on loopback: Entra, Batch accounts and Key Vault, until SIGTERM or Ctrl-C."""
    check_ssl_cert_file()
    # Imported here, so that the help of every command comes without a web server and its certificates.
    from keysync.emulator import Emulator, EmulatorData, load_data  # noqa: PLC0415

    if ready_file is not None:
        check_replaceable(ready_file, "--ready-file")
    content = EmulatorData.sample() if data is None else load_data(data, os.environ)
    azure = Emulator(content, port=port, latency=_seconds(latency), limits=limits == "azure", state_directory=state)
    try:
        asyncio.run(_serve(azure, content, ready_file))
    except OSError as failure:
        if failure.errno == errno.EADDRINUSE:
            raise UsageError(f"--port {port}: something else listens there; 0 takes a free one") from failure
        raise KeysyncError(f"the emulator cannot serve: {failure.strerror or failure}") from failure


def _seconds(text: str) -> float:
    told = _DURATION.fullmatch(text.strip())
    if told is None:
        raise UsageError(f"--latency is {text!r}, expected a number with ms or s, such as 40ms")
    return float(told[1]) * _SECONDS[told[2]]


async def _serve(azure: Emulator, content: EmulatorData, ready_file: Path | None) -> None:
    from keysync.cli.signals import interruptible  # noqa: PLC0415
    from keysync.emulator.store import write_private  # noqa: PLC0415

    with interruptible(signal.SIGHUP) as interruption:  # a terminal that is closed leaves nothing behind
        async with azure:
            click.echo("\n".join(_guide(azure, content)))
            if ready_file is not None:
                write_private(ready_file, azure.endpoints.ready_file())
            await interruption.stop.wait()


def _guide(azure: Emulator, content: EmulatorData) -> Iterator[str]:
    ends = azure.endpoints
    yield "# Configuration of keysync"
    yield "cloud:"
    yield f"  authority: {ends.authority}"
    yield f"  resource_manager: {ends.resource_manager}"
    yield f"  ca_bundle: {ends.ca_bundle}"
    yield "credential: {type: environment}"
    if ends.vaults:
        yield "vaults:"
        yield from (
            f"  {name}: {{url: {url!r}, verify_challenge_resource: false}}" for name, url in ends.vaults.items()
        )
    if content.accounts and ends.vaults:
        names = list(ends.vaults)
        yield "accounts:"
        for index, account in enumerate(content.accounts):
            yield f"  - subscription_id: {account.subscription_id}"
            yield f"    resource_group: '{account.resource_group}'"
            yield f"    name: '{account.name}'"
            yield f"    vaults: ['{names[index % len(names)]}']"
    yield ""
    yield "# Environment"
    yield f"export AZURE_TENANT_ID={quote(ends.tenant_id)}"
    yield f"export AZURE_CLIENT_ID={quote(ends.client_id)}"
    yield f"export AZURE_CLIENT_SECRET={quote(ends.client_secret)}"
    yield ""
    yield "# az"
    yield from _az(azure, content)
    yield ""
    yield f"# Control (faults, rotations, counts): curl {ends.control}"
    yield "# Ctrl-C ends it."


def _az(azure: Emulator, content: EmulatorData) -> Iterator[str]:
    ends = azure.endpoints
    yield f"export REQUESTS_CA_BUNDLE={quote(ends.ca_bundle)}"
    # az puts the suffix behind what --vault-name says; a slash leaves room for a host and a port.
    yield (
        f"az cloud register --name keysync --endpoint-resource-manager {ends.resource_manager} --suffix-keyvault-dns /"
    )
    yield "az cloud set --name keysync"
    yield "az config set core.instance_discovery=false"
    yield (
        f"az login --service-principal --tenant {quote(ends.tenant_id)} --username {quote(ends.client_id)} "
        f"--password={quote(ends.client_secret)}"
    )
    if content.accounts:
        first = content.accounts[0]
        yield (
            f"az batch account keys list --subscription {first.subscription_id} "
            f"--resource-group {quote(first.resource_group)} --name {first.name}"
        )
    for url in list(ends.vaults.values())[:1]:
        yield f"az keyvault secret set --vault-name {url.removeprefix('https://')} --name hello --value world"
        yield f"az keyvault secret show --id {url}/secrets/hello"
        yield f"az keyvault secret list --id {url}"
