"""The addresses of a running emulator, as tests and the ready file give them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Endpoints:
    """The addresses of all services, and the credentials to use them: of the first identity, and of `identities` by name."""

    authority: str
    resource_manager: str
    ca_bundle: str
    ca_pem: str
    tenant_id: str
    client_id: str
    client_secret: str
    identities: dict[str, dict[str, str]]
    vaults: dict[str, str]
    batch: str
    queues: dict[str, str]
    control: str
    proxy: str
    identity_endpoint: str
    identity_header: str

    def ready_file(self) -> bytes:
        """The content of the ready file (JSON)."""
        fields = asdict(self)
        del fields["ca_pem"]
        return (json.dumps(fields, indent=2) + "\n").encode()
