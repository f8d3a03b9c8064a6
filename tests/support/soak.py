"""A day in the life of the daemon: an Azure in which things go wrong at random, and books on what the daemon did about it.

All of it runs on one `WarpLoop`, the daemon too, so every moment here is in seconds of the warped clock.
"""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import sys
import time
from bisect import bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, Final, Literal

import structlog

from keysync import logs
from keysync.config.settings import Account, Config
from keysync.daemon.triggers import Trigger
from keysync.emulator import Emulator, EmulatorData
from keysync.emulator.faults import Fault
from keysync.emulator.hooks import Stage
from keysync.sync.model import DONE, Report, Result
from tests.support.warp import WarpLoop

MINUTE: Final = 60.0
HOUR: Final = 3600.0

SUBSCRIPTIONS: Final = ("11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-000000000000")
GROUP: Final = "soak"
VAULTS: Final = ("kva", "kvb", "kvc")
_GOOD: Final = frozenset(DONE.values()) | {"unchanged"}

KeyName = Literal["Primary", "Secondary"]
KEYS: Final[tuple[KeyName, ...]] = ("Primary", "Secondary")

# Account: its vaults, and its own schedule if it has one. The first four are of one subscription, the others of another.
FLEET: Final[Mapping[str, tuple[tuple[str, ...], dict[str, str] | None]]] = {
    "render1": (("kva",), None),
    "render2": (("kva",), None),
    "render3": (("kva", "kvb"), None),
    "render4": (("kvb",), {"every": "15m"}),
    "genome1": (("kvb",), None),
    "genome2": (("kvc",), {"cron": "*/10 * * * *", "timezone": "Asia/Tokyo"}),
    "genome3": (("kvc",), {"every": "3m"}),
    "genome4": (("kvc",), None),
}


def subscription_of(account: str) -> str:
    """Where an account of the fleet is."""
    return SUBSCRIPTIONS[list(FLEET).index(account) >= len(FLEET) // 2]


def emulator_data(**more: Any) -> EmulatorData:
    """The fleet, as the embedded Azure has it."""
    accounts = [{"subscription_id": subscription_of(name), "resource_group": GROUP, "name": name} for name in FLEET]
    return EmulatorData.model_validate({"accounts": accounts, "vaults": [{"name": name} for name in VAULTS], **more})


def document(azure: Emulator, folder: Path, **more: Any) -> dict[str, Any]:
    """The configuration for the fleet; the vaults are called by names of their own, so that each can cease to resolve."""
    endpoints = azure.endpoints
    secret = folder / "client-secret"
    secret.write_text(endpoints.client_secret)
    return {
        "cloud": {
            "authority": endpoints.authority,
            "resource_manager": endpoints.resource_manager,
            "ca_bundle": endpoints.ca_bundle,
        },
        "credential": {
            "type": "client_secret",
            "tenant_id": endpoints.tenant_id,
            "client_id": endpoints.client_id,
            "client_secret_file": str(secret),
        },
        "listen": "127.0.0.1:0",
        "vaults": {
            name: {"url": url.replace("localhost", f"{name}.localhost"), "verify_challenge_resource": False}
            for name, url in endpoints.vaults.items()
        },
        "accounts": [
            {
                "subscription_id": subscription_of(name),
                "resource_group": GROUP,
                "name": name,
                "vaults": list(vaults),
                **({"schedule": schedule} if schedule else {}),
            }
            for name, (vaults, schedule) in FLEET.items()
        ],
        **more,
    }


# What the daemon did


@dataclass(frozen=True, slots=True)
class Span:
    """An account in one run: from the start of the run to the account's last result."""

    start: float
    end: float
    good: bool


@dataclass(slots=True)
class _Run:
    start: float
    last: dict[str, float] = field(default_factory=dict)
    bad: set[str] = field(default_factory=set)


class Books:
    """What runs told, account by account; a `RunObserver`."""

    def __init__(self, *, keep: int = 20) -> None:
        self._runs: dict[str, _Run] = {}
        self.spans: defaultdict[str, deque[Span]] = defaultdict(lambda: deque(maxlen=keep))
        self.runs = 0
        self.first: float | None = None
        self.results: Counter[str] = Counter()
        self.overlaps: list[tuple[str, Span, Span]] = []

    def started(self, run_id: str, work_items: int) -> None:
        """A run begins."""
        now = time.monotonic()
        self._runs[run_id] = _Run(now)
        self.first = now if self.first is None else self.first

    def collected(self, run_id: str, account: str) -> None:
        """Only results count."""

    def result(self, run_id: str, result: Result) -> None:
        """Notes when, and how it went."""
        run, account = self._runs[run_id], name_of(result.ref.account)
        run.last[account] = time.monotonic()
        self.results[result.outcome] += 1
        if result.outcome not in _GOOD:
            run.bad.add(account)

    def finished(self, report: Report) -> None:
        """Closes the books on a run."""
        run = self._runs.pop(report.run_id)
        self.runs += 1
        assert run.last.keys() == {name_of(result.ref.account) for result in report.results}
        for account, end in run.last.items():
            span = Span(run.start, end, account not in run.bad)
            self.overlaps += [
                (account, other, span)
                for other in self.spans[account]
                if span.start < other.end and other.start < span.end
            ]
            self.spans[account].append(span)


def name_of(resource_id: str) -> str:
    """The account's name in an ARM id."""
    return resource_id.rsplit("/", 1)[-1]


class LogBook(io.TextIOBase):
    """Stands in for stderr: counts the log's lines, by event and by minute, and keeps only what nobody expects."""

    EXPECTED: Final = ("secret.", "pass.", "account.", "daemon.", "config.", "credential.", "library.azure.")
    FAULTS_OF_OURS: Final = ("run.error", "daemon.shutdown_timeout")

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self.busiest = 0
        self._minute = (-1, 0)

    def write(self, text: str) -> int:
        """Takes whole lines, as the log's handler writes them."""
        for line in text.splitlines():
            if line:
                self._line(line)
        return len(text)

    @property
    def lines(self) -> int:
        """All so far."""
        return self.events.total()

    def _line(self, line: str) -> None:
        minute = int(time.monotonic() // MINUTE)
        before, count = self._minute
        self._minute = (minute, count + 1 if before == minute else 1)
        self.busiest = max(self.busiest, self._minute[1])
        event = str(json.loads(line).get("event")) if line.startswith("{") else "(no JSON)"
        self.events[event] += 1
        if not event.startswith(self.EXPECTED) or event in self.FAULTS_OF_OURS:
            self.unexpected.append(line)


@contextmanager
def logged_to(book: LogBook, redact: Callable[[str], str]) -> Iterator[None]:
    """The daemon's own log, as it is in production, into `book`; all is as it was afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with redirect_stderr(book):
        logs.configure("info", "json", redact)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()


# What goes wrong, and how keys change


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that begins and ends. `lingers` seconds after its end it is still felt, since Azure asked for that long."""

    what: str
    accounts: frozenset[str]
    faults: tuple[Fault, ...] = ()
    read_only: str | None = None
    unknown_host: str | None = None
    lingers: float = 0.0


_ANSWERS: Final[Mapping[str, dict[str, Any]]] = {
    "reset": {"kind": "reset"},
    "reset after the effect": {"kind": "reset", "after": True},
    "hang": {"kind": "hang"},
    "hang after the effect": {"kind": "hang", "after": True},
    "429, 1 s": {"status": 429, "code": "TooManyRequests", "retry_after": "1"},
    "429, 20 min": {"status": 429, "code": "TooManyRequests", "retry_after": "1200"},
    "500": {"status": 500},
    "HTML": {"kind": "html", "status": 200},
    "HTML, 503": {"kind": "html", "status": 503},
    "truncated": {"kind": "truncated"},
    "expired token": {"status": 401, "code": "ExpiredAuthenticationToken"},
    "empty": {"kind": "empty"},
}
_AFTER_THE_EFFECT: Final = ["reset after the effect", "hang after the effect", "truncated"]
_VAULT_OPERATIONS: Final = ("getSecret", "setSecret", "setSecret", "listVersions", "getDeletedSecret", "*")


class Weather:
    """Begins and ends troubles at random places, and tells since when each account has none."""

    def __init__(self, azure: Emulator, loop: WarpLoop, keys: Keys, random: Random) -> None:
        self._azure = azure
        self._loop = loop
        self._keys = keys
        self._random = random
        self._active: list[Problem] = []
        self._felt: Counter[str] = Counter()
        self.cleared: list[tuple[str, float]] = []
        """Account, and when its last trouble ended; taken out by whoever looks whether it is in sync again."""
        self.met: Counter[str] = Counter()
        """How often each trouble came."""
        self.secrets_met = 0
        """The same for each secret that it was in the way of."""

    def is_troubled(self, account: str) -> bool:
        """Whether anything that `account` needs is in trouble now."""
        return self._felt[account] > 0

    async def somewhere(self, place: Callable[[Random], Problem], gap: float, until: Callable[[], float]) -> None:
        """Troubles at one place, `gap` seconds apart on average; `until` gives how many seconds of bad weather are left."""
        while (left := until()) > 0:
            await asyncio.sleep(min(left, self._random.expovariate(1 / gap)))
            left = until()
            length = self._random.choice((self._random.uniform(1, 60), self._random.uniform(60, 40 * MINUTE)))
            trouble = place(self._random)
            if left > length + trouble.lingers:
                await self.strike(trouble, length)

    async def strike(self, trouble: Problem, seconds: float) -> None:
        """One trouble, from its beginning to its end."""
        self.met[trouble.what] += 1
        self.secrets_met += sum(2 * len(FLEET[account][0]) for account in trouble.accounts)
        self._felt.update(trouble.accounts)
        self._active.append(trouble)
        self._in_force()
        if any(fault.operation == "setSecret" for fault in trouble.faults):
            # Only a run that has something to write meets it.
            self._keys.regenerate(self._random.choice(sorted(trouble.accounts)), (self._random.choice(KEYS),))
        await asyncio.sleep(seconds)
        self._active.remove(trouble)
        self._in_force()
        await asyncio.sleep(trouble.lingers)
        self._felt.subtract(trouble.accounts)
        now = time.monotonic()
        self.cleared += [(account, now) for account in sorted(trouble.accounts) if not self.is_troubled(account)]

    def _in_force(self) -> None:
        self._azure.faults.clear()
        for trouble in self._active:
            for fault in trouble.faults:
                self._azure.faults.add(fault)
        read_only = {trouble.read_only for trouble in self._active}
        for vault in self._azure.state.vaults:
            vault.read_only = vault.name in read_only
        self._loop.unknown_hosts.clear()
        self._loop.unknown_hosts.update(trouble.unknown_host for trouble in self._active if trouble.unknown_host)


EVERYBODY: Final = frozenset(FLEET)


def users_of(vault: str) -> frozenset[str]:
    """The accounts that write to a vault."""
    return frozenset(name for name, (vaults, _) in FLEET.items() if vault in vaults)


def on_account(account: str) -> Callable[[Random], Problem]:
    """Trouble with an account's listKeys."""
    return lambda random: _answer(random, "listKeys", account, frozenset({account}))


def on_vault(vault: str) -> Callable[[Random], Problem]:
    """Trouble with an operation of a vault, or with all of them."""
    return lambda random: _answer(random, random.choice(_VAULT_OPERATIONS), vault, users_of(vault))


def on_sign_in(random: Random) -> Problem:
    """Trouble with tokens."""
    return _answer(random, "token", "*", EVERYBODY)


def on_name_of(vault: str) -> Callable[[Random], Problem]:
    """The vault's name does not resolve."""
    return lambda _: Problem(f"DNS of {vault}", users_of(vault), unknown_host=f"{vault}.localhost")


def on_name_of_azure(_: Random) -> Problem:
    """Neither Resource Manager's name nor Entra's resolves."""
    return Problem("DNS of Azure", EVERYBODY, unknown_host="localhost")


def on_writes_of(vault: str) -> Callable[[Random], Problem]:
    """The vault is read-only, as after a failover."""
    return lambda _: Problem(f"read-only {vault}", users_of(vault), read_only=vault)


def on_subscription(subscription: str) -> Callable[[Random], Problem]:
    """Resource Manager throttles the whole subscription, and asks for 20 minutes of silence."""
    accounts = frozenset(name for name in FLEET if subscription_of(name) == subscription)
    throttling = {
        "status": 429,
        "code": "SubscriptionRequestsThrottled",
        "retry_after": "1200",
        "operation": "listKeys",
    }
    faults = tuple(Fault.model_validate({**throttling, "target": name}) for name in sorted(accounts))
    # Whoever asked last may have been told so at the very end.
    return lambda _: Problem("subscription throttled", accounts, faults, lingers=1200.0)


def _answer(random: Random, operation: str, target: str, accounts: frozenset[str]) -> Problem:
    # A write whose answer gets lost after it took effect is what may end in a version too many.
    name = random.choice(sorted(_ANSWERS) + (_AFTER_THE_EFFECT * 2 if operation == "setSecret" else []))
    fault = Fault.model_validate({"operation": operation, "target": target, **_ANSWERS[name]})
    return Problem(f"{operation}: {name}", accounts, (fault,))


PLACES: Final[Sequence[tuple[Callable[[Random], Problem], float]]] = (
    *((on_account(account), 1.5 * HOUR) for account in FLEET),
    *((on_vault(vault), 1 * HOUR) for vault in VAULTS),
    *((on_name_of(vault), 5 * HOUR) for vault in VAULTS),
    *((on_writes_of(vault), 4 * HOUR) for vault in VAULTS),
    *((on_subscription(subscription), 7 * HOUR) for subscription in SUBSCRIPTIONS),
    (on_sign_in, 3 * HOUR),
    (on_name_of_azure, 8 * HOUR),
)
"""Where trouble comes from, and how many seconds there are between two of them on average."""


class Keys:
    """Every value that each key has had, and when; regenerates them at random, in the middle of a run too."""

    def __init__(self, azure: Emulator, random: Random) -> None:
        self._azure = azure
        self._random = random
        self._seen: dict[tuple[str, KeyName], list[tuple[float, str]]] = {}
        for account in FLEET:
            self._note(account)

    @property
    def regenerations(self) -> int:
        """How often a key was replaced."""
        return sum(len(values) - 1 for values in self._seen.values())

    async def keep_changing(self, account: str, gap: float, until: Callable[[], float]) -> None:
        """Regenerates one of the account's keys, or both, every `gap` seconds on average."""
        while (left := until()) > 0:
            await asyncio.sleep(min(left, self._random.expovariate(1 / gap)))
            if until() > 0:
                self.regenerate(account, self._random.choice((("Primary",), ("Secondary",), KEYS)))

    def in_the_middle(self, chance: float, until: Callable[[], float]) -> None:
        """From now on, a key may also change right after listKeys told its value, or right before a write of it lands."""

        async def on_request(_index: int, operation: str, target: str, stage: Stage) -> None:
            moment = (operation, stage) in {("listKeys", "after"), ("setSecret", "before")}
            if moment and until() > 0 and self._random.random() < chance:
                account = target.partition("/")[2].partition("-")[0] if operation == "setSecret" else target
                self.regenerate(account, (self._random.choice(KEYS),))

        self._azure.hooks.install(on_request)

    def regenerate(self, account: str, names: Collection[KeyName]) -> None:
        """Replaces keys."""
        for name in names:
            self._azure.state.regenerate(account, name)
        self._note(account)

    def age_of(self, account: str, name: KeyName, value: str) -> int:
        """Which value of this key, counted from 0, `value` is; -1 if it never was one."""
        return next((index for index, (_, one) in enumerate(self._seen[account, name]) if one == value), -1)

    def live_at(self, account: str, name: KeyName, moment: float) -> int:
        """Which value was live at `moment`."""
        return bisect_right(self._seen[account, name], moment, key=lambda one: one[0]) - 1

    def mark(self) -> Callable[[], None]:
        """What forgets every value that came after this moment, here and in the vaults: the test's own share of memory."""
        values = {key: len(seen) for key, seen in self._seen.items()}
        secrets = [secret for vault in self._azure.state.vaults for secret in vault.table.all()]
        versions = [(secret, len(secret.versions)) for secret in secrets]

        def forget() -> None:
            for key, count in values.items():
                del self._seen[key][count:]
            for secret, count in versions:
                del secret.versions[count:]

        return forget

    def _note(self, account: str) -> None:
        for name, value in zip(KEYS, self._azure.state.keys(account), strict=True):
            values = self._seen.setdefault((account, name), [])
            if not values or values[-1][1] != value:
                values.append((time.monotonic(), value))


def written(azure: Emulator, account: str, name: KeyName) -> dict[str, list[str]]:
    """Vault to the values of this key's secret there, one a version, oldest first."""
    secret = f"{account}-{name.lower()}-key"
    return {
        vault: [version.value for version in azure.state.vault(vault).versions(secret)] for vault in FLEET[account][0]
    }


# What must hold


class Auditor:
    """Looks whether each account is in sync by the end of the second run after its troubles have ended."""

    def __init__(self, config: Config, azure: Emulator, keys: Keys, weather: Weather, books: Books) -> None:
        self._config = config
        self._azure = azure
        self._keys = keys
        self._weather = weather
        self._books = books
        self._accounts = {account.name: account for account in config.accounts}
        self.checked = 0
        self.late: list[str] = []

    async def work(self) -> None:
        """Follows the weather, for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                for account, ended in self._weather.cleared:
                    group.create_task(self._follow_up(account, ended))
                self._weather.cleared.clear()
                await asyncio.sleep(1)

    async def _follow_up(self, account: str, ended: float) -> None:
        _, second, third = self.slots_after(account, ended)
        while (left := third - 1 - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 10))
            if self._weather.is_troubled(account):
                return  # new trouble has come before it had its two runs
        self.checked += 1
        behind = self.behind(account, second, ended)
        if behind:
            spans = [f"{span.start:.1f}-{span.end:.1f} {span.good}" for span in self._books.spans[account]][-4:]
            self.late.append(f"{account}: trouble ended at {ended:.1f}, second run {second:.1f}: {behind}; {spans}")

    def behind(self, account: str, moment: float, since: float) -> list[str]:
        """What is not in sync: the account's last run if it failed or began before `since`, and each old secret.

        A secret is old if its value is older than what was live at `moment`, or when that last run began if that was before:
        a run that somebody asked for may have taken the place of the schedule's.
        """
        # Not the last to end, as a later one may have overtaken it.
        last = max(self._books.spans[account], key=lambda span: span.start)
        seen = min(moment, last.start)
        found = [
            f"{vault}/{name}"
            for name in KEYS
            for vault, values in written(self._azure, account, name).items()
            if not values or self._keys.age_of(account, name, values[-1]) < self._keys.live_at(account, name, seen)
        ]
        return found + ([] if last.good and last.start >= since else ["last run"])

    def slots_after(self, account: str, moment: float) -> tuple[float, float, float]:
        """When the next three runs over `account` are due."""
        trigger = timetable_of(self._config, self._accounts[account])
        if trigger.every is not None:
            every, first = trigger.every.total_seconds(), self._books.first or 0.0
            slot = first + ((moment - first) // every + 1) * every
            return slot, slot + every, slot + 2 * every
        now, wall = time.monotonic(), datetime.now(UTC)
        slots = [trigger.following(wall + timedelta(seconds=moment - now), count) for count in (1, 2, 3)]
        first, second, third = (now + (slot - wall).total_seconds() for slot in slots)
        return first, second, third


def timetable_of(config: Config, account: Account) -> Trigger:
    """When runs over an account are due."""
    return Trigger.of(account.schedule or config.schedule)


def spurious(azure: Emulator, keys: Keys) -> list[str]:
    """Secrets with a version that no regeneration calls for: each must be of a later key than the one before it."""
    found = []
    for account in FLEET:
        for name in KEYS:
            for vault, values in written(azure, account, name).items():
                ages = [keys.age_of(account, name, value) for value in values]
                if -1 in ages or any(late <= early for early, late in pairwise(ages)):
                    found.append(f"{vault}/{account} {name}: {ages}")
    return found


@dataclass(frozen=True, slots=True)
class Footprint:
    """What the process holds: objects that Python allocated, resident memory in KiB, tasks, open files."""

    blocks: int
    resident: int
    tasks: int
    files: int

    @classmethod
    def now(cls) -> Footprint:
        """The footprint, after the garbage is out."""
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(sys.getallocatedblocks(), pages * 4, len(asyncio.all_tasks()), len(open_files()))


def open_files() -> dict[str, str]:
    """Descriptor to what it is of."""
    found = {}
    for one in Path("/proc/self/fd").iterdir():
        try:
            found[one.name] = str(one.readlink())
        except OSError:
            continue  # that of the listing itself
    return found
