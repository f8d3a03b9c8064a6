"""The events of actions in queues: their schemas, the filters of a subscription, and what goes wrong on the way."""

import base64
import json

import pytest
from azure.core.pipeline.transport import AioHttpTransport
from azure.storage.queue.aio import QueueClient

from keysync.emulator import AccountData, DeliveryFaults, Emulator, EmulatorData, Fault, QueueData, VaultData
from keysync.emulator.identity_data import IdentityData, RoleData
from tests.unit.emulator.conftest import SUB, connect, credential_of

ACCOUNT = f"/subscriptions/{SUB}/resourceGroups/rg/providers/Microsoft.Batch/batchAccounts/farm1"
REGENERATE = "Microsoft.Batch/batchAccounts/regenerateKeys/action"
LIST = "Microsoft.Batch/batchAccounts/listKeys/action"


def data(**queue) -> EmulatorData:
    return EmulatorData(
        accounts=[
            AccountData(subscription_id=SUB, resource_group="rg", name=name) for name in ("farm1", "farm2", "farm3")
        ],
        vaults=[VaultData(name="kv-a"), VaultData(name="kv-denied")],
        queues=[QueueData(name="events", **queue)],
    )


@pytest.fixture
def fields():
    """Fields of the queue; tests override it."""
    return {}


@pytest.fixture
async def azure(clock, fields):
    async with Emulator(data(**fields), clock=clock) as running:
        yield running


@pytest.fixture
async def client(azure):
    async with connect(azure) as connected:
        yield connected


async def received(client):
    """The texts in the queue, removed from it by an unmodified client."""
    transport = AioHttpTransport(session=client.session, session_owner=False)
    queue = QueueClient.from_queue_url(client.azure.endpoints.queues["events"], client.credential, transport=transport)
    messages = [message async for message in queue.receive_messages(messages_per_page=32)]
    for message in messages:
        await queue.delete_message(message)
    return [message.content for message in messages]


async def events(client):
    """The events in the queue."""
    return [json.loads(base64.b64decode(text)) for text in await received(client)]


async def subjects(client):
    """The accounts that the events are about."""
    return [event["subject"].rpartition("/")[2] for event in await events(client)]


async def test_a_regeneration_has_the_fields_of_event_grid(client, azure):
    """Those of the example that Event Grid documents for ResourceActionSuccess, a listing of keys."""
    headers = {"x-ms-client-request-id": "mine", "x-ms-correlation-request-id": "ours"}
    await client.batch.batch_account.regenerate_key("rg", "farm1", {"keyName": "Primary"}, headers=headers)
    (event,) = await events(client)
    claims = event["data"].pop("claims")
    evidence = event["data"]["authorization"].pop("evidence")
    url = f"{azure.endpoints.resource_manager}{ACCOUNT}/regenerateKeys?api-version=2025-06-01"
    assert event.pop("id")
    assert event == {
        "subject": ACCOUNT,
        "eventType": "Microsoft.Resources.ResourceActionSuccess",
        "eventTime": "2027-01-15T08:00:00.0000000Z",
        "data": {
            "authorization": {"scope": ACCOUNT, "action": REGENERATE},
            "correlationId": "ours",
            "httpRequest": {
                "clientRequestId": "mine",
                "clientIpAddress": "127.0.0.1",
                "method": "POST",
                "url": url,
            },
            "resourceProvider": "Microsoft.Batch",
            "resourceUri": ACCOUNT,
            "operationName": REGENERATE,
            "status": "Succeeded",
            "subscriptionId": SUB,
            "tenantId": azure.endpoints.tenant_id,
        },
        "dataVersion": "2",
        "metadataVersion": "1",
        "topic": f"/subscriptions/{SUB}",
    }
    assert claims["appid"] == azure.endpoints.client_id
    assert claims["http://schemas.microsoft.com/identity/claims/tenantid"] == azure.endpoints.tenant_id
    assert {type(value) for value in claims.values()} == {str}
    assert evidence.pop("roleAssignmentId")
    assert evidence == {
        "role": "Owner",
        "roleAssignmentScope": f"/subscriptions/{SUB}",
        "roleDefinitionId": "8e3af657-a8ff-443c-a75c-2fe8c4bcb635".replace("-", ""),
        "principalId": claims["http://schemas.microsoft.com/identity/claims/objectidentifier"].replace("-", ""),
        "principalType": "ServicePrincipal",
    }


async def test_the_evidence_is_the_role_of_the_caller(clock):
    """Its scope and its ids."""
    role = RoleData(role="Azure Batch Account Contributor", scope="farm1")
    identity = IdentityData(name="rotator", roles=[role])
    content = data().model_copy(update={"identities": [identity]})
    async with Emulator(content, clock=clock) as azure, connect(azure) as client:
        credential = credential_of(client, client_id=identity.client_id, client_secret=identity.client_secret)
        token = (await credential.get_token("https://management.azure.com/.default")).token
        headers = {"Authorization": f"Bearer {token}"}
        status, _, _ = await client.arm(f"{ACCOUNT}/listKeys?api-version=2024-07-01", "POST", headers=headers)
        (message,) = azure.state.queues.named("events").peek(32, clock())
    evidence = json.loads(base64.b64decode(message.text))["data"]["authorization"]["evidence"]
    assert status == 200
    assert (evidence["role"], evidence["roleAssignmentScope"]) == (role.role, ACCOUNT)
    assert evidence["principalId"] == identity.object_id.replace("-", "")


async def test_every_action_has_an_event_and_no_read(client, azure):
    """Listing keys is an action, a PATCH is a write. Reads, listings and refused calls have none."""
    await client.batch.batch_account.get_keys("rg", "farm1")
    await client.batch.batch_account.update("rg", "farm1", {"tags": {"a": "b"}})
    await client.batch.batch_account.get("rg", "farm1")
    assert [each.name async for each in client.batch.batch_account.list()]
    await client.arm(f"{ACCOUNT}x/listKeys?api-version=2024-07-01", "POST")
    azure.state.regenerate("farm1", "Secondary")
    sent = await events(client)
    assert [(event["eventType"], event["data"]["operationName"]) for event in sent] == [
        ("Microsoft.Resources.ResourceActionSuccess", LIST),
        ("Microsoft.Resources.ResourceWriteSuccess", "Microsoft.Batch/batchAccounts/write"),
        ("Microsoft.Resources.ResourceActionSuccess", REGENERATE),
    ]


@pytest.mark.parametrize("fields", [{"event_schema": "CloudEventSchemaV1_0"}])
async def test_the_schema_of_cloud_events(client):
    """The same data, with the source in place of the topic."""
    await client.batch.batch_account.regenerate_key("rg", "farm1", {"keyName": "Primary"})
    (event,) = await events(client)
    assert event.pop("data")["operationName"] == REGENERATE
    assert event.pop("id")
    assert event == {
        "source": f"/subscriptions/{SUB}",
        "specversion": "1.0",
        "type": "Microsoft.Resources.ResourceActionSuccess",
        "subject": ACCOUNT,
        "time": "2027-01-15T08:00:00.0000000Z",
    }


@pytest.mark.parametrize("fields", [{"base64": False}])
async def test_an_event_may_be_plain_text(client, azure):
    """For consumers that other senders use too."""
    azure.state.regenerate("farm1", "Primary")
    (text,) = await received(client)
    assert json.loads(text)["data"]["operationName"] == REGENERATE


@pytest.mark.parametrize("fields", [{"actions": ["*/regeneratekeys/action"], "scope": f"{ACCOUNT}/"}])
async def test_a_subscription_has_filters(client, azure):
    """By the operation, without regard to case, and by the resource."""
    await client.batch.batch_account.get_keys("rg", "farm1")
    for name in ("farm2", "farm1"):
        azure.state.regenerate(name, "Primary")
    assert await subjects(client) == ["farm1"]


@pytest.mark.parametrize("fields", [{"delivery": {"lose": 1, "duplicate": 1}}])
async def test_events_are_lost_and_duplicated(client, azure):
    """Each fault is used up by as many events as it says."""
    for name in ("farm1", "farm2", "farm3"):
        azure.state.regenerate(name, "Primary")
    assert await subjects(client) == ["farm2", "farm2", "farm3"]


@pytest.mark.parametrize("fields", [{"delivery": {"reorder": 2}}])
async def test_events_change_places(client, azure):
    """The first waits for the second and comes after it."""
    azure.state.regenerate("farm1", "Primary")
    assert await received(client) == []
    for name in ("farm2", "farm3"):
        azure.state.regenerate(name, "Primary")
    assert await subjects(client) == ["farm2", "farm1", "farm3"]


@pytest.mark.parametrize("fields", [{"delivery": {"delay": 60}}])
async def test_events_come_late(client, azure, clock):
    """By the emulator's clock."""
    azure.state.regenerate("farm1", "Primary")
    assert await received(client) == []
    clock.now += 61
    assert await subjects(client) == ["farm1"]


@pytest.mark.parametrize("fields", [{"delivery": {"poison": 4}}])
async def test_events_may_be_poison(client, azure):
    """No base64, no JSON, no event, and an event of another shape."""
    for _ in range(5):
        azure.state.regenerate("farm1", "Primary")
    texts = await received(client)
    with pytest.raises(ValueError, match=r"base64|padding|characters"):
        base64.b64decode(texts[0], validate=True)
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(base64.b64decode(texts[1]))
    assert [type(json.loads(base64.b64decode(text))) for text in texts[2:]] == [list, dict, dict]
    assert json.loads(base64.b64decode(texts[4]))["subject"] == ACCOUNT


async def test_an_operation_whose_reply_is_lost_has_its_event(client, azure):
    """The event tells that the key was regenerated."""
    azure.faults.add(Fault(operation="regenerateKeys", status=503, after=True, times=1))
    status, _, _ = await client.arm(
        f"{ACCOUNT}/regenerateKeys?api-version=2024-07-01", "POST", json={"keyName": "Primary"}
    )
    assert status == 503
    assert await subjects(client) == ["farm1"]


async def test_a_deleted_queue_gets_no_events(client, azure):
    """They are lost, as without a dead-letter destination."""
    azure.state.queues.remove(azure.state.queues.named("events"))
    azure.state.regenerate("farm1", "Primary")
    assert azure.state.queues.all() == []


async def control(client, method, path, body=None):
    """A call to the control address."""
    async with client.session.request(method, f"{client.azure.endpoints.control}{path}", json=body) as reply:
        return reply.status, await reply.json() if reply.content_type == "application/json" else None


async def test_the_control_address_changes_the_delivery(client):
    """A POST replaces all faults of a queue, a GET shows what is left of them."""
    assert await control(client, "POST", "/queues/events/delivery", {"lose": 1, "delay": 0.5}) == (204, None)
    status, body = await control(client, "GET", "/queues/events")
    assert (status, body["delivery"]) == (200, DeliveryFaults(lose=1, delay=0.5).model_dump())
    await control(client, "POST", "/accounts/farm1/regenerate", {"keyName": "Primary"})
    assert (await control(client, "GET", "/queues/events"))[1] == {
        "account": "keysyncevents",
        "name": "events",
        "messages": 0,
        "visible": 0,
        "delivery": DeliveryFaults(delay=0.5).model_dump(),
    }
    status, body = await control(client, "POST", "/queues/events/delivery", {"loose": 1})
    assert status == 400
    assert "did you mean 'lose'?" in body["error"]["message"]
    assert (await control(client, "POST", "/queues/none/delivery", {}))[0] == 404


async def test_the_control_address_puts_and_clears_messages(client):
    """Any text, as another sender would put it."""
    for text in ("one", "two"):
        assert await control(client, "POST", "/queues/events/messages", {"text": text}) == (204, None)
    assert (await control(client, "GET", "/queues/events"))[1]["messages"] == 2
    assert await received(client) == ["one", "two"]
    await control(client, "POST", "/queues/events/messages", {"text": "three"})
    assert await control(client, "DELETE", "/queues/events/messages") == (204, None)
    assert await received(client) == []


@pytest.mark.parametrize("text", ["a\x00b", "x" * 65_537])
async def test_a_text_that_no_message_can_have_is_refused(client, text):
    """No XML holds it, or it is longer than 64 KiB."""
    status, reply = await control(client, "POST", "/queues/events/messages", {"text": text})
    assert (status, reply["error"]["message"].startswith("Invalid message: text: ")) == (400, True)
    assert (await control(client, "GET", "/queues/events"))[1]["messages"] == 0
