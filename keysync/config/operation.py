"""How keysync runs: the part of the model about limits, timeouts, the webhook and the leader election."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from keysync.config import formats
from keysync.config.credentials import EnvironmentVariable, from_environment
from keysync.config.rules import Invalid, Problem, Strict, matching, require_none, within

_ChangesPerDay = Annotated[formats.Integer, within(1, 1000)]


@dataclass(frozen=True, slots=True)
class Limits(Strict):
    """How much one run may change in one vault. A run that would change more writes nothing until its plan is accepted."""

    update_percent: formats.Percent = 100
    """Percent of the managed secrets in a vault that one run may overwrite. 100: it is normal that many keys are
    regenerated at once."""
    creates: formats.Count = 500
    """Secrets that one run may create in a vault. 500: enough for the first run of a large installation, and too
    few for a pattern that matches far too much."""
    removal_percent: formats.Percent = 10
    """Percent of the managed secrets in a vault that one run may disable or delete. 10: stops a run that received
    half of the accounts. One secret is always allowed, unless this is 0."""
    changes_per_day: _ChangesPerDay | None = 50
    """New versions of one secret in 24 hours, by any writer, after which keysync stops writing it. 50: allows a
    rotation every half hour, and stops two tools that overwrite each other within hours. Null: no limit."""


@dataclass(frozen=True, slots=True)
class VaultLimits(Strict):
    """The limits of one vault. Each limit that is set overrides the general limit."""

    update_percent: formats.Percent | None = None
    """Percent that one run may overwrite."""
    creates: formats.Count | None = None
    """Secrets that one run may create."""
    removal_percent: formats.Percent | None = None
    """Percent that one run may disable or delete."""
    changes_per_day: _ChangesPerDay | None = None
    """New versions of one secret in 24 hours. Null: the general limit."""


@dataclass(frozen=True, slots=True)
class Timeouts(Strict):
    """Time limits."""

    request: formats.Duration = timedelta(seconds=30)
    """One request to Azure, including its response."""
    account: formats.Duration = timedelta(minutes=2)
    """One account in one run, including retries and waiting."""
    collect: formats.Duration = timedelta(seconds=10)
    """How long the check of the limits waits for slow accounts. After that, a slow account gives its place in
    `concurrency` to another account, so that at worst `concurrency` times `account` / `collect` accounts are
    awaited at once."""
    shutdown: formats.Duration = timedelta(seconds=10)
    """How long writes in flight may continue after SIGTERM; less than the 30 s that Kubernetes allows."""


NotifyEvent: TypeAlias = Literal["changed", "failed", "recovered", "stopped"]


@dataclass(frozen=True, slots=True)
class Notify(Strict):
    """A webhook for events. Set exactly one of `secret_file` and `secret`."""

    url: formats.WebhookUrl
    """The URL that receives events by POST. https only; redirects are not followed."""
    secret_file: Path | None = None
    """A mounted file with the secret that signs each request."""
    secret: Annotated[EnvironmentVariable, from_environment("a signing secret", "secret_file")] | None = None
    """${NAME} of an environment variable with that secret, never the secret itself."""
    events: Annotated[tuple[NotifyEvent, ...], formats.NOT_EMPTY] = ("changed", "failed", "recovered", "stopped")
    """The events to send. `stopped` also sends `released`, when the stop ends."""
    timeout: formats.Duration = timedelta(seconds=10)
    """One request, including its response. 10s: a receiver only has to store the event."""

    def __post_init__(self) -> None:
        """Raises Invalid unless there is exactly one secret."""
        if (self.secret_file is None) == (self.secret is None):
            raise Invalid(Problem("expected exactly one of secret_file and secret"))


@dataclass(frozen=True, slots=True)
class LeaderElection(Strict):
    """A Kubernetes Lease that lets one of several replicas of `run` work while the others stand by. A standby takes over
    at most `lease_duration` plus half a `retry_period` after the leader is lost."""

    lease: Annotated[str, matching(r"^[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?$")] = "keysync"
    """The name of the Lease. A shard appends its index: keysync-0."""
    namespace: Annotated[str, matching(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")] | None = None
    """The namespace of the Lease. Null: the namespace of the pod."""
    identity: formats.Text | None = None
    """A name that is unique among the replicas. Null: HOSTNAME and a random suffix, new at each start."""
    lease_duration: formats.Duration = timedelta(seconds=10)
    """How long a standby waits after the last renewal before it takes over; whole seconds. 10s: even with two
    missed tries, a standby takes over within 15 s."""
    renew_deadline: formats.Duration = timedelta(seconds=7)
    """After this time without a renewal a leader starts no write. The rest of `lease_duration` is for the writes in
    flight."""
    retry_period: formats.Duration = timedelta(seconds=2)
    """The time between two renewals; a standby checks twice as often. 1s or more."""

    def __post_init__(self) -> None:
        """Raises Invalid for times with which a leader could not renew its lease."""
        second = timedelta(seconds=1)
        wanted = {
            ("lease_duration", "whole seconds"): not self.lease_duration % second,
            ("retry_period", "a duration of 1s or more"): self.retry_period >= second,
            ("renew_deadline", "at least one and a half times retry_period"): self.renew_deadline
            >= self.retry_period * 1.5,
            ("renew_deadline", "500ms or more below lease_duration"): self.lease_duration
            >= self.renew_deadline + second / 2,
        }
        require_none(
            Problem(rule, at=(key,), is_expectation=True) for (key, rule), holds in wanted.items() if not holds
        )


@dataclass(frozen=True, slots=True)
class ApiVersions(Strict):
    """Versions of Azure APIs, to pin if a cloud does not support the newest."""

    batch: Annotated[str, matching(r"^\d{4}-\d{2}-\d{2}(-preview)?$")] | None = None
    """The version of Batch management, such as 2024-07-01. Null: the default of the SDK."""
    secrets: Annotated[str, matching(r"^(\d+\.\d+|\d{4}-\d{2}-\d{2})(-preview(\.\d+)?)?$")] | None = None
    """The version of Key Vault secrets, such as 7.4 (in quotes). Null: the default of the SDK."""
