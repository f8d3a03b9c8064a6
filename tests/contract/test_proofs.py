"""Keys are proven by the unmodified data-plane SDK against the embedded Azure."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from keysync.azure.errors import AzureFailureTranslator
from keysync.azure.retry import Caller, RetryPolicy
from keysync.azure.transport import open_transport
from keysync.emulator import Emulator, Fault
from keysync.emulator.state import Account
from keysync.rotation.prove import Proof, prove
from keysync.secret.redact import Redactor
from keysync.secret.reveal import reveal
from keysync.secret.value import SecretValue
from keysync.sources.batch_data_plane import BatchDataPlane
from tests.support.azure import data

KEYLESS = {"name": "keyless", "allowed_authentication_modes": ["AAD"]}


class Proofs:
    """The embedded Azure, and proofs of keys of its accounts. `requests` are the operations and statuses of the calls."""

    def __init__(self, azure: Emulator, data_plane: BatchDataPlane) -> None:
        self.azure = azure
        self.data_plane = data_plane
        self.requests: list[tuple[str, str]] = []

    def key(self, account: str = "farm1") -> SecretValue:
        """The primary key."""
        return SecretValue(self._account(account).primary)

    async def prove(self, key: SecretValue, account: str = "farm1", *, endpoint: str | None = None) -> Proof:
        """The proof of `key` for `account`."""
        at = endpoint or self._account(account).endpoint
        return await prove(partial(self.data_plane.sign_in, at, account), key)

    def _account(self, name: str) -> Account:
        return next(account for account in self.azure.state.accounts.values() if account.name == name)


@pytest.fixture
async def proofs() -> AsyncIterator[Proofs]:
    """Proofs with the shared transport, as in a run."""
    async with AsyncExitStack() as stack:
        azure = await stack.enter_async_context(Emulator(data("farm1", "farm2", KEYLESS)))
        redactor = Redactor()
        transport = await open_transport(
            stack, ca_bundle=Path(azure.endpoints.ca_bundle), connect_seconds=5, redactor=redactor
        )
        caller = Caller(
            AzureFailureTranslator(redactor),
            RetryPolicy(attempts=2, base=0.0),
            timeout=5.0,
            observe=lambda operation, status: made.requests.append((operation.name, status)),
        )
        made = Proofs(azure, BatchDataPlane(transport, caller))
        yield made


async def test_a_live_key_is_proven(proofs: Proofs) -> None:
    assert await proofs.prove(proofs.key()) == Proof("proven")
    assert proofs.requests == [("listSupportedImages", "200")]
    assert proofs.azure.counts["listSupportedImages"] == 1


async def test_a_regenerated_key_is_refused(proofs: Proofs) -> None:
    old = proofs.key()
    proofs.azure.state.regenerate("farm1", "Primary")
    proof = await proofs.prove(old)
    assert proof.result == "refused"
    assert "AuthenticationFailed" in proof.reason
    assert await proofs.prove(proofs.key()) == Proof("proven")


async def test_nothing_of_the_signed_string_is_in_the_reason(proofs: Proofs) -> None:
    """The body of a refusal repeats that string, and so may the text of an exception."""
    reason = (await proofs.prove(proofs.key("farm2"))).reason
    assert "ocp-date" not in reason
    assert "supportedimages" not in reason
    assert reveal(proofs.key("farm2"))[:8] not in reason


@pytest.mark.parametrize(
    ("ahead", "direction"), [(timedelta(hours=1), "60 minutes ahead of"), (timedelta(hours=-1), "60 minutes behind")]
)
async def test_a_wrong_clock_proves_nothing(proofs: Proofs, ahead: timedelta, direction: str) -> None:
    proofs.data_plane = replace(proofs.data_plane, now=lambda: datetime.now(UTC) + ahead)
    proof = await proofs.prove(proofs.key("farm2"))
    assert proof.result == "unproven"
    assert f"the clock of this machine is {direction} the service's" in proof.reason


async def test_an_account_without_shared_key_is_refused(proofs: Proofs) -> None:
    assert (await proofs.prove(proofs.key("keyless"), "keyless")).result != "proven"


@pytest.mark.parametrize(
    "fault",
    [
        Fault(operation="listSupportedImages", status=503, code="ServerBusy"),
        Fault(operation="listSupportedImages", kind="reset"),
        Fault(operation="listSupportedImages", status=403, code="PublicNetworkAccessDenied"),
        Fault(operation="listSupportedImages", kind="html"),
    ],
)
async def test_an_answer_about_something_else_proves_nothing(proofs: Proofs, fault: Fault) -> None:
    proofs.azure.faults.add(fault)
    assert (await proofs.prove(proofs.key())).result == "unproven"


async def test_an_endpoint_that_cannot_be_reached_proves_nothing(proofs: Proofs) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        proof = await proofs.prove(proofs.key(), endpoint=f"localhost:{unused.getsockname()[1]}")
    assert proof.result == "unproven"
    assert "did not answer" in proof.reason
