"""A reply of listKeys or of a GET of the account counts only if it is about that account, and a key must be a key."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from keysync.emulator import Fault
from keysync.failures import CallFailed
from tests.contract.conftest import PRIMARY, SECONDARY, BehindTheSdks

LONG = base64.b64encode(b"x" * 32).decode()


def answer(side: BehindTheSdks, operation: str, body: object, **more: Any) -> None:
    """Makes Resource Manager answer an operation with `body`."""
    text = body if isinstance(body, str) else json.dumps(body)
    side.azure.faults.add(Fault.model_validate({"operation": operation, "kind": "body", "body": text, **more}))


@pytest.mark.parametrize("name", ["beta", "alph\u0430", "alphaa", "", None, 7, ["alpha"]])
async def test_keys_of_another_account_are_refused(azure_side: BehindTheSdks, name: object) -> None:
    """A misrouted reply: both keys are refused, and the refusal names the requested account."""
    answer(azure_side, "listKeys", {"accountName": name, "primary": PRIMARY, "secondary": SECONDARY})
    keys = await azure_side.source.get_keys()
    assert dict(keys.values) == {}
    assert set(keys.refused) == {"primary", "secondary"}
    assert all("alpha" in reason for reason in keys.refused.values())


async def test_a_reply_without_an_account_name_is_refused(azure_side: BehindTheSdks) -> None:
    """It could be about any account."""
    answer(azure_side, "listKeys", {"primary": PRIMARY, "secondary": SECONDARY})
    assert dict((await azure_side.source.get_keys()).values) == {}


async def test_the_account_name_is_compared_without_case(azure_side: BehindTheSdks) -> None:
    """Azure returns the spelling used at creation."""
    answer(azure_side, "listKeys", {"accountName": "ALPHA", "primary": PRIMARY, "secondary": SECONDARY})
    assert set((await azure_side.source.get_keys()).values) == {"primary", "secondary"}


@pytest.mark.parametrize(
    "value", [None, "", "REDACTED", "fakeKey", "null", "YWJj", 7, [LONG], LONG[:-4], LONG + "\n", "not base64!"]
)
async def test_an_invalid_key_is_refused_and_the_other_is_not(azure_side: BehindTheSdks, value: object) -> None:
    """A key is base64 of at least 32 bytes; the other key is still served."""
    answer(azure_side, "listKeys", {"accountName": "alpha", "primary": value, "secondary": LONG})
    keys = await azure_side.source.get_keys()
    assert (set(keys.values), set(keys.refused)) == ({"secondary"}, {"primary"})


async def test_equal_keys_are_refused(azure_side: BehindTheSdks) -> None:
    """The two keys of an account differ."""
    answer(azure_side, "listKeys", {"accountName": "alpha", "primary": LONG, "secondary": LONG})
    assert dict((await azure_side.source.get_keys()).values) == {}


UNREADABLE: list[dict[str, Any]] = [
    {"body": "null"},
    {"body": "[]"},
    {"body": "7"},
    {"body": "["},
    {"body": "[" * 30_000},
    {"body": '{"value": ' + "9" * 5_000 + "}"},
    {"body": "not compressed", "headers": {"Content-Encoding": "gzip"}},
    {"body": "{}", "headers": {"Content-Type": "application/json; charset=klingon"}},
    {"body": " " * 65536, "repeat": 1024, "gzip": True},
]


@pytest.mark.parametrize("reply", UNREADABLE, ids=lambda reply: str(reply)[:40])
@pytest.mark.parametrize("operation", ["listKeys", "getAccount", "token"])
async def test_a_malformed_reply_is_an_invalid_response(
    azure_side: BehindTheSdks, operation: str, reply: dict[str, Any]
) -> None:
    """For Resource Manager and for Entra; it is not called a bug of keysync."""
    answer(azure_side, operation, **reply)
    with pytest.raises(CallFailed) as caught:
        await (azure_side.source.probe() if operation == "getAccount" else azure_side.source.get_keys())
    assert caught.value.record.kind in {"invalid_response", *(["authentication"] if operation == "token" else [])}


@pytest.mark.parametrize("field", ["id", "none"])
async def test_a_reply_about_another_account_is_not_used(azure_side: BehindTheSdks, field: str) -> None:
    """Its SharedKey setting says nothing about the requested account."""
    other = azure_side.azure.state.account("alpha").id.replace("alpha", "beta")
    modes = {"properties": {"allowedAuthenticationModes": ["AAD"]}}
    answer(azure_side, "getAccount", {"id": other, **modes} if field == "id" else modes)
    with pytest.raises(CallFailed) as caught:
        await azure_side.source.probe()
    assert caught.value.record.kind == "invalid_response"


@pytest.mark.parametrize("trait", ["modes", "pools"])
async def test_keys_of_an_account_without_shared_key_are_not_used(azure_side: BehindTheSdks, trait: str) -> None:
    """A GET that was made for another reason counts, although listKeys replies 200. A later GET of the account ends
    it."""
    account = azure_side.azure.state.account("alpha")
    answer(azure_side, "listKeys", {"accountName": "alpha", "primary": PRIMARY, "secondary": SECONDARY})
    assert set((await azure_side.source.get_keys()).values) == {"primary", "secondary"}
    assert azure_side.azure.counts["getAccount"] == 0
    if trait == "modes":
        account.authentication_modes = ["AAD"]
    else:
        account.pool_allocation_mode = "UserSubscription"
    for call in (azure_side.source.probe, azure_side.source.get_keys):
        with pytest.raises(CallFailed) as caught:
            await call()
        assert caught.value.record.kind == "shared_key_disabled"
    azure_side.azure.faults.add(Fault(operation="getAccount", status=403, code="AuthorizationFailed", times=1))
    with pytest.raises(CallFailed) as caught:
        await azure_side.source.get_keys()
    assert caught.value.record.kind == "shared_key_disabled"
    account.authentication_modes, account.pool_allocation_mode = ["SharedKey"], "BatchService"
    assert set((await azure_side.source.get_keys()).values) == {"primary", "secondary"}
    asked = azure_side.azure.counts["getAccount"]
    await azure_side.source.get_keys()
    assert azure_side.azure.counts["getAccount"] == asked
