"""The configuration file as frozen models: every key, its meaning, its unit and why its default is what it is.

The descriptions go into the JSON Schema, which describes the file; `keysync.config.load` reads one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    ModelWrapValidatorHandler,
    PlainValidator,
    PrivateAttr,
    Tag,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from keysync.config import settings
from keysync.config.environment import FromEnvironment
from keysync.config.formats import DEFAULT_LISTEN, SECRET_NAME, nearest
from keysync.config.plain_values import is_list, is_mapping
from keysync.config.printable import Location
from keysync.config.types import (
    AccountName,
    Concurrency,
    Count,
    Duration,
    DurationOrZero,
    Guid,
    HttpsUrl,
    NamePattern,
    Percent,
    ResourceGroup,
    VaultName,
    VaultUrl,
    WebhookUrl,
    check_cron,
    check_listen,
    check_room,
    check_timezone,
    kind_of,
    reserved,
)
from keysync.config.validation_errors import LocatedError, combined, expected, missing, parts_of, problem
from keysync.names import fold

_T = TypeVar("_T")

_OWN_TAGS = 11  # of the 15 that a secret may have; the others are keysync's


class Strict(BaseModel):
    """What all models share: an unknown key is an error, nothing changes later, no value is in an error's text."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False, defer_build=True
    )

    def plain(self) -> Any:  # noqa: ANN401  # the class of the same name in `settings`
        """The same as an instance of the class of the same name in `settings`."""
        return _plain(self, {})


def _plain(value: object, known: dict[object, object]) -> Any:  # noqa: ANN401
    """Converts `value` to classes of `settings`. Equal results share one object, to save memory with thousands of accounts."""
    plain: Any
    if isinstance(value, Strict):
        kind = getattr(settings, type(value).__name__)
        plain = kind(**{name: _plain(getattr(value, name), known) for name in type(value).model_fields})
    elif is_mapping(value):
        return {name: _plain(item, known) for name, item in value.items()}
    elif is_list(value):
        plain = tuple(_plain(item, known) for item in value)
    else:
        plain = value
    try:
        return known.setdefault((plain.__class__, plain), plain)
    except TypeError:
        return plain  # objects that contain a mapping have no hash, and are few


def _list(value: object) -> object:
    # pydantic also takes sets and iterators for a tuple; a file has lists only.
    if is_list(value):
        return value
    raise expected("a list", "write [value]")


List = Annotated[tuple[_T, ...], BeforeValidator(_list)]
"""A list of the file, a tuple once read."""

Text = Annotated[str, Field(min_length=1, max_length=256)]
"""Text that is not empty."""

Identifier = Annotated[str, Field(pattern=r"^[0-9a-zA-Z._-]{1,256}$")]
"""The id of a tenant or of an application."""


class CloudMapping(Strict):
    """A cloud that has no name here, such as Azure Stack Hub or a test double."""

    authority: HttpsUrl = Field(description="Where tokens come from, such as https://login.microsoftonline.com.")
    resource_manager: HttpsUrl = Field(
        description="The endpoint of Azure Resource Manager, such as https://management.azure.com."
    )
    resource_manager_scope: Text | None = Field(
        default=None, description="The scope of its tokens. Unless set: its endpoint with /.default."
    )
    ca_bundle: Path | None = Field(
        default=None,
        description="A PEM file of certificate authorities to trust beside the system's. "
        "A relative path starts at the folder of this file.",
    )


def _cloud_kind(value: object) -> str:
    return "=mapping" if isinstance(value, (dict, CloudMapping)) else "=name"


Cloud = Annotated[
    Annotated[Literal["public", "usgovernment", "china"], Tag("=name")] | Annotated[CloudMapping, Tag("=mapping")],
    Discriminator(_cloud_kind),
]
"""A cloud by its name, or by its addresses."""


class DefaultCredential(Strict):
    """The chain of azure-identity: environment, workload identity, managed identity, developer tools."""

    type: Literal["default"] = Field(
        default="default", description="Tries what the machine offers; AZURE_TOKEN_CREDENTIALS narrows it."
    )


class EnvironmentCredential(Strict):
    """A service principal from AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET or their certificate kin."""

    type: Literal["environment"] = Field(description="Takes all of it from Azure's own AZURE_* variables.")


class WorkloadIdentityCredential(Strict):
    """The federated token of a Kubernetes service account."""

    type: Literal["workload_identity"] = Field(description="The token that Kubernetes mounts into the pod.")
    tenant_id: Identifier | None = Field(default=None, description="The tenant. Unless set: AZURE_TENANT_ID.")
    client_id: Identifier | None = Field(default=None, description="The application. Unless set: AZURE_CLIENT_ID.")
    token_file: Path | None = Field(
        default=None, description="The mounted token. Unless set: AZURE_FEDERATED_TOKEN_FILE."
    )


class ManagedIdentityCredential(Strict):
    """The identity of the machine that keysync runs on."""

    type: Literal["managed_identity"] = Field(description="The identity of the machine, the container or the app.")
    client_id: Identifier | None = Field(
        default=None, description="Which user-assigned identity. Unless set: the system-assigned one."
    )


_SECRET_REFUSED = "a secret never stands in the file itself"  # noqa: S105  # nosec B105  # a sentence about one
_SECRET_SCHEMA = {"type": "string", "pattern": r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$"}


def _from_environment(what: str, file_key: str) -> PlainValidator:
    """Lets `what` come from an environment variable only; `file_key` is the other way, for the hint."""

    def check(value: object) -> settings.EnvironmentVariable:
        if isinstance(value, settings.EnvironmentVariable):
            return value
        if not isinstance(value, FromEnvironment) or value.variable is None:
            raise problem(_SECRET_REFUSED, f"write ${{NAME}} for an environment variable, or use {file_key}")
        if value == "":
            raise problem(f"the environment variable is empty, expected {what}")
        return settings.EnvironmentVariable(value.variable)

    return PlainValidator(check)


ClientSecret = Annotated[
    settings.EnvironmentVariable,
    _from_environment("a client secret", "client_secret_file"),
    WithJsonSchema(_SECRET_SCHEMA),
]
"""A client secret that comes from an environment variable and from nowhere else."""

SigningSecret = Annotated[
    settings.EnvironmentVariable,
    _from_environment("a secret to sign with", "secret_file"),
    WithJsonSchema(_SECRET_SCHEMA),
]
"""A secret to sign with that comes from an environment variable and from nowhere else."""


class ClientSecretCredential(Strict):
    """A service principal with a client secret; exactly one of `client_secret_file` and `client_secret` is set."""

    type: Literal["client_secret"] = Field(description="A service principal with a client secret.")
    tenant_id: Identifier = Field(description="The tenant of the service principal.")
    client_id: Identifier = Field(description="The application of the service principal.")
    client_secret_file: Path | None = Field(default=None, description="A mounted file that holds the secret.")
    client_secret: ClientSecret | None = Field(
        default=None, description="${NAME} of an environment variable that holds the secret, never the secret itself."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.client_secret_file is None) == (self.client_secret is None):
            raise problem("expected exactly one of client_secret_file and client_secret")
        return self


class ClientCertificateCredential(Strict):
    """A service principal with a certificate and its private key in one file, PEM or PKCS#12."""

    type: Literal["client_certificate"] = Field(description="A service principal with a certificate.")
    tenant_id: Identifier = Field(description="The tenant of the service principal.")
    client_id: Identifier = Field(description="The application of the service principal.")
    certificate_file: Path = Field(description="A mounted file with certificate and private key, PEM or PKCS#12.")
    password_file: Path | None = Field(default=None, description="A mounted file with the password of the key.")


class AzureCliCredential(Strict):
    """Whoever is logged in with `az login`; for a workstation."""

    type: Literal["azure_cli"] = Field(description="Whoever is logged in with `az login`.")
    tenant_id: Identifier | None = Field(default=None, description="The tenant. Unless set: the one `az` is in.")


_CREDENTIALS = (
    "default",
    "environment",
    "workload_identity",
    "managed_identity",
    "client_secret",
    "client_certificate",
    "azure_cli",
)


def _known_credential(value: object) -> object:
    if not is_mapping(value):
        if isinstance(value, Strict):
            return value
        raise expected("a mapping such as {type: default}")
    if "type" not in value:
        raise combined([(("type",), missing())])
    kind = value["type"]
    if kind not in _CREDENTIALS:
        meant = nearest(kind, _CREDENTIALS) if isinstance(kind, str) else None
        hint = f"did you mean '{meant}'?" if meant else None
        raise combined([(("type",), expected("one of " + ", ".join(_CREDENTIALS), hint))])
    return value


def _credential_tag(value: object) -> str:
    return f"={kind_of(value)}"


Credential = Annotated[
    Annotated[DefaultCredential, Tag("=default")]
    | Annotated[EnvironmentCredential, Tag("=environment")]
    | Annotated[WorkloadIdentityCredential, Tag("=workload_identity")]
    | Annotated[ManagedIdentityCredential, Tag("=managed_identity")]
    | Annotated[ClientSecretCredential, Tag("=client_secret")]
    | Annotated[ClientCertificateCredential, Tag("=client_certificate")]
    | Annotated[AzureCliCredential, Tag("=azure_cli")],
    Discriminator(_credential_tag),
    BeforeValidator(_known_credential),
]
"""How keysync proves who it is, told apart by `type`."""


class Schedule(Strict):
    """When runs start: at intervals, or by a crontab."""

    every: Duration | None = Field(
        default=None,
        description="The time between the starts of two runs, at least 1s. 5m where no cron is given: a regenerated "
        "key kills the old one at once, so this is how long consumers are locked out at worst.",
    )
    jitter: DurationOrZero = Field(
        default=timedelta(0),
        description="Up to this much is added to each start at random, so that several installations do not call at "
        "once. 0s adds nothing.",
    )
    cron: str | None = Field(
        default=None,
        description="A crontab of five fields in place of `every`, as crontab(5) has them: 0 and 7 are Sunday, 1-5 is "
        "Monday to Friday, and where both day and weekday are set, either is enough.",
        examples=["*/5 * * * *"],
    )
    timezone: str | None = Field(
        default=None, description="The IANA time zone that `cron` is in. Unless set: UTC.", examples=["Asia/Tokyo"]
    )

    @model_validator(mode="before")
    @classmethod
    def _every_unless_cron(cls, data: object) -> object:
        if is_mapping(data) and data.get("every") is None and data.get("cron") is None:
            return {**data, "every": "5m"}
        return data

    @field_validator("every")
    @classmethod
    def _not_too_often(cls, value: timedelta | None) -> timedelta | None:
        if value is not None and value < timedelta(seconds=1):
            raise expected("a duration of 1s or more")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str | None) -> str | None:
        return value if value is None else check_timezone(value)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.every is not None and self.cron is not None:
            raise combined([(("cron",), problem("found both every and cron, expected one of them", "remove one"))])
        if self.timezone is not None and self.cron is None:
            raise combined([(("timezone",), problem("a time zone has a meaning with cron only", "remove it"))])
        if self.cron is not None:
            try:
                check_cron(self.cron)
            except PydanticCustomError as error:
                raise combined([(("cron",), error)]) from None
        return self


class Limits(Strict):
    """How much one run may change in one vault; beyond that nothing is written until somebody accepts the plan."""

    update_percent: Percent = Field(
        default=100,
        description="Percent of the secrets that we manage in a vault which one run may overwrite. 100: many keys "
        "regenerated at once is a normal day.",
    )
    creates: Count = Field(
        default=500,
        description="Secrets that one run may create in a vault. 500: a first run over a large estate fits, and a "
        "pattern that matches far too much does not.",
    )
    removal_percent: Percent = Field(
        default=10,
        description="Percent of the secrets that we manage in a vault which one run may disable or delete. 10: an "
        "account list that came back half empty stops here. One may always go, unless this is 0.",
    )
    changes_per_day: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=50,
        description="New versions of one secret in 24 hours, whoever made them, after which it is written no more. 50: "
        "rotation every half hour fits, and two tools that overwrite each other are stopped within hours. Null: any number.",
    )


class VaultLimits(Strict):
    """The limits of one vault; each that is set wins over the general one."""

    update_percent: Percent | None = Field(default=None, description="Percent that one run may overwrite.")
    creates: Count | None = Field(default=None, description="Secrets that one run may create.")
    removal_percent: Percent | None = Field(default=None, description="Percent that one run may disable or delete.")
    changes_per_day: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="New versions of one secret in 24 hours. Null: the general number."
    )


class Vault(Strict):
    """A Key Vault that keys are written to."""

    url: VaultUrl = Field(description="Its address, such as https://kv-render.vault.azure.net.")
    credential: Credential | None = Field(default=None, description="Unless set: the general credential.")
    verify_challenge_resource: bool = Field(
        default=True,
        description="Whether the vault must ask for tokens of its own domain. True: a token for another domain could "
        "be stolen. Only for a test double or a private name set it to false.",
    )
    tags: dict[Text, Annotated[str, Field(max_length=256)]] = Field(
        default_factory=dict,
        description="Tags for every secret written there, 11 at most: a secret has 15 and keysync needs some. "
        "`managed-by` and `keysync-*` are keysync's own.",
        json_schema_extra={"maxProperties": _OWN_TAGS, "default": {}},
    )
    content_type: Annotated[str, Field(max_length=255)] | None = Field(
        default=None, description="The content type of every secret written there, where a policy demands one."
    )
    expires_after: Duration | None = Field(
        default=None,
        description="How long after it was written a secret there expires, where a policy demands an expiry; renewed at half "
        "time, without a new version. Null: none is set. Key Vault serves an expired secret all the same.",
        examples=["90d"],
    )
    read_only: bool = Field(default=False, description="Observe and report, write nothing to this vault.")
    limits: VaultLimits | None = Field(default=None, description="Limits of this vault; they win.")

    @field_validator("tags")
    @classmethod
    def _free_tags(cls, value: dict[str, str]) -> dict[str, str]:
        check_room(value, _OWN_TAGS)
        taken = [name for name in value if reserved(name)]
        if taken:
            raise combined(
                ((name,), problem("keysync writes a tag of this name itself", "rename it")) for name in taken
            )
        return value


class SecretNames(Strict):
    """How the secrets of an account are named; {account}, {subscription_id} and {resource_group} are filled in."""

    primary: NamePattern | None = Field(
        default="{account}-primary-key", description="The secret of the primary key; null leaves that key out."
    )
    secondary: NamePattern | None = Field(
        default="{account}-secondary-key", description="The secret of the secondary key; null leaves that key out."
    )

    @model_validator(mode="after")
    def _one_at_least(self) -> Self:
        if self.primary is None and self.secondary is None:
            raise problem("primary and secondary are both null, so there is nothing to keep in sync")
        return self


VaultNames = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_list)]
"""Names of vaults, one at least."""


class Account(Strict):
    """A Batch account whose keys are kept in sync."""

    subscription_id: Guid = Field(description="Its subscription, a GUID.")
    resource_group: ResourceGroup = Field(description="Its resource group.")
    name: AccountName = Field(description="Its name: 3 to 24 letters and digits.")
    vaults: VaultNames = Field(description="The vaults that get its keys, by their names under `vaults`.")
    secrets: SecretNames = Field(default_factory=SecretNames, description="How its secrets are named.")
    credential: Credential | None = Field(default=None, description="Unless set: the general credential.")
    schedule: Schedule | None = Field(
        default=None, description="Takes the place of the whole general schedule. Unless set: the general one."
    )
    read_only: bool = Field(default=False, description="Observe and report, write nothing for this account.")
    adopt: bool | None = Field(default=None, description="Unless set: the general `adopt`.")

    @model_validator(mode="after")
    def _names_that_a_vault_takes(self) -> Self:
        wrong = [
            (("secrets", key), problem(f"it gives the name {name!r}, expected 1 to 127 letters, digits and dashes"))
            for key, name in self.plain().secret_names().items()
            if not re.fullmatch(SECRET_NAME, name)
        ]
        if wrong:
            raise combined(wrong)
        return self


class Discover(Strict):
    """Batch accounts that are found by listing; what is listed under `accounts` wins. One of `subscription_id` and
    `subscriptions` is set, and `vaults` unless `vaults_by_tag` is."""

    subscription_id: Guid | None = Field(default=None, description="The subscription to list, a GUID.")
    subscriptions: List[Guid] = Field(
        default=(), description="Several subscriptions to list, GUIDs, in place of `subscription_id`."
    )
    resource_groups: List[ResourceGroup] = Field(
        default=(), description="Only these groups. Empty: the whole subscription."
    )
    name: Text = Field(
        default="*",
        description="Only accounts whose name matches, without regard to case; * stands for any characters, ? for one.",
    )
    tags: dict[Text, str] = Field(
        default_factory=dict,
        description="Only accounts with all of these tags; the case of a tag's name does not count, that of its value does.",
        json_schema_extra={"default": {}},
    )
    exclude: List[Text] = Field(default=(), description="Never accounts whose name matches one of these.")
    vaults: Annotated[tuple[str, ...], BeforeValidator(_list)] = Field(
        default=(),
        description="The vaults that get their keys, by their names under `vaults`. With `vaults_by_tag`: those of "
        "accounts without that tag; unless set, such accounts are left out.",
        json_schema_extra={"minItems": 1},
    )
    vaults_by_tag: Text | None = Field(
        default=None,
        description="A tag of the account that names its vaults, by their names under `vaults`, with commas or spaces between. "
        "An account whose tag names an unknown vault is refused. Whoever may tag an account then chooses among the vaults.",
        examples=["keysync-vault"],
    )
    secrets: SecretNames = Field(default_factory=SecretNames, description="How their secrets are named.")
    credential: Credential | None = Field(
        default=None, description="Lists them and reads their keys. Unless set: the general credential."
    )
    schedule: Schedule | None = Field(
        default=None, description="Takes the place of the whole general schedule. Unless set: the general one."
    )
    read_only: bool = Field(default=False, description="Observe and report, write nothing for these accounts.")
    adopt: bool | None = Field(default=None, description="Unless set: the general `adopt`.")
    every: Duration | None = Field(
        default=None,
        description="The time between two listings, at least 1s; `run` only. Null: anew at each run, so that a new account is "
        "served by the next one.",
    )
    via: Literal["list", "resource_graph"] = Field(
        default="list",
        description="How they are listed: by Batch itself, one subscription or group at a time, or by Azure Resource Graph, "
        "many subscriptions in one query, which may lag by minutes and needs the extra resource-graph.",
    )

    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [
                {
                    "oneOf": [
                        {"required": ["subscription_id"], "properties": {"subscription_id": {"type": "string"}}},
                        {"required": ["subscriptions"], "properties": {"subscriptions": {"minItems": 1}}},
                    ]
                },
                {
                    "anyOf": [
                        {"required": ["vaults"]},
                        {"required": ["vaults_by_tag"], "properties": {"vaults_by_tag": {"type": "string"}}},
                    ]
                },
            ]
        }
    )

    @field_validator("every")
    @classmethod
    def _not_too_often(cls, value: timedelta | None) -> timedelta | None:
        if value is not None and value < timedelta(seconds=1):
            raise expected("a duration of 1s or more")
        return value

    @field_validator("vaults")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        # The default is not validated: what is empty here was written so.
        if not value:
            raise problem(
                "found no vault, expected one or more", "leave `vaults` out where `vaults_by_tag` says it all"
            )
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        found = [*self._scope_faults(), *self._vault_faults(), *self._name_faults()]
        if found:
            raise combined(found)
        return self

    def _scope_faults(self) -> Iterator[LocatedError]:
        if self.subscription_id is None and not self.subscriptions:
            yield ("subscription_id",), missing()
        if self.subscription_id is not None and self.subscriptions:
            yield (
                ("subscriptions",),
                problem("found both subscription_id and subscriptions, expected one of them", "remove one"),
            )
        for place, one in enumerate(self.subscriptions):
            if one in self.subscriptions[:place]:
                yield ("subscriptions", place), problem("this subscription stands here twice", "remove one")

    def _vault_faults(self) -> Iterator[LocatedError]:
        if not self.vaults and self.vaults_by_tag is None:
            yield ("vaults",), missing()

    def _name_faults(self) -> Iterator[LocatedError]:
        patterns = self.secrets.plain().patterns()
        for key, pattern in patterns.items():
            if "{account}" not in pattern:
                told = "a pattern with {account}, since all accounts found would write one secret"
                yield ("secrets", key), expected(told)
        # A vault compares names without case.
        if len(patterns) > len({fold(pattern) for pattern in patterns.values()}):
            told = "both keys of each account found would be written to one secret"
            yield ("secrets", "secondary"), problem(told, "give the two keys different names")


class Timeouts(Strict):
    """How long things may take."""

    request: Duration = Field(default=timedelta(seconds=30), description="One request to Azure, its answer included.")
    account: Duration = Field(
        default=timedelta(minutes=2), description="All of one account in one run, retries and waiting included."
    )
    collect: Duration = Field(
        default=timedelta(seconds=10),
        description="How long the limits wait for slow accounts before they are judged. Then each gives its place in `concurrency` to "
        "another, so at worst `concurrency` times `account` / `collect` are waited for at once.",
    )
    shutdown: Duration = Field(
        default=timedelta(seconds=10),
        description="How long writes in flight may go on after SIGTERM; below the 30 s that Kubernetes grants.",
    )


class Notify(Strict):
    """A webhook that is told of changes; exactly one of `secret_file` and `secret` is set."""

    url: WebhookUrl = Field(description="Where events are posted; https only, redirects are not followed.")
    secret_file: Path | None = Field(
        default=None, description="A mounted file with the secret that signs each request."
    )
    secret: SigningSecret | None = Field(
        default=None, description="${NAME} of an environment variable with that secret, never the secret itself."
    )
    events: Annotated[List[settings.NotifyEvent], Field(min_length=1)] = Field(
        default=("changed", "failed", "recovered", "stopped"),
        description="Which events are sent. `stopped` brings `released` with it, which tells its end.",
    )
    timeout: Duration = Field(
        default=timedelta(seconds=10),
        description="One request, its answer included. 10s: a receiver only has to store.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.secret_file is None) == (self.secret is None):
            raise problem("expected exactly one of secret_file and secret")
        return self


class LeaderElection(Strict):
    """One of several replicas of `run` works and the others stand by, by a Lease of Kubernetes; a standby takes over at
    most `lease_duration` and twice `retry_period` after the leader was lost."""

    lease: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?$")] = Field(
        default="keysync", description="The name of the Lease; a shard adds its number: keysync-0."
    )
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")] | None = Field(
        default=None, description="The namespace of the Lease. Null: the pod's own."
    )
    identity: Text | None = Field(
        default=None,
        description="A name that no other replica has. Null: HOSTNAME with something random, new with each start.",
    )
    lease_duration: Duration = Field(
        default=timedelta(seconds=10),
        description="How long others leave a leader alone that renews no more; whole seconds. 10s: with two tries that miss, "
        "a standby takes over within 15 s.",
    )
    renew_deadline: Duration = Field(
        default=timedelta(seconds=7),
        description="After this time without a renewal a leader begins no write; the rest of `lease_duration` is for those "
        "under way.",
    )
    retry_period: Duration = Field(
        default=timedelta(seconds=2),
        description="The time between two renewals, and between two looks of a standby; 1s or more.",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        found: list[LocatedError] = []
        if self.lease_duration % timedelta(seconds=1):
            found.append((("lease_duration",), expected("whole seconds")))
        if self.retry_period < timedelta(seconds=1):
            found.append((("retry_period",), expected("a duration of 1s or more")))
        if self.renew_deadline < self.retry_period * 1.5:
            found.append(
                (("renew_deadline",), expected("a renew_deadline of one and a half times retry_period or more"))
            )
        if self.lease_duration < self.renew_deadline + timedelta(milliseconds=500):
            found.append((("renew_deadline",), expected("a renew_deadline of 500ms or more below lease_duration")))
        if found:
            raise combined(found)
        return self


class ApiVersions(Strict):
    """Versions of Azure's interfaces, to pin where a cloud does not know the newest."""

    batch: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}(-preview)?$")] | None = Field(
        default=None, description="Of Batch management, such as 2024-07-01. Null: what the SDK sends."
    )
    secrets: Annotated[str, Field(pattern=r"^(\d+\.\d+|\d{4}-\d{2}-\d{2})(-preview(\.\d+)?)?$")] | None = Field(
        default=None, description="Of Key Vault's secrets, such as 7.4 (in quotes). Null: what the SDK sends."
    )


class Config(Strict):
    """The configuration of keysync: which Batch accounts are kept in sync with which vaults, and how carefully."""

    cloud: Cloud = Field(default="public", description="public, usgovernment, china, or a mapping of addresses.")
    credential: Credential = Field(
        default=DefaultCredential(), description="How keysync proves who it is, unless a vault or an account says."
    )
    schedule: Schedule = Field(default=Schedule(every=timedelta(minutes=5)), description="When runs start; `run` only.")
    vaults: dict[VaultName, Vault] = Field(
        min_length=1,
        description="The vaults, each under a name of your choice.",
        json_schema_extra={"additionalProperties": False},
    )
    accounts: List[Account] = Field(default=(), description="The accounts, one by one.")
    discover: List[Discover] = Field(default=(), description="Accounts that are found by listing subscriptions.")
    owner: Text | None = Field(
        default=None,
        description="A name for this installation, written as a tag, so that two do not take each other's secrets.",
    )
    read_only: bool = Field(
        default=False, description="Observe and report, write nothing. KEYSYNC_READ_ONLY takes precedence."
    )
    adopt: bool = Field(
        default=False,
        description="Take over an unmarked secret whose value already matches. False: it may be somebody else's.",
    )
    recover: Literal["report", "owned"] = Field(
        default="report",
        description="What to do with a soft-deleted namesake: report it, or recover it where it is ours. Report: "
        "somebody deleted it on purpose.",
    )
    disabled: Literal["report", "enable"] = Field(
        default="report",
        description="What to do with a secret of ours that is disabled: report it, or enable it. Report: somebody disabled "
        "it on purpose.",
    )
    orphans: Literal["keep", "disable", "delete"] = Field(
        default="keep",
        description="What to do with our secrets whose account or mapping is gone. Keep: consumers may still read them. The "
        "others need `owner`.",
    )
    limits: Limits = Field(default=Limits(), description="How much one run may change in one vault.")
    timeouts: Timeouts = Field(default=Timeouts(), description="How long things may take.")
    verify_every: Duration | None = Field(
        default=timedelta(hours=1),
        description="How often each stored value is read again though a listing of its vault shows no change, by `run`. Null: in "
        "each run, and no vault is listed.",
    )
    concurrency: Concurrency = Field(
        default=64,
        description="Accounts looked at at once, shared out among the subscriptions, and secrets read at once, among the vaults; four each at "
        "least. 64: above it a run gets no faster.",
    )
    listen: Annotated[str, AfterValidator(check_listen)] = Field(
        default=DEFAULT_LISTEN, description="Where `run` serves its status page and metrics; only this machine."
    )
    notify: Notify | None = Field(
        default=None, description="A webhook that is told of changes, failures and stops; `run` only. Null: none."
    )
    leader_election: LeaderElection | None = Field(
        default=None,
        description="Several replicas of which one works, on Kubernetes; `run` only. Needs the extra `kubernetes`. Null: none.",
    )
    api_versions: ApiVersions = Field(default=ApiVersions(), description="Versions of Azure's interfaces to pin.")

    model_config = ConfigDict(
        title="keysync configuration",
        json_schema_extra={
            "anyOf": [
                {"required": ["accounts"], "properties": {"accounts": {"minItems": 1}}},
                {"required": ["discover"], "properties": {"discover": {"minItems": 1}}},
            ]
        },
    )

    @field_validator("vaults", mode="before")
    @classmethod
    def _some_vault(cls, value: object) -> object:
        if value is None or value == {}:
            raise problem(
                "found no vault, expected one or more", "such as main: {url: https://kv-render.vault.azure.net}"
            )
        return value

    _meant: settings.Config = PrivateAttr()

    def plain(self) -> settings.Config:
        """What it means: made once, when it was checked as a whole."""
        return self._meant

    @model_validator(mode="wrap")
    @classmethod
    def _check_together(cls, data: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        # Unknown vaults are looked for in the raw data, so that one bad value elsewhere does not hide them.
        unknown = list(_unknown_vaults(data)) if is_mapping(data) else []
        try:
            made = handler(data)
        except ValidationError as error:
            raise combined([*parts_of(error), *unknown]) from None
        made._meant = meant = _plain(made, {})  # noqa: SLF001  # it is one of these
        found = [
            *unknown,
            *_nothing_to_do(meant),
            *_repeated_accounts(meant),
            *_collisions(meant),
            *_one_vault_twice(meant),
            *_unowned_orphans(meant),
        ]
        if found:
            raise combined(found)
        return made


def _unknown_vaults(data: Mapping[str, Any]) -> Iterator[LocatedError]:
    known = data.get("vaults")
    if not is_mapping(known):
        return
    for where, name in _vault_references(data):
        if isinstance(name, str) and name not in known:
            meant = nearest(name, known)
            hint = f"did you mean '{meant}'?" if meant else None
            yield where, expected("the name of a vault: " + ", ".join(known), hint)


def _vault_references(data: Mapping[str, Any]) -> Iterator[tuple[Location, Any]]:
    for key in ("accounts", "discover"):
        entries = data.get(key)
        for index, entry in enumerate(entries if is_list(entries) else ()):
            names = entry.get("vaults") if is_mapping(entry) else getattr(entry, "vaults", None)
            for place, name in enumerate(names if is_list(names) else ()):
                yield (key, index, "vaults", place), name


def _nothing_to_do(config: settings.Config) -> Iterator[LocatedError]:
    if not config.accounts and not config.discover:
        yield (), problem("accounts and discover are both empty", "list an account, or let accounts be discovered")


def _unowned_orphans(config: settings.Config) -> Iterator[LocatedError]:
    if config.orphans != "keep" and config.owner is None:
        what = f"orphans: {config.orphans} touches only what bears this installation's owner, and there is no owner"
        yield ("orphans",), problem(what, "set `owner` to a name for this installation, or keep orphans")


def _repeated_accounts(config: settings.Config) -> Iterator[LocatedError]:
    seen: dict[str, int] = {}
    for index, account in enumerate(config.accounts):
        first = seen.setdefault(account.key, index)
        if first != index:
            yield ("accounts", index, "name"), problem(f"this is the account of accounts[{first}] again", "remove one")


def _collisions(config: settings.Config) -> Iterator[LocatedError]:
    """Two keys that would be written to one secret; an account that stands there twice has a finding already."""
    writers: dict[tuple[str, str], tuple[str, str]] = {}
    for index, account in enumerate(config.accounts):
        for vault, key, secret in _targets(config, account):
            writer = (f"the {key} key of {account.name} (accounts[{index}])", account.key)
            url = config.vaults[vault].url
            other = writers.setdefault((url, fold(secret)), writer)
            again = other[1] == writer[1] and other[0] != writer[0] and not other[0].endswith(f"(accounts[{index}])")
            if other is not writer and not again:
                yield (
                    ("accounts", index, "secrets", key),
                    problem(
                        f"{other[0]} and {writer[0]} would both write the secret {secret!r} of {url}",
                        "give one of them other names under secrets",
                    ),
                )


def _one_vault_twice(config: settings.Config) -> Iterator[LocatedError]:
    """Two names of one vault in a `discover` entry, which would write each secret twice; `accounts` have `_collisions`."""
    for index, entry in enumerate(config.discover):
        seen: dict[str, str] = {}
        for place, name in enumerate(entry.vaults):
            url = config.vaults[name].url if name in config.vaults else name
            first = seen.setdefault(url, name)
            if place and first in entry.vaults[:place]:
                told = f"{name!r} is the vault {first!r} again, and each secret would be written there twice"
                yield ("discover", index, "vaults", place), problem(told, "remove one")


def _targets(config: settings.Config, account: settings.Account) -> Iterator[tuple[str, str, str]]:
    for vault in account.vaults:
        if vault in config.vaults:
            for key, secret in account.secret_names().items():
                yield vault, key, secret
