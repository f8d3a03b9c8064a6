"""Random runs of keysync in an Azure with delays and faults, and an oracle that follows every version in the vaults.

The oracle shares no code with keysync. It knows each key's values over time, who owns each secret, and who made each
version.
"""

from __future__ import annotations

import asyncio
import io
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from random import Random
from typing import Any, Final

from keysync import logs
from keysync.config.model import Config
from keysync.emulator import Emulator
from keysync.emulator.data import new_account_key
from keysync.emulator.faults import Fault
from keysync.emulator.hooks import Stage
from keysync.emulator.vault_secrets import Secret, SecretVersion
from keysync.secret.redact import Redactor
from keysync.sync.model import Report
from keysync.sync.run import run_sync
from keysync.sync.runtime import Runtime, Shared
from tests.support.azure import GROUP, SUBSCRIPTION, data
from tests.support.random_worlds import LONG_AGO, marks_of
from tests.support.runtimes import opened
from tests.support.settings import config_of

VAULTS: Final = ("kv-a", "kv-b")
ACCOUNTS: Final = {"acct0": VAULTS, "acct1": VAULTS[1:]}
KEYS: Final = ("primary", "secondary")
EVERY: Final = 300.0
SETTLED: Final = 900.0

Place = tuple[str, str]

FAULTS: Final[tuple[dict[str, Any], ...]] = (
    {"operation": "setSecret", "kind": "reset"},
    {"operation": "setSecret", "kind": "reset", "after": True},
    {"operation": "setSecret", "kind": "hang", "after": True},
    {"operation": "setSecret", "kind": "status", "status": 503, "after": True},
    {"operation": "setSecret", "kind": "truncated"},
    {"operation": "setSecret", "kind": "hang", "after": True, "delay": 45},
    {"operation": "setSecret", "kind": "reset", "after": True, "delay": 20},
    {"operation": "setSecret", "kind": "stale", "reads": 2},
    {"operation": "setSecret", "kind": "stale", "reads": 12},
    {"operation": "setSecret", "status": 429, "retry_after": "1"},
    {"operation": "updateSecret", "kind": "ignored"},
    {"operation": "updateSecret", "kind": "reset"},
    {"operation": "getSecret", "kind": "reset"},
    {"operation": "getSecret", "status": 500},
    {"operation": "getSecret", "kind": "html", "status": 502},
    {"operation": "listVersions", "status": 500},
    {"operation": "listVersions", "status": 403, "code": "Forbidden", "inner_code": "ForbiddenByRbac"},
    {"operation": "listKeys", "kind": "truncated"},
    {"operation": "listKeys", "kind": "null_keys"},
    {"operation": "token", "status": 503},
)
"""Each fault occurs one to three times."""

MISROUTED: Final[tuple[dict[str, Any], ...]] = (
    {"operation": "listKeys", "target": "acct0", "kind": "misrouted", "other": "acct1"},
    {"operation": "getSecret", "target": "*/acct0-primary-key", "kind": "misrouted", "other": "acct1-primary-key"},
    {"operation": "setSecret", "target": "*/acct0-primary-key", "kind": "misrouted", "other": "acct1-primary-key"},
)
"""Replies about another account or secret, which keysync must recognise by their names."""


class Oracle:
    """The rules for every version, checked when the version is created."""

    def __init__(self, azure: Emulator, random: Random) -> None:
        self._azure = azure
        self.random = random
        self.keys: dict[tuple[str, str], list[tuple[str, float]]] = {}
        """Account and key to its values, each with the time at which it stopped being live."""
        self.unmanaged: set[Place] = set()
        self.made: Counter[tuple[Place, str]] = Counter()
        self.late: dict[Place, float] = {}
        self.run_began = 0.0
        self.by_keysync = True
        self.wrong: list[str] = []

    def regenerate(self, account: str, key: str) -> None:
        """Regenerates a key."""
        values = self.keys.setdefault((account, key), [])
        if values:
            values[-1] = (values[-1][0], time.monotonic())
        self._azure.state.regenerate(account, key.capitalize())
        primary, secondary = self._azure.state.keys(account)
        values.append((primary if key == "primary" else secondary, float("inf")))

    def live(self, secret: str) -> str:
        """The live key that a secret must have."""
        account, key, _ = secret.split("-")
        return self.keys[account, key][-1][0]

    def added(self, place: Place, value: str) -> None:
        """Checks a new version."""
        if not self.by_keysync:
            return
        account, key, _ = place[1].split("-")
        self.made[place, value] += 1
        ended = dict(self.keys[account, key]).get(value, -1.0)
        since = self.late.get(place, self.run_began)
        if place in self.unmanaged:
            self.wrong.append(f"{place}: another's secret was written")
        if ended < since:
            self.wrong.append(f"{place}: a value that was not live during the run")
        if self.made[place, value] > 1:
            self.wrong.append(f"{place}: version {self.made[place, value]} of one value")

    def check_in_sync(self, places: list[Place], report: Report) -> None:
        """Checks that after a run without faults every managed secret has the live key, and that the report says so."""
        for vault, secret in places:
            versions = self._azure.state.vault(vault).versions(secret)
            if (vault, secret) not in self.unmanaged and (not versions or versions[-1].value != self.live(secret)):
                self.wrong.append(f"{vault}/{secret}: not the live key")
        for result in report.results:
            expected = {"refused"} if (result.ref.vault, result.ref.secret) in self.unmanaged else {"unchanged"}
            if result.outcome not in expected:
                self.wrong.append(f"{result.ref.vault}/{result.ref.secret}: {result.outcome}: {result.reason}")


class FaultyWorld:
    """One world: how its vaults begin, and what happens in each run. The seed decides everything except the keys'
    values.
    """

    def __init__(self, azure: Emulator, config: Config, seed: str, offset: list[float]) -> None:
        self._azure = azure
        self._config = config
        self._random = Random(seed)  # noqa: S311  # nothing is kept secret by it
        self._offset = offset
        self._faults = (*FAULTS, *MISROUTED)
        self.oracle = Oracle(azure, self._random)
        self.places: list[Place] = [
            (vault, f"{account}-{key}-key") for account, vaults in ACCOUNTS.items() for key in KEYS for vault in vaults
        ]
        self._log = io.StringIO()

    async def run(self) -> None:
        """Runs everything. Raises AssertionError with all errors."""
        self._begin()
        with self._followed():
            await self._runs()
        text = self._log.getvalue()
        values = [value for values in self.oracle.keys.values() for value, _ in values]
        if any(value in text for value in values):
            self.oracle.wrong.append("a key is in the log")
        assert not self.oracle.wrong, self.oracle.wrong

    def _begin(self) -> None:
        random, state = self._random, self._azure.state
        self._azure.faults.clear()
        # The clock of this machine relative to Azure's, and each vault's own clock.
        self._offset[0] = random.choice([0.0, 0.0, -300.0, 300.0, -40.0])
        for account in ACCOUNTS:
            for key in KEYS:
                self.oracle.regenerate(account, key)
        for vault in VAULTS:
            own = state.vault(vault)
            own.clock_offset = random.choice([0.0, 0.0, 600.0, -600.0, 90_000.0])
            secrets = [made for place in self.places if place[0] == vault and (made := self._secret(place)) is not None]
            own.restore(secrets, [])

    def _secret(self, place: Place) -> Secret | None:
        name = place[1]
        kind = self._random.choice(["absent", "current", "stale", "stale", "unmanaged"])
        if kind == "absent":
            return None
        account, key, _ = name.split("-")
        tags = marks_of(account, key) if kind != "unmanaged" else {"managed-by": "terraform"}
        if kind == "unmanaged":
            self.oracle.unmanaged.add(place)
        value = self.oracle.live(name) if kind == "current" else new_account_key()
        kept = {"enabled": True, "not_before": None, "expires": None, "created": LONG_AGO, "updated": LONG_AGO}
        version = SecretVersion(version=new_version(self._random), value=value, content_type=None, tags=tags, **kept)
        return Secret(name, managed=False, versions=[version])

    @contextmanager
    def _followed(self) -> Iterator[None]:
        vaults = [self._azure.state.vault(name) for name in VAULTS]
        for vault in vaults:
            vault.add_version = self._following(vault.name, vault.add_version)  # type: ignore[method-assign]
        self._azure.hooks.install(self._on_request)
        try:
            yield
        finally:
            self._azure.hooks.install(None)
            for vault in vaults:
                del vault.add_version  # type: ignore[method-assign]

    def _following(self, vault: str, add: Any) -> Any:
        def added(name: str, value: str, **more: Any) -> Any:
            self.oracle.added((vault, name), value)
            return add(name, value, **more)

        return added

    async def _on_request(self, _index: int, operation: str, target: str, stage: Stage) -> None:
        vault, _, secret = target.partition("/")
        place = (vault, secret)
        if place not in self.places or self._random.random() > 0.03:
            return
        if (operation, stage) == ("getSecret", "before") and not self._azure.pending_effects:
            # A late write can overwrite what another writer wrote meanwhile; nothing prevents that (docs/safety.md).
            self._take(place)
        elif operation == "setSecret":
            account, key, _ = secret.split("-")
            self.oracle.regenerate(account, key)

    def _take(self, place: Place) -> None:
        """Another writer: a second keysync with the live key, or another tool that takes over the secret."""
        vault, name = place
        if place in self.oracle.unmanaged or self._azure.state.vault(vault).serves_stale(name):
            return
        account, key, _ = name.split("-")
        self.oracle.by_keysync = False
        if self._random.random() < 0.5:
            tags = marks_of(account, key)
            self._azure.state.vault(vault).add_version(name, self.oracle.live(name), tags=tags)
        else:
            tags = {"managed-by": "terraform"}
            self._azure.state.vault(vault).add_version(name, new_account_key(), tags=tags)
            self.oracle.unmanaged.add(place)
        self.oracle.by_keysync = True

    async def _runs(self) -> None:
        for _ in range(self._random.randint(1, 2)):
            # Process lifetimes. Between them late writes take effect and reads show them, as docs/safety.md assumes.
            async with self._wire() as (_, runtime):
                for _ in range(self._random.randint(1, 2)):
                    self._something_happens()
                    await self._run(runtime)
                    await asyncio.sleep(EVERY)
            self._azure.faults.clear()
            await asyncio.sleep(SETTLED)
            for name in VAULTS:
                self._azure.state.vault(name).end_stale_reads()
        async with self._wire() as (_, runtime):
            self._azure.hooks.install(None)
            await self._run(runtime)
            await asyncio.sleep(EVERY)
            report = await self._run(runtime)
        self.oracle.check_in_sync(self.places, report)

    def _something_happens(self) -> None:
        for account in ACCOUNTS:
            for key in KEYS:
                if self._random.random() < 0.4:
                    self.oracle.regenerate(account, key)
        for fault in self._random.sample(self._faults, self._random.randint(0, 3)):
            self._azure.faults.add(Fault.model_validate({**fault, "times": self._random.randint(1, 3)}))

    def _wire(self) -> Any:
        self._redactor = Redactor()
        return opened(self._config, Shared(self._redactor))

    async def _run(self, runtime: Runtime) -> Report:
        self.oracle.run_began = time.monotonic()
        # A write may take effect during the next run.
        self.oracle.late = dict.fromkeys(self.places, self.oracle.run_began - EVERY)
        with redirect_stderr(self._log):
            logs.configure("info", "json", self._redactor.redact)
            report = await run_sync(runtime.make_run(runtime.accounts))
        self._log.write(repr(report))
        return report


def new_version(random: Random) -> str:
    """An identifier of a version."""
    return f"{random.getrandbits(128):032x}"


def emulator_of(clock: Any) -> Emulator:
    """An Azure for several worlds, one after another."""
    return Emulator(data(*ACCOUNTS, vaults=VAULTS), clock=clock)


def config_for(azure: Emulator, folder: Path) -> Config:
    """Both accounts in both vaults."""
    ends = azure.endpoints
    secret = folder / "client-secret"
    secret.write_text(ends.client_secret)
    return config_of(
        {
            "cloud": {
                "authority": ends.authority,
                "resource_manager": ends.resource_manager,
                "ca_bundle": ends.ca_bundle,
            },
            "credential": {
                "type": "client_secret",
                "tenant_id": ends.tenant_id,
                "client_id": ends.client_id,
                "client_secret_file": str(secret),
            },
            "vaults": {name: {"url": url, "verify_challenge_resource": False} for name, url in ends.vaults.items()},
            "accounts": [
                {"subscription_id": SUBSCRIPTION, "resource_group": GROUP, "name": name, "vaults": list(vaults)}
                for name, vaults in ACCOUNTS.items()
            ],
            "limits": {"changes_per_day": None},
        }
    )
