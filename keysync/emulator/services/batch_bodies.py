"""The JSON of Batch accounts in each api-version, and the errors of the Batch provider."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from keysync.emulator.state import Account
from keysync.emulator.wire import Json, Reply, error

BATCH_VERSIONS = (
    "2018-12-01", "2020-05-01", "2021-06-01", "2022-01-01", "2022-06-01", "2022-10-01", "2023-05-01", "2023-11-01",
    "2024-02-01", "2024-07-01", "2025-06-01",
)  # fmt: skip
"""The supported api-versions: the current ones, and older ones with a real reply that shows the shape."""

_SINCE = {
    "nodeManagementEndpoint": "2022-06-01",
    "dedicatedCoreQuotaPerVMFamily": "2021-06-01",
    "dedicatedCoreQuotaPerVMFamilyEnforced": "2021-06-01",
    "publicNetworkAccess": "2020-05-01",
    "networkProfile": "2022-06-01",
    "privateEndpointConnections": "2022-01-01",
    "encryption": "2020-05-01",
    "allowedAuthenticationModes": "2021-06-01",
}
"""The first api-version with a property, if 2018-12-01 does not have it."""
_IDENTITY_SINCE = "2020-05-01"
_PERIMETER_SINCE = "2024-07-01"
_FAMILIES = {
    "standardAv2Family": 300,
    "standardDv2Family": 300,
    "standardDSv3Family": 300,
    "Standard NCASv3_T4 Family": 0,
}
_TICKS_1970 = 621_355_968_000_000_000


def account_body(account: Account, version: str = BATCH_VERSIONS[-1]) -> Json:
    """An account as Batch management returns it in an api-version, and Resource Graph in the latest."""
    properties = {name: value for name, value in _properties(account).items() if _SINCE.get(name, "") <= version}
    if properties.get("publicNetworkAccess") == "SecuredByPerimeter" and version < _PERIMETER_SINCE:
        properties["publicNetworkAccess"] = "Disabled"
    body: Json = {
        "id": account.id,
        "name": account.name,
        "type": "Microsoft.Batch/batchAccounts",
        "location": account.location,
        "properties": properties,
    }
    if version >= _IDENTITY_SINCE:
        body["identity"] = account.identity
    return {**body, "tags": account.tags} if account.tags else body


def _properties(account: Account) -> Json:
    # Quotas of an account in user-subscription mode are those of the subscription, so the account has none.
    own = account.pool_allocation_mode == "BatchService"
    families = [{"name": name, "coreQuota": quota} for name, quota in _FAMILIES.items()]
    node_host = f"{uuid.uuid5(uuid.NAMESPACE_URL, account.id)}.{account.location}.service.batch.azure.com"
    given = account.properties
    properties: Json = {
        "accountEndpoint": account.endpoint,
        "nodeManagementEndpoint": node_host,
        "provisioningState": account.provisioning_state,
        "dedicatedCoreQuota": 300 if own else None,
        "dedicatedCoreQuotaPerVMFamily": families if own else None,
        "dedicatedCoreQuotaPerVMFamilyEnforced": True,
        "lowPriorityCoreQuota": 100 if own else None,
        "poolQuota": 100,
        "activeJobAndJobScheduleQuota": 300,
        "autoStorage": given.get("autoStorage"),
        "poolAllocationMode": account.pool_allocation_mode,
        "keyVaultReference": given.get("keyVaultReference"),
        "publicNetworkAccess": given.get("publicNetworkAccess"),
        "networkProfile": given.get("networkProfile"),
        "privateEndpointConnections": [],
        "encryption": given.get("encryption"),
        "allowedAuthenticationModes": account.authentication_modes,
    }
    optional = {"autoStorage", "keyVaultReference", "networkProfile"}
    return {name: value for name, value in properties.items() if value is not None or name not in optional}


def validators(account: Account) -> dict[str, str]:
    """The headers ETag and Last-Modified of an account."""
    ticks = _TICKS_1970 + int(account.modified * 10_000_000)
    modified = datetime.fromtimestamp(account.modified, UTC)
    return {"ETag": f'"0x{ticks:X}"', "Last-Modified": f"{modified:%a, %d %b %Y %H:%M:%S} GMT"}


def batch_error(now: float, status: int, code: str, message: str, reason: str | None = None) -> Reply:
    """An error of Batch: its message ends with the id of the request and the time, the reason is in `details`."""
    request_id = str(uuid.uuid4())
    return error(
        status,
        code,
        f"{message}\nRequestId:{request_id}\nTime:{iso_time(now)}",
        target="BatchAccount",
        details=None if reason is None else [{"code": "Reason", "message": reason}],
        headers={"x-ms-request-id": request_id},
    )


def iso_time(seconds: float) -> str:
    """A time in the format of Batch, such as 2021-07-30T02:23:17.8984853Z."""
    whole, ticks = divmod(int(seconds * 10_000_000), 10_000_000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{ticks:07}Z"
