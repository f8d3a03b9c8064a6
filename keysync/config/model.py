"""The checked configuration as plain dataclasses. `keysync.config.models` defines and checks the file format.

This module imports no library, to save memory: a daemon keeps the configuration while it runs, with an `Account` for each of
many thousands, and needs the libraries that read and check a file only to read one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from sys import intern
from typing import Literal, TypeAlias

from keysync.config.formats import batch_account_id, render_name, split_listen
from keysync.files import secret_text
from keysync.names import fold


@dataclass(frozen=True, slots=True)
class CloudMapping:
    """A cloud without a name in keysync, by the endpoints of its services."""

    authority: str
    resource_manager: str
    resource_manager_scope: str | None
    ca_bundle: Path | None


Cloud: TypeAlias = Literal["public", "usgovernment", "china"] | CloudMapping
"""A cloud by its name or by its endpoints."""


@dataclass(frozen=True, slots=True)
class EnvironmentVariable:
    """The environment variable that holds a secret, so that the configuration contains only its name."""

    name: str

    def read(self) -> str:
        """The current value, empty if the variable is not set. Callers wrap it in a `SecretValue` at once."""
        return secret_text(os.environ.get(self.name, ""))


@dataclass(frozen=True, slots=True)
class DefaultCredential:
    """DefaultAzureCredential of azure-identity."""

    type: Literal["default"] = "default"


@dataclass(frozen=True, slots=True)
class EnvironmentCredential:
    """A service principal from the AZURE_* variables."""

    type: Literal["environment"] = "environment"


@dataclass(frozen=True, slots=True)
class WorkloadIdentityCredential:
    """The federated token of a Kubernetes service account. Fields that are None come from the AZURE_* variables."""

    tenant_id: str | None
    client_id: str | None
    token_file: Path | None
    type: Literal["workload_identity"] = "workload_identity"


@dataclass(frozen=True, slots=True)
class ManagedIdentityCredential:
    """The managed identity of the machine: the system-assigned one if `client_id` is None."""

    client_id: str | None
    type: Literal["managed_identity"] = "managed_identity"


@dataclass(frozen=True, slots=True)
class ClientSecretCredential:
    """A service principal with a client secret, from a file or an environment variable."""

    tenant_id: str
    client_id: str
    client_secret_file: Path | None
    client_secret: EnvironmentVariable | None
    type: Literal["client_secret"] = "client_secret"  # nosec B105  # the name of a kind


@dataclass(frozen=True, slots=True)
class ClientCertificateCredential:
    """A service principal with a certificate and its private key."""

    tenant_id: str
    client_id: str
    certificate_file: Path
    password_file: Path | None
    type: Literal["client_certificate"] = "client_certificate"


@dataclass(frozen=True, slots=True)
class AzureCliCredential:
    """The account that is signed in with `az login`."""

    tenant_id: str | None
    type: Literal["azure_cli"] = "azure_cli"


Credential: TypeAlias = (
    DefaultCredential
    | EnvironmentCredential
    | WorkloadIdentityCredential
    | ManagedIdentityCredential
    | ClientSecretCredential
    | ClientCertificateCredential
    | AzureCliCredential
)
"""How keysync signs in."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When sync runs start. One of `every` and `cron` is set; `jitter` is the longest random delay of a start."""

    every: timedelta | None = None
    jitter: timedelta = timedelta(0)
    cron: str | None = None
    timezone: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one run may change in a vault. `changes_per_day` limits one secret; None is no limit."""

    update_percent: int
    creates: int
    removal_percent: int
    changes_per_day: int | None


@dataclass(frozen=True, slots=True)
class VaultLimits:
    """The limits that one vault overrides; None is the general limit."""

    update_percent: int | None
    creates: int | None
    removal_percent: int | None
    changes_per_day: int | None


@dataclass(frozen=True, slots=True)
class Vault:
    """A Key Vault that keysync writes keys to."""

    url: str
    credential: Credential | None
    verify_challenge_resource: bool
    tags: Mapping[str, str]
    content_type: str | None
    expires_after: timedelta | None
    read_only: bool
    limits: VaultLimits | None


@dataclass(frozen=True, slots=True)
class SecretNames:
    """Patterns for the names of an account's secrets. A key whose pattern is None is not synced."""

    primary: str | None = "{account}-primary-key"
    secondary: str | None = "{account}-secondary-key"  # nosec B105  # a pattern of names

    def patterns(self) -> dict[str, str]:
        """Key ("primary", "secondary") to pattern, for the keys that are synced."""
        patterns = {"primary": self.primary, "secondary": self.secondary}
        return {key: pattern for key, pattern in patterns.items() if pattern is not None}

    def render(self, account: str, *, subscription_id: str = "", resource_group: str = "") -> dict[str, str]:
        """Key ("primary", "secondary") to secret name, for the keys that are synced."""
        values = {"account": account, "subscription_id": subscription_id, "resource_group": resource_group}
        return {key: render_name(pattern, values) for key, pattern in self.patterns().items()}


@dataclass(frozen=True, slots=True)
class Account:
    """A Batch account whose keys keysync syncs. Fields that are None have the value of the general configuration.

    `resource_id` is its ARM id. `key` is the same in lower case, so that two spellings of one account compare equal. Both are
    computed once, since each run uses them for thousands of accounts.
    """

    subscription_id: str
    resource_group: str
    name: str
    vaults: tuple[str, ...]
    secrets: SecretNames = SecretNames()  # immutable, so all accounts can share it
    credential: Credential | None = None
    schedule: Schedule | None = None
    read_only: bool = False
    adopt: bool | None = None
    resource_id: str = field(init=False, compare=False, repr=False)
    key: str = field(init=False, compare=False, repr=False)
    _names: tuple[str | None, str | None] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Computes the derived fields."""
        resource_id = batch_account_id(self.subscription_id, self.resource_group, self.name)
        names = self.secrets.render(self.name, subscription_id=self.subscription_id, resource_group=self.resource_group)
        # Interned, since the tags of each secret of the account contain the same string.
        object.__setattr__(self, "resource_id", intern(resource_id))
        object.__setattr__(self, "key", fold(resource_id))
        object.__setattr__(self, "_names", (names.get("primary"), names.get("secondary")))

    def __reduce__(self) -> tuple[type[Account], tuple[object, ...]]:
        """Pickles the given fields only. Unpickling computes the derived fields, and shares their strings, again."""
        return Account, tuple(getattr(self, item.name) for item in fields(self) if item.init)

    def secret_names(self) -> dict[str, str]:
        """Key ("primary", "secondary") to secret name, for the keys that are synced."""
        names = zip(("primary", "secondary"), self._names, strict=True)
        return {key: name for key, name in names if name is not None}


@dataclass(frozen=True, slots=True)
class Discover:
    """Batch accounts that keysync finds by listing."""

    subscription_id: str | None
    subscriptions: tuple[str, ...]
    resource_groups: tuple[str, ...]
    name: str
    tags: Mapping[str, str]
    exclude: tuple[str, ...]
    vaults: tuple[str, ...]
    vaults_by_tag: str | None
    secrets: SecretNames
    credential: Credential | None
    schedule: Schedule | None
    read_only: bool
    adopt: bool | None
    every: timedelta | None
    via: Literal["list", "resource_graph"]

    @property
    def scopes(self) -> tuple[str, ...]:
        """The subscriptions to list."""
        return self.subscriptions if self.subscription_id is None else (self.subscription_id,)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time limits."""

    request: timedelta
    account: timedelta
    collect: timedelta
    shutdown: timedelta


NotifyEvent: TypeAlias = Literal["changed", "failed", "recovered", "stopped"]


@dataclass(frozen=True, slots=True)
class Notify:
    """A webhook for events. Its signing secret comes from a file or an environment variable."""

    url: str
    secret_file: Path | None
    secret: EnvironmentVariable | None
    events: tuple[NotifyEvent, ...]
    timeout: timedelta


@dataclass(frozen=True, slots=True)
class LeaderElection:
    """A Kubernetes Lease that lets one of several replicas work."""

    lease: str
    namespace: str | None
    identity: str | None
    lease_duration: timedelta
    renew_deadline: timedelta
    retry_period: timedelta


@dataclass(frozen=True, slots=True)
class ApiVersions:
    """Pinned versions of Azure APIs."""

    batch: str | None
    secrets: str | None


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration."""

    cloud: Cloud
    credential: Credential
    schedule: Schedule
    vaults: Mapping[str, Vault]
    accounts: tuple[Account, ...]
    discover: tuple[Discover, ...]
    owner: str | None
    read_only: bool
    adopt: bool
    recover: Literal["report", "owned"]
    disabled: Literal["report", "enable"]
    orphans: Literal["keep", "disable", "delete"]
    limits: Limits
    timeouts: Timeouts
    verify_every: timedelta | None
    concurrency: int
    listen: str
    notify: Notify | None
    leader_election: LeaderElection | None
    api_versions: ApiVersions

    @property
    def listen_host(self) -> str:
        """The address of `listen`, without brackets."""
        return split_listen(self.listen)[0]

    @property
    def listen_port(self) -> int:
        """The port of `listen`; 0 lets the system choose one."""
        return split_listen(self.listen)[1]
