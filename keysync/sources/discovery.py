"""Discovery: which accounts the entries of `discover` cover, each with its vaults and secret names."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from keysync.config.model import Account, Discover
from keysync.failures import FailureTranslator
from keysync.names import fold
from keysync.sources.arm_id import AccountId
from keysync.sources.conflicts import duplicates, has_duplicate, refuse_conflicts, secret_numbers
from keysync.sources.discovered_account import DiscoveredAccount, Traits
from keysync.sources.filters import SkippedAccount, apply_entry, destination
from keysync.sources.list_scopes import EntryScope, Problem, ScopeListings
from keysync.sources.listing import AccountLister, ListedAccount
from keysync.sources.other_shards import OtherShardSecrets
from keysync.sources.unserved_accounts import Unserved, UnservedAccounts


@dataclass(frozen=True, slots=True)
class DiscoveryResult:
    """The accounts that the entries cover in the shard of this process, without those under `accounts`.

    `entries` has the index of each account's entry, in the order of `accounts`. If not `complete`, accounts may be missing, and
    none counts as gone. `warnings` concern filters without a match. `others` are the secrets of other shards' accounts,
    including those under `accounts`. `unserved` are accounts that were covered within the last day and no longer are.
    """

    accounts: tuple[Account, ...] = ()
    skipped: tuple[SkippedAccount, ...] = ()
    complete: bool = True
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    entries: tuple[int, ...] = ()
    others: OtherShardSecrets = field(default_factory=OtherShardSecrets)
    unserved: tuple[Unserved, ...] = ()

    @property
    def origins(self) -> Mapping[str, int]:
        """The index of each discovered account's entry, by ARM id."""
        discovered = self.accounts[len(self.accounts) - len(self.entries) :]
        return {account.resource_id: entry for account, entry in zip(discovered, self.entries, strict=True)}


class Discovery:
    """Lists the entries of `discover` at each call of `list`, and keeps the result while nothing changes; for one event loop.

    `listers` list accounts by the entries' `via`. `listed` are the accounts under `accounts`, which win over discovered ones.
    `vaults` maps the configured vaults' names to URLs. `mine` says by ARM id which accounts are in the shard of this process;
    it is called once for each account, and little is kept of the others. `keyless` is updated for each of `listed` that a
    listing shows (see `BatchAccount`). A listing takes at most `seconds`, with up to `concurrency` scopes at once. `monotonic`
    (seconds) is a parameter so that tests control time.
    """

    def __init__(
        self,
        entries: Sequence[Discover],
        listers: Mapping[str, AccountLister],
        translator: FailureTranslator,
        *,
        listed: Sequence[Account],
        vaults: Mapping[str, str],
        mine: Callable[[str], bool] = lambda _account: True,
        keyless: set[str] | None = None,
        seconds: float = 120.0,
        concurrency: int = 64,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._entries = tuple(entries)
        self._vaults = dict(vaults)
        self._mine = mine
        self._keyless = set[str]() if keyless is None else keyless
        self.listed = tuple(account for account in listed if mine(account.resource_id))
        """The accounts under `accounts` that are in the shard of this process."""
        own = {id(account) for account in self.listed}
        self._others = [self._secrets(account) for account in listed if id(account) not in own]
        # Without entries there are no conflicts: the configuration was checked.
        self._listed = [(account, self._secrets(account)) for account in listed] if entries else []
        self._listed_names = _names(listed) if entries else {}
        self._monotonic = monotonic
        self._listings = ScopeListings(
            self._entries,
            listers,
            translator,
            check=self._update_keyless,
            remember=self._remember,
            seconds=seconds,
            concurrency=concurrency,
            monotonic=monotonic,
        )
        self._used_tags = frozenset(fold(name) for entry in entries for name in _tags(entry))
        self._traits: dict[Traits, Traits] = {}
        self._result: DiscoveryResult | None = None
        self._unserved = UnservedAccounts()

    @property
    def others(self) -> OtherShardSecrets:
        """The secrets of the accounts under `accounts` that are in other shards."""
        return OtherShardSecrets(self._others)

    async def list(self) -> DiscoveryResult:
        """Lists the scopes that are due, and returns what is covered; never raises for a failure of Azure.

        An entry with `every` is due when that time has passed, or if its last listing was incomplete.
        """
        if await self._listings.refresh():
            self._result = None  # also after an exception below: an old result must not pass for a complete one
        if self._result is None:
            self._result = self._resolve()
            self._unserved.update(self._result.accounts, self._result.skipped, self._monotonic())
        return replace(
            self._result,
            complete=self._listings.complete,
            problems=tuple(self._listings.problems()),
            warnings=tuple(self._listings.warnings()),
            unserved=self._unserved.recent(self._monotonic()),
        )

    def inherit(self, earlier: Discovery) -> None:
        """Takes over the knowledge of an earlier configuration about unchanged entries.

        It counts until such an entry is listed again; all entries are due at once. Tags that only other entries use stay
        unknown until then. `earlier` must have the same shard.
        """
        self._listings.inherit(earlier._listings)
        self._result = None
        if earlier._result is not None:
            covered = zip(earlier._result.accounts, earlier._result.entries, strict=True)
            expected = [account for account, entry in covered if earlier._entries[entry] in self._entries]
            expected = [account for account in expected if not self._is_listed(account)]
            self._unserved.inherit(earlier._unserved, expected, remember=earlier._entries == self._entries)

    def _is_listed(self, account: Account) -> bool:
        return fold(account.name) in self._listed_names.get(_folder(account), ())

    def _update_keyless(self, account: ListedAccount) -> None:
        """Notes whether an account under `accounts` has usable keys."""
        if self._listed_names and account.id.folded_name in self._listed_names.get(account.id.folder, ()):
            if account.why_keyless is None:
                self._keyless.discard(fold(account.id.resource_id))
            else:
                self._keyless.add(fold(account.id.resource_id))

    def _remember(self, listed: ListedAccount, known: DiscoveredAccount | None, entry: int) -> DiscoveredAccount:
        """`known` if nothing changed, which saves work; else an account that keeps the spelling of the known id."""
        used = self._used_tags
        tags = tuple([item for item in listed.tags.items() if fold(item[0]) in used]) if used else ()
        traits = Traits(tags, listed.modes, listed.pool_mode, listed.state)
        if known is not None and known.traits == traits:
            return known
        traits = self._traits.setdefault(traits, traits)
        if known is None:
            id_ = listed.id
            account = DiscoveredAccount(id_.subscription, id_.group, id_.name, traits, self._mine(id_.resource_id))
        else:
            account = known.with_traits(traits)
        self._apply(account, entry)
        return account

    def _apply(self, account: DiscoveredAccount, entry: int) -> None:
        """Applies the entry to an account. For another shard's account, only its secrets are kept."""
        if account.entry == entry:
            return
        account.entry, account.secrets, account.result = entry, b"", None
        if account.mine:
            account.result = self._account(account)
            account.secrets = self._secrets(account.result) if isinstance(account.result, Account) else b""
        else:
            target = destination(account.listed, self._entries[entry], entry, self._vaults)
            if not isinstance(target, SkippedAccount):
                account.secrets = secret_numbers(target.vaults, target.names.values(), self._vaults)

    def _account(self, account: DiscoveredAccount) -> Account | SkippedAccount:
        return apply_entry(account.listed, self._entries[account.entry], account.entry, self._vaults)

    def _secrets(self, account: Account) -> bytes:
        return secret_numbers(account.vaults, account.secret_names().values(), self._vaults)

    def _resolve(self) -> DiscoveryResult:
        """All known accounts, each with its entry applied, without conflicts."""
        accounts = [*self._with_entries()]
        refused = self._refused(accounts)
        mine = [account for account in accounts if account.mine]
        covered = [
            (account, account.result)
            for account in mine
            if isinstance(account.result, Account) and account not in refused
        ]
        skipped = [account.result for account in mine if isinstance(account.result, SkippedAccount)]
        skipped += [reason for account, reason in refused.items() if account.mine]
        others = [account.secrets for account in accounts if not account.mine and account not in refused]
        self._traits = {account.traits: account.traits for account in accounts}
        return DiscoveryResult(
            accounts=tuple(result for _, result in covered),
            skipped=tuple(sorted(skipped, key=lambda account: fold(account.resource_id))),
            entries=tuple(account.entry for account, _ in covered),
            others=OtherShardSecrets([*self._others, *others]),
        )

    def _with_entries(self) -> Iterator[DiscoveredAccount]:
        """All accounts that are not under `accounts`, sorted by id; the first matching entry is applied to each.

        An earlier entry with an incomplete listing gets each account that it might have found. So a failure does not move an
        account to another entry's vaults.
        """
        by_folder: defaultdict[str, list[tuple[int, dict[str, DiscoveredAccount]]]] = defaultdict(list)
        for part, result in self._listings:
            for folder, names in result.accounts.items():
                by_folder[folder].append((part.entry, names))
        incomplete = [part for part, result in self._listings if not result.complete]
        earlier = {entry: [part for part in incomplete if part.entry < entry] for entry in range(len(self._entries))}
        for folder in sorted(by_folder):
            listed = self._listed_names.get(folder, ())
            for name in sorted(set[str]().union(*(names for _, names in by_folder[folder]))):
                if name not in listed:
                    entry, account = _first(name, by_folder[folder])
                    self._apply(account, _first_possible_entry(account, earlier[entry], entry))
                    yield account

    def _refused(self, accounts: Sequence[DiscoveredAccount]) -> Mapping[DiscoveredAccount, SkippedAccount]:
        """The `accounts` that would write a secret that another account writes."""
        twice = duplicates([*(secrets for _, secrets in self._listed), *(account.secrets for account in accounts)])
        if not twice:
            return {}
        listed = [account for account, secrets in self._listed if has_duplicate(secrets, twice)]
        candidates: dict[str, tuple[DiscoveredAccount, Account]] = {}
        for discovered in accounts:
            # Of other shards' accounts, only these are evaluated in full.
            result = (
                (discovered.result or self._account(discovered)) if has_duplicate(discovered.secrets, twice) else None
            )
            if isinstance(result, Account):
                candidates[result.resource_id] = discovered, result
        by_entry = [(discovered.entry, account) for discovered, account in candidates.values()]
        _, refused = refuse_conflicts(listed, by_entry, self._vaults)
        return {candidates[account.resource_id][0]: account for account in refused}


def _first_possible_entry(account: DiscoveredAccount, incomplete: Sequence[EntryScope], entry: int) -> int:
    """The entry of the first `incomplete` scope that might have found the account, else `entry`."""
    if not incomplete:
        return entry
    listed = account.listed
    possible = (part.entry for part in incomplete if part.scope.covers(listed.id) and part.filter.matches(listed))
    return next(possible, entry)


def _names(accounts: Sequence[Account]) -> dict[str, set[str]]:
    """The accounts' names in lower case, by `AccountId.folder`."""
    names: defaultdict[str, set[str]] = defaultdict(set)
    for account in accounts:
        names[_folder(account)].add(fold(account.name))
    return names


def _folder(account: Account) -> str:
    return AccountId(account.subscription_id, account.resource_group, account.name).folder


def _tags(entry: Discover) -> Iterator[str]:
    """The names of the tags that an entry uses."""
    yield from entry.tags
    if entry.vaults_by_tag is not None:
        yield entry.vaults_by_tag


def _first(name: str, by_entry: Sequence[tuple[int, dict[str, DiscoveredAccount]]]) -> tuple[int, DiscoveredAccount]:
    """The first entry that found the account of that name (there is one), and the account.

    The later entries' objects get the same spelling of the id, with no entry applied.
    """
    (entry, first), *later = [found for found in by_entry if name in found[1]]
    for _, names in later:
        names[name] = first[name].with_traits(names[name].traits)
    return entry, first[name]
