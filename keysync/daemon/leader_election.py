"""Leader election on a Lease, by the Kubernetes client library. Only `keysync.daemon.leader` imports it (extra ``kubernetes``).

The library decides when to try what. This module adds what the library lacks. Each request has a deadline, and each
exception leads to another try. A lease is taken over only if `ObservedLease` says that no other replica can still lead (the
library uses the wall clock). `LeaseState` decides how long the lead lasts, without waiting for the library.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias

from kubernetes.client import ApiClient, ApiException, Configuration, CoordinationV1Api, V1Lease
from kubernetes.config import (
    ConfigException,
    incluster_config,
    list_kube_config_contexts,
    load_incluster_config,
    load_kube_config,
)
from kubernetes.leaderelection.electionconfig import Config as ElectionConfig
from kubernetes.leaderelection.leaderelection import LeaderElection
from kubernetes.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

from keysync.daemon.lease import LeaseTimings, ObservedLease
from keysync.errors import UsageError
from keysync.files import read_small

_NAMESPACE_FILE: Final = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
_QUIET: Final = {404, 409}  # no lease yet, or another replica was faster: not a failure
_UNAUTHORIZED: Final = 401
_RELEASE_SECONDS: Final = 1.0
_CLOCK_SECONDS: Final = 1.0


class LeaderCallbacks(Protocol):
    """Receives the results of requests for the lease, on the event loop (implemented by `Leader`)."""

    def read(self, received: float) -> None: ...
    def renewed(self, sent: float) -> None: ...
    def other_holds(self, holder: str) -> None: ...
    def failed(self, reason: str, http_status: int | None) -> None: ...


Found: TypeAlias = tuple[Literal[True], LeaderElectionRecord]
NotFound: TypeAlias = tuple[Literal[False], ApiException]
CallOnLoop: TypeAlias = Callable[..., None]
"""Calls a function with arguments on the event loop, from another thread."""


def connect(*, in_cluster: bool) -> ApiClient:
    """A client of the cluster of this pod, or of the current kubeconfig context. Raises UsageError."""
    settings = Configuration()
    try:
        _load(settings, in_cluster=in_cluster)
    except (ConfigException, OSError) as error:
        raise UsageError(f"leader_election: no way to Kubernetes: {error}") from None
    # The election retries by itself. A retry within a request would exceed the deadlines of the election.
    settings.retries = False
    if in_cluster:
        settings.proxy = None  # the client uses the environment's proxy, which cannot reach the cluster
    return ApiClient(settings)


def _load(settings: Configuration, *, in_cluster: bool) -> None:
    """Reads address, certificate authority and token into `settings`. Raises ConfigException or OSError."""
    if not in_cluster:
        load_kube_config(client_configuration=settings, persist_config=False)
        return
    try:
        load_incluster_config(client_configuration=settings)
    except ConfigException as error:
        raise ConfigException(f"{error} (the token belongs into {incluster_config.SERVICE_TOKEN_FILENAME})") from None


def namespace_of_pod(*, in_cluster: bool) -> str:
    """The namespace of this pod, or of the kubeconfig context. Raises UsageError."""
    found = _namespace_in_cluster() if in_cluster else _namespace_of_context()
    if not found:
        raise UsageError("leader_election.namespace: it cannot be determined here; set it")
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
    """Takes part in the election, in its own thread, until `release`. `monotonic` returns seconds.

    `in_cluster` is as for `connect`: it decides where the token is read again after a 401.
    """

    def __init__(
        self,
        client: ApiClient,
        *,
        namespace: str,
        lease: str,
        identity: str,
        timings: LeaseTimings,
        callbacks: LeaderCallbacks,
        call_on_loop: CallOnLoop,
        in_cluster: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._pause = timings.retry_period
        # Short enough that after one hanging request there is time for another before the renew deadline.
        api = _Api(
            CoordinationV1Api(client),
            timings.renew_deadline / 4,
            lambda reason, status: call_on_loop(callbacks.failed, reason, status),
            lambda: _load(client.configuration, in_cluster=in_cluster),
        )
        self._lock = _Lock(api, lease, namespace, identity, timings, callbacks, call_on_loop, monotonic)
        self._election = ElectionConfig(
            # Whole seconds, as in a Lease.
            self._lock,
            int(timings.lease_duration),
            timings.renew_deadline,
            timings.retry_period,
            _nothing,
            _nothing,
        )
        self._thread = threading.Thread(target=self._run, name="leader election", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def release(self) -> None:
        """Ends, and releases the lease if this replica has it, so that a standby need not wait. Blocks for a few seconds at most."""
        self._lock.release()
        self._client.close()

    def abandon(self) -> None:
        """Ends, and lets the lease expire."""
        self._lock.ended.set()
        self._client.close()

    def _run(self) -> None:
        while not self._lock.ended.is_set():
            try:
                # Returns when it could not renew the lease; then it tries to acquire it again.
                LeaderElection(self._election).run()
            except _Ended:
                return
            except _ClockSet:
                continue
            except Exception as error:  # noqa: BLE001  # no error may end the thread
                self._lock.fail(f"unexpected {type(error).__name__}")
                self._lock.ended.wait(self._pause)


def _nothing() -> None:
    """No-op callback: `Leader` decides what happens in a term."""


class _Ended(Exception):
    """Ends the library's endless loops."""


class _ClockSet(Exception):
    """The wall clock was set. The library counts by it, so its counts so far are wrong."""


class _Lock(LeaseLock):
    def __init__(
        self,
        api: _Api,
        lease: str,
        namespace: str,
        identity: str,
        timings: LeaseTimings,
        callbacks: LeaderCallbacks,
        call_on_loop: CallOnLoop,
        monotonic: Callable[[], float],
    ) -> None:
        super().__init__(lease, namespace, identity)
        self.api_instance = api
        self._api = api
        self.ended = threading.Event()
        self._duration = timings.lease_duration
        self._callbacks = callbacks
        self._call_on_loop = call_on_loop
        self._monotonic = monotonic
        self._observed = ObservedLease()
        self._offset = time.time() - monotonic()
        self._writing = threading.Lock()

    def get(self, name: str, namespace: str) -> Found | NotFound:
        """Reads the lease and reports it."""
        self._check()
        reply = super().get(name, namespace)
        lease = self.lease_reference
        if reply[0] is True and lease is not None:
            holder, duration = reply[1].holder_identity, float(reply[1].lease_duration or 0)
            received = self._monotonic()
            self._observed.record_read(lease.metadata.resource_version, holder, duration, received)
            self._call_on_loop(self._callbacks.read, received)
            if holder is not None and holder != self.identity:
                self._call_on_loop(self._callbacks.other_holds, holder)
        return reply

    def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        """Creates the lease unless the election has ended."""
        with self._writing:
            self._check()
            sent = self._monotonic()
            return self._noted(super().create(name, namespace, election_record), sent)

    def update(self, name: str, namespace: str, updated_record: LeaderElectionRecord) -> bool:
        """Writes the lease unless the election has ended or another replica may still lead."""
        with self._writing:
            self._check()
            sent = self._monotonic()
            if not self._observed.may_take(self.identity, self._duration, sent):
                return False
            return self._noted(super().update(name, namespace, updated_record), sent)

    def fail(self, reason: str) -> None:
        """Reports a failure without a reply."""
        self._call_on_loop(self._callbacks.failed, reason, None)

    def release(self) -> None:
        """Clears the holder if it is still this replica. Nothing is written afterwards."""
        self.ended.set()
        with self._writing:
            self._api.seconds = _RELEASE_SECONDS
            try:
                lease = self._api.read_namespaced_lease(self.name, self.namespace)
                if lease.spec is not None and lease.spec.holder_identity == self.identity:
                    lease.spec.holder_identity = None
                    self._api.replace_namespaced_lease(name=self.name, namespace=self.namespace, body=lease)
            except ApiException:
                return  # the lease expires

    def _noted(self, done: bool, sent: float) -> bool:
        if done:
            self._call_on_loop(self._callbacks.renewed, sent)
        return done

    def _check(self) -> None:
        if self.ended.is_set():
            raise _Ended
        before, self._offset = self._offset, time.time() - self._monotonic()
        if abs(self._offset - before) > _CLOCK_SECONDS:
            raise _ClockSet


class _Api:
    """The three calls that the lock makes. Each attempt ends within `seconds`, and raises nothing but ApiException.

    After a 401, `reload` reads the credentials again and the call is repeated once: the library reads the token of a
    service account only once a minute.
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

    def read_namespaced_lease(self, name: str, namespace: str) -> V1Lease:
        return self._call(lambda: self._api.read_namespaced_lease(name, namespace, _request_timeout=self.seconds))

    def create_namespaced_lease(self, namespace: str, body: object) -> V1Lease:
        return self._call(lambda: self._api.create_namespaced_lease(namespace, body, _request_timeout=self.seconds))

    def replace_namespaced_lease(self, name: str, namespace: str, body: object) -> V1Lease:
        return self._call(
            lambda: self._api.replace_namespaced_lease(name, namespace, body, _request_timeout=self.seconds)
        )

    def _call(self, call: Callable[[], V1Lease]) -> V1Lease:
        try:
            return self._authorized(call)
        except ApiException as error:
            if error.status not in _QUIET:
                self._failed(f"Kubernetes answered {error.status} {error.reason}", error.status)
            raise
        except (ConfigException, FileNotFoundError, PermissionError) as error:
            self._failed(f"the token for Kubernetes cannot be read: {error}", None)
            raise ApiException(status=0, reason=type(error).__name__) from error
        except Exception as error:
            # urllib3 raises many types, and one that the library does not catch would end its thread.
            name = type(error).__name__
            self._failed(f"no answer from Kubernetes: {name}", None)
            raise ApiException(status=0, reason=name) from error

    def _authorized(self, call: Callable[[], V1Lease]) -> V1Lease:
        try:
            return call()
        except ApiException as error:
            if error.status != _UNAUTHORIZED:
                raise
            self._reload()
        return call()
