"""A day of the daemon: an Azure with random faults, and records of what the daemon did.

Everything runs on one `WarpLoop`, including the daemon, so all times here are in seconds of the warped clock.
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
from keysync.config.model import Config
from keysync.daemon.fire_times import following
from keysync.emulator import Emulator, EmulatorData
from keysync.emulator.faults import Fault
from keysync.emulator.hooks import Stage
from keysync.sync.model import DONE, Report, Result
from tests.support.azure import QUICK
from tests.support.warp import WarpLoop

MINUTE: Final = 60.0
HOUR: Final = 3600.0

SUBSCRIPTIONS: Final = ("11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-000000000000")
GROUP: Final = "soak"
VAULTS: Final = ("kva", "kvb", "kvc")
_GOOD: Final = frozenset(DONE.values()) | {"unchanged"}

KeyName = Literal["Primary", "Secondary"]
KEYS: Final[tuple[KeyName, ...]] = ("Primary", "Secondary")

# Account to its vaults and its own schedule, if any. The first four are in one subscription, the others in another.
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
    """The subscription of an account of the fleet."""
    return SUBSCRIPTIONS[list(FLEET).index(account) >= len(FLEET) // 2]


def emulator_data(**more: Any) -> EmulatorData:
    """The fleet, as data for the embedded Azure."""
    accounts = [{"subscription_id": subscription_of(name), "resource_group": GROUP, "name": name} for name in FLEET]
    return EmulatorData.model_validate(
        {"accounts": accounts, "vaults": [{"name": name, **QUICK} for name in VAULTS], **more}
    )


def document(azure: Emulator, folder: Path, **more: Any) -> dict[str, Any]:
    """The configuration for the fleet. Each vault has its own host name, so that any of them can stop resolving."""
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


# The daemon's actions


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
    """Results of the runs, account by account; a `RunObserver`."""

    def __init__(self, *, keep: int = 20) -> None:
        self._runs: dict[str, _Run] = {}
        self.spans: defaultdict[str, deque[Span]] = defaultdict(lambda: deque(maxlen=keep))
        self.runs = 0
        self.first: float | None = None
        self.results: Counter[str] = Counter()
        self.overlaps: list[tuple[str, Span, Span]] = []

    def started(self, run_id: str, work_items: int) -> None:
        """Records the beginning of a run."""
        now = time.monotonic()
        self._runs[run_id] = _Run(now)
        self.first = now if self.first is None else self.first

    def collected(self, run_id: str, account: str) -> None:
        """No-op: only results count."""

    def result(self, run_id: str, result: Result) -> None:
        """Records time and outcome."""
        run, account = self._runs[run_id], name_of(result.ref.account)
        run.last[account] = time.monotonic()
        self.results[result.outcome] += 1
        if result.outcome not in _GOOD:
            run.bad.add(account)

    def finished(self, report: Report) -> None:
        """Completes the record of a run."""
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
    """Replaces stderr: counts the log's lines by event and by minute, and keeps only unexpected ones."""

    EXPECTED: Final = ("secret.", "run.", "account.", "daemon.", "config.", "credential.", "library.azure.")
    FAULTS_OF_OURS: Final = ("run.error", "daemon.shutdown_timeout")

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self.busiest = 0
        self._minute = (-1, 0)

    def write(self, text: str) -> int:
        """Takes complete lines, as the log's handler writes them."""
        for line in text.splitlines():
            if line:
                self._line(line)
        return len(text)

    @property
    def lines(self) -> int:
        """The number of lines so far."""
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
    """Sends the daemon's own log, formatted as in production, into `book`; restores the log afterwards."""
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


# Faults, and how keys change


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault that begins and ends. Its effect lasts `lingers` seconds longer, since Azure asked for that delay."""

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


class FaultSchedule:
    """Begins and ends faults at random places, and knows since when each account has none."""

    def __init__(self, azure: Emulator, loop: WarpLoop, keys: Keys, random: Random) -> None:
        self._azure = azure
        self._loop = loop
        self._keys = keys
        self._random = random
        self._active: list[Problem] = []
        self._felt: Counter[str] = Counter()
        self.cleared: list[tuple[str, float]] = []
        """Account to the end of its last fault; removed by the check that the account is in sync again."""
        self.met: Counter[str] = Counter()
        """The number of occurrences of each kind of fault."""
        self.secrets_met = 0
        """The same for each affected secret."""

    def has_fault(self, account: str) -> bool:
        """Whether anything that `account` needs has a fault now."""
        return self._felt[account] > 0

    async def somewhere(self, place: Callable[[Random], Problem], gap: float, until: Callable[[], float]) -> None:
        """Causes faults at one place, on average `gap` seconds apart; `until` returns the remaining seconds of the
        half.
        """
        while (left := until()) > 0:
            await asyncio.sleep(min(left, self._random.expovariate(1 / gap)))
            left = until()
            length = self._random.choice((self._random.uniform(1, 60), self._random.uniform(60, 40 * MINUTE)))
            problem = place(self._random)
            if left > length + problem.lingers:
                await self.cause(problem, length)

    async def cause(self, problem: Problem, seconds: float) -> None:
        """Causes one fault and ends it."""
        self.met[problem.what] += 1
        self.secrets_met += sum(2 * len(FLEET[account][0]) for account in problem.accounts)
        self._felt.update(problem.accounts)
        self._active.append(problem)
        self._in_force()
        if any(fault.operation == "setSecret" for fault in problem.faults):
            # Only a run with a write meets it.
            self._keys.regenerate(self._random.choice(sorted(problem.accounts)), (self._random.choice(KEYS),))
        await asyncio.sleep(seconds)
        self._active.remove(problem)
        self._in_force()
        await asyncio.sleep(problem.lingers)
        self._felt.subtract(problem.accounts)
        now = time.monotonic()
        self.cleared += [(account, now) for account in sorted(problem.accounts) if not self.has_fault(account)]

    def _in_force(self) -> None:
        self._azure.faults.clear()
        for problem in self._active:
            for fault in problem.faults:
                self._azure.faults.add(fault)
        read_only = {problem.read_only for problem in self._active}
        for vault in self._azure.state.vaults:
            vault.read_only = vault.name in read_only
        self._loop.unknown_hosts.clear()
        self._loop.unknown_hosts.update(problem.unknown_host for problem in self._active if problem.unknown_host)


EVERYBODY: Final = frozenset(FLEET)


def users_of(vault: str) -> frozenset[str]:
    """The accounts that write to a vault."""
    return frozenset(name for name, (vaults, _) in FLEET.items() if vault in vaults)


def on_account(account: str) -> Callable[[Random], Problem]:
    """A fault of an account's listKeys."""
    return lambda random: _answer(random, "listKeys", account, frozenset({account}))


def on_vault(vault: str) -> Callable[[Random], Problem]:
    """A fault of one or all operations of a vault."""
    return lambda random: _answer(random, random.choice(_VAULT_OPERATIONS), vault, users_of(vault))


def on_sign_in(random: Random) -> Problem:
    """A fault of token requests."""
    return _answer(random, "token", "*", EVERYBODY)


def on_name_of(vault: str) -> Callable[[Random], Problem]:
    """The vault's name does not resolve."""
    return lambda _: Problem(f"DNS of {vault}", users_of(vault), unknown_host=f"{vault}.localhost")


def on_name_of_azure(_: Random) -> Problem:
    """The names of Resource Manager and Entra do not resolve."""
    return Problem("DNS of Azure", EVERYBODY, unknown_host="localhost")


def on_writes_of(vault: str) -> Callable[[Random], Problem]:
    """The vault is read-only, as after a failover."""
    return lambda _: Problem(f"read-only {vault}", users_of(vault), read_only=vault)


def on_subscription(subscription: str) -> Callable[[Random], Problem]:
    """Resource Manager throttles the whole subscription, and asks for a delay of 20 minutes."""
    accounts = frozenset(name for name in FLEET if subscription_of(name) == subscription)
    throttling = {
        "status": 429,
        "code": "SubscriptionRequestsThrottled",
        "retry_after": "1200",
        "operation": "listKeys",
    }
    faults = tuple(Fault.model_validate({**throttling, "target": name}) for name in sorted(accounts))
    # The last throttled request may have come at the very end.
    return lambda _: Problem("subscription throttled", accounts, faults, lingers=1200.0)


def _answer(random: Random, operation: str, target: str, accounts: frozenset[str]) -> Problem:
    # A write with an effect but a lost reply is the one that can lead to a second version.
    name = random.choice(sorted(_ANSWERS) + (_AFTER_THE_EFFECT * 2 if operation == "setSecret" else []))
    fault = Fault.model_validate({"operation": operation, "target": target, **_ANSWERS[name]})
    return Problem(f"{operation}: {name}", accounts, (fault,))


FAULT_PLACES: Final[Sequence[tuple[Callable[[Random], Problem], float]]] = (
    *((on_account(account), 1.5 * HOUR) for account in FLEET),
    *((on_vault(vault), 1 * HOUR) for vault in VAULTS),
    *((on_name_of(vault), 5 * HOUR) for vault in VAULTS),
    *((on_writes_of(vault), 4 * HOUR) for vault in VAULTS),
    *((on_subscription(subscription), 7 * HOUR) for subscription in SUBSCRIPTIONS),
    (on_sign_in, 3 * HOUR),
    (on_name_of_azure, 8 * HOUR),
)
"""The places of faults, and the average seconds between two of them."""


class Keys:
    """Every value of each key with its time; regenerates keys at random, also during a run."""

    def __init__(self, azure: Emulator, random: Random) -> None:
        self._azure = azure
        self._random = random
        self._seen: dict[tuple[str, KeyName], list[tuple[float, str]]] = {}
        for account in FLEET:
            self._note(account)

    @property
    def regenerations(self) -> int:
        """The number of regenerations."""
        return sum(len(values) - 1 for values in self._seen.values())

    async def keep_changing(self, account: str, gap: float, until: Callable[[], float]) -> None:
        """Regenerates one or both of the account's keys, every `gap` seconds on average."""
        while (left := until()) > 0:
            await asyncio.sleep(min(left, self._random.expovariate(1 / gap)))
            if until() > 0:
                self.regenerate(account, self._random.choice((("Primary",), ("Secondary",), KEYS)))

    def in_the_middle(self, chance: float, until: Callable[[], float]) -> None:
        """From now on, a key may also change right after listKeys read it, or right before a write of it takes
        effect."""

        async def on_request(_index: int, operation: str, target: str, stage: Stage) -> None:
            moment = (operation, stage) in {("listKeys", "after"), ("setSecret", "before")}
            if moment and until() > 0 and self._random.random() < chance:
                account = target.partition("/")[2].partition("-")[0] if operation == "setSecret" else target
                self.regenerate(account, (self._random.choice(KEYS),))

        self._azure.hooks.install(on_request)

    def regenerate(self, account: str, names: Collection[KeyName]) -> None:
        """Regenerates keys."""
        for name in names:
            self._azure.state.regenerate(account, name)
        self._note(account)

    def age_of(self, account: str, name: KeyName, value: str) -> int:
        """The index, from 0, of `value` among this key's values; -1 for an unknown value."""
        return next((index for index, (_, member) in enumerate(self._seen[account, name]) if member == value), -1)

    def live_at(self, account: str, name: KeyName, moment: float) -> int:
        """The index of the live value at `moment`."""
        return bisect_right(self._seen[account, name], moment, key=lambda item: item[0]) - 1

    def mark(self) -> Callable[[], None]:
        """Returns a function that removes every later value, here and in the vaults: the test's own use of memory."""
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
    """Vault to the values of this key's secret, one for each version, oldest first."""
    secret = f"{account}-{name.lower()}-key"
    return {
        vault: [version.value for version in azure.state.vault(vault).versions(secret)] for vault in FLEET[account][0]
    }


# Rules


class Auditor:
    """Checks that each account is in sync by the end of the second run after its faults have ended."""

    def __init__(
        self, config: Config, azure: Emulator, keys: Keys, fault_schedule: FaultSchedule, books: Books
    ) -> None:
        self._config = config
        self._azure = azure
        self._keys = keys
        self._fault_schedule = fault_schedule
        self._books = books
        self._accounts = {account.name: account for account in config.accounts}
        self.checked = 0
        self.late: list[str] = []

    async def work(self) -> None:
        """Follows the faults forever."""
        async with asyncio.TaskGroup() as group:
            while True:
                for account, ended in self._fault_schedule.cleared:
                    group.create_task(self._follow_up(account, ended))
                self._fault_schedule.cleared.clear()
                await asyncio.sleep(1)

    async def _follow_up(self, account: str, ended: float) -> None:
        _, second, third = self.runs_after(account, ended)
        while (left := third - 1 - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 10))
            if self._fault_schedule.has_fault(account):
                return  # a new fault began before its two runs
        self.checked += 1
        behind = self.behind(account, second, ended)
        if behind:
            spans = [f"{span.start:.1f}-{span.end:.1f} {span.good}" for span in self._books.spans[account]][-4:]
            self.late.append(f"{account}: trouble ended at {ended:.1f}, second run {second:.1f}: {behind}; {spans}")

    def behind(self, account: str, moment: float, since: float) -> list[str]:
        """What is not in sync: the account's last run, if it failed or began before `since`, and each old secret.

        A secret is old if its value is older than the live one at `moment`, or at the beginning of that last run if
        that was earlier: a requested run may have replaced a scheduled one.
        """
        # Not the one that ended last, as runs can end in another order.
        last = max(self._books.spans[account], key=lambda span: span.start)
        seen = min(moment, last.start)
        results = [
            f"{vault}/{name}"
            for name in KEYS
            for vault, values in written(self._azure, account, name).items()
            if not values or self._keys.age_of(account, name, values[-1]) < self._keys.live_at(account, name, seen)
        ]
        return results + ([] if last.good and last.start >= since else ["last run"])

    def runs_after(self, account: str, moment: float) -> tuple[float, float, float]:
        """The times of the next three runs over `account`."""
        schedule = self._accounts[account].schedule or self._config.schedule
        if schedule.every is not None:
            every, first = schedule.every.total_seconds(), self._books.first or 0.0
            fire_time = first + ((moment - first) // every + 1) * every
            return fire_time, fire_time + every, fire_time + 2 * every
        now, wall = time.monotonic(), datetime.now(UTC)
        fire_times = [following(schedule, wall + timedelta(seconds=moment - now), count) for count in (1, 2, 3)]
        first, second, third = (now + (fire_time - wall).total_seconds() for fire_time in fire_times if fire_time)
        return first, second, third


def spurious(azure: Emulator, keys: Keys) -> list[str]:
    """Secrets with a version without a regeneration: each version must have a later key than the one before."""
    results = []
    for account in FLEET:
        for name in KEYS:
            for vault, values in written(azure, account, name).items():
                ages = [keys.age_of(account, name, value) for value in values]
                if -1 in ages or any(late <= early for early, late in pairwise(ages)):
                    results.append(f"{vault}/{account} {name}: {ages}")
    return results


@dataclass(frozen=True, slots=True)
class Footprint:
    """Resources of the process: objects that Python allocated, resident memory in KiB, tasks, open files."""

    blocks: int
    resident: int
    tasks: int
    files: int

    @classmethod
    def now(cls) -> Footprint:
        """The current footprint, after garbage collection."""
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(sys.getallocatedblocks(), pages * 4, len(asyncio.all_tasks()), len(open_files()))


def open_files() -> dict[str, str]:
    """Descriptor to the open file."""
    results = {}
    for path in Path("/proc/self/fd").iterdir():
        try:
            results[path.name] = str(path.readlink())
        except OSError:
            continue  # the descriptor of the listing itself
    return results
