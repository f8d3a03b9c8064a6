"""The configuration: each key with its type, its default, its meaning and the reason for its default.

Everything uses these dataclasses. `keysync.config.load` reads a file into them; the JSON Schema takes the descriptions from
the docstrings. A rule about several keys of one mapping is its `__post_init__`; rules about several mappings are in
`keysync.config.load`. No module of the model imports pydantic, so that a daemon can hold the configuration without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from sys import intern
from typing import Annotated, Literal

from keysync.config import formats
from keysync.config.credentials import Cloud, Credential, DefaultCredential
from keysync.config.operation import ApiVersions, LeaderElection, Limits, Notify, Timeouts, VaultLimits
from keysync.config.rules import Invalid, Problem, Rule, Strict, length, missing, require_none, requiring, within
from keysync.names import fold

_USER_TAGS = 11  # a secret may have 15 tags, and keysync writes the others
_SOME_VAULT = requiring(bool, "one vault or more", "for example main: {url: https://kv-render.vault.azure.net}")
_NO_VAULTS = "remove `vaults` if `vaults_by_tag` is enough"


@dataclass(frozen=True, slots=True)
class Schedule(Strict):
    """When sync runs start: at intervals, or by a cron expression."""

    every: formats.Interval | None = None
    """The time between the starts of two runs, at least 1s. Default: 5m unless `cron` is set. A regenerated key
    replaces the old one at once, so this is the longest time that consumers are locked out."""
    jitter: formats.DurationOrZero = timedelta(0)
    """The longest random delay that is added to each start, so that several installations do not call Azure at
    once. 0s: no delay."""
    cron: Annotated[formats.Cron | None, Rule(schema={"examples": ["*/5 * * * *"]})] = None
    """A cron expression of five fields instead of `every`, as in crontab(5): 0 and 7 are Sunday, 1-5 is Monday to
    Friday. If both day and weekday are set, one match is enough."""
    timezone: Annotated[formats.Timezone | None, Rule(schema={"examples": ["Asia/Tokyo"]})] = None
    """The IANA time zone of `cron`. Default: UTC."""

    def __post_init__(self) -> None:
        """Sets the default of `every`. Raises Invalid for keys that exclude each other."""
        if self.every is None and self.cron is None:
            object.__setattr__(self, "every", timedelta(minutes=5))
        if self.every is not None and self.cron is not None:
            raise Invalid(Problem("found both every and cron, expected one of them", "remove one", ("cron",)))
        if self.timezone is not None and self.cron is None:
            raise Invalid(Problem("timezone is allowed with cron only", "remove it", ("timezone",)))


def _free_tags(tags: Mapping[str, str]) -> Mapping[str, str]:
    if len(tags) > _USER_TAGS:
        limit = f"at most {_USER_TAGS}: a secret can have 15, and keysync writes the others"
        raise Invalid(Problem(f"found {len(tags)} tags, expected {limit}"))
    reserved = [name for name in tags if re.match(r"managed-by$|keysync-", name, re.IGNORECASE)]
    require_none(Problem("this tag is reserved for keysync", "rename it", (name,)) for name in reserved)
    return tags


@dataclass(frozen=True, slots=True)
class Vault(Strict):
    """A Key Vault that keysync writes keys to."""

    url: formats.VaultUrl
    """Its URL, such as https://kv-render.vault.azure.net."""
    credential: Credential | None = None
    """Its credential. Default: the general credential."""
    verify_challenge_resource: bool = True
    """Whether the vault must request tokens for its own domain. True: otherwise a server could obtain a token for
    another domain. Set it to false only for a test double or a private name."""
    tags: Annotated[
        Mapping[formats.Text, Annotated[str, length(0, 256)]], Rule(_free_tags, {"maxProperties": _USER_TAGS})
    ] = field(default_factory=dict[str, str])
    """Tags for every secret in this vault, at most 11: a secret can have 15, and keysync needs the others.
    `managed-by` and `keysync-*` are reserved for keysync."""
    content_type: Annotated[str, length(0, 255)] | None = None
    """The content type of every secret in this vault, if a policy requires one."""
    expires_after: Annotated[formats.Duration | None, Rule(schema={"examples": ["90d"]})] = None
    """The time from the write of a secret in this vault to its expiry, if a policy requires one. keysync renews the
    expiry at half of that time, without a new version. Null: no expiry. Key Vault returns an expired secret as
    usual."""
    read_only: bool = False
    """Compare and report, but write nothing to this vault."""
    limits: VaultLimits | None = None
    """Limits of this vault. They override the general limits."""


@dataclass(frozen=True, slots=True)
class SecretNames(Strict):
    """The names of an account's secrets. {account}, {subscription_id} and {resource_group} are replaced."""

    primary: formats.NamePattern | None = "{account}-primary-key"
    """The secret for the primary key. Null: this key is not synced."""
    secondary: formats.NamePattern | None = "{account}-secondary-key"  # nosec B105  # a pattern of names
    """The secret for the secondary key. Null: this key is not synced."""

    def __post_init__(self) -> None:
        """Raises Invalid unless there is a name."""
        if not self.patterns():
            raise Invalid(Problem("primary and secondary are both null, so there is nothing to sync"))

    def patterns(self) -> dict[str, str]:
        """Key ("primary", "secondary") to pattern, for the keys that are synced."""
        patterns = {"primary": self.primary, "secondary": self.secondary}
        return {key: pattern for key, pattern in patterns.items() if pattern is not None}

    def render(self, account: str, *, subscription_id: str = "", resource_group: str = "") -> dict[str, str]:
        """Key ("primary", "secondary") to secret name, for the keys that are synced."""
        values = {"account": account, "subscription_id": subscription_id, "resource_group": resource_group}
        return {key: pattern.format_map(values) for key, pattern in self.patterns().items()}


@dataclass(frozen=True)
class Account(Strict):
    """A Batch account whose keys keysync syncs."""

    subscription_id: formats.Guid
    """Its subscription, a GUID."""
    resource_group: formats.ResourceGroup
    """Its resource group."""
    name: formats.AccountName
    """Its name: 3 to 24 letters and digits."""
    vaults: Annotated[tuple[str, ...], formats.NOT_EMPTY]
    """The vaults that receive its keys, by their names under `vaults`."""
    secrets: SecretNames = SecretNames()  # immutable, so all accounts can share it
    """The names of its secrets."""
    credential: Credential | None = None
    """Its credential. Default: the general credential."""
    schedule: Schedule | None = None
    """Replaces the whole general schedule. Default: the general schedule."""
    read_only: bool = False
    """Compare and report, but write nothing for this account."""
    adopt: bool | None = None
    """Overrides the general `adopt`. Default: the general `adopt`."""

    @cached_property
    def resource_id(self) -> str:
        """Its ARM id."""
        # Interned, since the tags of each of its secrets contain the same string.
        return intern(formats.batch_account_id(self.subscription_id, self.resource_group, self.name))

    @cached_property
    def key(self) -> str:
        """Its ARM id in lower case, so that two spellings of one account compare equal."""
        return fold(self.resource_id)

    def secret_names(self) -> dict[str, str]:
        """Key ("primary", "secondary") to secret name, for the keys that are synced."""
        return self.secrets.render(self.name, subscription_id=self.subscription_id, resource_group=self.resource_group)


def _with_valid_names(account: Account) -> Account:
    require_none(
        Problem(f"the name becomes {name!r}, expected 1 to 127 letters, digits and dashes", at=("secrets", key))
        for key, name in account.secret_names().items()
        if not re.fullmatch(formats.SECRET_NAME, name)
    )
    return account


@dataclass(frozen=True, slots=True)
class Discover(Strict):
    """Batch accounts that keysync finds by listing. An account under `accounts` overrides a discovered one. Set one of
    `subscription_id` and `subscriptions`, and at least one of `vaults` and `vaults_by_tag`."""

    subscription_id: formats.Guid | None = None
    """The subscription to list, a GUID."""
    subscriptions: tuple[formats.Guid, ...] = ()
    """Several subscriptions to list, GUIDs, instead of `subscription_id`."""
    resource_groups: tuple[formats.ResourceGroup, ...] = ()
    """Only these resource groups. Empty: the whole subscription."""
    name: formats.Text = "*"
    """Only accounts whose name matches, without regard to case. * matches any characters, ? matches one."""
    tags: Mapping[formats.Text, str] = field(default_factory=dict[str, str])
    """Only accounts with all of these tags. Names of tags are compared without regard to case, values with it."""
    exclude: tuple[formats.Text, ...] = ()
    """Excludes accounts whose name matches one of these patterns."""
    # The default is not validated, so an empty list here comes from the file.
    vaults: Annotated[tuple[str, ...], requiring(bool, "at least 1 in it", _NO_VAULTS, minItems=1)] = ()
    """The vaults that receive their keys, by their names under `vaults`. With `vaults_by_tag`: the vaults of
    accounts without that tag; if empty, such accounts are skipped."""
    vaults_by_tag: Annotated[formats.Text | None, Rule(schema={"examples": ["keysync-vault"]})] = None
    """A tag of the account that lists its vaults, by their names under `vaults`, separated by commas or spaces. An
    account whose tag names an unknown vault is refused. Everyone who may tag an account can then choose its
    vaults."""
    secrets: SecretNames = SecretNames()
    """The names of their secrets."""
    credential: Credential | None = None
    """The credential that lists them and reads their keys. Default: the general credential."""
    schedule: Schedule | None = None
    """Replaces the whole general schedule. Default: the general schedule."""
    read_only: bool = False
    """Compare and report, but write nothing for these accounts."""
    adopt: bool | None = None
    """Overrides the general `adopt`. Default: the general `adopt`."""
    every: formats.Interval | None = None
    """The time between two listings, at least 1s; `run` only. Null: lists at each run, so that the next run
    includes a new account."""
    via: Literal["list", "resource_graph"] = "list"
    """How to list them. list: by Batch management, one subscription or resource group at a time. resource_graph: by
    Azure Resource Graph, many subscriptions in one query; it may lag by minutes."""

    @property
    def scopes(self) -> tuple[str, ...]:
        """The subscriptions to list."""
        return self.subscriptions if self.subscription_id is None else (self.subscription_id,)

    def __post_init__(self) -> None:
        """Raises Invalid for keys that exclude or need each other, and for names that would not differ by account."""
        require_none([*self._subscription_problems(), *self._name_problems()])

    def _subscription_problems(self) -> Iterator[Problem]:
        if self.subscription_id is None and not self.subscriptions:
            yield missing("subscription_id")
        if self.subscription_id is not None and self.subscriptions:
            message = "found both subscription_id and subscriptions, expected one of them"
            yield Problem(message, "remove one", ("subscriptions",))
        for index, subscription in enumerate(self.subscriptions):
            if subscription in self.subscriptions[:index]:
                yield Problem("this subscription is listed twice", "remove one", ("subscriptions", index))
        if not self.vaults and self.vaults_by_tag is None:
            yield missing("vaults")

    def _name_problems(self) -> Iterator[Problem]:
        patterns = self.secrets.patterns()
        for key, pattern in patterns.items():
            if "{account}" not in pattern:
                message = "a pattern with {account}, since otherwise all discovered accounts would write one secret"
                yield Problem(message, at=("secrets", key), is_expectation=True)
        # A vault compares names without regard to case.
        if len(patterns) > len({fold(pattern) for pattern in patterns.values()}):
            message = "both keys of each discovered account would be written to one secret"
            yield Problem(message, "give the two keys different names", ("secrets", "secondary"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(Strict):
    """The configuration of keysync: which Batch accounts are synced to which vaults, and with which limits."""

    cloud: Cloud = "public"
    """public, usgovernment, china, or a mapping of endpoints."""
    credential: Credential = field(default_factory=DefaultCredential)
    """How keysync signs in. A vault or an account can have its own."""
    schedule: Schedule = Schedule()
    """When sync runs start; `run` only."""
    vaults: Annotated[
        Mapping[formats.VaultName, Vault], Rule(parse=_SOME_VAULT.check), Rule(schema={"minProperties": 1})
    ]
    """The vaults, each under a name that you choose."""
    accounts: tuple[Annotated[Account, Rule(_with_valid_names)], ...] = ()
    """The accounts to sync."""
    discover: tuple[Discover, ...] = ()
    """Accounts that keysync finds by listing subscriptions."""
    owner: formats.Text | None = None
    """A name for this installation. keysync writes it as a tag, so that two installations do not overwrite each
    other's secrets."""
    read_only: bool = False
    """Compare and report, but write nothing. KEYSYNC_READ_ONLY overrides this key."""
    adopt: bool = False
    """Whether to take over an unmanaged secret whose value already matches. False: another tool may own it."""
    recover: Literal["report", "owned"] = "report"
    """What to do if a soft-deleted secret has the name. report: report it. owned: recover it if keysync manages it.
    The default is report, since it may have been deleted on purpose."""
    disabled: Literal["report", "enable"] = "report"
    """What to do with a managed secret that is disabled: report it or enable it. The default is report, since it
    may have been disabled on purpose."""
    orphans: Literal["keep", "disable", "delete"] = "keep"
    """What to do with managed secrets whose account or mapping is gone. The default is keep, since consumers may
    still read them. disable and delete require `owner`."""
    limits: Limits = field(default_factory=Limits)
    """How much one run may change in one vault."""
    timeouts: Timeouts = field(default_factory=Timeouts)
    """Time limits."""
    verify_every: formats.Duration | None = timedelta(hours=1)
    """How often `run` reads a stored value again although the listing of its vault shows no change. Null: it reads
    every value in each run and lists no vault."""
    concurrency: Annotated[formats.Integer, within(1, 1024)] = 64
    """Accounts processed at once, divided among the subscriptions, and secrets read at once, divided among the
    vaults; at least four each. 64: a higher value makes a run no faster."""
    listen: formats.Listen = formats.DEFAULT_LISTEN
    """The address where `run` serves its status page, probes and metrics. The default is reachable from this
    machine only."""
    notify: Notify | None = None
    """A webhook for changes, failures and stops; `run` only. Null: none."""
    leader_election: LeaderElection | None = None
    """Several replicas on Kubernetes of which one works; `run` only. Null: no election."""
    api_versions: ApiVersions = field(default_factory=ApiVersions)
    """Versions of Azure APIs to pin."""
