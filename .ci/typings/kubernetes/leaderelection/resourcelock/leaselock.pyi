from typing import Literal

from kubernetes.client import ApiException, V1Lease
from kubernetes.leaderelection.leaderelectionrecord import LeaderElectionRecord

class LeaseLock:
    name: str
    namespace: str
    identity: str
    lease_reference: V1Lease | None
    # The library sets a CoordinationV1Api, and calls three of its methods.
    api_instance: object
    def __init__(self, name: str, namespace: str, identity: str) -> None: ...
    def get(
        self, name: str, namespace: str
    ) -> tuple[Literal[True], LeaderElectionRecord] | tuple[Literal[False], ApiException]: ...
    def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool: ...
    def update(self, name: str, namespace: str, updated_record: LeaderElectionRecord) -> bool: ...
