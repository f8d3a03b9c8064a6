"""Where a cloud's services are, and which scope a token for its Resource Manager needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from keysync.config.settings import Cloud, CloudMapping


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Origins of one cloud. `resource_manager_scope` is what the token is asked for: in US Government it is not the
    endpoint's own name (source: azure-mgmt-core, `get_arm_endpoints`)."""

    authority: str
    resource_manager: str
    resource_manager_scope: str
    ca_bundle: Path | None = None
    known: bool = True
    """Whether Entra publishes this authority; for another the SDK's look-up of instances is left out."""


_CLOUDS: Final = {
    "public": Endpoints(
        "https://login.microsoftonline.com",
        "https://management.azure.com",
        "https://management.azure.com/.default",
    ),
    "usgovernment": Endpoints(
        "https://login.microsoftonline.us",
        "https://management.usgovcloudapi.net",
        "https://management.core.usgovcloudapi.net/.default",
    ),
    "china": Endpoints(
        "https://login.chinacloudapi.cn",
        "https://management.chinacloudapi.cn",
        "https://management.chinacloudapi.cn/.default",
    ),
}


def endpoints_of(cloud: Cloud) -> Endpoints:
    """The endpoints of a named cloud, or those that the configuration's mapping gives."""
    if not isinstance(cloud, CloudMapping):
        return _CLOUDS[cloud]
    resource_manager = cloud.resource_manager.rstrip("/")
    return Endpoints(
        authority=cloud.authority.rstrip("/"),
        resource_manager=resource_manager,
        resource_manager_scope=cloud.resource_manager_scope or f"{resource_manager}/.default",
        ca_bundle=cloud.ca_bundle,
        known=False,
    )
