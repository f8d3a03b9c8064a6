"""How a vault asks for a token: the challenges of Azure's clouds, and variants of them that clients meet."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from keysync.emulator.faults import HeaderText

Cloud = Literal["emulator", "public", "usgov", "china"]

CLOUDS: Final[dict[Cloud, tuple[str, str]]] = {
    "public": ("https://login.microsoftonline.com", "https://vault.azure.net"),
    "usgov": ("https://login.microsoftonline.us", "https://vault.usgovcloudapi.net"),
    "china": ("https://login.chinacloudapi.cn", "https://vault.azure.cn"),
}
"""The authority and the resource in the challenges of each cloud."""


class ChallengeData(BaseModel):
    """The challenge of a vault. By default it leads to the emulator's own Entra.

    `cloud` gives it the addresses of one of Azure's clouds; `authority` and `resource` (URLs) replace them. `scheme` and
    `parameter` are the spellings of the header. `body: false` sends the header alone, as the service of 2018 did.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cloud: Cloud = "emulator"
    authority: HeaderText | None = None
    resource: HeaderText | None = None
    scheme: Literal["Bearer", "bearer"] = "Bearer"
    parameter: Literal["authorization", "authorization_uri"] = "authorization"
    body: bool = True
