"""Replies of Batch's data plane and of Storage, and Event Grid's event, compared with real ones field by field."""

import base64
import json
import re
import xml.etree.ElementTree as ET  # nosec B405  # replies of the emulator and of the repository
from pathlib import Path

import pytest

from keysync.emulator import AccountData, Emulator, EmulatorData, QueueData, VaultData
from tests.support.replay import Recorded
from tests.unit.emulator.conftest import OTHER_TENANT, SUB, Clock, connect

FOLDER = Path(__file__).parents[3] / "data" / "real_replies" / "emulator"
DATE = "Fri, 05 May 2017 07:51:18 GMT"
SIGNED = {"Authorization": "SharedKey sampleacct:xxxx", "ocp-date": DATE}
VARIABLE = {
    r"RequestId:[\w-]+": "ID",
    r"Time:[\d:.TZ-]+": "TIME",
    r"https://sampleacct\.japaneast\.batch\.azure\.com|https://localhost:\d+": "ENDPOINT",
}


def comparable(text):
    """A reply without the parts that differ from one request to the next."""
    for pattern, word in VARIABLE.items():
        text = re.sub(pattern, word, text)
    return text


def elements(text):
    """The texts of a document's elements by their names."""
    return {each.tag: each.text for each in ET.fromstring(text)}  # noqa: S314  # nosec B314  # as at the import


def sample(**account) -> EmulatorData:
    place = {"subscription_id": SUB, "resource_group": "rg", "name": "sampleacct", "location": "japaneast"}
    return EmulatorData(
        accounts=[AccountData(**place, **account)],
        vaults=[VaultData(name="kv-a"), VaultData(name="kv-denied", tenant_id=OTHER_TENANT)],
        queues=[QueueData(name="events", actions=["*/listKeys/action"])],
    )


@pytest.mark.parametrize(
    ("case", "account", "audience"),
    [
        ("batchdata-400-version-missing", {}, None),
        ("batchdata-400-version-unknown", {}, None),
        ("batchdata-401-audience", {}, "https://batch.core.windows.net"),
        ("batchdata-403-authorization", {"public_network_access": "Disabled"}, "https://batch.core.windows.net/"),
        ("batchdata-403-shared-key", {"allowed_authentication_modes": ["AAD"]}, None),
        ("batchdata-403-signature", {}, None),
    ],
)
async def test_batch_refuses_as_it_does(case, account, audience):
    """Status, content type and every field of the body."""
    recorded = Recorded.read(FOLDER / f"{case}.json")
    clock = Clock()
    clock.now = 1493970678.0  # DATE
    async with Emulator(sample(**account), clock=clock) as azure, connect(azure) as client:
        headers = SIGNED if audience is None else {"Authorization": f"Bearer {await client.token(audience)}"}
        version = recorded.request["api_version"]
        url = f"{azure.endpoints.batch}{recorded.request['path']}" + (f"?api-version={version}" if version else "")
        async with client.session.request(recorded.request["method"], url, headers=headers) as reply:
            body = json.loads(comparable(await reply.text()))
    if case == "batchdata-400-version-unknown":
        del body["values"]  # the quoted message does not have them
    assert reply.status == recorded.response["status"]
    assert reply.headers["Content-Type"].startswith("application/json")
    assert body == json.loads(comparable(json.dumps(recorded.response["body"])))


@pytest.mark.parametrize(
    ("case", "authorization"), [("queue-401-issuer", None), ("queue-403-key", "SharedKey keysyncevents:AAAA")]
)
async def test_storage_refuses_as_it_does(case, authorization):
    """Status, headers, and every element of the body."""
    recorded = Recorded.read(FOLDER / f"{case}.json")
    async with Emulator(sample()) as azure, connect(azure) as client:
        if authorization is None:
            form = {
                "grant_type": "client_credentials",
                "client_id": azure.endpoints.client_id,
                "client_secret": azure.endpoints.client_secret,
                "scope": "https://storage.azure.com/.default",
            }
            url = f"{azure.endpoints.authority}/{OTHER_TENANT}/oauth2/v2.0/token"
            async with client.session.post(url, data=form) as reply:
                authorization = f"Bearer {(await reply.json())['access_token']}"
        headers = {"Authorization": authorization, "x-ms-version": recorded.request["api_version"]}
        async with client.session.get(f"{azure.endpoints.queues['events']}/messages", headers=headers) as reply:
            body = elements(comparable(await reply.text()))
    assert reply.status == recorded.response["status"]
    for name, value in recorded.response["headers"].items():
        assert reply.headers[name] == value
    assert body == elements(comparable(recorded.response["body"]))


def shape(value, path=""):
    """The path of each value that is no object."""
    if not isinstance(value, dict):
        return {path}
    return {each for name, inner in value.items() for each in shape(inner, f"{path}/{name}")}


async def test_an_event_has_the_fields_of_the_documented_one():
    """A listing of keys, as in the example. The token may have more claims."""
    recorded = Recorded.read(FOLDER / "event-resource-action.json").response["body"]
    async with Emulator(sample()) as azure, connect(azure) as client:
        await client.batch.batch_account.get_keys("rg", "sampleacct")
        (message,) = azure.state.queues.named("events").peek(32, azure.state.clock())
    event = json.loads(base64.b64decode(message.text))
    claims, expected = event["data"].pop("claims"), recorded["data"].pop("claims")
    assert shape(event) == shape(recorded)
    assert set(expected) <= set(claims)
    for field in ("eventType", "dataVersion", "metadataVersion"):
        assert event[field] == recorded[field]
    action = "Microsoft.EventHub/namespaces/AuthorizationRules/listKeys/action"
    assert recorded["data"]["operationName"] == action
    assert event["data"]["operationName"] == "Microsoft.Batch/batchAccounts/listKeys/action"
    assert event["data"]["httpRequest"]["method"] == recorded["data"]["httpRequest"]["method"]
    assert event["data"]["status"] == recorded["data"]["status"]
