"""The election: the one of Kubernetes' own client library, on a Lease. Only `keysync.daemon.leader` imports this, for an extra.

The library decides who tries what and when. What it leaves to chance is guarded here: each request ends in time and whatever
it raises is a failure to try again after; a lease is taken over only when `ObservedLease` says that nobody can still believe to
lead (the library goes by the wall clock); and how long the lead lasts is judged by `LeaseState`, which need not wait for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from kubernetes.client import ApiClient, ApiException, Configuration, CoordinationV1Api
from kubernetes.config import (
    ConfigException,
    incluster_config,
    list_kube_config_contexts,
    load_incluster_config,
    load_kube_config,
)
from kubernetes.leaderelection.electionconfig import Config as ElectionConfig
from kubernetes.leaderelection.leaderelection import LeaderElection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

from keysync.daemon.lease import LeaseTimings, ObservedLease
from keysync.errors import UsageError
from keysync.files import read_small

_NAMESPACE_FILE: Final = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
_QUIET: Final = {404, 409}  # no lease yet, or somebody was quicker: no failure
_UNAUTHORIZED: Final = 401
_RELEASE_SECONDS: Final = 1.0
_CLOCK_SECONDS: Final = 1.0


class LeaderCallbacks(Protocol):
    """Told what became of the lease: a `Leader`, on the loop."""

    def read(self, received: float) -> None: ...
    def renewed(self, sent: float) -> None: ...
    def held_by(self, holder: str) -> None: ...
    def failed(self, reason: str, http_status: int | None) -> None: ...


Post = Callable[..., None]
"""Has a function called, with arguments, where it may be: on the event loop."""


def connect(*, in_cluster: bool) -> ApiClient:
    """A client of the cluster that this pod is in, or of the one that a kubeconfig names. Raises UsageError."""
    settings = Configuration()
    try:
        _load(settings, in_cluster=in_cluster)
    except (ConfigException, OSError) as error:
        raise UsageError(f"leader_election: no way to Kubernetes: {error}") from None
    # The election tries again by itself; a repetition behind its back would outlast its deadlines.
    settings.retries = False
    if in_cluster:
        settings.proxy = None  # the client takes the environment's proxy, which does not know the cluster
    return ApiClient(settings)


def _load(settings: Configuration, *, in_cluster: bool) -> None:
    """Reads address, authority and token into `settings`. Raises ConfigException or OSError."""
    if not in_cluster:
        load_kube_config(client_configuration=settings, persist_config=False)
        return
    try:
        load_incluster_config(client_configuration=settings)
    except ConfigException as error:
        raise ConfigException(f"{error} (the token belongs into {incluster_config.SERVICE_TOKEN_FILENAME})") from None


def namespace_of_pod(*, in_cluster: bool) -> str:
    """The namespace that this pod is in, or the one of the kubeconfig. Raises UsageError."""
    found = _namespace_in_cluster() if in_cluster else _namespace_of_context()
    if not found:
        raise UsageError("leader_election.namespace: not to be found out here, so it has to be set")
    return found


def _namespace_in_cluster() -> str:
    try:
        return read_small(Path(_NAMESPACE_FILE)).decode().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _namespace_of_context() -> str:
    try:
        _, active = list_kube_config_contexts()
    except (ConfigException, OSError):
        return ""
    return str(active["context"].get("namespace") or "")


class LeaderElector:
    """Stands for election in a thread of its own, until `release`. `monotonic` is in seconds.

    `in_cluster` is as for `connect`: where the token is read again after a 401.
    """

    def __init__(
        self,
        client: ApiClient,
        *,
        namespace: str,
        lease: str,
        identity: str,
        terms: LeaseTimings,
        told: LeaderCallbacks,
        post: Post,
        in_cluster: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._pause = terms.retry_period
        # So short that one request which hangs leaves time for another look before the deadline.
        api = _Api(
            CoordinationV1Api(client),
            terms.renew_deadline / 4,
            lambda *args: post(told.failed, *args),
            lambda: _load(client.configuration, in_cluster=in_cluster),
        )
        self._lock = _Lock(api, lease, namespace, identity, terms, told, post, monotonic)
        self._election = ElectionConfig(
            # Whole seconds, as they stand in a Lease.
            self._lock,
            int(terms.lease_duration),
            terms.renew_deadline,
            terms.retry_period,
            _nothing,
            _nothing,
        )
        self._thread = threading.Thread(target=self._run, name="leader election", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def release(self) -> None:
        """Ends, and gives the lease back if it is held, so that another need not wait for its end. Blocks, for some seconds at most."""
        self._lock.release()
        self._client.close()

    def abandon(self) -> None:
        """Ends, and leaves the lease to run out."""
        self._lock.ended.set()
        self._client.close()

    def _run(self) -> None:
        while not self._lock.ended.is_set():
            try:
                # Returns when it could not renew; then it stands for election again.
                LeaderElection(self._election).run()
            except _Ended:
                return
            except _ClockSet:
                continue
            except Exception as error:  # noqa: BLE001  # whatever it meets, it has to stand again
                self._lock.fail(f"unexpected {type(error).__name__}")
                self._lock.ended.wait(self._pause)


def _nothing() -> None:
    """What is to be done in a term is told by `Leader`."""


class _Ended(Exception):
    """Leads out of the library's loops, which know no end."""


class _ClockSet(Exception):
    """The wall clock, by which the library counts, was set: what it has counted so far is worth nothing."""


class _Lock(LeaseLock):
    def __init__(
        self,
        api: _Api,
        lease: str,
        namespace: str,
        identity: str,
        terms: LeaseTimings,
        told: LeaderCallbacks,
        post: Post,
        monotonic: Callable[[], float],
    ) -> None:
        super().__init__(lease, namespace, identity)
        self.api_instance = api  # type: ignore[assignment]  # of whose calls it makes three
        self._api = api
        self.ended = threading.Event()
        self._duration = terms.lease_duration
        self._told = told
        self._post = post
        self._monotonic = monotonic
        self._sightings = ObservedLease()
        self._offset = time.time() - monotonic()
        self._writing = threading.Lock()

    def get(self, name: str, namespace: str) -> tuple[bool, Any]:
        """The library's, and noted."""
        self._check()
        found, record = super().get(name, namespace)
        lease = self.lease_reference
        if found and lease is not None:
            holder, duration = record.holder_identity, float(record.lease_duration or 0)
            received = self._monotonic()
            self._sightings.seen(lease.metadata.resource_version, holder, duration, received)
            self._post(self._told.read, received)
            if holder is not None and holder != self.identity:
                self._post(self._told.held_by, holder)
        return found, record

    def create(self, name: str, namespace: str, election_record: Any) -> bool:  # noqa: ANN401
        """The library's, unless it has ended."""
        with self._writing:
            self._check()
            sent = self._monotonic()
            return self._noted(super().create(name, namespace, election_record), sent)

    def update(self, name: str, namespace: str, updated_record: Any) -> bool:  # noqa: ANN401
        """The library's, unless it has ended or somebody else may still believe to lead."""
        with self._writing:
            self._check()
            sent = self._monotonic()
            if not self._sightings.may_take(self.identity, self._duration, sent):
                return False
            return self._noted(super().update(name, namespace, updated_record), sent)

    def fail(self, reason: str) -> None:
        """Tells of a failure that is no reply."""
        self._post(self._told.failed, reason, None)

    def release(self) -> None:
        """Clears the holder, if that is still this candidate; nothing else is written afterwards."""
        self.ended.set()
        with self._writing:
            self._api.seconds = _RELEASE_SECONDS
            try:
                lease = self._api.read_namespaced_lease(self.name, self.namespace)
                if lease.spec is not None and lease.spec.holder_identity == self.identity:
                    lease.spec.holder_identity = None
                    self._api.replace_namespaced_lease(name=self.name, namespace=self.namespace, body=lease)
            except ApiException:
                return  # it runs out by itself

    def _noted(self, done: bool, sent: float) -> bool:
        if done:
            self._post(self._told.renewed, sent)
        return done

    def _check(self) -> None:
        if self.ended.is_set():
            raise _Ended
        before, self._offset = self._offset, time.time() - self._monotonic()
        if abs(self._offset - before) > _CLOCK_SECONDS:
            raise _ClockSet


class _Api:
    """The three calls that a lock makes, each attempt within `seconds`, and with no other failure than ApiException.

    After a 401 the credentials are read again by `reload`, and the call is repeated once: the library itself reads a
    service account's token once a minute only.
    """

    def __init__(
        self,
        api: CoordinationV1Api,
        seconds: float,
        failed: Callable[[str, int | None], None],
        reload: Callable[[], None],
    ) -> None:
        self._api = api
        self.seconds = seconds
        self._failed = failed
        self._reload = reload

    def read_namespaced_lease(self, name: str, namespace: str) -> Any:  # noqa: ANN401
        return self._call(self._api.read_namespaced_lease, name, namespace)

    def create_namespaced_lease(self, namespace: str, body: Any) -> Any:  # noqa: ANN401
        return self._call(self._api.create_namespaced_lease, namespace, body)

    def replace_namespaced_lease(self, name: str, namespace: str, body: Any) -> Any:  # noqa: ANN401
        return self._call(self._api.replace_namespaced_lease, name, namespace, body)

    def _call(self, call: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
        try:
            return self._authorized(call, *arguments)
        except ApiException as error:
            if error.status not in _QUIET:
                self._failed(f"Kubernetes answered {error.status} {error.reason}", error.status)
            raise
        except (ConfigException, FileNotFoundError, PermissionError) as error:
            self._failed(f"the token for Kubernetes cannot be read: {error}", None)
            raise ApiException(status=0, reason=type(error).__name__) from error
        except Exception as error:
            # urllib3 has many of them, and one that the library does not know would end its thread.
            name = type(error).__name__
            self._failed(f"no answer from Kubernetes: {name}", None)
            raise ApiException(status=0, reason=name) from error

    def _authorized(self, call: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
        try:
            return call(*arguments, _request_timeout=self.seconds)
        except ApiException as error:
            if error.status != _UNAUTHORIZED:
                raise
            self._reload()
        return call(*arguments, _request_timeout=self.seconds)
