"""Orphans: secrets of ours that nothing in the configuration serves any more, and the proof that it takes to touch one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, Protocol, TypeAlias

from keysync.failures import CallFailed, FailureRecord, FailureTranslator
from keysync.names import fold
from keysync.sources.interface import KEY_NAMES, KeyName
from keysync.sync.model import Change, ItemRef
from keysync.sync.ownership import KEY, KEYSYNC, MANAGED_BY, OWNER, SOURCE
from keysync.targets.interface import Disabled, Observation, SecretProperties, SecretTarget, StoredSecret

PROOF_PASSES: Final = 3
"""How many runs of the daemon in a row have to find an account gone before its secrets are removed unasked."""

Presence: TypeAlias = Literal["there", "gone"]


class AccountExistence(Protocol):
    """Tells whether an account exists."""

    async def presence(self, account: str) -> Presence:
        """`gone` only on a 404 of the account *and* its absence from a complete listing. Raises CallFailed otherwise."""
        ...


@dataclass(slots=True)
class MissingCounters:
    """How many runs in a row each account was proven gone: the daemon's memory, which starts empty.

    A run counts only `least_seconds` after the one before that did: runs that somebody asks for prove nothing faster.
    """

    least_seconds: float = 0.0
    clock: Callable[[], float] = time.monotonic
    _counts: dict[str, int] = field(default_factory=dict)
    _counted_at: float = float("-inf")

    def note(self, gone: Collection[str]) -> None:
        """One more run: `gone` are the ARM ids that it proved gone; every other starts over, whenever the run was."""
        now = self.clock()
        counts = now - self._counted_at >= self.least_seconds
        if counts:
            self._counted_at = now
        self._counts = {fold(account): self._counts.get(fold(account), 0) + counts for account in gone}

    def forget(self) -> None:
        """Every account starts over: runs were made elsewhere."""
        self._counts = {}

    def of(self, account: str) -> int:
        """Runs in a row, the latest included."""
        return self._counts.get(fold(account), 0)


@dataclass(frozen=True, slots=True)
class OrphanFindings:
    """What a search has shown: changes for the plan, and what could not be looked at."""

    changes: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()


SEARCH_TOO_SLOW: Final = OrphanFindings(
    warnings=("orphans: the search was not done in time, nothing is removed in this run",)
)


def orphans_among(
    listed: Sequence[SecretProperties], vault: str, served: Container[str], owner: str
) -> tuple[ItemRef, ...]:
    """The secrets of `listed` that bear `owner` and our marks, and whose name (lower case) is none of `served`."""
    refs = (_reference(each, vault) for each in listed if _may_be_orphan(each, served, owner))
    return tuple(ref for ref in refs if ref is not None)


def is_ours_for(tags: Mapping[str, str], ref: ItemRef, owner: str) -> bool:
    """Whether tags still mark the orphan `ref` as this installation's."""
    marks = (tags.get(MANAGED_BY), fold(tags.get(SOURCE, "")), tags.get(KEY), tags.get(OWNER))
    return marks == (KEYSYNC, fold(ref.account), ref.key, owner)


def removal(ref: ItemRef, stored: Observation, mode: Literal["disable", "delete"], presence: Presence, streak: int | None) -> Change | None:  # fmt: skip
    """What becomes of an orphan whose `stored` state was just read, None where there is nothing to do.

    `streak` is how many runs of the daemon in a row proved its account gone, None in a one-off run. Without three of
    them, and wherever only the mapping is gone, it takes `--accept`.
    """
    if not isinstance(stored, (StoredSecret, Disabled)) or stored.managed or stored.version is None:
        return None
    if isinstance(stored, Disabled) and mode == "disable":
        return None
    why = (
        "its account is gone"
        if presence == "gone"
        else "its account is there, but the configuration no longer maps it here"
    )
    change = Change(
        ref, mode, "orphaned", reason=f"orphaned: {why}", before=stored.version, managed=True, proof=presence
    )
    if presence == "gone" and streak is not None:
        if streak >= PROOF_PASSES:
            return change
        waiting = f"orphaned: {why}, seen in {streak} of the {PROOF_PASSES} runs in a row that it takes to {mode} it"
        return Change(ref, "skipped", "orphaned", reason=waiting, before=stored.version, managed=True)
    return replace(change, held=f"orphaned: {why}. To {mode} it")


def _some(names: Sequence[str]) -> str:
    """The first three, and how many more."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _may_be_orphan(listed: SecretProperties, served: Container[str], owner: str) -> bool:
    ours = listed.tags.get(MANAGED_BY) == KEYSYNC and listed.tags.get(OWNER) == owner
    return ours and not listed.managed and fold(listed.name) not in served


def _reference(listed: SecretProperties, vault: str) -> ItemRef | None:
    source, key = listed.tags.get(SOURCE), _key(listed.tags.get(KEY))
    return ItemRef(source, key, vault, listed.name) if source and key else None


def _key(tag: str | None) -> KeyName | None:
    return next((name for name in KEY_NAMES if name == tag), None)


@dataclass(frozen=True, slots=True)
class OrphanSearch:
    """Searches vaults for orphans; a failure of any look means that nothing is removed for its sake.

    `served` are the names (lower case) that the whole configuration writes in each vault, whichever accounts this run is
    about. `excluded` are accounts (ARM ids in lower case) that it means and does not serve now: their secrets are no orphans. Where
    `excluded` gives a reason, the search warns that such secrets are not kept in sync.
    With `skip_reason`, which says why, nothing is searched and nothing removed. `read_only` are vaults, `read_only_accounts` ARM
    ids in lower case, for which nothing is removed. `is_mine` leaves an orphan to the shard that has its account. `streaks` is
    the daemon's memory, None in a one-off run.
    """

    targets: Mapping[str, SecretTarget]
    directory: AccountExistence
    translator: FailureTranslator
    mode: Literal["disable", "delete"]
    owner: str
    served: Mapping[str, Container[str]]
    read_only: Collection[str] = ()
    read_only_accounts: Collection[str] = ()
    is_mine: Callable[[str], bool] = lambda _account: True
    streaks: MissingCounters | None = None
    excluded: Mapping[str, str | None] = field(default_factory=dict)
    skip_reason: str | None = None

    async def run(self, deadline: float) -> OrphanFindings:
        """What is there to be removed, found within `deadline` seconds; never raises for a failure of Azure."""
        gone: list[str] = []
        if self.skip_reason is not None:
            # What was not looked at proves nothing either.
            if self.streaks is not None:
                self.streaks.note(gone)
            return OrphanFindings(warnings=(f"orphans: {self.skip_reason}: nothing is removed in this run",))
        try:
            async with asyncio.timeout(deadline):
                refs, warnings = await self._candidates()
                presences, unproven = await self._presences({ref.account for ref in refs})
                gone += [account for account, presence in presences.items() if presence == "gone"]
        except TimeoutError:
            return OrphanFindings(
                warnings=(f"orphans: not searched within {deadline:g} s, nothing is removed in this run",)
            )
        finally:
            # A search that was cut off proves nothing, so every streak starts over.
            if self.streaks is not None:
                self.streaks.note(gone)
        judged = await asyncio.gather(*(self._judge(ref, presences) for ref in refs))
        return OrphanFindings(tuple(change for change in judged if change is not None), (*warnings, *unproven))

    async def _candidates(self) -> tuple[list[ItemRef], list[str]]:
        per_vault = await asyncio.gather(*(self._in_vault(vault) for vault in self.targets))
        return [ref for found, _ in per_vault for ref in found], [
            told for _, warnings in per_vault for told in warnings
        ]

    async def _in_vault(self, vault: str) -> tuple[Sequence[ItemRef], Sequence[str]]:
        try:
            listed = await self.targets[vault].listing()
        except Exception as error:  # noqa: BLE001  # one vault's failure is one vault's
            told = self._told(error, vault)
            return (), [f"orphans: vault {vault} could not be listed, nothing is removed there ({told})"]
        refs = orphans_among(listed, vault, self.served.get(vault, ()), self.owner)
        mine = [ref for ref in refs if self.is_mine(ref.account)]
        excluded = {fold(ref.account): ref.account for ref in mine if fold(ref.account) in self.excluded}
        return [ref for ref in mine if fold(ref.account) not in excluded], self._not_served(vault, excluded)

    def _not_served(self, vault: str, excluded: Mapping[str, str]) -> list[str]:
        """A warning for each reason; `excluded` are ARM ids by their lower case."""
        by_reason: dict[str, list[str]] = {}
        for key in sorted(excluded):
            reason = self.excluded[key]
            if reason is not None:
                by_reason.setdefault(reason, []).append(excluded[key])
        return [
            f"vault {vault}: the secrets of {_some(accounts)} are not kept in sync, since the account is not served: {reason}"
            for reason, accounts in by_reason.items()
        ]

    async def _presences(self, accounts: Collection[str]) -> tuple[dict[str, Presence], list[str]]:
        ordered = sorted(accounts)
        answers = await asyncio.gather(*(self.directory.presence(each) for each in ordered), return_exceptions=True)
        known: dict[str, Presence] = {}
        unproven: list[str] = []
        for account, answer in zip(ordered, answers, strict=True):
            if isinstance(answer, Exception):
                told = self._told(answer, account)
                unproven.append(f"orphans: whether {account} is gone cannot be told, its secrets stay ({told})")
            elif isinstance(answer, BaseException):
                raise answer
            else:
                known[account] = answer
        return known, unproven

    async def _judge(self, ref: ItemRef, presences: Mapping[str, Presence]) -> Change | None:
        if ref.account not in presences:
            return None
        try:
            stored = await self.targets[ref.vault].read(ref.secret)
        except Exception as error:  # noqa: BLE001  # one secret's failure is one secret's
            record = self._record(error, ref.vault)
            return Change(ref, "failed", "orphaned", reason=record.summary, error=record, managed=True)
        tags = stored.tags if isinstance(stored, (StoredSecret, Disabled)) else None
        if tags is None or not is_ours_for(tags, ref, self.owner):
            return None
        streak = self.streaks.of(ref.account) if self.streaks is not None else None
        change = removal(ref, stored, self.mode, presences[ref.account], streak)
        if change is None:
            return None
        if ref.vault in self.read_only or fold(ref.account) in self.read_only_accounts:
            return replace(change, held=None, read_only=True)
        return replace(change, owner=self.owner)

    def _told(self, error: Exception, scope: str) -> str:
        return self._record(error, scope).summary

    def _record(self, error: Exception, scope: str) -> FailureRecord:
        if isinstance(error, CallFailed):
            return error.record
        return self.translator.record(error, operation="listSecrets", scope=scope)
