"""Frozen pydantic models of the configuration file: each key with its meaning, its unit and the reason for its default.

The JSON Schema takes the descriptions from here. `keysync.config.load` reads a file with these models.
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

from keysync.config import model
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
    check_tag_count,
    check_timezone,
    is_reserved,
    kind_of,
)
from keysync.config.validation_errors import LocatedError, combined, expected, missing, parts_of, problem
from keysync.names import fold

_T = TypeVar("_T")

_USER_TAGS = 11  # a secret may have 15 tags, and keysync writes the others


class Strict(BaseModel):
    """Base of all models. Unknown keys are errors, instances are frozen, and error texts contain no values."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False, defer_build=True
    )

    def plain(self) -> Any:  # noqa: ANN401  # the class of the same name in `model`
        """The same as an instance of the class of the same name in `model`."""
        return _plain(self, {})


def _plain(value: object, known: dict[object, object]) -> Any:  # noqa: ANN401  # the type depends on `value`
    """Converts `value` to classes of `model`. Equal results share one object, to save memory with thousands of accounts."""
    plain: Any
    if isinstance(value, Strict):
        kind = getattr(model, type(value).__name__)
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
    # pydantic also accepts sets and iterators for a tuple, but a file has only lists.
    if is_list(value):
        return value
    raise expected("a list", "write [value]")


List = Annotated[tuple[_T, ...], BeforeValidator(_list)]
"""A list in the file, a tuple in the model."""

Text = Annotated[str, Field(min_length=1, max_length=256)]
"""Text with 1 to 256 characters."""

Identifier = Annotated[str, Field(pattern=r"^[0-9a-zA-Z._-]{1,256}$")]
"""The id of a tenant or of an application."""


class CloudMapping(Strict):
    """A cloud without a name in keysync, such as Azure Stack Hub or a test double."""

    authority: HttpsUrl = Field(
        description="The endpoint that issues tokens, such as https://login.microsoftonline.com."
    )
    resource_manager: HttpsUrl = Field(
        description="The endpoint of Azure Resource Manager, such as https://management.azure.com."
    )
    resource_manager_scope: Text | None = Field(
        default=None, description="The scope of tokens for it. Default: its endpoint with /.default."
    )
    ca_bundle: Path | None = Field(
        default=None,
        description="A PEM file with certificate authorities to trust in addition to the system's. "
        "A relative path starts at the folder of this file.",
    )


def _cloud_kind(value: object) -> str:
    return "=mapping" if isinstance(value, (dict, CloudMapping)) else "=name"


Cloud = Annotated[
    Annotated[Literal["public", "usgovernment", "china"], Tag("=name")] | Annotated[CloudMapping, Tag("=mapping")],
    Discriminator(_cloud_kind),
]
"""A cloud by its name or by its endpoints."""


class DefaultCredential(Strict):
    """DefaultAzureCredential of azure-identity: environment, workload identity, managed identity, developer tools."""

    type: Literal["default"] = Field(
        default="default",
        description="Tries each credential that the machine offers. AZURE_TOKEN_CREDENTIALS limits them.",
    )


class EnvironmentCredential(Strict):
    """A service principal from AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET or AZURE_CLIENT_CERTIFICATE_PATH."""

    type: Literal["environment"] = Field(description="Reads everything from the AZURE_* variables of the Azure SDKs.")


class WorkloadIdentityCredential(Strict):
    """The federated token of a Kubernetes service account."""

    type: Literal["workload_identity"] = Field(description="Uses the token that Kubernetes mounts into the pod.")
    tenant_id: Identifier | None = Field(default=None, description="The tenant. Default: AZURE_TENANT_ID.")
    client_id: Identifier | None = Field(default=None, description="The application. Default: AZURE_CLIENT_ID.")
    token_file: Path | None = Field(default=None, description="The mounted token. Default: AZURE_FEDERATED_TOKEN_FILE.")


class ManagedIdentityCredential(Strict):
    """The managed identity of the machine that keysync runs on."""

    type: Literal["managed_identity"] = Field(description="Uses the managed identity of the machine, container or app.")
    client_id: Identifier | None = Field(
        default=None, description="The client id of a user-assigned identity. Default: the system-assigned identity."
    )


_SECRET_REFUSED = "the file must not contain a secret"  # noqa: S105  # nosec B105  # a sentence about one
_SECRET_SCHEMA = {"type": "string", "pattern": r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$"}


def _from_environment(expectation: str, file_key: str) -> PlainValidator:
    """Accepts a value only from an environment variable. `expectation` and `file_key` are for messages."""

    def check(value: object) -> model.EnvironmentVariable:
        if isinstance(value, model.EnvironmentVariable):
            return value
        if not isinstance(value, FromEnvironment) or value.variable is None:
            raise problem(_SECRET_REFUSED, f"write ${{NAME}} for an environment variable, or use {file_key}")
        if value == "":
            raise problem(f"the environment variable is empty, expected {expectation}")
        return model.EnvironmentVariable(value.variable)

    return PlainValidator(check)


ClientSecret = Annotated[
    model.EnvironmentVariable,
    _from_environment("a client secret", "client_secret_file"),
    WithJsonSchema(_SECRET_SCHEMA),
]
"""A client secret from an environment variable."""

SigningSecret = Annotated[
    model.EnvironmentVariable,
    _from_environment("a signing secret", "secret_file"),
    WithJsonSchema(_SECRET_SCHEMA),
]
"""A signing secret from an environment variable."""


class ClientSecretCredential(Strict):
    """A service principal with a client secret. Set exactly one of `client_secret_file` and `client_secret`."""

    type: Literal["client_secret"] = Field(description="A service principal with a client secret.")
    tenant_id: Identifier = Field(description="The tenant of the service principal.")
    client_id: Identifier = Field(description="The application of the service principal.")
    client_secret_file: Path | None = Field(default=None, description="A mounted file with the secret.")
    client_secret: ClientSecret | None = Field(
        default=None, description="${NAME} of an environment variable with the secret, never the secret itself."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.client_secret_file is None) == (self.client_secret is None):
            raise problem("expected exactly one of client_secret_file and client_secret")
        return self


class ClientCertificateCredential(Strict):
    """A service principal with a certificate and its private key in one PEM or PKCS#12 file."""

    type: Literal["client_certificate"] = Field(description="A service principal with a certificate.")
    tenant_id: Identifier = Field(description="The tenant of the service principal.")
    client_id: Identifier = Field(description="The application of the service principal.")
    certificate_file: Path = Field(
        description="A mounted PEM or PKCS#12 file with the certificate and its private key."
    )
    password_file: Path | None = Field(default=None, description="A mounted file with the password of the private key.")


class AzureCliCredential(Strict):
    """The account that is signed in with `az login`, for a workstation."""

    type: Literal["azure_cli"] = Field(description="Uses the account that is signed in with `az login`.")
    tenant_id: Identifier | None = Field(default=None, description="The tenant. Default: the current tenant of `az`.")


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
        guess = nearest(kind, _CREDENTIALS) if isinstance(kind, str) else None
        hint = f"did you mean '{guess}'?" if guess else None
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
"""How keysync signs in; `type` selects the alternative."""


class Schedule(Strict):
    """When sync runs start: at intervals, or by a cron expression."""

    every: Duration | None = Field(
        default=None,
        description="The time between the starts of two runs, at least 1s. Default: 5m unless `cron` is set. A "
        "regenerated key replaces the old one at once, so this is the longest time that consumers are locked out.",
    )
    jitter: DurationOrZero = Field(
        default=timedelta(0),
        description="The longest random delay that is added to each start, so that several installations do not call "
        "Azure at once. 0s: no delay.",
    )
    cron: str | None = Field(
        default=None,
        description="A cron expression of five fields instead of `every`, as in crontab(5): 0 and 7 are Sunday, 1-5 is "
        "Monday to Friday. If both day and weekday are set, one match is enough.",
        examples=["*/5 * * * *"],
    )
    timezone: str | None = Field(
        default=None, description="The IANA time zone of `cron`. Default: UTC.", examples=["Asia/Tokyo"]
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
            raise combined([(("timezone",), problem("timezone is allowed with cron only", "remove it"))])
        if self.cron is not None:
            try:
                check_cron(self.cron)
            except PydanticCustomError as error:
                raise combined([(("cron",), error)]) from None
        return self


class Limits(Strict):
    """How much one run may change in one vault. A run that would change more writes nothing until its plan is accepted."""

    update_percent: Percent = Field(
        default=100,
        description="Percent of the managed secrets in a vault that one run may overwrite. 100: it is normal that "
        "many keys are regenerated at once.",
    )
    creates: Count = Field(
        default=500,
        description="Secrets that one run may create in a vault. 500: enough for the first run of a large "
        "installation, and too few for a pattern that matches far too much.",
    )
    removal_percent: Percent = Field(
        default=10,
        description="Percent of the managed secrets in a vault that one run may disable or delete. 10: stops a run "
        "that received half of the accounts. One secret is always allowed, unless this is 0.",
    )
    changes_per_day: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=50,
        description="New versions of one secret in 24 hours, by any writer, after which keysync stops writing it. 50: "
        "allows a rotation every half hour, and stops two tools that overwrite each other within hours. Null: no limit.",
    )


class VaultLimits(Strict):
    """The limits of one vault. Each limit that is set overrides the general limit."""

    update_percent: Percent | None = Field(default=None, description="Percent that one run may overwrite.")
    creates: Count | None = Field(default=None, description="Secrets that one run may create.")
    removal_percent: Percent | None = Field(default=None, description="Percent that one run may disable or delete.")
    changes_per_day: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="New versions of one secret in 24 hours. Null: the general limit."
    )


class Vault(Strict):
    """A Key Vault that keysync writes keys to."""

    url: VaultUrl = Field(description="Its URL, such as https://kv-render.vault.azure.net.")
    credential: Credential | None = Field(default=None, description="Its credential. Default: the general credential.")
    verify_challenge_resource: bool = Field(
        default=True,
        description="Whether the vault must request tokens for its own domain. True: otherwise a server could obtain a "
        "token for another domain. Set it to false only for a test double or a private name.",
    )
    tags: dict[Text, Annotated[str, Field(max_length=256)]] = Field(
        default_factory=dict,
        description="Tags for every secret in this vault, at most 11: a secret can have 15, and keysync needs the others. "
        "`managed-by` and `keysync-*` are reserved for keysync.",
        json_schema_extra={"maxProperties": _USER_TAGS, "default": {}},
    )
    content_type: Annotated[str, Field(max_length=255)] | None = Field(
        default=None, description="The content type of every secret in this vault, if a policy requires one."
    )
    expires_after: Duration | None = Field(
        default=None,
        description="The time from the write of a secret in this vault to its expiry, if a policy requires one. keysync renews the "
        "expiry at half of that time, without a new version. Null: no expiry. Key Vault returns an expired secret as usual.",
        examples=["90d"],
    )
    read_only: bool = Field(default=False, description="Compare and report, but write nothing to this vault.")
    limits: VaultLimits | None = Field(
        default=None, description="Limits of this vault. They override the general limits."
    )

    @field_validator("tags")
    @classmethod
    def _free_tags(cls, value: dict[str, str]) -> dict[str, str]:
        check_tag_count(value, _USER_TAGS)
        taken = [name for name in value if is_reserved(name)]
        if taken:
            raise combined(((name,), problem("this tag is reserved for keysync", "rename it")) for name in taken)
        return value


class SecretNames(Strict):
    """The names of an account's secrets. {account}, {subscription_id} and {resource_group} are replaced."""

    primary: NamePattern | None = Field(
        default="{account}-primary-key", description="The secret for the primary key. Null: this key is not synced."
    )
    secondary: NamePattern | None = Field(
        default="{account}-secondary-key", description="The secret for the secondary key. Null: this key is not synced."
    )

    @model_validator(mode="after")
    def _one_at_least(self) -> Self:
        if self.primary is None and self.secondary is None:
            raise problem("primary and secondary are both null, so there is nothing to sync")
        return self


VaultNames = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_list)]
"""Names of one or more vaults."""


class Account(Strict):
    """A Batch account whose keys keysync syncs."""

    subscription_id: Guid = Field(description="Its subscription, a GUID.")
    resource_group: ResourceGroup = Field(description="Its resource group.")
    name: AccountName = Field(description="Its name: 3 to 24 letters and digits.")
    vaults: VaultNames = Field(description="The vaults that receive its keys, by their names under `vaults`.")
    secrets: SecretNames = Field(default_factory=SecretNames, description="The names of its secrets.")
    credential: Credential | None = Field(default=None, description="Its credential. Default: the general credential.")
    schedule: Schedule | None = Field(
        default=None, description="Replaces the whole general schedule. Default: the general schedule."
    )
    read_only: bool = Field(default=False, description="Compare and report, but write nothing for this account.")
    adopt: bool | None = Field(default=None, description="Overrides the general `adopt`. Default: the general `adopt`.")

    @model_validator(mode="after")
    def _valid_secret_names(self) -> Self:
        wrong = [
            (("secrets", key), problem(f"the name becomes {name!r}, expected 1 to 127 letters, digits and dashes"))
            for key, name in self.plain().secret_names().items()
            if not re.fullmatch(SECRET_NAME, name)
        ]
        if wrong:
            raise combined(wrong)
        return self


class Discover(Strict):
    """Batch accounts that keysync finds by listing. An account under `accounts` overrides a discovered one. Set one of
    `subscription_id` and `subscriptions`, and at least one of `vaults` and `vaults_by_tag`."""

    subscription_id: Guid | None = Field(default=None, description="The subscription to list, a GUID.")
    subscriptions: List[Guid] = Field(
        default=(), description="Several subscriptions to list, GUIDs, instead of `subscription_id`."
    )
    resource_groups: List[ResourceGroup] = Field(
        default=(), description="Only these resource groups. Empty: the whole subscription."
    )
    name: Text = Field(
        default="*",
        description="Only accounts whose name matches, without regard to case. * matches any characters, ? matches one.",
    )
    tags: dict[Text, str] = Field(
        default_factory=dict,
        description="Only accounts with all of these tags. Names of tags are compared without regard to case, values with it.",
        json_schema_extra={"default": {}},
    )
    exclude: List[Text] = Field(default=(), description="Excludes accounts whose name matches one of these patterns.")
    vaults: Annotated[tuple[str, ...], BeforeValidator(_list)] = Field(
        default=(),
        description="The vaults that receive their keys, by their names under `vaults`. With `vaults_by_tag`: the vaults of "
        "accounts without that tag; if empty, such accounts are skipped.",
        json_schema_extra={"minItems": 1},
    )
    vaults_by_tag: Text | None = Field(
        default=None,
        description="A tag of the account that lists its vaults, by their names under `vaults`, separated by commas or spaces. "
        "An account whose tag names an unknown vault is refused. Everyone who may tag an account can then choose its vaults.",
        examples=["keysync-vault"],
    )
    secrets: SecretNames = Field(default_factory=SecretNames, description="The names of their secrets.")
    credential: Credential | None = Field(
        default=None,
        description="The credential that lists them and reads their keys. Default: the general credential.",
    )
    schedule: Schedule | None = Field(
        default=None, description="Replaces the whole general schedule. Default: the general schedule."
    )
    read_only: bool = Field(default=False, description="Compare and report, but write nothing for these accounts.")
    adopt: bool | None = Field(default=None, description="Overrides the general `adopt`. Default: the general `adopt`.")
    every: Duration | None = Field(
        default=None,
        description="The time between two listings, at least 1s; `run` only. Null: lists at each run, so that the next run "
        "includes a new account.",
    )
    via: Literal["list", "resource_graph"] = Field(
        default="list",
        description="How to list them. list: by Batch management, one subscription or resource group at a time. resource_graph: by Azure "
        "Resource Graph, many subscriptions in one query; it may lag by minutes.",
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
        # The default is not validated, so an empty list here comes from the file.
        if not value:
            raise problem("found no vault, expected one or more", "remove `vaults` if `vaults_by_tag` is enough")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        errors = [*self._subscription_errors(), *self._vault_errors(), *self._name_errors()]
        if errors:
            raise combined(errors)
        return self

    def _subscription_errors(self) -> Iterator[LocatedError]:
        if self.subscription_id is None and not self.subscriptions:
            yield ("subscription_id",), missing()
        if self.subscription_id is not None and self.subscriptions:
            yield (
                ("subscriptions",),
                problem("found both subscription_id and subscriptions, expected one of them", "remove one"),
            )
        for index, subscription in enumerate(self.subscriptions):
            if subscription in self.subscriptions[:index]:
                yield ("subscriptions", index), problem("this subscription is listed twice", "remove one")

    def _vault_errors(self) -> Iterator[LocatedError]:
        if not self.vaults and self.vaults_by_tag is None:
            yield ("vaults",), missing()

    def _name_errors(self) -> Iterator[LocatedError]:
        patterns = self.secrets.plain().patterns()
        for key, pattern in patterns.items():
            if "{account}" not in pattern:
                expectation = "a pattern with {account}, since otherwise all discovered accounts would write one secret"
                yield ("secrets", key), expected(expectation)
        # A vault compares names without regard to case.
        if len(patterns) > len({fold(pattern) for pattern in patterns.values()}):
            message = "both keys of each discovered account would be written to one secret"
            yield ("secrets", "secondary"), problem(message, "give the two keys different names")


class Timeouts(Strict):
    """Time limits."""

    request: Duration = Field(
        default=timedelta(seconds=30), description="One request to Azure, including its response."
    )
    account: Duration = Field(
        default=timedelta(minutes=2), description="One account in one run, including retries and waiting."
    )
    collect: Duration = Field(
        default=timedelta(seconds=10),
        description="How long the check of the limits waits for slow accounts. After that, a slow account gives its place in "
        "`concurrency` to another account, so that at worst `concurrency` times `account` / `collect` accounts are awaited at once.",
    )
    shutdown: Duration = Field(
        default=timedelta(seconds=10),
        description="How long writes in flight may continue after SIGTERM; less than the 30 s that Kubernetes allows.",
    )


class Notify(Strict):
    """A webhook for events. Set exactly one of `secret_file` and `secret`."""

    url: WebhookUrl = Field(description="The URL that receives events by POST. https only; redirects are not followed.")
    secret_file: Path | None = Field(
        default=None, description="A mounted file with the secret that signs each request."
    )
    secret: SigningSecret | None = Field(
        default=None, description="${NAME} of an environment variable with that secret, never the secret itself."
    )
    events: Annotated[List[model.NotifyEvent], Field(min_length=1)] = Field(
        default=("changed", "failed", "recovered", "stopped"),
        description="The events to send. `stopped` also sends `released`, when the stop ends.",
    )
    timeout: Duration = Field(
        default=timedelta(seconds=10),
        description="One request, including its response. 10s: a receiver only has to store the event.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.secret_file is None) == (self.secret is None):
            raise problem("expected exactly one of secret_file and secret")
        return self


class LeaderElection(Strict):
    """A Kubernetes Lease that lets one of several replicas of `run` work while the others stand by. A standby takes over
    at most `lease_duration` plus half a `retry_period` after the leader is lost."""

    lease: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?$")] = Field(
        default="keysync", description="The name of the Lease. A shard appends its index: keysync-0."
    )
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")] | None = Field(
        default=None, description="The namespace of the Lease. Null: the namespace of the pod."
    )
    identity: Text | None = Field(
        default=None,
        description="A name that is unique among the replicas. Null: HOSTNAME and a random suffix, new at each start.",
    )
    lease_duration: Duration = Field(
        default=timedelta(seconds=10),
        description="How long a standby waits after the last renewal before it takes over; whole seconds. 10s: even with two "
        "missed tries, a standby takes over within 15 s.",
    )
    renew_deadline: Duration = Field(
        default=timedelta(seconds=7),
        description="After this time without a renewal a leader starts no write. The rest of `lease_duration` is for the "
        "writes in flight.",
    )
    retry_period: Duration = Field(
        default=timedelta(seconds=2),
        description="The time between two renewals; a standby checks twice as often. 1s or more.",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        errors: list[LocatedError] = []
        if self.lease_duration % timedelta(seconds=1):
            errors.append((("lease_duration",), expected("whole seconds")))
        if self.retry_period < timedelta(seconds=1):
            errors.append((("retry_period",), expected("a duration of 1s or more")))
        if self.renew_deadline < self.retry_period * 1.5:
            errors.append(
                (("renew_deadline",), expected("a renew_deadline of at least one and a half times retry_period"))
            )
        if self.lease_duration < self.renew_deadline + timedelta(milliseconds=500):
            errors.append((("renew_deadline",), expected("a renew_deadline of 500ms or more below lease_duration")))
        if errors:
            raise combined(errors)
        return self


class ApiVersions(Strict):
    """Versions of Azure APIs, to pin if a cloud does not support the newest."""

    batch: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}(-preview)?$")] | None = Field(
        default=None, description="The version of Batch management, such as 2024-07-01. Null: the default of the SDK."
    )
    secrets: Annotated[str, Field(pattern=r"^(\d+\.\d+|\d{4}-\d{2}-\d{2})(-preview(\.\d+)?)?$")] | None = Field(
        default=None,
        description="The version of Key Vault secrets, such as 7.4 (in quotes). Null: the default of the SDK.",
    )


class Config(Strict):
    """The configuration of keysync: which Batch accounts are synced to which vaults, and with which limits."""

    cloud: Cloud = Field(default="public", description="public, usgovernment, china, or a mapping of endpoints.")
    credential: Credential = Field(
        default=DefaultCredential(), description="How keysync signs in. A vault or an account can have its own."
    )
    schedule: Schedule = Field(
        default=Schedule(every=timedelta(minutes=5)), description="When sync runs start; `run` only."
    )
    vaults: dict[VaultName, Vault] = Field(
        min_length=1,
        description="The vaults, each under a name that you choose.",
        json_schema_extra={"additionalProperties": False},
    )
    accounts: List[Account] = Field(default=(), description="The accounts to sync.")
    discover: List[Discover] = Field(default=(), description="Accounts that keysync finds by listing subscriptions.")
    owner: Text | None = Field(
        default=None,
        description="A name for this installation. keysync writes it as a tag, so that two installations do not overwrite each other's secrets.",
    )
    read_only: bool = Field(
        default=False, description="Compare and report, but write nothing. KEYSYNC_READ_ONLY overrides this key."
    )
    adopt: bool = Field(
        default=False,
        description="Whether to take over an unmanaged secret whose value already matches. False: another tool may own it.",
    )
    recover: Literal["report", "owned"] = Field(
        default="report",
        description="What to do if a soft-deleted secret has the name. report: report it. owned: recover it if keysync manages it. "
        "The default is report, since it may have been deleted on purpose.",
    )
    disabled: Literal["report", "enable"] = Field(
        default="report",
        description="What to do with a managed secret that is disabled: report it or enable it. The default is report, since it may "
        "have been disabled on purpose.",
    )
    orphans: Literal["keep", "disable", "delete"] = Field(
        default="keep",
        description="What to do with managed secrets whose account or mapping is gone. The default is keep, since consumers may still "
        "read them. disable and delete require `owner`.",
    )
    limits: Limits = Field(default=Limits(), description="How much one run may change in one vault.")
    timeouts: Timeouts = Field(default=Timeouts(), description="Time limits.")
    verify_every: Duration | None = Field(
        default=timedelta(hours=1),
        description="How often `run` reads a stored value again although the listing of its vault shows no change. Null: it reads every "
        "value in each run and lists no vault.",
    )
    concurrency: Concurrency = Field(
        default=64,
        description="Accounts processed at once, divided among the subscriptions, and secrets read at once, divided among the vaults; at "
        "least four each. 64: a higher value makes a run no faster.",
    )
    listen: Annotated[str, AfterValidator(check_listen)] = Field(
        default=DEFAULT_LISTEN,
        description="The address where `run` serves its status page, probes and metrics. The default is reachable from this machine only.",
    )
    notify: Notify | None = Field(
        default=None, description="A webhook for changes, failures and stops; `run` only. Null: none."
    )
    leader_election: LeaderElection | None = Field(
        default=None,
        description="Several replicas on Kubernetes of which one works; `run` only. Null: no election.",
    )
    api_versions: ApiVersions = Field(default=ApiVersions(), description="Versions of Azure APIs to pin.")

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
                "found no vault, expected one or more", "for example main: {url: https://kv-render.vault.azure.net}"
            )
        return value

    _settings: model.Config = PrivateAttr()

    def plain(self) -> model.Config:
        """The configuration as `model.Config`, which validation has made."""
        return self._settings

    @model_validator(mode="wrap")
    @classmethod
    def _check_together(cls, data: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        # Unknown vaults are searched in the raw data, so that another bad value does not hide them.
        unknown = list(_unknown_vaults(data)) if is_mapping(data) else []
        try:
            model = handler(data)
        except ValidationError as error:
            raise combined([*parts_of(error), *unknown]) from None
        model._settings = config = _plain(model, {})  # noqa: SLF001  # an instance of this class
        errors = [
            *unknown,
            *_no_accounts(config),
            *_duplicate_accounts(config),
            *_conflicts(config),
            *_duplicate_vaults(config),
            *_orphans_without_owner(config),
        ]
        if errors:
            raise combined(errors)
        return model


def _unknown_vaults(data: Mapping[str, Any]) -> Iterator[LocatedError]:
    known = data.get("vaults")
    if not is_mapping(known):
        return
    for location, name in _vault_references(data):
        if isinstance(name, str) and name not in known:
            guess = nearest(name, known)
            hint = f"did you mean '{guess}'?" if guess else None
            yield location, expected("the name of a vault: " + ", ".join(known), hint)


def _vault_references(data: Mapping[str, Any]) -> Iterator[tuple[Location, Any]]:
    for key in ("accounts", "discover"):
        entries = data.get(key)
        for index, entry in enumerate(entries if is_list(entries) else ()):
            names = entry.get("vaults") if is_mapping(entry) else getattr(entry, "vaults", None)
            for position, name in enumerate(names if is_list(names) else ()):
                yield (key, index, "vaults", position), name


def _no_accounts(config: model.Config) -> Iterator[LocatedError]:
    if not config.accounts and not config.discover:
        yield (
            (),
            problem(
                "accounts and discover are both empty",
                "list an account under `accounts`, or add an entry to `discover`",
            ),
        )


def _orphans_without_owner(config: model.Config) -> Iterator[LocatedError]:
    if config.orphans != "keep" and config.owner is None:
        message = f"orphans: {config.orphans} needs an owner: it affects only secrets with the tag of this owner"
        yield ("orphans",), problem(message, "set `owner` to a name for this installation, or set orphans: keep")


def _duplicate_accounts(config: model.Config) -> Iterator[LocatedError]:
    seen: dict[str, int] = {}
    for index, account in enumerate(config.accounts):
        first = seen.setdefault(account.key, index)
        if first != index:
            yield ("accounts", index, "name"), problem(f"this account is also accounts[{first}]", "remove one")


def _conflicts(config: model.Config) -> Iterator[LocatedError]:
    """Two keys that would be written to one secret. Duplicate accounts are excluded: they have an error already."""
    writers: dict[tuple[str, str], tuple[str, str]] = {}
    for index, account in enumerate(config.accounts):
        for vault, key, secret in _targets(config, account):
            writer = (f"the {key} key of {account.name} (accounts[{index}])", account.key)
            url = config.vaults[vault].url
            other = writers.setdefault((url, fold(secret)), writer)
            again = other[1] == writer[1] and other[0] != writer[0] and not other[0].endswith(f"(accounts[{index}])")
            if other is not writer and not again:
                message = f"{other[0]} and {writer[0]} would both write the secret {secret!r} of {url}"
                yield (
                    ("accounts", index, "secrets", key),
                    problem(message, "give one of them another name under secrets"),
                )


def _duplicate_vaults(config: model.Config) -> Iterator[LocatedError]:
    """Two names of one vault in a `discover` entry, which would write each secret twice. `_conflicts` covers `accounts`."""
    for index, entry in enumerate(config.discover):
        seen: dict[str, str] = {}
        for position, name in enumerate(entry.vaults):
            url = config.vaults[name].url if name in config.vaults else name
            first = seen.setdefault(url, name)
            if position and first in entry.vaults[:position]:
                message = f"{name!r} is the same vault as {first!r}, so each secret would be written twice"
                yield ("discover", index, "vaults", position), problem(message, "remove one")


def _targets(config: model.Config, account: model.Account) -> Iterator[tuple[str, str, str]]:
    """Each (vault, key, secret name) that an account writes to."""
    for vault in account.vaults:
        if vault in config.vaults:
            for key, secret in account.secret_names().items():
                yield vault, key, secret
