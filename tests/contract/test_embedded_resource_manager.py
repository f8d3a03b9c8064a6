"""Every recorded reply of Resource Manager and Batch has its counterpart, compared field by field."""

import base64
import re
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from keysync.emulator import Emulator, EmulatorData, Fault
from keysync.emulator.throttle import ARM_LIMITS
from tests.support.replay import Recorded
from tests.unit.emulator.conftest import Clock, connect

FOLDER: Final = Path(__file__).parents[1] / "data" / "real_replies"
DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "emulator.md"
TENANT, CLIENT, OBJECT, SUB = (f"00000000-0000-0000-0000-0000000000{end}" for end in ("aa", "cc", "dd", "01"))
OTHER: Final = SUB.replace("01", "02")
KEYS: Final = {
    "primary": base64.b64encode(b"A" * 64).decode(),
    "secondary": base64.b64encode(b"B" * 64).decode(),
}
MODES: Final = ["AAD", "TaskAuthenticationToken"]
BYOS: Final = {"location": "japaneast", "properties": {"poolAllocationMode": "UserSubscription"}}
ABSENT_HEADERS: Final = {
    "Server",
    "Vary",
    "Strict-Transport-Security",
    "X-Cache",
    "X-MSEdge-Ref",
}
"""Headers that the emulator does not send; docs/emulator.md says why."""
OWN_HEADERS: Final = {"content-length", "connection", "date", "transfer-encoding"}
"""Of one connection: they are no part of a case."""

VARIABLE: Final = {
    r"https://(sts\.windows\.net|login\.windows\.net|management\.azure\.com|localhost:\d+)": "HOST",
    r"RequestId:[0-9a-f-]+": "RequestId:ID",
    r"Time:[\d-]+T[\d:.]+Z": "Time:TIME",
    r"\d+/\d+/\d+ \d+:\d+:\d+ [AP]M": "TIME",
    r"(?<=after ')\d+(?=')": "N",
    r"timestamp '\d{8}T\d{6}Z'": "timestamp 'TIME'",
    r"(tracking|correlation) id '[0-9a-f-]+'": r"\1 id 'ID'",
    r"Tracking Id is '[^']+'": "Tracking Id is 'ID'",
    r"(?<=supported api-versions are ')[^']+": "VERSIONS",
    r"(?<=supported locations are ')[^']+": "LOCATIONS",
    r"(?<=skiptoken=)[\w%-]+": "POSITION",
    r"[0-9a-f-]{36}\.\w+\.service\.batch\.azure\.com": "NODES",
    r"\w+\.(\w+)\.batch\.azure\.com|localhost:\d+": "ENDPOINT",
    r"https://[\w-]+\.vault\.azure\.net/": "VAULT",
    r"HOST/(?=$)": "VAULT",
}
"""What differs from one request to the next, or from one machine to the next."""
QUOTAS: Final = {"dedicatedCoreQuota", "lowPriorityCoreQuota", "poolQuota", "activeJobAndJobScheduleQuota", "coreQuota"}


@dataclass
class Case:
    """How the emulator comes into the situation of a recorded reply.

    `account` are fields of the account in the data, None for no account; `data` further fields of the data. `path` and
    `version` replace those of the request, where the recorded file has another reply's request. `differs` names the fields of
    the body, and the headers, whose values differ; docs/emulator.md lists them.
    """

    account: dict[str, Any] | None = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    fault: dict[str, Any] | None = None
    method: str | None = None
    path: str | None = None
    version: str | None = None
    body: Any = None
    differs: tuple[str, ...] = ()


def gateway_fault(code, message, status):
    """A fault that sends an error of the gateway that has no state in the emulator; a challenge is the recorded one."""
    return {
        "operation": "listKeys", "status": status, "code": code, "message": message,
        "headers": {"x-ms-failure-cause": "gateway"},
    }  # fmt: skip


def state_of_subscription(**fields):
    """The subscription of the request in a state."""
    return {"subscriptions": [{"id": SUB, **fields}]}


ROOT: Final = f"/subscriptions/{SUB}/resourceGroups/default-azurebatch-japaneast"
BATCH: Final = f"{ROOT}/providers/Microsoft.Batch/batchAccounts"
ACCOUNT: Final = f"{BATCH}/sampleacct"
NO_KEYS: Final = ("code", "message")
"""Of the refusal without shared keys: the emulator's code says itself that it is invented."""

CASES: Final = {
    "arm-401-cae-claims": Case(fault=gateway_fault("InvalidAuthenticationToken", "Continuous access evaluation resulted in challenge", 401)),
    "arm-401-expired": Case(),
    "arm-401-tenant": Case({"tenant_id": TENANT.replace("aa", "bb")}),
    "arm-429-resource-collection": Case({"fault": "throttled"}),
    "arm-429-subscription": Case(),
    "arm-503-server-timeout": Case(fault={"operation": "listKeys", "status": 503}),
    "arm-504-gateway-timeout": Case(fault={"operation": "listKeys", "status": 504}),
    "arm-api-version-unknown": Case({"location": "chinanorth3"}, {"api_versions": {"Microsoft.Batch": ["2024-07-01"]}}),
    "arm-authorization-failed-2022": Case({"denied": True}),
    "arm-deny-assignment": Case(data={"deny_assignments": [{"scope": f"/subscriptions/{SUB}", "id": "0000"}]}),
    "arm-disabled-subscription": Case(data=state_of_subscription(state="Disabled")),
    "arm-list-disallowed-operation": Case(data=state_of_subscription(providers_blocked=True)),
    "arm-listkeys-null-keys": Case(fault={"operation": "listKeys", "kind": "null_keys"}),
    "arm-not-registered": Case(data=state_of_subscription(unregistered=["Microsoft.Batch"])),
    "arm-rec-node-resourcegroupnotfound": Case(body={"location": "japaneast"}),
    "arm-resource-group-not-found": Case(path=ACCOUNT.replace("default-azurebatch-japaneast", "does-not-exist") + "/listKeys"),
    "arm-resource-not-found": Case({"name": "another"}, path=f"{ACCOUNT}/listKeys"),
    "arm-scope-locked": Case(data={"locks": [{"scope": ROOT, "level": "ReadOnly"}]}),
    "arm-subscription-not-found": Case({"subscription_id": OTHER}),
    "batch-400-details-reason": Case(None, {"resource_groups": [{"subscription_id": SUB, "name": "default-azurebatch-japaneast"}]}, method="PUT", path=ACCOUNT, body=BYOS),
    "batch-account-not-found-rp-1": Case({"deleted": True}),
    "batch-byos-2019-no-modes-field-1": Case({"pool_allocation_mode": "UserSubscription"}, differs=NO_KEYS),
    "batch-byos-2019-no-modes-field-2": Case({"pool_allocation_mode": "UserSubscription"}, differs=("allowedAuthenticationModes", "keyVaultReference", "dedicatedCoreQuota", "dedicatedCoreQuotaPerVMFamily", "lowPriorityCoreQuota")),
    "batch-list-2019-shape": Case(differs=("identity", "publicNetworkAccess", "encryption", "allowedAuthenticationModes")),
    "batch-list-empty": Case(None, state_of_subscription()),
    "batch-list-nextlink-empty-page-1": Case(),
    "batch-list-nextlink-empty-page-2": Case(),
    "batch-listkeys-200-2020": Case(),
    "batch-listkeys-200-2024": Case(),
    "batch-listkeys-200-2025-globalwrites": Case(),
    "batch-listkeys-200-fakeKey": Case({"name": "myaccountxxx", "primary": "fakeKey", "secondary": "fakeKey"}, path=f"{BATCH}/myaccountxxx/listKeys"),
    "batch-no-sharedkey-status400-1": Case({"allowed_authentication_modes": MODES}, differs=("status", *NO_KEYS)),
    "batch-no-sharedkey-status400-2": Case({"allowed_authentication_modes": MODES}),
    "batch-no-sharedkey-status401-1": Case({"allowed_authentication_modes": MODES}, differs=("status", *NO_KEYS)),
    "batch-no-sharedkey-status401-2": Case({"allowed_authentication_modes": MODES}),
    "batch-no-sharedkey-status403-1": Case({"allowed_authentication_modes": MODES}, differs=NO_KEYS),
    "batch-no-sharedkey-status403-2": Case({"allowed_authentication_modes": MODES}),
    "batch-no-sharedkey-status405-1": Case({"allowed_authentication_modes": MODES}, differs=("status", *NO_KEYS)),
    "batch-no-sharedkey-status405-2": Case({"allowed_authentication_modes": MODES}),
    "batch-no-sharedkey-status409-1": Case({"allowed_authentication_modes": MODES}, differs=("status", *NO_KEYS)),
    "batch-no-sharedkey-status409-2": Case({"allowed_authentication_modes": MODES}),
    "batch-rec-account-404-accountnotfound": Case({"deleted": True, "resource_group": "rg1"}),
    "batch-rec-account-get": Case({"resource_group": "rg1", "location": "centralus"}),
    "batch-rec-application-404": Case({"resource_group": "rg1"}),
    "batch-rec-listkeys": Case({"resource_group": "rg1"}),
    "batch-rec-node-byos-400-details": Case(None, {"resource_groups": [{"subscription_id": SUB, "name": "default-azurebatch-japaneast"}]}, body=BYOS),
    "batch-rec-node-listkeys": Case(),
    "batch-rec-node-regeneratekeys": Case(body={"keyName": "Primary"}),
    "batch-rec-regeneratekeys": Case({"resource_group": "rg1"}, body={"keyName": "Primary"}),
    "batch-usersub-2021-1": Case({"pool_allocation_mode": "UserSubscription"}, differs=("keyVaultReference",)),
    "batch-usersub-2021-2": Case({"pool_allocation_mode": "UserSubscription"}, differs=NO_KEYS),
    "c7n-rec-batchtest-1": Case({"name": "cctest", "resource_group": "test_batch", "location": "westus2"}),
    "c7n-rec-keyvaultsecretstest-1": Case(None, {"vaults": "two"}, differs=("objectId",)),
    "c7n-rec-keyvaultsecretstest-2": Case(None, {"vaults": "two"}),
}  # fmt: skip

DOCUMENTED: Final = (
    *ABSENT_HEADERS,
    "SharedKeyAccessNotAllowed",
    "dedicatedCoreQuota",
    "keyVaultReference",
    "2018-12-01",
    "nextLink",
)
"""The differences by a word of their own in docs/emulator.md."""


def test_every_recorded_case_has_its_counterpart():
    """A new recorded reply needs an entry here."""
    files = {path.stem for path in FOLDER.rglob("*.json") if path.stem.split("-")[0] in {"arm", "batch", "c7n"}}
    assert files == set(CASES)


def test_every_difference_is_documented():
    """The documentation names each header and field that differs."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert [word for word in DOCUMENTED if word not in text] == []


def recorded(name) -> Recorded:
    (path,) = FOLDER.rglob(f"{name}.json")
    return Recorded.read(path)


def world(case) -> EmulatorData:
    """The data of a case, and the vaults that the clients of the tests need."""
    place = {"subscription_id": SUB, "resource_group": "default-azurebatch-japaneast"}
    account = {**place, "name": "sampleacct", "location": "japaneast", **KEYS, **(case.account or {})}
    elsewhere = {"subscription_id": OTHER, "resource_group": "elsewhere"}
    vaults = [{**elsewhere, "name": "kv-a"}, {**elsewhere, "name": "kv-denied"}]
    data = dict(case.data)
    if data.pop("vaults", None):
        policies = [{"identity": "sync", "secrets": ["get", "set", "delete", "purge", "list"]}]
        group = {"subscription_id": SUB, "resource_group": "cfb-test-group", "location": "centralus"}
        common = {**group, "access_policies": policies, "retention_days": 7, "tenant_id": SUB}
        common["tags"] = {"c7n": "true", "product_id": "13742"}
        vaults += [{**common, "name": "kv-replay"}, {**common, "name": "kv-second"}]
    identity = {"name": "sync", "client_id": CLIENT, "object_id": OBJECT, "unrestricted": True}
    return EmulatorData.model_validate(
        {
            "tenant_id": TENANT,
            "page_size": 1,
            "identities": [identity],
            "accounts": [account] if case.account is not None else [],
            "vaults": vaults,
            **data,
        }
    )


async def reply_of(name, case, client, clock):
    """The emulator's reply to the request of a case."""
    request, azure = recorded(name).request, client.azure
    if case.fault is not None:
        challenge = recorded(name).response["headers"].get("WWW-Authenticate")
        headers = case.fault.get("headers", {}) | ({"WWW-Authenticate": challenge} if challenge else {})
        azure.faults.add(Fault.model_validate({**case.fault, "headers": headers}))
    method = case.method or request["method"]
    version = case.version or request["api_version"].partition("&")[0]
    url = f"{case.path or request['path']}?api-version={version}"
    if name == "arm-401-expired":
        await client.token(azure.endpoints.resource_manager)
        clock.now += 86_400
    if name == "arm-429-subscription":
        own, _ = ARM_LIMITS["write"]
        for _ in range(int(own.burst)):
            assert (await client.arm(url, method))[0] == 200
    if "nextlink-empty" in name or name.startswith("c7n-rec-keyvault"):
        return await _page(name, client, version)
    return await client.arm(url, method, **({} if case.body is None else {"json": case.body}))


async def _page(name, client, version):
    """The first of two pages of a listing; or the second, after its item has disappeared."""
    state = client.azure.state
    base = client.azure.endpoints.resource_manager
    if name.startswith("batch"):
        place = {"location": "japaneast"}
        assert (await client.arm(f"{BATCH}/second?api-version={version}", "PUT", json=place))[0] == 200
        path = f"/subscriptions/{SUB}/providers/Microsoft.Batch/batchAccounts?api-version={version}"
    else:
        path = f"/subscriptions/{SUB}/providers/Microsoft.KeyVault/vaults?api-version={version}"
    first = await client.arm(path)
    if name in {"batch-list-nextlink-empty-page-2", "c7n-rec-keyvaultsecretstest-1"}:
        return first
    if name.startswith("batch"):
        state.delete(state.account("second"))
    else:
        state.vault("kv-second").subscription_id = OTHER
    return await client.arm(first[1]["nextLink"].removeprefix(base))


@pytest.mark.parametrize("name", CASES)
async def test_a_reply_is_as_recorded(name):
    """Its status, each field of its body, and each header with a meaning."""
    case, clock, expected = CASES[name], Clock(), recorded(name).response
    async with AsyncExitStack() as stack:
        azure = await stack.enter_async_context(Emulator(world(case), clock=clock, limits=True))
        client = await stack.enter_async_context(connect(azure))
        status, body, headers = await reply_of(name, case, client, clock)
    if "status" not in case.differs:
        assert status == expected["status"]
    assert comparable(body, case.differs, name) == comparable(expected["body"], case.differs, name)
    compare_headers(headers, expected["headers"])


def comparable(value, differs, name):
    """`value` with the differing parts replaced."""
    if isinstance(value, dict):
        return {
            key: _number(key, each) if key in QUOTAS else comparable(each, differs, name)
            for key, each in value.items()
            if key not in differs and not (key in {"primary", "secondary"} and "regenerate" in name)
        }
    if isinstance(value, list):
        if value and isinstance(value[0], dict) and "coreQuota" in value[0]:
            return comparable(value[:1], differs, name) if len(value) == 1 else [comparable(value[0], differs, name)]
        if {"get", "set"} <= {str(each).lower() for each in value}:
            return [each.lower() for each in value]  # permissions, as the client wrote them
        return [comparable(each, differs, name) for each in value]
    return _text(value) if isinstance(value, str) else value


def _number(_key, value):
    """A quota is a number, or null in user-subscription mode; which number does not matter."""
    assert value is None or isinstance(value, int)
    return None if value is None else "NUMBER"


def _text(value):
    for pattern, word in VARIABLE.items():
        value = re.sub(pattern, word, value)
    return value


def compare_headers(actual, expected):
    """Each recorded header is sent, with its value unless that is an id; and the gateway's only when it was."""
    ignored = {name.lower() for name in ABSENT_HEADERS} | OWN_HEADERS
    for name, value in expected.items():
        if name.lower() in ignored:
            continue
        assert name in actual, name
        if name.lower() in {"cache-control", "pragma", "expires", "content-type", "x-content-type-options"}:
            assert actual[name] == value
        elif name.lower() == "www-authenticate":
            assert _tenantless(actual[name]) == _tenantless(value)
        elif name.lower() == "x-ms-routing-request-id":
            assert re.fullmatch(r"[A-Z0-9]+:\d{8}T\d{6}Z:[0-9a-f-]{36}", actual[name])
        elif name.lower() == "etag":
            assert re.fullmatch(r'"0x[0-9A-F]{15}"', actual[name])
        elif name.lower() == "retry-after" or "ratelimit" in name.lower():
            assert actual[name].isdigit()
    assert ("x-ms-failure-cause" in actual) == any(name.lower() == "x-ms-failure-cause" for name in expected)


def _tenantless(challenge):
    return _text(challenge.strip())
