"""Worlds in which a run is killed: their contents, how they stop, and what must be true after the next run."""

from __future__ import annotations

import asyncio
import copy
import itertools
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self

from keysync.emulator import Emulator, Stage
from keysync.emulator.vault_secrets import DeletedSecret, Secret, SecretVersion
from tests.support.azure import RunningAzure
from tests.support.other_writers import without_count


class Moment(NamedTuple):
    """The `nth` request (from 0) of an operation, before or after its effect."""

    operation: str
    nth: int
    stage: Stage


class Stopper:
    """Follows the requests and stops the world at one moment: that request and all later ones wait.

    With `hold` false it only records that the moment occurred, and the world continues.
    """

    def __init__(self, azure: RunningAzure, moment: Moment | int | None, *, hold: bool = True) -> None:
        self._azure = azure
        self._moment = moment
        self._hold = hold
        self._counts: Counter[tuple[str, Stage]] = Counter()
        self._paused = 0
        self.moments: list[Moment] = []
        self.came = threading.Event()
        self.free = threading.Event()
        self.free.set()

    def __enter__(self) -> Self:
        self._azure.do(lambda azure: azure.hooks.install(self._on_request))
        return self

    def __exit__(self, *_: object) -> None:
        self._azure.do(lambda azure: azure.hooks.install(None))

    async def _on_request(self, _index: int, operation: str, _target: str, stage: Stage) -> None:
        moment = Moment(operation, self._counts[operation, stage], stage)
        self._counts[operation, stage] += 1
        if self._moment in (moment, len(self.moments)):
            self.came.set()
        self.moments.append(moment)
        if self._hold and self.came.is_set():
            await self._until_the_client_goes()

    async def _until_the_client_goes(self) -> None:
        self._paused += 1
        self.free.clear()
        try:
            await asyncio.Event().wait()
        finally:
            self._paused -= 1
            if not self._paused:
                self.free.set()


@dataclass(frozen=True)
class Contents:
    """A copy of a vault's contents: secrets and deleted secrets, by name in lower case."""

    secrets: dict[str, Secret]
    deleted: dict[str, DeletedSecret]

    def versions(self, name: str) -> list[SecretVersion]:
        """The versions of a secret, deleted or not, oldest first."""
        stored, gone = self.secrets.get(name.lower()), self.deleted.get(name.lower())
        return stored.versions if stored else gone.secret.versions if gone else []

    def of(self, name: str) -> Any:
        """Every field of every version of a name, deleted or not; None if the name is free."""
        key = name.lower()
        stored = self.secrets.get(key) or self.deleted.get(key)
        return None if stored is None else asdict(stored)

    @property
    def names(self) -> set[str]:
        """Every name in use."""
        return {*self.secrets, *self.deleted}


@dataclass(frozen=True)
class Snapshot:
    """The keys of all accounts and the contents of all vaults, by name."""

    keys: dict[str, tuple[str, str]]
    vaults: dict[str, Contents]

    @classmethod
    def of(cls, running: RunningAzure) -> Snapshot:
        """A copy of the current state."""
        return running.do(cls._taken)

    @classmethod
    def _taken(cls, azure: Emulator) -> Snapshot:
        keys = {account.name: (account.primary, account.secondary) for account in azure.state.accounts.values()}
        vaults: dict[str, Contents] = {}
        for vault in azure.state.vaults:
            secrets, deleted = copy.deepcopy(vault.export())
            vaults[vault.name] = Contents(
                {secret.name.lower(): secret for secret in secrets},
                {secret.secret.name.lower(): secret for secret in deleted},
            )
        return cls(keys, vaults)

    def put_back(self, running: RunningAzure) -> None:
        """Restores this state."""
        running.do(self._restore)

    def _restore(self, azure: Emulator) -> None:
        for name, keys in self.keys.items():
            account = azure.state.account(name)
            account.primary, account.secondary = keys
        for name, contents in self.vaults.items():
            own = copy.deepcopy(contents)
            azure.state.vault(name).restore(own.secrets.values(), own.deleted.values())


@dataclass(frozen=True)
class SecretCase:
    """A secret that the configuration would write; `marks` are the tags that make it managed.

    `mine` is the expected result: True is written, False never is, None is written once it has the tags. `patched`
    allows a change of its latest version in place, such as new tags or enabling.
    """

    vault: str
    secret: str
    account: str
    key: str
    marks: dict[str, str]
    mine: bool | None = True
    patched: bool = False

    @property
    def place(self) -> tuple[str, str]:
        """The vault, and the secret's name in lower case."""
        return self.vault, self.secret.lower()

    def __str__(self) -> str:
        return f"{self.vault}/{self.secret}"


@dataclass
class Story:
    """A world from one convergence to the next: its beginning, and every value that each key has had since."""

    running: RunningAzure
    cases: Sequence[SecretCase]
    before: Snapshot
    lived: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def regenerate(self, account: str, key: str) -> None:
        """Regenerates a key."""
        self.running.do(lambda azure: azure.state.regenerate(account, key.capitalize()))
        primary, secondary = self.running.do(lambda azure: azure.state.keys(account))
        self.values(account, key).append(primary if key == "primary" else secondary)

    def values(self, account: str, key: str) -> list[str]:
        """The values of a key since the story began; the last one is live."""
        first = self.before.keys[account][0 if key == "primary" else 1]
        return self.lived.setdefault((account, key), [first])

    def check(self) -> int:
        """Asserts the required state after a complete run; returns the exit code that this run must have had."""
        now = Snapshot.of(self.running)
        refused = [case for case in self.cases if self._is_refused(case, now)]
        for name, after in now.vaults.items():
            before, named = self.before.vaults[name], {case.place for case in self.cases}
            written = {case.secret.lower() for case in self.cases if case.vault == name and case.mine}
            assert after.names == before.names | written, f"{name}: secrets came or went"
            for secret in after.names:
                untouched = (name, secret) in named or after.of(secret) == before.of(secret)
                assert untouched, f"{name}/{secret}: not in the configuration, and touched"
        return 1 if refused else 0

    def _is_refused(self, case: SecretCase, now: Snapshot) -> bool:
        before, after = self.before.vaults[case.vault], now.vaults[case.vault]
        if case.mine or (case.mine is None and case.marks.items() <= after.versions(case.secret)[-1].tags.items()):
            assert case.secret.lower() in after.secrets, f"{case}: not there"
            self._check_mine(case, before.versions(case.secret), after.versions(case.secret))
            return False
        assert after.of(case.secret) == before.of(case.secret), f"{case}: not keysync's, and touched"
        return self._stands_in_the_way(case, after)

    def _stands_in_the_way(self, case: SecretCase, after: Contents) -> bool:
        stored = after.secrets.get(case.secret.lower())
        if stored is None or stored.managed:
            return True
        return stored.latest.enabled and stored.latest.value != self.values(case.account, case.key)[-1]

    def _check_mine(self, case: SecretCase, before: list[SecretVersion], after: list[SecretVersion]) -> None:
        written = after[len(before) :]
        kept = [asdict(version) for version in after[: len(before)]]
        if case.patched:
            kept[-1] |= {name: getattr(before[-1], name) for name in ("tags", "enabled", "updated")}
        assert kept == [asdict(version) for version in before], f"{case}: an existing secret has changed"
        old = before[-1] if before else None
        self._check_values(case, old, [version.value for version in written])
        for version in [after[-1], *written]:
            assert version.enabled, f"{case}: a version is disabled"
            expected = {**(without_count(old.tags) if old else {}), **case.marks}
            assert without_count(version.tags) == expected, f"{case}: wrong tags"
            kind = old.content_type if old else written[0].content_type
            assert version.content_type == kind, f"{case}: wrong content type"

    def _check_values(self, case: SecretCase, old: SecretVersion | None, written: list[str]) -> None:
        lived = self.values(case.account, case.key)
        history = [*([old.value] if old else []), *written]
        assert history[-1] == lived[-1], f"{case}: not the live key"
        assert all(item != other for item, other in itertools.pairwise(history)), f"{case}: a value twice in a row"
        assert len(set(written)) == len(written), f"{case}: two versions of one value"
        assert set(written) <= set(lived), f"{case}: a value that was never the key"
        changes = len(lived) - (old is not None and old.value == lived[0])
        assert len(written) <= changes, f"{case}: {len(written)} versions for {changes} changes"
