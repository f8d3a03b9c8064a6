"""The Queue service where it differs from Azurite, or needs a clock: tests/contract/test_storage_queue.py has the rest."""

import asyncio
import ssl
import xml.etree.ElementTree as ET  # nosec B405  # replies of the emulator
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.core.pipeline.transport import AioHttpTransport
from azure.identity import ClientSecretCredential as SyncCredential
from azure.storage.queue import QueueClient as SyncQueueClient
from azure.storage.queue import QueueServiceClient
from azure.storage.queue.aio import QueueClient

from keysync.emulator import Emulator, EmulatorData, Fault, QueueData
from keysync.emulator.identity_data import IdentityData, RoleData
from tests.unit.emulator.conftest import OTHER_TENANT, connect, credential_of, sample

DAY = 86_400
VERSION = {"x-ms-version": "2024-11-04"}


def with_queues(*queues, **fields) -> EmulatorData:
    return EmulatorData.model_validate({**sample().model_dump(), "queues": queues, **fields})


@pytest.fixture
async def azure(clock):
    queues = [QueueData(name="events", messages=["first", "second"]), QueueData(name="denied", denied=["getMessages"])]
    async with Emulator(with_queues(*queues, token_lifetime=10 * DAY), clock=clock) as running:
        yield running


@pytest.fixture
async def client(azure):
    async with connect(azure) as connected:
        yield connected


def queue_of(client, name="events", credential=None):
    transport = AioHttpTransport(session=client.session, session_owner=False)
    url = client.azure.endpoints.queues[name]
    return QueueClient.from_queue_url(url, credential or client.credential, transport=transport, retry_total=0)


def elements(body):
    """The texts of a document's elements by their names."""
    return {each.tag: each.text for each in ET.fromstring(body)}  # noqa: S314  # nosec B314  # as at the import


async def send(client, method, url, **kwargs):
    """A plain request with a token. Returns the status, the error code, and the text of each element."""
    token = await client.token("https://storage.azure.com")
    headers = {"Authorization": f"Bearer {token}", **VERSION, **kwargs.pop("headers", {})}
    async with client.session.request(method, url, headers=headers, **kwargs) as reply:
        body = await reply.read()
        found = elements(body) if body else {}
        return reply.status, reply.headers.get("x-ms-error-code"), found, reply.headers


async def test_messages_of_the_data_file_are_there(client):
    """At the URL of the ready file, in their order."""
    assert [message.content for message in await queue_of(client).peek_messages(32)] == ["first", "second"]


async def test_a_message_is_visible_again_after_its_timeout(client, clock):
    """30 seconds by default; its old receipt is valid until another client has received it."""
    queue = queue_of(client)
    first = await queue.receive_message()
    assert first.next_visible_on - first.inserted_on == timedelta(seconds=30)
    clock.now += 29
    assert [message.content for message in await queue.peek_messages(32)] == ["second"]
    clock.now += 2
    again = await queue.receive_message(visibility_timeout=100)
    assert (again.content, again.dequeue_count) == ("first", 2)
    with pytest.raises(HttpResponseError, match="PopReceiptMismatch"):
        await queue.delete_message(first)
    clock.now += 101
    await queue.delete_message(again)
    assert (await queue.get_queue_properties()).approximate_message_count == 1


async def test_a_message_expires(client, clock):
    """After a week, or its own time to live."""
    queue = queue_of(client)
    await queue.send_message("short", time_to_live=60)
    received = await queue.receive_message()
    clock.now += 61
    assert [message.content for message in await queue.peek_messages(32)] == ["first", "second"]
    clock.now += 7 * DAY
    assert await queue.peek_messages(32) == []
    with pytest.raises(ResourceNotFoundError, match="MessageNotFound"):
        await queue.delete_message(received)


async def test_a_message_is_delayed(client, clock):
    """`visibility_timeout` of a new message."""
    queue = queue_of(client)
    await queue.clear_messages()
    await queue.send_message("later", visibility_timeout=10)
    assert await queue.receive_message() is None
    clock.now += 10
    assert (await queue.receive_message()).content == "later"


@pytest.mark.parametrize(
    ("size", "status", "code"), [(65_537, 400, "MessageTooLarge"), (70_000, 413, "RequestBodyTooLarge")]
)
async def test_a_long_message_is_refused(client, size, status, code):
    """By the size of the text or, far above the limit, of the body."""
    with pytest.raises(HttpResponseError) as caught:
        await queue_of(client).send_message("x" * size)
    assert (caught.value.status_code, caught.value.error_code) == (status, code)


@pytest.mark.parametrize(
    ("method", "path", "fields", "status", "code"),
    [
        ("GET", "/events/messages?numofmessages=0", {}, 400, "OutOfRangeQueryParameterValue"),
        ("GET", "/events/messages?numofmessages=many", {}, 400, "InvalidQueryParameterValue"),
        ("GET", "/events/messages?visibilitytimeout=0", {}, 400, "OutOfRangeQueryParameterValue"),
        ("POST", "/events/messages?messagettl=0", {"data": b"<QueueMessage><MessageText/></QueueMessage>"}, 400, "InvalidQueryParameterValue"),
        ("POST", "/events/messages", {"data": b"<QueueMessage>"}, 400, "InvalidXmlDocument"),
        ("POST", "/events/messages", {"data": b"<Other/>"}, 400, "InvalidXmlDocument"),
        ("POST", "/events/messages", {"data": b"<!DOCTYPE a><QueueMessage><MessageText/></QueueMessage>"}, 400, "InvalidXmlDocument"),
        ("PUT", "/events/messages/1?popreceipt=x", {}, 400, "MissingRequiredQueryParameter"),
        ("PUT", "/events/messages/1?popreceipt=x&visibilitytimeout=1", {}, 404, "MessageNotFound"),
        ("DELETE", "/events/messages/1", {}, 400, "MissingRequiredQueryParameter"),
        ("GET", "/events?comp=acl", {}, 400, "InvalidUri"),
        ("GET", "/events/elsewhere", {}, 400, "InvalidUri"),
        ("PATCH", "/events", {}, 405, "UnsupportedHttpVerb"),
        ("GET", "?comp=list", {"headers": {"x-ms-version": "2009-09-19"}}, 400, "InvalidHeaderValue"),
        ("GET", "?comp=list", {"headers": {"x-ms-version": ""}}, 400, "MissingRequiredHeader"),
        ("PUT", "?restype=service&comp=properties", {"data": b"none"}, 400, "InvalidXmlDocument"),
    ],
)  # fmt: skip
async def test_errors_have_the_codes_of_storage(client, method, path, fields, status, code):
    """In XML, with the id of the request, which is also a header."""
    account = client.azure.endpoints.queues["events"].rpartition("/")[0]
    actual, header, body, headers = await send(client, method, f"{account}{path}", **fields)
    assert (actual, header, body["Code"]) == (status, code, code)
    assert f"\nRequestId:{headers['x-ms-request-id']}\nTime:" in body["Message"]
    assert headers["Content-Type"] == "application/xml"


async def test_an_unknown_storage_account(client):
    """It has no service."""
    base = client.azure.endpoints.queues["events"].partition("/keysyncevents")[0]
    assert (await send(client, "GET", f"{base}/other?comp=list"))[:2] == (404, "ResourceNotFound")


async def test_the_challenge_leads_to_a_token(client, azure):
    """A client with a token for another service gets the tenant and the resource from it, as the SDK does."""
    url = f"{azure.endpoints.queues['events']}/messages?peekonly=true"
    async with client.session.get(url, headers=VERSION) as reply:
        assert (reply.status, reply.headers["x-ms-error-code"]) == (401, "NoAuthenticationInformation")
        challenge = reply.headers["WWW-Authenticate"]
    authority = f"{azure.endpoints.authority}/{azure.endpoints.tenant_id}"
    assert challenge == (f"Bearer authorization_uri={authority}/oauth2/authorize resource_id=https://storage.azure.com")
    wrong = QueueClient.from_queue_url(
        azure.endpoints.queues["events"],
        client.credential,
        audience="https://vault.azure.net/",
        transport=AioHttpTransport(session=client.session, session_owner=False),
    )
    assert len(await wrong.peek_messages(32)) == 2


@pytest.mark.parametrize(
    ("authorization", "status", "code", "detail"),
    [
        ("SharedKey keysyncevents:AAAA", 403, "KeyBasedAuthenticationNotPermitted", None),
        ("Bearer none", 401, "InvalidAuthenticationInfo", "Signature validation failed. Signature did not match."),
        ("vault", 401, "InvalidAuthenticationInfo", "Audience validation failed. Audience did not match."),
        ("expired", 401, "InvalidAuthenticationInfo", "Lifetime validation failed. The token is expired."),
    ],
)
async def test_other_credentials_are_refused(client, azure, clock, authorization, status, code, detail):
    """Each with the detail of Storage."""
    if authorization == "vault":
        authorization = f"Bearer {await client.token('https://vault.azure.net')}"
    if authorization == "expired":
        authorization = f"Bearer {await client.token('https://storage.azure.com')}"
        clock.now += 11 * DAY
    url = f"{azure.endpoints.queues['events']}/messages"
    async with client.session.get(url, headers={"Authorization": authorization, **VERSION}) as reply:
        body = elements(await reply.read())
        assert (reply.status, body["Code"], body.get("AuthenticationErrorDetail")) == (status, code, detail)


async def test_an_operation_may_be_denied(client):
    """`denied` of a queue."""
    queue = queue_of(client, "denied")
    await queue.send_message("text")
    with pytest.raises(HttpResponseError) as caught:
        await queue.receive_message()
    assert (caught.value.status_code, caught.value.error_code) == (403, "AuthorizationPermissionMismatch")


async def test_roles_decide(clock):
    """A message processor may receive and delete, and not send; a reader may only peek."""
    roles = {
        "processor": RoleData(role="Storage Queue Data Message Processor", scope="events"),
        "reader": RoleData(role="Storage Queue Data Reader", scope="events"),
        "owner": RoleData(role="Owner"),
    }
    identities = [IdentityData(name=name, roles=[role]) for name, role in roles.items()]
    fields = {**sample().model_dump(exclude={"client_id", "client_secret", "identities"})}
    data = EmulatorData.model_validate(
        {**fields, "identities": identities, "queues": [QueueData(name="events", messages=["text"])]}
    )
    async with Emulator(data, clock=clock) as azure, connect(azure) as client:

        async def outcome(name, action):
            identity = next(each for each in identities if each.name == name)
            credential = credential_of(client, client_id=identity.client_id, client_secret=identity.client_secret)
            try:
                await action(queue_of(client, credential=credential))
            except HttpResponseError as refused:
                return refused.error_code
            return None

        async def receive_and_delete(queue):
            await queue.delete_message(await queue.receive_message())

        missing = "AuthorizationPermissionMismatch"
        peek, post = (lambda queue: queue.peek_messages()), (lambda queue: queue.send_message("more"))
        properties = lambda queue: queue.get_queue_properties()  # noqa: E731  # beside the others
        assert [await outcome("reader", each) for each in (peek, properties, post, receive_and_delete)] == [
            None, None, missing, missing,
        ]  # fmt: skip
        assert [await outcome("processor", each) for each in (peek, receive_and_delete, post, properties)] == [
            None, None, missing, missing,
        ]  # fmt: skip
        # An owner of the resource has no data actions.
        assert [await outcome("owner", each) for each in (properties, peek)] == [None, missing]


async def test_a_fault_has_the_form_of_storage(client, azure):
    """In XML, with the code as a header, which the client reads."""
    azure.faults.add(Fault(operation="getMessages", target="events", status=503))
    with pytest.raises(HttpResponseError) as caught:
        await queue_of(client).receive_message()
    assert (caught.value.status_code, caught.value.error_code) == (503, "ServerBusy")


async def test_the_state_is_kept(tmp_path, clock):
    """Queues with their metadata and messages."""
    data = with_queues(QueueData(name="events"))
    async with Emulator(data, clock=clock, state_directory=tmp_path) as azure, connect(azure) as client:
        queue = queue_of(client)
        await queue.set_queue_metadata({"a": "b"})
        await queue.send_message("kept")
        received = await queue.receive_message()
    async with Emulator(data, clock=clock, state_directory=tmp_path) as azure, connect(azure) as client:
        queue = queue_of(client)
        assert (await queue.get_queue_properties()).metadata == {"a": "b"}
        assert await queue.receive_message() is None
        await queue.delete_message(received)
        assert (await queue.get_queue_properties()).approximate_message_count == 0


async def test_a_token_of_another_tenant_is_refused(client):
    """The storage accounts belong to the tenant of the data."""
    credential = credential_of(client, tenant_id=OTHER_TENANT)
    with pytest.raises(ClientAuthenticationError):
        await queue_of(client, credential=credential).peek_messages()


async def test_azures_own_names_lead_to_the_queues(azure, through_proxy):
    """Through the proxy, with an unmodified client and Azure's usual variables."""
    ends = through_proxy

    def use():
        with SyncCredential(ends.tenant_id, ends.client_id, ends.client_secret) as credential:
            with QueueServiceClient("https://keysyncevents.queue.core.windows.net", credential) as service:
                names = [queue.name for queue in service.list_queues()]
            url = "https://keysyncevents.queue.core.windows.net/events"
            with SyncQueueClient.from_queue_url(url, credential) as queue:
                return names, [message.content for message in queue.receive_messages()]

    assert await asyncio.to_thread(use) == (["denied", "events"], ["first", "second"])
    assert ("getMessages", "events", 200) in azure.requests


async def test_metadata_that_is_not_utf_8_is_replaced(client, azure):
    """So that listings are XML and the state can be saved. No client of HTTP sends such bytes."""
    url = urlsplit(azure.endpoints.queues["events"])
    token = await client.token("https://storage.azure.com")
    context = ssl.create_default_context(cafile=azure.endpoints.ca_bundle)
    reader, writer = await asyncio.open_connection(url.hostname, url.port, ssl=context)
    lines = [
        f"PUT {url.path}?comp=metadata HTTP/1.1",
        f"Host: {url.hostname}:{url.port}",
        f"Authorization: Bearer {token}",
        "x-ms-version: 2024-11-04",
        "Content-Length: 0",
        "Connection: close",
    ]
    writer.write("\r\n".join(lines).encode() + b"\r\nx-ms-meta-a: \xc3\xa9\xff\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 204 ")
    writer.close()
    await writer.wait_closed()
    assert azure.state.queues.named("events").metadata == {"a": "\u00e9\ufffd"}
