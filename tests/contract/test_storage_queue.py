"""One suite for two Queue services: the embedded Azure's, and in the slow tier Azurite's, with the unmodified client.

Both accept the tokens of the embedded Azure's Entra. No test waits: messages become visible by an update.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.core.pipeline.transport import AioHttpTransport
from azure.identity.aio import ClientSecretCredential
from azure.storage.queue import CorsRule, TextBase64DecodePolicy, TextBase64EncodePolicy
from azure.storage.queue.aio import QueueClient, QueueServiceClient

from keysync.emulator import Emulator, EmulatorData, QueueData
from tests.support.azurite import Azurite, is_there, running_azurite


class Fixed:
    """A credential with one token for everything."""

    def __init__(self, token: str) -> None:
        self._token = AccessToken(token, 2**40)

    async def get_token(self, *_scopes: str, **_options: Any) -> AccessToken:
        """The token, whatever the scope."""
        return self._token

    async def close(self) -> None:
        """No-op."""


@dataclass
class Backend:
    """A running service: the URL of an account, and what clients of it need."""

    url: str
    credential: Any
    session: aiohttp.ClientSession

    def service(self, **options: Any) -> QueueServiceClient:
        """The client of the account."""
        return QueueServiceClient(self.url, self.credential, **self._wire(), **options)

    def queue(self, name: str, **options: Any) -> QueueClient:
        """The client of a queue, by its URL."""
        return QueueClient.from_queue_url(f"{self.url}/{name}", self.credential, **self._wire(), **options)

    def _wire(self) -> dict[str, Any]:
        return {"transport": AioHttpTransport(session=self.session, session_owner=False), "retry_total": 0}


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """One Azurite for all tests: its start takes seconds."""
    if not is_there():
        pytest.skip("Azurite is not installed; nox -s slow brings it if npm is there")
    with running_azurite(tmp_path_factory.mktemp("azurite")) as running:
        yield running


@pytest.fixture(params=["emulator", pytest.param("azurite", marks=pytest.mark.slow)])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    """Each service in turn, without queues of other tests."""
    async with AsyncExitStack() as stack:
        azure = await stack.enter_async_context(Emulator(EmulatorData(queues=[QueueData(name="of-the-data")])))
        ends = azure.endpoints
        context = ssl.create_default_context(cafile=ends.ca_bundle)
        url = ends.queues["of-the-data"].rpartition("/")[0]
        if request.param == "azurite":
            azurite = request.getfixturevalue("azurite")
            context.load_verify_locations(cafile=azurite.bundle)
            url = azurite.url
        connector = aiohttp.TCPConnector(ssl=context)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector, auto_decompress=False))
        credential = ClientSecretCredential(
            ends.tenant_id,
            ends.client_id,
            ends.client_secret,
            authority=ends.authority,
            disable_instance_discovery=True,
            transport=AioHttpTransport(session=session, session_owner=False),
        )
        service = Backend(url, credential, session)
        yield service
        async for queue in service.service().list_queues():
            await service.service().delete_queue(queue.name)


@pytest.fixture
async def queue(backend: Backend) -> QueueClient:
    """A new queue."""
    client = backend.queue("events")
    await client.create_queue()
    return client


async def test_queues_are_created_listed_and_deleted(backend: Backend) -> None:
    """Page by page, with metadata."""
    service = backend.service()
    names = [f"queue-{number}" for number in range(5)]
    for number, name in enumerate(names):
        await service.create_queue(name, metadata={"number": str(number)})
    listed = [each async for each in service.list_queues("queue-", include_metadata=True, results_per_page=2)]
    assert [each.name for each in listed] == names
    assert [each.metadata for each in listed] == [{"number": str(number)} for number in range(5)]
    await service.delete_queue("queue-3")
    assert [each.name async for each in service.list_queues("queue-")] == [*names[:3], names[4]]
    with pytest.raises(ResourceNotFoundError) as caught:
        await service.delete_queue("queue-3")
    assert caught.value.error_code == "QueueNotFound"


async def test_a_queue_exists_once(queue: QueueClient, backend: Backend) -> None:
    """A second creation is an error, also with other metadata."""
    for metadata in (None, {"other": "yes"}):
        with pytest.raises(ResourceExistsError) as caught:
            await backend.queue("events").create_queue(metadata=metadata)
        assert caught.value.error_code == "QueueAlreadyExists"


async def test_properties_of_a_queue(queue: QueueClient) -> None:
    """Its metadata, and the number of messages including invisible ones."""
    await queue.set_queue_metadata({"owner": "keysync"})
    for text in ("one", "two"):
        await queue.send_message(text)
    await queue.receive_message()
    properties = await queue.get_queue_properties()
    assert properties.metadata == {"owner": "keysync"}
    assert properties.approximate_message_count == 2


async def test_messages_are_received_and_deleted(queue: QueueClient) -> None:
    """A received message is invisible, and gone after the deletion."""
    sent = await queue.send_message("<first> & more")
    await queue.send_message("second")
    received = await queue.receive_message(visibility_timeout=60)
    assert received is not None
    assert (received.content, received.dequeue_count, received.id) == ("<first> & more", 1, sent.id)
    assert received.next_visible_on > received.inserted_on == sent.inserted_on
    assert (received.expires_on - received.inserted_on).days == 7
    assert [message.content for message in await queue.peek_messages(32)] == ["second"]
    await queue.delete_message(received)
    with pytest.raises(ResourceNotFoundError) as caught:
        await queue.delete_message(received)
    assert caught.value.error_code == "MessageNotFound"
    assert [message.content async for message in queue.receive_messages(messages_per_page=32)] == ["second"]
    assert await queue.receive_message() is None


async def test_a_message_comes_again(queue: QueueClient) -> None:
    """Once it is visible, with a higher count and another pop receipt. The old one is of no use."""
    await queue.send_message("again")
    first = await queue.receive_message()
    assert first is not None
    updated = await queue.update_message(first, visibility_timeout=0)
    assert updated.pop_receipt != first.pop_receipt
    second = await queue.receive_message()
    assert second is not None
    assert (second.id, second.dequeue_count) == (first.id, 2)
    with pytest.raises(HttpResponseError) as caught:
        await queue.delete_message(first)
    assert (caught.value.status_code, caught.value.error_code) == (400, "PopReceiptMismatch")
    await queue.delete_message(second)


async def test_an_update_changes_the_text(queue: QueueClient) -> None:
    """Without a text the old one stays."""
    await queue.send_message("before")
    message = await queue.receive_message()
    assert message is not None
    updated = await queue.update_message(message, visibility_timeout=0, content="after")
    assert [each.content for each in await queue.peek_messages()] == ["after"]
    assert updated.next_visible_on is not None


async def test_peeking_changes_nothing(queue: QueueClient) -> None:
    """The order and the counts stay."""
    for number in range(3):
        await queue.send_message(str(number))
    for _ in range(2):
        peeked = await queue.peek_messages(2)
        assert [(message.content, message.dequeue_count) for message in peeked] == [("0", 0), ("1", 0)]


async def test_a_queue_is_cleared(queue: QueueClient) -> None:
    """Also of invisible messages."""
    await queue.send_message("visible")
    await queue.send_message("later", visibility_timeout=60)
    await queue.clear_messages()
    assert (await queue.get_queue_properties()).approximate_message_count == 0


async def test_a_message_may_be_visible_later_and_stay_for_ever(queue: QueueClient) -> None:
    """`visibility_timeout`, and a time to live of -1."""
    sent = await queue.send_message("later", visibility_timeout=60, time_to_live=-1)
    assert sent.expires_on.year == 9999
    assert await queue.receive_message() is None
    assert (await queue.get_queue_properties()).approximate_message_count == 1


async def test_messages_in_base64(backend: Backend, queue: QueueClient) -> None:
    """What Event Grid sends is base64."""
    policies = {"message_encode_policy": TextBase64EncodePolicy(), "message_decode_policy": TextBase64DecodePolicy()}
    encoded = backend.queue("events", **policies)
    await encoded.send_message('{"text": "ä"}')
    assert [message.content for message in await queue.peek_messages()] == ["eyJ0ZXh0IjogIsOkIn0="]
    message = await encoded.receive_message()
    assert message is not None
    assert message.content == '{"text": "ä"}'


async def test_a_message_has_64_kib_at_most(queue: QueueClient) -> None:
    """In UTF-8. The code depends on the size of the whole body."""
    await queue.send_message("x" * 65_536)
    with pytest.raises(HttpResponseError) as caught:
        await queue.send_message("ä" * 32_769)
    assert (caught.value.status_code, caught.value.error_code) in {
        (400, "MessageTooLarge"),
        (413, "RequestBodyTooLarge"),
    }


async def test_ranges_are_checked(queue: QueueClient) -> None:
    """Each with the code that names the parameter."""

    async def code(**options: Any) -> tuple[int | None, str, str]:
        with pytest.raises(HttpResponseError) as caught:
            async for _ in queue.receive_messages(**options):
                pass
        return caught.value.status_code, caught.value.error_code, caught.value.additional_info["queryparametername"]

    assert await code(messages_per_page=33) == (400, "OutOfRangeQueryParameterValue", "numofmessages")
    assert await code(visibility_timeout=604_801) == (400, "OutOfRangeQueryParameterValue", "visibilitytimeout")
    with pytest.raises(HttpResponseError) as caught:
        await queue.send_message("text", visibility_timeout=20, time_to_live=10)
    assert (caught.value.status_code, caught.value.error_code) == (400, "InvalidQueryParameterValue")


async def test_a_missing_queue(backend: Backend) -> None:
    """Every operation says so."""
    client = backend.queue("missing")
    for operation in (client.send_message("text"), client.receive_message(), client.get_queue_properties()):
        with pytest.raises(ResourceNotFoundError) as caught:
            await operation
        assert caught.value.error_code == "QueueNotFound"
        assert "The specified queue does not exist." in caught.value.message


@pytest.mark.parametrize(("name", "code"), [("Events_1", "InvalidResourceName"), ("ab", "OutOfRangeInput")])
async def test_names_are_checked(backend: Backend, name: str, code: str) -> None:
    """Lowercase letters, digits and single hyphens, 3 to 63 of them."""
    with pytest.raises(HttpResponseError) as caught:
        await backend.queue(name).create_queue()
    assert (caught.value.status_code, caught.value.error_code) == (400, code)


async def test_a_token_for_another_service_is_refused(backend: Backend, queue: QueueClient) -> None:
    """The audience must be Storage's."""
    # A credential that gets the right token after a challenge would hide it.
    wrong = Fixed((await backend.credential.get_token("https://vault.azure.net/.default")).token)
    client = Backend(backend.url, wrong, backend.session).queue("events")
    with pytest.raises((ClientAuthenticationError, HttpResponseError)) as caught:
        await client.receive_message()
    assert caught.value.status_code in {401, 403}


async def test_properties_of_the_service(backend: Backend) -> None:
    """What was set is read back."""
    service = backend.service()
    properties = await service.get_service_properties()
    assert properties["cors"] == []
    properties["hour_metrics"].enabled = True
    properties["hour_metrics"].include_apis = False
    rule = CorsRule(["https://example.com"], ["GET"])
    await service.set_service_properties(hour_metrics=properties["hour_metrics"], cors=[rule])
    properties = await service.get_service_properties()
    assert properties["hour_metrics"].enabled
    assert properties["cors"][0].allowed_origins == "https://example.com"
