from datetime import datetime

class Configuration:
    retries: bool | int | None
    proxy: str | None

class ApiException(Exception):
    status: int | None
    reason: str | None
    body: str | None
    def __init__(self, status: int | None = None, reason: str | None = None) -> None: ...

class ApiClient:
    configuration: Configuration
    def __init__(self, configuration: Configuration) -> None: ...
    def close(self) -> None: ...

class V1ObjectMeta:
    resource_version: str

class V1LeaseSpec:
    holder_identity: str | None
    lease_duration_seconds: int | None
    renew_time: datetime | None

class V1Lease:
    metadata: V1ObjectMeta
    spec: V1LeaseSpec | None

class CoordinationV1Api:
    def __init__(self, api_client: ApiClient) -> None: ...
    def read_namespaced_lease(self, name: str, namespace: str, *, _request_timeout: float) -> V1Lease: ...
    def create_namespaced_lease(self, namespace: str, body: object, *, _request_timeout: float) -> V1Lease: ...
    def replace_namespaced_lease(
        self, name: str, namespace: str, body: object, *, _request_timeout: float
    ) -> V1Lease: ...
