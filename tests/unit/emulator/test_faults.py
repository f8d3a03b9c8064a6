"""Faults in operations, and the control address that sets them."""

import asyncio
import time

import aiohttp
import pytest
from azure.core.exceptions import HttpResponseError, ServiceRequestError, ServiceResponseError

from keysync.emulator import Emulator, Fault

from .conftest import SUB, connect, sample

KEYS = f"/subscriptions/{SUB}/resourceGroups/rg/providers/Microsoft.Batch/batchAccounts/acct1/listKeys?api-version=2024-07-01"
SECRET = "/secrets/many00?api-version=7.6"


async def test_the_first_matching_fault_applies(client, azure):
    """As often as its `times`, then the next one."""
    azure.faults.add(Fault(operation="listkeys", target="ACCT*", status=429, retry_after="7", times=1))
    azure.faults.add(Fault(operation="*", target="acct1", status=503, times=1, headers={"x-more": "yes"}))
    status, body, headers = await client.arm(KEYS, "POST")
    assert (status, headers["Retry-After"], body["error"]["code"]) == (429, "7", "SubscriptionRequestsThrottled")
    status, body, headers = await client.arm(KEYS, "POST")
    assert (status, headers["x-more"]) == (503, "yes")
    assert (await client.arm(KEYS, "POST"))[0] == 200


async def test_faults_replace_the_body(client, azure):
    """With HTML, nothing, null keys, or a given text."""
    for fault, expected in [
        (Fault(kind="html", status=200), (200, "<!DOCTYPE html>")),
        (Fault(kind="html", status=502, body="<p>"), (502, "<p>")),
        (Fault(kind="empty"), (200, None)),
        (Fault(kind="body", body="{}"), (200, {})),
        (Fault(kind="null_keys"), (200, {"accountName": "acct1", "primary": None, "secondary": None})),
    ]:
        azure.faults.clear()
        azure.faults.add(fault.model_copy(update={"operation": "listKeys"}))
        status, body, _ = await client.arm(KEYS, "POST")
        if isinstance(body, str):
            body = body[:15]
        assert (status, body) == expected


async def test_faults_drop_the_connection(client, azure):
    """For a reset and for a truncated reply."""
    azure.faults.add(Fault(operation="getSecret", kind="reset"))
    with pytest.raises((ServiceRequestError, ServiceResponseError)):
        await client.secrets.get_secret("many00")
    azure.faults.clear()
    azure.faults.add(Fault(operation="getSecret", kind="truncated", times=1))
    with pytest.raises(aiohttp.ClientPayloadError):
        await client.vault(SECRET)
    assert azure.requests[-1] == ("getSecret", "kv-a/many00", 0)


@pytest.mark.parametrize("kind", ["status", "reset"])
async def test_a_fault_can_follow_the_effect(client, azure, kind):
    """With `after` the secret is set, although the client gets an error."""
    azure.faults.add(Fault(operation="setSecret", target="kv-a", kind=kind, after=True))
    with pytest.raises((HttpResponseError, ServiceRequestError, ServiceResponseError)):
        await client.secrets.set_secret("new", "x")
    # aiohttp retries a PUT if a kept-alive connection is dropped, so a reset makes two versions.
    assert len(azure.state.vault("kv-a").versions("new")) == (1 if kind == "status" else 2)


async def test_a_fault_can_have_an_inner_code(client, azure):
    """As the errors of Key Vault do."""
    azure.faults.add(Fault(operation="getSecret", status=403, code="Forbidden", inner_code="ForbiddenByFirewall"))
    with pytest.raises(HttpResponseError) as caught:
        await client.secrets.get_secret("many00")
    assert caught.value.error.innererror["code"] == "ForbiddenByFirewall"


async def test_a_hanging_request_does_not_delay_closing():
    """Its connection is dropped when the server closes."""
    async with Emulator(sample()) as azure, connect(azure) as client:
        azure.faults.add(Fault(operation="listKeys", kind="hang"))
        with pytest.raises(TimeoutError):
            await client.arm(KEYS, "POST", timeout=aiohttp.ClientTimeout(total=0.05))
        waiting = asyncio.create_task(client.arm(KEYS, "POST"))
        while azure.counts["listKeys"] < 2:  # noqa: ASYNC110  # counts have no event to wait for
            await asyncio.sleep(0.01)
        start = time.monotonic()
        await azure.__aexit__(None, None, None)
        assert time.monotonic() - start < 1
        with pytest.raises(aiohttp.ClientError):
            await waiting


async def test_latency_delays_each_reply():
    """By the given time."""
    async with Emulator(sample(), latency=0.1) as azure, connect(azure) as client:
        await client.token(azure.endpoints.resource_manager)
        start = time.monotonic()
        await client.arm(KEYS, "POST")
        assert time.monotonic() - start >= 0.1


async def test_a_delayed_effect_comes_after_the_reply(client, azure):
    """The client gets the error at once, and the version is added later."""
    azure.faults.add(Fault(operation="setSecret", status=503, after=True, delay=0.05, times=1))
    assert (await client.vault("/secrets/new?api-version=7.6", "PUT", json={"value": "x"}))[0] == 503
    assert (azure.pending_effects, azure.state.vault("kv-a").versions("new")) == (1, [])
    while azure.pending_effects:  # noqa: ASYNC110  # the emulator's timer has no event to wait for
        await asyncio.sleep(0)
    assert [version.value for version in azure.state.vault("kv-a").versions("new")] == ["x"]


async def test_stale_reads_and_ignored_changes(client, azure):
    """`reads` GETs return the secret from before the change. An ignored change gets the usual reply."""
    azure.faults.add(Fault(operation="setSecret", kind="stale", reads=2, times=1))
    written = await client.secrets.set_secret("many00", "later")
    is_current = [
        (await client.secrets.get_secret("many00")).properties.version == written.properties.version for _ in range(3)
    ]
    assert is_current == [False, False, True]
    azure.faults.add(Fault(operation="updateSecret", kind="ignored", times=1))
    updated = await client.secrets.update_secret_properties("many00", content_type="text/x")
    assert updated.content_type == "text/x"
    assert (await client.secrets.get_secret("many00")).properties.content_type is None


async def test_a_misrouted_regeneration_replaces_the_requested_key_only(client, azure):
    """The reply has the keys of the other account, which stay as they are."""
    azure.faults.add(Fault(operation="regenerateKeys", target="acct1", kind="misrouted", other="acct2"))
    path = KEYS.replace("listKeys", "regenerateKeys")
    _, body, _ = await client.arm(path, "POST", json={"keyName": "Primary"})
    assert body == {"accountName": "acct2", "primary": "p2", "secondary": "s2"}
    assert azure.state.keys("acct2") == ("p2", "s2")
    assert azure.state.keys("acct1")[0] != "p1"
    assert azure.state.keys("acct1")[1] == "s1"


async def test_a_fault_applies_to_the_operations_of_its_kind_only(client, azure):
    """Whatever its pattern matches besides them. A pattern that matches none of them is refused."""
    azure.faults.add(Fault(operation="*", kind="ignored"))
    assert (await client.arm(KEYS, "POST"))[0] == 200
    assert (await client.secrets.get_secret("many00")).value == "v0"
    await client.secrets.set_secret("many00", "other")
    assert azure.state.vault("kv-a").versions("many00")[-1].value == "v0"
    with pytest.raises(ValueError, match="the kind stale is for the operations setSecret, updateSecret, deleteSecret"):
        Fault(operation="list*", kind="stale")


async def test_a_misrouted_reply_is_about_another_secret(client, azure):
    """A change still applies to the requested secret."""
    azure.faults.add(Fault(operation="*", target="kv-a/many00", kind="misrouted", other="many01"))
    assert (await client.secrets.get_secret("many00")).name == "many01"
    assert (await client.secrets.set_secret("many00", "mine")).name == "many01"
    assert azure.state.vault("kv-a").versions("many00")[-1].value == "mine"
