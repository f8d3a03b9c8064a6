"""A token that a service refuses is dropped everywhere, and one more attempt is made with a new one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from keysync.emulator import Fault
from keysync.failures import CallFailed
from keysync.secret.value import SecretValue
from keysync.targets.interface import Absent, Metadata
from tests.contract.conftest import PRIMARY, BehindTheSdks

NAME = "alpha-primary-key"


async def test_a_revoked_token_of_resource_manager_is_replaced_at_once(azure_side: BehindTheSdks) -> None:
    """The token has not expired, so every cache would keep it. The call still succeeds, with one new token."""
    await azure_side.source.get_keys()
    azure_side.azure.revoke_tokens()
    azure_side.azure.counts.clear()
    keys = await azure_side.source.get_keys()
    assert set(keys.values) == {"primary", "secondary"}
    assert azure_side.azure.counts == {"listKeys": 2, "token": 1}
    await azure_side.source.get_keys()
    assert azure_side.azure.counts == {"listKeys": 3, "token": 1}


async def test_a_revoked_token_of_a_vault_is_replaced_at_once(azure_side: BehindTheSdks) -> None:
    """A read and a write succeed, and the write makes one version."""
    assert await azure_side.target.read(NAME) == Absent()
    azure_side.azure.revoke_tokens()
    azure_side.azure.counts.clear()
    await azure_side.target.write(NAME, SecretValue(PRIMARY), Metadata({}, None), before=None)
    assert azure_side.azure.counts["token"] == 1
    # The versions are listed first, so that request is refused and sent again.
    assert (azure_side.azure.counts["listVersions"], azure_side.azure.counts["setSecret"]) == (2, 1)
    assert [value for value, _, _ in azure_side.versions(NAME)] == [PRIMARY]


async def test_many_calls_with_a_revoked_token_request_one_new_token(azure_side: BehindTheSdks) -> None:
    """Each call notices the revocation separately; they share one token request."""
    await azure_side.target.prime()
    azure_side.azure.revoke_tokens()
    azure_side.azure.counts.clear()
    found = await asyncio.gather(*(azure_side.target.read(f"secret-{number}") for number in range(30)))
    assert found == [Absent()] * 30
    assert azure_side.azure.counts["token"] == 1


def _list_keys(side: BehindTheSdks) -> Callable[[], Awaitable[object]]:
    return side.source.get_keys


def _read_secret(side: BehindTheSdks) -> Callable[[], Awaitable[object]]:
    return lambda: side.target.read(NAME)


@pytest.mark.parametrize(
    ("operation", "call", "seen"),
    [
        ("listKeys", _list_keys, [(2, 1), (4, 3)]),
        # A vault forgets its challenge with the token: the first request of the second call has no token.
        ("getSecret", _read_secret, [(2, 1), (3, 2)]),
    ],
    ids=["Batch", "Key Vault"],
)
async def test_a_rejected_new_token_is_a_failure(
    azure_side: BehindTheSdks,
    operation: str,
    call: Callable[[BehindTheSdks], Callable[[], Awaitable[object]]],
    seen: list[tuple[int, int]],
) -> None:
    """One more attempt with a new token, then the call fails; the next call requests a new token again."""
    await azure_side.target.prime()
    run, counts = call(azure_side), azure_side.azure.counts
    await run()
    ends = azure_side.azure.endpoints
    challenge = f'Bearer authorization="{ends.authority}/{ends.tenant_id}", resource="https://vault.azure.net"'
    fault = Fault(operation=operation, status=401, code="Unauthorized", headers={"WWW-Authenticate": challenge})
    azure_side.azure.faults.add(fault)
    counts.clear()
    for requests in seen:
        with pytest.raises(CallFailed) as refused:
            await run()
        assert (refused.value.record.kind, refused.value.record.http_status) == ("authentication", 401)
        assert (counts[operation], counts["token"]) == requests
    azure_side.azure.faults.clear()
    counts.clear()
    await run()
    assert counts["token"] == 1
