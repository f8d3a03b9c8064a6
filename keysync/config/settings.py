"""What a configuration means, for everything that works by it; `keysync.config.models` says how it is written, and checks it.

Plain data without a library: a daemon keeps it for as long as it runs, an `Account` for each of many thousands, and what reads and
checks a file is not needed any more once that is done.
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
    """A cloud that has no name here, by the origins of its services."""

    authority: str
    resource_manager: str
    resource_manager_scope: str | None
    ca_bundle: Path | None


Cloud: TypeAlias = Literal["public", "usgovernment", "china"] | CloudMapping
"""A cloud by its name, or by its addresses."""


@dataclass(frozen=True, slots=True)
class EnvironmentVariable:
    """A secret by the name of the variable that holds it, so that a configuration holds no secret."""

    name: str

    def read(self) -> str:
        """What it holds now, empty where it is not set; goes straight into a `SecretValue`."""
        return secret_text(os.environ.get(self.name, ""))


@dataclass(frozen=True, slots=True)
class DefaultCredential:
    """The chain of azure-identity."""

    type: Literal["default"] = "default"


@dataclass(frozen=True, slots=True)
class EnvironmentCredential:
    """A service principal from Azure's own variables."""

    type: Literal["environment"] = "environment"


@dataclass(frozen=True, slots=True)
class WorkloadIdentityCredential:
    """The federated token of a Kubernetes service account; what is None comes from Azure's own variables."""

    tenant_id: str | None
    client_id: str | None
    token_file: Path | None
    type: Literal["workload_identity"] = "workload_identity"


@dataclass(frozen=True, slots=True)
class ManagedIdentityCredential:
    """The identity of the machine; without `client_id` the system-assigned one."""

    client_id: str | None
    type: Literal["managed_identity"] = "managed_identity"


@dataclass(frozen=True, slots=True)
class ClientSecretCredential:
    """A service principal with a client secret, which is in one of the two places."""

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
    """Whoever is logged in with `az login`."""

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
"""How keysync proves who it is."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When runs start: one of `every` and `cron` is set; `jitter` is the most that is added to a start."""

    every: timedelta | None = None
    jitter: timedelta = timedelta(0)
    cron: str | None = None
    timezone: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one run may change in a vault; `changes_per_day` is about one secret."""

    update_percent: int
    creates: int
    removal_percent: int
    changes_per_day: int | None


@dataclass(frozen=True, slots=True)
class VaultLimits:
    """What of the limits is other in one vault."""

    update_percent: int | None
    creates: int | None
    removal_percent: int | None
    changes_per_day: int | None


@dataclass(frozen=True, slots=True)
class Vault:
    """A Key Vault that keys are written to."""

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
    """How the secrets of an account are named, by patterns; one that is None is left out."""

    primary: str | None = "{account}-primary-key"
    secondary: str | None = "{account}-secondary-key"  # nosec B105  # a pattern of names

    def patterns(self) -> dict[str, str]:
        """Key ("primary", "secondary") to pattern, without the keys that are left out."""
        both = {"primary": self.primary, "secondary": self.secondary}
        return {key: pattern for key, pattern in both.items() if pattern is not None}

    def render(self, account: str, *, subscription_id: str = "", resource_group: str = "") -> dict[str, str]:
        """Key ("primary", "secondary") to the name of its secret, without the keys that are left out."""
        values = {"account": account, "subscription_id": subscription_id, "resource_group": resource_group}
        return {key: render_name(pattern, values) for key, pattern in self.patterns().items()}


@dataclass(frozen=True, slots=True)
class Account:
    """A Batch account whose keys are kept in sync. What is None is said by the configuration in general.

    `resource_id` is the id that Azure Resource Manager knows it by, `key` the same in lower case: what two spellings of one account
    have in common. Both are made once, since thousands of accounts are asked for them in each run.
    """

    subscription_id: str
    resource_group: str
    name: str
    vaults: tuple[str, ...]
    secrets: SecretNames = SecretNames()  # it never changes
    credential: Credential | None = None
    schedule: Schedule | None = None
    read_only: bool = False
    adopt: bool | None = None
    resource_id: str = field(init=False, compare=False, repr=False)
    key: str = field(init=False, compare=False, repr=False)
    _names: tuple[str | None, str | None] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Makes what is made once."""
        resource_id = batch_account_id(self.subscription_id, self.resource_group, self.name)
        names = self.secrets.render(self.name, subscription_id=self.subscription_id, resource_group=self.resource_group)
        # The same string stands in the tags of each of its secrets.
        object.__setattr__(self, "resource_id", intern(resource_id))
        object.__setattr__(self, "key", fold(resource_id))
        object.__setattr__(self, "_names", (names.get("primary"), names.get("secondary")))

    def __reduce__(self) -> tuple[type[Account], tuple[object, ...]]:
        """As it was written: what is made of it is made, and shared, wherever it is read."""
        return Account, tuple(getattr(self, one.name) for one in fields(self) if one.init)

    def secret_names(self) -> dict[str, str]:
        """Key ("primary", "secondary") to the name of its secret, without the keys that are left out."""
        both = zip(("primary", "secondary"), self._names, strict=True)
        return {key: name for key, name in both if name is not None}


@dataclass(frozen=True, slots=True)
class Discover:
    """Batch accounts that are found by listing."""

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
    """How long things may take."""

    request: timedelta
    account: timedelta
    collect: timedelta
    shutdown: timedelta


NotifyEvent: TypeAlias = Literal["changed", "failed", "recovered", "stopped"]


@dataclass(frozen=True, slots=True)
class Notify:
    """A webhook that is told of changes; the secret that signs is in one of the two places."""

    url: str
    secret_file: Path | None
    secret: EnvironmentVariable | None
    events: tuple[NotifyEvent, ...]
    timeout: timedelta


@dataclass(frozen=True, slots=True)
class LeaderElection:
    """One of several replicas works, by a Lease of Kubernetes."""

    lease: str
    namespace: str | None
    identity: str | None
    lease_duration: timedelta
    renew_deadline: timedelta
    retry_period: timedelta


@dataclass(frozen=True, slots=True)
class ApiVersions:
    """Versions of Azure's interfaces that are pinned."""

    batch: str | None
    secrets: str | None


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration."""

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
