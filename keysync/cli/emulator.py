"""`emulator`: serves the embedded Azure on loopback, and prints how to use it with keysync and az."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keysync.cli.options import FILE, choice, global_options
from keysync.errors import KeysyncError, UsageError
from keysync.files import check_ssl_cert_file

if TYPE_CHECKING:
    from keysync.emulator import Emulator, EmulatorData

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s)")
_SECONDS = {"ms": 0.001, "s": 1.0}


@dataclass(frozen=True)
class _Options:
    """The values of the command's options."""

    port: int
    data: Path | None
    ready_file: Path | None
    write_config: Path | None
    env_file: Path | None
    latency: str
    limits: str
    state: Path | None

    def files(self) -> dict[str, Path]:
        """The files to write, by option. The ready file is the last: when it is there, the others are."""
        files = {"--write-config": self.write_config, "--env-file": self.env_file, "--ready-file": self.ready_file}
        return {option: path for option, path in files.items() if path is not None}


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
    "--write-config", type=FILE, metavar="FILE", help="Written once the emulator serves: a configuration to use it."
)
@click.option(
    "--env-file",
    type=FILE,
    metavar="FILE",
    help="Written once the emulator serves: the environment to use it, for `. FILE` and for docker's --env-file.",
)
@click.option(
    "--limits", type=choice("azure", "off"), default="azure", help="Throttle as Azure documents it, or not at all."
)
@click.option(
    "--state",
    type=FILE,
    metavar="FOLDER",
    help="Folder in which keys and secrets are kept. Without it, nothing is kept.",
)
@global_options
def emulator(**values: Any) -> None:  # noqa: ANN401  # values of the options
    """Serve an embedded Azure on loopback (Entra, Batch accounts, Key Vault) until SIGTERM or Ctrl-C."""
    # Every command accepts the global options. This one logs nothing, so it does not use them.
    options = _Options(**{field.name: values[field.name] for field in fields(_Options)})
    check_ssl_cert_file()
    # Imported here, since `--help` needs no web server and no certificates.
    from keysync.emulator import Emulator, EmulatorData, load_data  # noqa: PLC0415  # as above

    _check_files(options)
    content = EmulatorData.sample() if options.data is None else load_data(options.data, os.environ)
    if options.write_config is not None and not (content.accounts and content.vaults):
        raise UsageError("--write-config needs an account and a vault in the file of --data")
    azure = Emulator(
        content,
        port=options.port,
        latency=_seconds(options.latency),
        limits=options.limits == "azure",
        state_directory=options.state,
    )
    try:
        asyncio.run(_serve(azure, content, options))
    except OSError as failure:
        if failure.errno == errno.EADDRINUSE:
            raise UsageError(f"--port {options.port}: another process listens there; 0 chooses a free one") from failure
        raise KeysyncError(f"the emulator cannot serve: {failure.strerror or failure}") from failure


def _check_files(options: _Options) -> None:
    from keysync.emulator.private_files import check_private  # noqa: PLC0415  # not needed for `--help`

    files = options.files()
    for option, path in files.items():
        check_private(path, option)
    # The data file is read: to write to it would destroy it.
    named = {**files, **({} if options.data is None else {"--data": options.data})}
    for path, times in Counter(path.resolve() for path in named.values()).items():
        if times > 1:
            raise UsageError(f"{', '.join(named)}: name a file of its own for each, not {path} twice")


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--latency is {text!r}, expected a number with ms or s, such as 40ms")
    return float(match[1]) * _SECONDS[match[2]]


async def _serve(azure: Emulator, content: EmulatorData, options: _Options) -> None:
    from keysync.cli.signals import interruptible  # noqa: PLC0415  # not needed for `--help`
    from keysync.emulator import guide  # noqa: PLC0415  # as above
    from keysync.emulator.private_files import write_private  # noqa: PLC0415  # as above

    for path in options.files().values():
        path.unlink(missing_ok=True)  # so that a file which is there has the addresses of this emulator
    with interruptible(signal.SIGHUP) as interruption:  # also ends when the terminal is closed
        async with azure:
            click.echo(guide.guide(azure.endpoints, content))
            contents = {
                "--write-config": guide.configuration(azure.endpoints, content).encode(),
                "--env-file": guide.environment_file(guide.variables(azure.endpoints)).encode(),
                "--ready-file": azure.endpoints.ready_file(),
            }
            for option, path in options.files().items():
                write_private(path, contents[option])
            await interruption.stop.wait()
