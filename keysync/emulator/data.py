"""The initial content of the emulator: the models of the data file, and a small sample."""

from __future__ import annotations

import base64
import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Literal, Self, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from keysync.emulator.challenge_data import ChallengeData
from keysync.emulator.faults import (
    AccountOperation,
    BatchOperation,
    Fault,
    FaultName,
    VaultOperation,
    invalid,
    unknown_operation,
)
from keysync.emulator.identity_data import (
    GUID,
    AccessPolicyData,
    DenyAssignmentData,
    IdentityData,
    RoleDefinitionData,
)
from keysync.emulator.queue_data import QueueData
from keysync.emulator.vault_versions import VERSIONS

TENANT_ID = "7e000000-0000-4000-8000-00000000007e"
CLIENT_ID = "c1000000-0000-4000-8000-0000000000c1"
OBJECT_ID = "0b000000-0000-4000-8000-00000000000b"
"""Object id of the service principal, in tokens and in messages about missing roles."""

THROTTLED = (
    "Operation 'Microsoft.Batch/batchAccounts/listKeys/action' failed as server encountered too many requests. Please try "
    "after '1' seconds. Tracking Id is '5b8e0000-0000-4000-8000-0000000005b8'."
)
"""The message of a provider that throttles, from a real reply."""

SUBSCRIPTION_ID = "5b000000-0000-4000-8000-000000000001"
RESOURCE_GROUP = "rg-render"
"""Of the sample, and of vaults in data without accounts."""

_DECADE = 10 * 366 * 86_400
"""Ten years in seconds: clocks that are further off are no case of interest."""

LockLevel = Literal["ReadOnly", "CanNotDelete"]
PublicNetworkAccess = Literal["Enabled", "Disabled", "SecuredByPerimeter"]
Network = Literal["open", "firewall", "private"]
AuthenticationMode = Literal["SharedKey", "AAD", "TaskAuthenticationToken"]


def _check_denied(names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise unknown_operation(name, known)


def new_account_key() -> str:
    """A new key in the form of Batch's keys: 64 random bytes in base64."""
    return base64.b64encode(secrets.token_bytes(64)).decode("ascii")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SubscriptionData(_Model):
    """A subscription. In the states Disabled and Warned it is read-only.

    `unregistered` lists namespaces of providers, such as Microsoft.Batch. `providers_blocked` is the state of an offer that
    does not permit operations of any provider.
    """

    id: str = Field(pattern=GUID)
    name: str | None = None
    state: Literal["Enabled", "Warned", "PastDue", "Disabled", "Deleted"] = "Enabled"
    unregistered: list[str] = []
    providers_blocked: bool = False


class ResourceGroupData(_Model):
    """A resource group. Those of accounts and vaults need no entry."""

    subscription_id: str = Field(pattern=GUID)
    name: str = Field(min_length=1, max_length=90)
    location: str = "westeurope"
    tags: dict[str, str] = {}


class LockData(_Model):
    """A lock on an ARM id: of a subscription, a resource group or a resource."""

    scope: str = Field(pattern=r"^/subscriptions/")
    level: LockLevel


class AccountData(_Model):
    """One Batch account. `denied` is true to deny the key actions, or a list of operations to deny.

    `key_delay` is the number of seconds for which the data plane still accepts a key that was replaced. `jobs` and `pools`
    are the ids of what the data plane lists. `deleted`: deleted a moment ago, so that Resource Manager still knows the
    account, and Batch does not.
    """

    subscription_id: str = Field(pattern=GUID)
    resource_group: str = Field(min_length=1, max_length=90)
    name: str = Field(pattern=r"^[0-9a-zA-Z]{3,24}$")
    location: str = "westeurope"
    tags: dict[str, str] = {}
    allowed_authentication_modes: list[AuthenticationMode] = ["SharedKey", "AAD", "TaskAuthenticationToken"]
    pool_allocation_mode: Literal["BatchService", "UserSubscription"] = "BatchService"
    provisioning_state: Literal["Succeeded", "Creating", "Deleting", "Failed", "Cancelled", "Invalid"] = "Succeeded"
    lock: LockLevel | None = None
    public_network_access: PublicNetworkAccess = "Enabled"
    deleted: bool = False
    denied: bool | list[str] = False
    tenant_id: str | None = None
    primary: str = Field(default_factory=new_account_key)
    secondary: str = Field(default_factory=new_account_key)
    key_delay: float = Field(default=0.0, ge=0)
    jobs: list[str] = []
    pools: list[str] = []
    fault: FaultName | dict[str, object] | None = None

    @field_validator("denied")
    @classmethod
    def _are_operations(cls, denied: bool | list[str]) -> bool | list[str]:
        _check_denied(
            denied if isinstance(denied, list) else (), (*get_args(AccountOperation), *get_args(BatchOperation))
        )
        return denied

    @field_validator("fault")
    @classmethod
    def _is_a_fault(cls, fault: FaultName | dict[str, object] | None) -> FaultName | dict[str, object] | None:
        if isinstance(fault, dict):
            Fault.model_validate(fault)
        return fault

    def targeted_fault(self) -> Fault | None:
        """The account's fault as a `Fault` that targets it, None if the fault is a property of the account."""
        if self.fault == "throttled":
            fields: dict[str, object] = {
                "status": 429,
                "code": "ResourceCollectionRequestsThrottled",
                "message": THROTTLED,
                "retry_after": "1",
            }
        elif self.fault == "hang":
            fields = {"kind": "hang"}
        elif isinstance(self.fault, Mapping):
            fields = dict(self.fault)
        else:
            return None
        return Fault.model_validate({"operation": "listKeys", **fields, "target": self.name})


class SecretData(_Model):
    """One secret with its latest version. `created` and `updated` are seconds since 1970.

    `managed`: a certificate owns the secret. `previous_version` is shown in the api-versions that know it.
    """

    name: str = Field(pattern=r"^[0-9a-zA-Z-]{1,127}$")
    value: str = ""
    content_type: str | None = None
    tags: dict[str, str] = {}
    enabled: bool = True
    managed: bool = False
    not_before: int | None = None
    expires: int | None = None
    created: int | None = None
    updated: int | None = None
    previous_version: str | None = None


class PolicyData(_Model):
    """An Azure Policy for secrets that are set or updated. `max_validity_days` applies to secrets with an expiry only."""

    content_type_required: bool = False
    expiry_required: bool = False
    max_validity_days: int | None = Field(default=None, ge=1)


class VaultSettings(_Model):
    """What may be changed in a vault while it is served.

    `read_only` is the state of a vault after a failover to the paired region: it serves reads and refuses changes.
    `api_versions` replaces the supported versions, as in a cloud with older ones. `network`: ``firewall`` admits no
    client, ``private`` admits private links only, which the emulator has not.

    Deleted secrets are kept for `retention_days`, and cannot be purged with `purge_protection`. `protected_subscription`
    says that the subscription cannot be cancelled. Without `soft_delete`, as in vaults of before 2025, a deletion is final.

    `recover_delay` and `delete_delay` are the seconds until a recovery or a deletion is visible. After a write, the next
    `stale_reads` GETs of a secret, or those of the next `stale_seconds`, return it as it was before. With `empty_page`
    each list begins with an empty page. `clock_offset` is the number of seconds that the vault's clock is ahead.
    """

    policy: PolicyData | None = None
    read_only: bool = False
    api_versions: list[str] | None = None
    challenge: ChallengeData = ChallengeData()
    network: Network = "open"
    soft_delete: bool = True
    retention_days: int = Field(default=90, ge=7, le=90)
    purge_protection: bool = False
    protected_subscription: bool = False
    recover_delay: float = Field(default=10.0, ge=0)
    delete_delay: float = Field(default=10.0, ge=0)
    stale_reads: int = Field(default=0, ge=0)
    stale_seconds: float = Field(default=0.0, ge=0)
    empty_page: bool = False
    clock_offset: float = Field(default=0.0, ge=-_DECADE, le=_DECADE)

    @field_validator("api_versions")
    @classmethod
    def _are_versions(cls, versions: list[str] | None) -> list[str] | None:
        for version in versions or ():
            if version not in VERSIONS:
                raise invalid(f"{version!r} is no api-version of Key Vault", f"there are {', '.join(VERSIONS)}")
        return versions


class VaultData(VaultSettings):
    """One vault. `deleted` lists soft-deleted secrets; `denied` names operations that no role allows.

    With `access_policies` the vault has access policies instead of roles, and denies in their wording: ``true`` allows
    every identity everything. The subscription and the resource group are those of the first account by default.
    """

    name: str = Field(pattern=r"^[0-9a-zA-Z-]{3,24}$")
    subscription_id: str | None = Field(default=None, pattern=GUID)
    resource_group: str | None = Field(default=None, min_length=1, max_length=90)
    location: str = "westeurope"
    tags: dict[str, str] = {}
    tenant_id: str | None = None
    secrets: list[SecretData] = []
    deleted: list[SecretData] = []
    denied: list[str] = []
    access_policies: bool | list[AccessPolicyData] = False

    @field_validator("denied")
    @classmethod
    def _are_operations(cls, denied: list[str]) -> list[str]:
        _check_denied(denied, get_args(VaultOperation))
        return denied


class EmulatorData(_Model):
    """The initial content. The default `client_secret` is random.

    Without `identities` there are an application (`client_id`, `client_secret`) and a user that may do everything. A change of
    a role assignment is felt after `role_delay` seconds. `token_lifetime` is in seconds; `refresh_in` says after how many
    seconds a client should replace a token, by default half of a lifetime of two hours or more, as Entra does.

    An entry of `subscriptions` may be an id alone. `api_versions` replaces the supported ones of a provider, such as
    Microsoft.Batch, as in a cloud with older ones. `page_size` is the number of items on a page of Resource Manager,
    `graph_page_size` the most rows on a page of Resource Graph.
    """

    tenant_id: str = TENANT_ID
    client_id: str = CLIENT_ID
    client_secret: str = Field(default_factory=lambda: secrets.token_urlsafe(30))
    token_lifetime: int = Field(default=3600, ge=1)
    refresh_in: int | None = Field(default=None, ge=1)
    role_delay: float = Field(default=5.0, ge=0)
    identities: list[IdentityData] = []
    role_definitions: list[RoleDefinitionData] = []
    deny_assignments: list[DenyAssignmentData] = []
    page_size: int = Field(default=50, ge=1)
    graph_page_size: int = Field(default=1000, ge=1, le=1000)
    subscriptions: list[SubscriptionData] = []
    resource_groups: list[ResourceGroupData] = []
    api_versions: dict[str, list[str]] = {}
    locks: list[LockData] = []
    accounts: list[AccountData] = []
    vaults: list[VaultData] = []
    queues: list[QueueData] = []
    faults: list[Fault] = []

    @field_validator("subscriptions", mode="before")
    @classmethod
    def _may_be_ids(cls, subscriptions: object) -> object:
        if not isinstance(subscriptions, list):
            return subscriptions
        entries = cast("list[object]", subscriptions)
        return [{"id": entry} if isinstance(entry, str) else entry for entry in entries]

    @model_validator(mode="after")
    def _resources_have_a_place(self) -> Self:
        first = self.accounts[0] if self.accounts else None
        placed: list[VaultData | QueueData] = [*self.vaults, *self.queues]
        for each in placed:
            if each.subscription_id is None:
                known = (*(subscription.id for subscription in self.subscriptions), SUBSCRIPTION_ID)[0]
                each.subscription_id = first.subscription_id if first is not None else known
            if each.resource_group is None:
                each.resource_group = first.resource_group if first is not None else RESOURCE_GROUP
        return self

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        from keysync.config.rules import require_none  # noqa: PLC0415  # slow to import, like the checks
        from keysync.emulator.identity_checks import reference_problems  # noqa: PLC0415  # as above

        require_none(reference_problems(self))
        return self

    @property
    def principals(self) -> list[IdentityData]:
        """All identities: those of the data, or else an application and a user that may do everything."""
        if self.identities:
            return self.identities
        application = IdentityData(
            name="keysync",
            client_id=self.client_id,
            object_id=OBJECT_ID,
            client_secret=self.client_secret,
            unrestricted=True,
            any_assertion=True,
        )
        return [application, IdentityData(name="user@keysync.localhost", type="user", unrestricted=True)]

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [
            *(
                f"account {account.subscription_id}/{account.resource_group}/{account.name}"
                for account in self.accounts
            ),
            *(f"vault {vault.name}" for vault in self.vaults),
            *(
                f"secret {vault.name}/{secret.name}"
                for vault in self.vaults
                for secret in (*vault.secrets, *vault.deleted)
            ),
            *(f"queue {queue.name}" for queue in self.queues),
        ]
        duplicates = [name for name, times in Counter(name.lower() for name in names).items() if times > 1]
        if duplicates:
            from keysync.config.rules import Invalid, Problem  # noqa: PLC0415  # needed only for an error

            message = f"found twice: {', '.join(duplicates)}"
            raise Invalid(Problem(message, "names are compared without regard to case"))
        return self

    @classmethod
    def sample(cls) -> EmulatorData:
        """Three accounts in two subscriptions, two vaults, and a queue for events."""
        first, second = SUBSCRIPTION_ID, "5b000000-0000-4000-8000-000000000002"
        return cls(
            accounts=[
                AccountData(subscription_id=first, resource_group=RESOURCE_GROUP, name="renderwest"),
                AccountData(
                    subscription_id=first, resource_group=RESOURCE_GROUP, name="rendernorth", location="northeurope"
                ),
                AccountData(subscription_id=second, resource_group="rg-genome", name="genomewest"),
            ],
            vaults=[VaultData(name="kv-render"), VaultData(name="kv-genome")],
            queues=[QueueData(name="key-events")],
        )


def load_data(path: Path, environ: Mapping[str, str]) -> EmulatorData:
    """Read a data file. Raises `keysync.errors.ConfigError` with every error in it."""
    from keysync.config.validate import load_document  # noqa: PLC0415  # the YAML parser is slow to import

    return load_document(path, EmulatorData, environ=environ)
