"""`demo`: the daemon against the embedded Azure, whose sample accounts get new keys all the time."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final

from keysync import logs
from keysync.cli.options import Options
from keysync.cli.run import serve
from keysync.cli.signals import Interruption, interruptible
from keysync.cli.streams import console_for, reader_is_gone
from keysync.config.credentials import CloudMapping, EnvironmentCredential
from keysync.config.model import Account, Config, Schedule, Vault
from keysync.config.operation import Limits, Timeouts
from keysync.emulator import Emulator, EmulatorData
from keysync.report.console import Span
from keysync.report.text import print_report
from keysync.secret.redact import Redactor
from keysync.sync.model import BAD, ItemRef, Report
from keysync.sync.observers import RunObserver
from keysync.sync.runtime import Shared

_SUBSCRIPTION: Final = "11111111-2222-3333-4444-555555555555"
_GROUP: Final = "default-azurebatch-japaneast"
_RUNS_ONCE: Final = 3
_SEED: Final = 7

_HEALTHY: Final = 2
# Two healthy accounts, one whose secret's name is taken, and one for each state that operators meet.
_ACCOUNTS: Final[Mapping[str, Mapping[str, object]]] = {
    "renderfarm": {},
    "simulation": {},
    "handmade": {},
    "entraonly": {"allowed_authentication_modes": ["AAD"]},
    "norole": {"fault": "role_missing"},
    "busy": {"fault": {"status": 429, "code": "TooManyRequests", "retry_after": "1200"}},
}

# An unmanaged secret with a name that keysync would use: it is refused, never overwritten.
_BY_HAND: Final = {"name": "handmade-primary-key", "value": "made by hand", "tags": {"managed-by": "terraform"}}


def run(options: Options) -> None:
    """Runs until SIGINT or SIGTERM, or with `--once` for three runs."""
    redactor = Redactor()
    logs.configure(options.log_level or "critical", options.log_format, redactor.redact)
    asyncio.run(_run(options, redactor))


async def _run(options: Options, redactor: Redactor) -> None:
    with interruptible() as interruption:
        async with Emulator(_data()) as azure:
            # Read by the credential of the sample configuration.
            os.environ.update(
                AZURE_TENANT_ID=azure.endpoints.tenant_id,
                AZURE_CLIENT_ID=azure.endpoints.client_id,
                AZURE_CLIENT_SECRET=azure.endpoints.client_secret,
            )
            show = _Show(azure, interruption, once=options.once)
            await serve(_config(azure, options.every), Shared(redactor, (show,)), interruption, announce=show.opening)
            show.closing()


def _data() -> EmulatorData:
    common = {"subscription_id": _SUBSCRIPTION, "resource_group": _GROUP, "location": "japaneast"}
    accounts = [{**common, "name": name, **settings} for name, settings in _ACCOUNTS.items()]
    return EmulatorData.model_validate({"accounts": accounts, "vaults": [{"name": "main", "secrets": [_BY_HAND]}]})


def _config(azure: Emulator, every: float) -> Config:
    endpoints = azure.endpoints
    return Config(
        cloud=CloudMapping(endpoints.authority, endpoints.resource_manager, ca_bundle=Path(endpoints.ca_bundle)),
        credential=EnvironmentCredential(),
        # The SDK compares a challenge with the parent domain of the vault, and `localhost` has none.
        vaults={"main": Vault(url=endpoints.vaults["main"], verify_challenge_resource=False)},
        accounts=tuple(Account(_SUBSCRIPTION, _GROUP, name, ("main",)) for name in _ACCOUNTS),
        schedule=Schedule(every=timedelta(seconds=every)),
        timeouts=Timeouts(collect=timedelta(seconds=5)),
        # Keys are regenerated far more often here than in production.
        limits=Limits(changes_per_day=None),
        listen="127.0.0.1:0",
    )


class _Show(RunObserver):
    """Prints the report of each run, each problem once."""

    def __init__(self, azure: Emulator, interruption: Interruption, *, once: bool) -> None:
        self._console = console_for(sys.stdout)
        self._azure = azure
        self._interruption = interruption
        self._once = once
        self._runs = 0
        self._problems: set[tuple[ItemRef, str]] = set()
        self._random = random.Random(_SEED)  # noqa: S311  # nosec B311  # chooses the next account, which is no secret

    def opening(self, url: str) -> None:
        """Prints the addresses and the accounts."""
        endpoints, names = self._azure.endpoints, list(_ACCOUNTS)
        addresses = f"Resource Manager {endpoints.resource_manager}, vault {endpoints.vaults['main']}"
        self._say("the embedded Azure is up", addresses)
        healthy, faulty = ", ".join(names[:_HEALTHY]), ", ".join(names[_HEALTHY:])
        self._say("accounts", f"{healthy}; with a deliberate fault: {faulty}")
        self._say("the daemon's page", url)
        if not self._once:
            self._say("stop with", "Ctrl-C")

    def closing(self) -> None:
        """Prints the totals."""
        versions = sum(len(secret) for secret in self._azure.state.vault("main").secrets.values())
        written = f"{versions} versions of secrets in the vault, each written once for one new key"
        self._say("ended", f"{self._runs} runs, {written}")

    def finished(self, report: Report) -> None:
        """Prints the run, and regenerates a key for the next one to sync."""
        self._runs += 1
        problems = {(result.ref, result.outcome) for result in report.results if result.outcome in BAD}
        news = tuple(each for each in report.results if (each.ref, each.outcome) not in self._problems)
        self._problems |= problems
        self._say(f"run {self._runs}", "each problem is shown once", "dim")
        print_report(self._console, replace(report, results=news))
        if self._once and self._runs >= _RUNS_ONCE:
            self._interruption.stop.set()
            return
        name = self._random.choice(list(_ACCOUNTS)[:_HEALTHY])
        key = self._random.choice(["Primary", "Secondary"])
        self._azure.state.regenerate(name, key)
        self._say("regenerated in Azure", f"the {key.lower()} key of {name}; the old one is invalid now")

    def _say(self, label: str, text: str, style: str = "bold") -> None:
        now = Span(time.strftime("%H:%M:%S "), "dim")
        self._console.line(now, Span(label, style), Span(f": {text}"), no_wrap=True)
        sys.stdout.flush()
        if reader_is_gone():
            self._interruption.stop.set()
