"""Orphans: managed secrets that the configuration does not map any more, and the proof that removing one requires."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, Protocol, TypeAlias

from keysync.failures import FailureRecord, FailureTranslator
from keysync.names import fold
from keysync.sync.model import Change, ItemRef
from keysync.sync.ownership import KEY, SOURCE, is_ours_for
from keysync.targets.interface import Disabled, Observation, SecretProperties, SecretTarget, StoredSecret

PROOF_RUNS: Final = 3
"""How many consecutive runs of the daemon must find an account gone before its secrets are removed without `--accept`."""

Presence: TypeAlias = Literal["there", "gone"]
Mode: TypeAlias = Literal["disable", "delete"]


class AccountExistence(Protocol):
    """Checks whether accounts exist, for one search: it may keep the listings that it made."""

    async def presence(self, account: str) -> Presence:
        """`gone` only on a 404 of the account *and* its absence from a complete listing. Raises CallFailed otherwise."""
        ...


@dataclass(slots=True)
class MissingCounters:
    """In how many consecutive runs of this daemon each account was gone. Empty after a start.

    A run counts only if it is at least `least_seconds` after the last that counted: runs on request do not speed up the proof.
    """

    least_seconds: float = 0.0
    clock: Callable[[], float] = time.monotonic
    _counts: dict[str, int] = field(default_factory=dict[str, int])
    _counted_at: float = float("-inf")

    def note(self, gone: Collection[str]) -> None:
        """Adds a run that found the accounts `gone` (ARM ids). All others start over at zero, even if the run does not count."""
        now = self.clock()
        counts = now - self._counted_at >= self.least_seconds
        if counts:
            self._counted_at = now
        self._counts = {fold(account): self.of(account) + counts for account in gone}

    def forget(self) -> None:
        """Starts over for every account, because another replica was the leader meanwhile."""
        self._counts = {}

    def of(self, account: str) -> int:
        """The number of consecutive runs, the latest included."""
        return self._counts.get(fold(account), 0)


@dataclass(frozen=True, slots=True)
class OrphanFindings:
    """The result of a search: changes for the plan, and warnings about what could not be checked."""

    changes: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()


def _nothing(why: str) -> OrphanFindings:
    return OrphanFindings(warnings=(f"orphans: {why}, nothing is removed in this run",))


SEARCH_TOO_SLOW: Final = _nothing("the search did not finish in time")


def orphans_among(
    listed: Sequence[SecretProperties], vault: str, served: Container[str], owner: str, key_names: Container[str]
) -> list[ItemRef]:
    """The managed secrets of `owner` in `listed` whose names (lower case) are not in `served`. `key_names`: of the source."""
    refs: list[ItemRef] = []
    for secret in listed:
        ref = ItemRef(secret.tags.get(SOURCE, ""), secret.tags.get(KEY, ""), vault, secret.name)
        known = ref.account and ref.key in key_names and not secret.managed
        if known and is_ours_for(secret.tags, ref, owner) and fold(secret.name) not in served:
            refs.append(ref)
    return refs


def removal(ref: ItemRef, stored: Observation, mode: Mode, presence: Presence, streak: int | None) -> Change | None:
    """The change for an orphan with the state `stored`; None if there is nothing to do.

    `streak` is in how many consecutive runs of the daemon its account was gone; None in a one-off run. A removal needs
    `--accept` unless there are three, and always if only the mapping is gone.
    """
    if not isinstance(stored, (StoredSecret, Disabled)) or stored.managed or stored.version is None:
        return None
    if isinstance(stored, Disabled) and mode == "disable":
        return None
    unmapped = "its account is there, but the configuration no longer maps it here"
    why = f"orphaned: {'its account is gone' if presence == 'gone' else unmapped}"
    change = Change(ref, mode, "orphaned", reason=why, before=stored.version, managed=True, proof=presence)
    if presence == "there" or streak is None:
        return replace(change, needs_accept=f"{why}. To {mode} it")
    if streak >= PROOF_RUNS:
        return change
    waiting = f"{why}, in {streak} of the {PROOF_RUNS} consecutive runs required to {mode} it"
    return Change(ref, "skipped", "orphaned", reason=waiting, before=stored.version, managed=True)


@dataclass(frozen=True, slots=True)
class OrphanSearch:
    """Searches vaults for orphans. What cannot be checked is not removed.

    `served`: the names (lower case) that the whole configuration writes in each vault, also for accounts outside the run.
    `read_only`: vaults, and accounts (ARM ids in lower case), in which nothing is removed. `is_mine`: whether this shard has the
    account. `streaks`: the daemon's counters, None in a one-off run. `excluded`: accounts (ARM ids in lower case) whose secrets
    are no orphans although they are not served now. If it has a reason, a warning says that their secrets are not kept in sync.
    `skip_reason`: if set, nothing is searched or removed.
    """

    targets: Mapping[str, SecretTarget]
    existence: AccountExistence
    translator: FailureTranslator
    mode: Mode
    owner: str
    served: Mapping[str, Container[str]]
    key_names: Container[str]
    read_only: Collection[str] = ()
    is_mine: Callable[[str], bool] = lambda _account: True
    streaks: MissingCounters | None = None
    excluded: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    skip_reason: str | None = None

    async def run(self, deadline: float) -> OrphanFindings:
        """Searches for at most `deadline` seconds. Never raises for a failure of Azure."""
        presences: dict[str, Presence | None] = {}
        warnings: list[str] = []
        try:
            if self.skip_reason is not None:
                return OrphanFindings(warnings=(f"orphans: {self.skip_reason}: nothing is removed in this run",))
            async with asyncio.timeout(deadline):
                per_vault = await asyncio.gather(*(self._in_vault(vault, warnings) for vault in self.targets))
                refs = [ref for found in per_vault for ref in found]
                accounts = sorted({ref.account for ref in refs})
                replies = await asyncio.gather(*(self._presence(account, warnings) for account in accounts))
                presences = dict(zip(accounts, replies, strict=True))
        except TimeoutError:
            return _nothing(f"not searched within {deadline:g} s")
        finally:
            # After a search that did not finish, every account starts over.
            if self.streaks is not None:
                self.streaks.note([account for account, presence in presences.items() if presence == "gone"])
        changes = await asyncio.gather(*(self._change(ref, presences[ref.account]) for ref in refs))
        return OrphanFindings(tuple(change for change in changes if change is not None), tuple(warnings))

    async def _in_vault(self, vault: str, warnings: list[str]) -> list[ItemRef]:
        try:
            listed = await self.targets[vault].listing()
        except Exception as error:  # noqa: BLE001  # one vault's failure must not stop the others
            cause = self._record(error, vault).summary
            warnings.append(f"orphans: vault {vault} could not be listed, nothing is removed there ({cause})")
            return []
        found = orphans_among(listed, vault, self.served.get(vault, ()), self.owner, self.key_names)
        refs = [ref for ref in found if self.is_mine(ref.account)]
        unserved: defaultdict[str | None, set[str]] = defaultdict(set)
        for ref in refs:
            unserved[self.excluded.get(fold(ref.account))].add(ref.account)
        for reason, accounts in unserved.items():
            if reason is not None:
                names = sorted(accounts, key=fold)
                some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
                not_synced = "are not kept in sync, since the account is not served"
                warnings.append(f"vault {vault}: the secrets of {some} {not_synced}: {reason}")
        return [ref for ref in refs if fold(ref.account) not in self.excluded]

    async def _presence(self, account: str, warnings: list[str]) -> Presence | None:
        """None if it is unknown."""
        try:
            return await self.existence.presence(account)
        except Exception as error:  # noqa: BLE001  # one account's failure must not stop the others
            cause = self._record(error, account).summary
            warnings.append(f"orphans: whether {account} is gone is unknown, its secrets stay ({cause})")
            return None

    async def _change(self, ref: ItemRef, presence: Presence | None) -> Change | None:
        if presence is None:
            return None
        try:
            stored = await self.targets[ref.vault].read(ref.secret)
        except Exception as error:  # noqa: BLE001  # one secret's failure must not stop the others
            record = self._record(error, ref.vault)
            return Change(ref, "failed", "orphaned", reason=record.summary, error=record, managed=True)
        tags = stored.tags if isinstance(stored, (StoredSecret, Disabled)) else None
        if tags is None or not is_ours_for(tags, ref, self.owner):
            return None
        streak = self.streaks.of(ref.account) if self.streaks is not None else None
        change = removal(ref, stored, self.mode, presence, streak)
        if change is not None and not {ref.vault, fold(ref.account)}.isdisjoint(self.read_only):
            return replace(change, needs_accept=None, read_only=True)
        return None if change is None else replace(change, owner=self.owner)

    def _record(self, error: Exception, scope: str) -> FailureRecord:
        return self.translator.record(error, operation="listSecrets", scope=scope)
