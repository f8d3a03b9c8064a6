"""The endpoints of each Azure cloud, and the token scope of its Resource Manager."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from keysync.config.credentials import Cloud, CloudMapping


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The endpoints of one cloud."""

    authority: str
    resource_manager: str
    resource_manager_scope: str
    """The scope of tokens for Resource Manager. In US Government its host is not that of the endpoint (source:
    azure-mgmt-core, `get_arm_endpoints`)."""

    ca_bundle: Path | None = None
    known: bool = True
    """Whether Entra publishes this authority. If not, the SDK skips instance discovery."""


_CLOUDS: Final = {
    "public": ("login.microsoftonline.com", "management.azure.com", "management.azure.com"),
    "usgovernment": ("login.microsoftonline.us", "management.usgovcloudapi.net", "management.core.usgovcloudapi.net"),
    "china": ("login.chinacloudapi.cn", "management.chinacloudapi.cn", "management.chinacloudapi.cn"),
}


def endpoints_of(cloud: Cloud) -> Endpoints:
    """The endpoints of a named cloud, or those in the configuration's mapping."""
    if not isinstance(cloud, CloudMapping):
        authority, resource_manager, scope = _CLOUDS[cloud]
        return Endpoints(f"https://{authority}", f"https://{resource_manager}", f"https://{scope}/.default")
    resource_manager = cloud.resource_manager.rstrip("/")
    return Endpoints(
        authority=cloud.authority.rstrip("/"),
        resource_manager=resource_manager,
        resource_manager_scope=cloud.resource_manager_scope or f"{resource_manager}/.default",
        ca_bundle=cloud.ca_bundle,
        known=False,
    )
