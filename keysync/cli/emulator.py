"""`emulator`: serves the embedded Azure on loopback, and prints how to use it with keysync and az."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
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


@click.command(short_help="Serve the embedded Azure for your own tests.", context_settings={"show_default": True})
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=0,
    metavar="PORT",
    help="Port of Entra and ARM; 0 chooses a free one.",
)
@click.option("--data", type=FILE, metavar="FILE", help="YAML with accounts and vaults; without it, a small sample.")
@click.option(
    "--ready-file", type=FILE, metavar="FILE", help="Written once the emulator serves: its addresses and credentials."
)
@click.option("--latency", default="0ms", metavar="TIME", help="Delay of each reply, such as 40ms or 1s.")
@click.option(
    "--limits", type=choice("azure", "off"), default="off", help="Throttle as Azure documents it, or not at all."
)
@click.option(
    "--state",
    type=FILE,
    metavar="FOLDER",
    help="Folder in which keys and secrets are kept. Without it, nothing is kept.",
)
@global_options
def emulator(
    port: int,
    data: Path | None,
    ready_file: Path | None,
    latency: str,
    limits: str,
    state: Path | None,
    **_values: Any,  # noqa: ANN401  # every command accepts the global options; this one logs nothing
) -> None:
    """Serve an embedded Azure on loopback (Entra, Batch accounts, Key Vault) until SIGTERM or Ctrl-C."""
    check_ssl_cert_file()
    # Imported here, since `--help` needs no web server and no certificates.
    from keysync.emulator import Emulator, EmulatorData, load_data  # noqa: PLC0415  # as above

    if ready_file is not None:
        check_replaceable(ready_file, "--ready-file")
    content = EmulatorData.sample() if data is None else load_data(data, os.environ)
    azure = Emulator(content, port=port, latency=_seconds(latency), limits=limits == "azure", state_directory=state)
    try:
        asyncio.run(_serve(azure, content, ready_file))
    except OSError as failure:
        if failure.errno == errno.EADDRINUSE:
            raise UsageError(f"--port {port}: another process listens there; 0 chooses a free one") from failure
        raise KeysyncError(f"the emulator cannot serve: {failure.strerror or failure}") from failure


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--latency is {text!r}, expected a number with ms or s, such as 40ms")
    return float(match[1]) * _SECONDS[match[2]]


async def _serve(azure: Emulator, content: EmulatorData, ready_file: Path | None) -> None:
    from keysync.cli.signals import interruptible  # noqa: PLC0415  # not needed for `--help`
    from keysync.emulator.store import write_private  # noqa: PLC0415  # as above

    with interruptible(signal.SIGHUP) as interruption:  # also ends when the terminal is closed
        async with azure:
            click.echo(_guide(azure, content))
            if ready_file is not None:
                write_private(ready_file, azure.endpoints.ready_file())
            await interruption.stop.wait()


def _guide(azure: Emulator, content: EmulatorData) -> str:
    """A configuration, and how to use the emulator from a shell, with az and with its control address."""
    endpoints, accounts, vaults = azure.endpoints, content.accounts, list(azure.endpoints.vaults.items())
    lines = [
        "# Configuration of keysync",
        "cloud:",
        f"  authority: {endpoints.authority}",
        f"  resource_manager: {endpoints.resource_manager}",
        f"  ca_bundle: {endpoints.ca_bundle}",
        "credential: {type: environment}",
        *(["vaults:"] if vaults else []),
        *(f"  {name}: {{url: {url!r}, verify_challenge_resource: false}}" for name, url in vaults),
        *(["accounts:"] if accounts and vaults else []),
    ]
    for index, account in enumerate(accounts if vaults else ()):
        lines += [
            f"  - subscription_id: {account.subscription_id}",
            f"    resource_group: '{account.resource_group}'",
            f"    name: '{account.name}'",
            f"    vaults: ['{vaults[index % len(vaults)][0]}']",
        ]
    tenant, client, secret = quote(endpoints.tenant_id), quote(endpoints.client_id), quote(endpoints.client_secret)
    lines += [
        "",
        "# Environment",
        f"export AZURE_TENANT_ID={tenant}",
        f"export AZURE_CLIENT_ID={client}",
        f"export AZURE_CLIENT_SECRET={secret}",
        "",
        "# az",
        f"export REQUESTS_CA_BUNDLE={quote(endpoints.ca_bundle)}",
        # az appends the suffix to --vault-name. With a slash as suffix, the name can be a host and a port.
        f"az cloud register --name keysync --endpoint-resource-manager {endpoints.resource_manager} --suffix-keyvault-dns /",
        "az cloud set --name keysync",
        "az config set core.instance_discovery=false",
        f"az login --service-principal --tenant {tenant} --username {client} --password={secret}",
    ]
    for account in accounts[:1]:
        place = f"--subscription {account.subscription_id} --resource-group {quote(account.resource_group)}"
        lines.append(f"az batch account keys list {place} --name {account.name}")
    for _, url in vaults[:1]:
        lines += [
            f"az keyvault secret set --vault-name {url.removeprefix('https://')} --name hello --value world",
            f"az keyvault secret show --id {url}/secrets/hello",
            f"az keyvault secret list --id {url}",
        ]
    control = f"# Control (faults, rotations, request counts): curl {endpoints.control}"
    return "\n".join([*lines, "", control, "# Press Ctrl-C to stop."])
