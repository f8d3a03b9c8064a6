"""A vault's reply counts only if it is from the vault, complete, and about the request: through the SDK, over HTTPS."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from keysync.azure.transport import MAX_BODY_BYTES
from keysync.emulator import Fault
from keysync.failures import CallFailed
from keysync.secret.value import SecretValue
from keysync.targets.interface import (
    Absent,
    Disabled,
    History,
    Metadata,
    SoftDeleted,
    StoredSecret,
    WriteConflict,
    WriteUnknown,
)
from tests.contract.conftest import PRIMARY, BehindTheSdks, untagged

NAME = "alpha-primary-key"
OTHER = "beta-primary-key"
VERSION = "0123456789abcdef0123456789abcdef"
MARKED = Metadata({"managed-by": "keysync"}, None)
KELVIN = "\u212a"


def vault_of(side: BehindTheSdks) -> Any:
    """The target, with the methods of the real one."""
    return side.target


async def listed_history(vault: Any, latest: str) -> History:
    """The history of a secret without the count in its tags."""
    return await vault.history(NAME, untagged(latest), at_most=History(0))


def secret(identity: object, **more: object) -> str:
    """A secret as in a vault's reply, with that id."""
    return json.dumps({"id": identity, "value": PRIMARY, "attributes": {"enabled": True}, **more})


def lie(side: BehindTheSdks, operation: str, body: str, **more: Any) -> None:
    """Makes the vault answer an operation on any secret with `body`."""
    side.azure.faults.add(Fault.model_validate({"operation": operation, "kind": "body", "body": body, **more}))


def foreign_ids(side: BehindTheSdks) -> list[object]:
    """Ids of another secret or of another vault."""
    base = side.azure.endpoints.vaults["main"]
    return [
        None,
        7,
        "",
        f"{base}/secrets/{OTHER}/{VERSION}",
        f"{base}/secrets/{NAME.replace('k', KELVIN)}/{VERSION}",
        f"{base}/secrets/{NAME}",
        f"{base}/keys/{NAME}/{VERSION}",
        f"{side.azure.endpoints.resource_manager}/secrets/{NAME}/{VERSION}",
        f"https://kv2.vault.azure.net/secrets/{NAME}/{VERSION}",
        f"{base.replace('https', 'http')}/secrets/{NAME}/{VERSION}",
        f"/secrets/{NAME}/{VERSION}",
    ]


async def failure(call: Any) -> CallFailed:
    """The exception that an operation raises."""
    with pytest.raises(CallFailed) as caught:
        await call
    return caught.value


# Replies about the requested secret


async def test_ids_are_compared_without_case_and_port(azure_side: BehindTheSdks) -> None:
    """An id that the vault spells differently is of the same secret."""
    base = azure_side.azure.endpoints.vaults["main"]
    await azure_side.target.prime()
    lie(azure_side, "getSecret", secret(f"{base.replace('localhost', 'LOCALHOST')}/Secrets/{NAME.upper()}/{VERSION}"))
    found = await azure_side.target.read(NAME)
    assert isinstance(found, StoredSecret)
    assert found.version == VERSION


async def test_a_secret_of_another_name_or_vault_is_not_read(azure_side: BehindTheSdks) -> None:
    """Otherwise keysync would compare its value and overwrite it."""
    await azure_side.target.prime()
    for identity in foreign_ids(azure_side):
        azure_side.azure.faults.clear()
        lie(azure_side, "getSecret", secret(identity))
        found = await failure(azure_side.target.read(NAME))
        assert found.record.kind == "invalid_response", identity


async def test_a_deleted_secret_of_another_name_is_not_used(azure_side: BehindTheSdks) -> None:
    """The same for the read that distinguishes a deleted secret from a free name."""
    base = azure_side.azure.endpoints.vaults["main"]
    lie(azure_side, "getDeletedSecret", secret(f"{base}/secrets/{OTHER}/{VERSION}"))
    assert (await failure(azure_side.target.read(NAME))).record.kind == "invalid_response"


async def test_a_write_with_a_reply_about_another_secret_is_read_back(azure_side: BehindTheSdks) -> None:
    """The write may have succeeded: it is read back, and made once."""
    base = azure_side.azure.endpoints.vaults["main"]
    lie(azure_side, "setSecret", secret(f"{base}/secrets/{OTHER}/{VERSION}"), after=True)
    made = await azure_side.target.write(NAME, SecretValue(PRIMARY), MARKED, before=None)
    (version,) = azure_side.azure.state.vault("main").versions(NAME)
    assert made == version.version
    assert azure_side.azure.counts["setSecret"] == 1


async def test_a_write_that_cannot_be_read_back_is_unknown(azure_side: BehindTheSdks) -> None:
    """If the read is also answered about another secret, the result cannot be known."""
    base = azure_side.azure.endpoints.vaults["main"]
    await azure_side.target.prime()
    for operation in ("setSecret", "getSecret"):
        lie(azure_side, operation, secret(f"{base}/secrets/{OTHER}/{VERSION}"), after=True)
    with pytest.raises(WriteUnknown):
        await azure_side.target.write(NAME, SecretValue(PRIMARY), MARKED, before=None)
    assert azure_side.azure.counts["setSecret"] == 1


@pytest.mark.parametrize("change", ["patch", "enable"])
async def test_a_patch_with_a_reply_about_another_secret_fails(azure_side: BehindTheSdks, change: str) -> None:
    """It is not reported as successful."""
    version = azure_side.put(NAME, PRIMARY)
    base = azure_side.azure.endpoints.vaults["main"]
    lie(azure_side, "updateSecret", secret(f"{base}/secrets/{OTHER}/{version}"))
    vault = vault_of(azure_side)
    call = vault.patch(NAME, version, MARKED) if change == "patch" else vault.enable(NAME, version, enabled=False)
    assert (await failure(call)).record.kind == "invalid_response"


@pytest.mark.parametrize("operation", ["deleteSecret", "recoverSecret"])
async def test_a_deletion_with_a_reply_about_another_secret_is_read_back(
    azure_side: BehindTheSdks, operation: str
) -> None:
    """The reply proves nothing; the read after it does."""
    azure_side.put(NAME, PRIMARY)
    if operation == "recoverSecret":
        azure_side.soft_delete(NAME)
    base = azure_side.azure.endpoints.vaults["main"]
    lie(azure_side, operation, secret(f"{base}/secrets/{OTHER}/{VERSION}", recoveryId="x"), after=True)
    vault = vault_of(azure_side)
    await (vault.delete(NAME) if operation == "deleteSecret" else vault.recover(NAME))
    found = await azure_side.target.read(NAME)
    assert isinstance(found, SoftDeleted if operation == "deleteSecret" else StoredSecret)
    assert azure_side.azure.counts[operation] == 1


async def test_versions_of_another_secret_are_not_counted(azure_side: BehindTheSdks) -> None:
    """A history is about the requested secret, or it is rejected."""
    latest = azure_side.put(NAME, PRIMARY)
    base = azure_side.azure.endpoints.vaults["main"]
    item = {"id": f"{base}/secrets/{OTHER}/{VERSION}", "attributes": {"created": 1}}
    lie(azure_side, "listVersions", json.dumps({"value": [item]}))
    assert (await failure(listed_history(azure_side.target, latest))).record.kind == "invalid_response"


@pytest.mark.parametrize(
    "item",
    [
        {"id": f"https://kv2.vault.azure.net/secrets/{NAME}"},
        {"id": None},
        {},
        [],
        None,
        {"id": "ID", "tags": ["a"]},
        {"id": "ID", "tags": {"keysync-source": 5}},
        {"id": "ID", "attributes": {"exp": 10**30}},
        {"id": "ID", "attributes": {"updated": "soon"}},
    ],
)
async def test_a_listing_with_an_invalid_entry_fails(azure_side: BehindTheSdks, item: Any) -> None:
    """One entry that is no secret of the vault makes the listing fail: no secret counts as an orphan or as deleted."""
    azure_side.put(NAME, PRIMARY)
    if isinstance(item, dict) and item.get("id") == "ID":
        item = {**item, "id": f"{azure_side.azure.endpoints.vaults['main']}/secrets/{NAME}"}
    lie(azure_side, "listSecrets", json.dumps({"value": [item]}))
    assert (await failure(azure_side.target.listing())).record.kind == "invalid_response"


@pytest.mark.parametrize("body", ["null", "[]", "{}", '{"value": null}', '{"value": {}}', "7"])
async def test_a_listing_without_a_list_fails(azure_side: BehindTheSdks, body: str) -> None:
    """It is not read as a vault without secrets."""
    lie(azure_side, "listSecrets", body)
    assert (await failure(azure_side.target.listing())).record.kind == "invalid_response"


# Missing secrets


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ({"kind": "html", "status": 404}, "http_error"),
        ({"kind": "empty", "status": 404}, "http_error"),
        ({"kind": "body", "status": 404, "body": "{}"}, "http_error"),
        ({"kind": "body", "status": 404, "body": "SecretNotFound"}, "http_error"),
        ({"status": 404, "code": "NotFound"}, "cloud_error"),
        ({"status": 404, "code": "VaultNotFound"}, "cloud_error"),
    ],
)
async def test_a_404_of_a_gateway_is_a_failure(azure_side: BehindTheSdks, reply: dict[str, Any], kind: str) -> None:
    """A gateway's page does not make a secret missing; otherwise an unmanaged one would get a new version."""
    azure_side.put(NAME, "of another tool")
    await azure_side.target.prime()
    azure_side.azure.faults.add(Fault.model_validate({"operation": "getSecret", **reply}))
    record = (await failure(azure_side.target.read(NAME))).record
    assert (record.http_status, record.kind) == (404, kind)


@pytest.mark.parametrize("kind", ["html", "empty"])
async def test_a_404_of_a_gateway_does_not_prime(azure_side: BehindTheSdks, kind: str) -> None:
    """The first call must reach the vault."""
    azure_side.azure.faults.add(Fault(operation="getSecret", kind=kind, status=404))
    record = (await failure(azure_side.target.prime())).record
    assert (record.http_status, record.kind) == (404, "http_error")


@pytest.mark.parametrize("status", [403, 404])
async def test_a_gateways_reply_does_not_prove_that_no_deleted_secret_exists(
    azure_side: BehindTheSdks, status: int
) -> None:
    """A name of a deleted secret is not free. The vault's own refusal to read has the same effect as before."""
    azure_side.azure.faults.add(Fault(operation="getDeletedSecret", kind="html", status=status))
    assert (await failure(azure_side.target.read(NAME))).record.kind == "http_error"
    azure_side.azure.faults.clear()
    azure_side.azure.faults.add(Fault(operation="getDeletedSecret", status=403, code="Forbidden"))
    assert await azure_side.target.read(NAME) == Absent()


@pytest.mark.parametrize("status", [403, 404])
async def test_a_gateways_reply_for_a_disabled_secret_is_a_failure(azure_side: BehindTheSdks, status: int) -> None:
    """The same if a listing of versions shows the tags."""
    azure_side.put(NAME, PRIMARY, enabled=False)
    azure_side.azure.faults.add(Fault(operation="listVersions", kind="html", status=status))
    assert (await failure(azure_side.target.read(NAME))).record.kind == "http_error"
    azure_side.azure.faults.clear()
    assert isinstance(await azure_side.target.read(NAME), Disabled)


async def test_a_gateways_404_does_not_end_a_recovery(azure_side: BehindTheSdks) -> None:
    """Only the vault's own 404 shows that an earlier recovery has ended."""
    azure_side.put(NAME, PRIMARY)
    azure_side.soft_delete(NAME)
    azure_side.azure.faults.add(Fault(operation="recoverSecret", kind="html", status=404))
    record = (await failure(vault_of(azure_side).recover(NAME))).record
    assert (record.http_status, record.kind) == (404, "http_error")


# The write probe


async def test_the_write_probe_accepts_the_documented_refusal(azure_side: BehindTheSdks) -> None:
    """The vault rejects a set request without a value only after it has authorised the identity."""
    await vault_of(azure_side).probe_write()
    assert azure_side.versions("keysync-first-call") == []


@pytest.mark.parametrize(
    "reply",
    [
        {"status": 400, "kind": "html"},
        {"status": 400, "kind": "empty"},
        {"status": 400, "code": "BadRequest"},
        {
            "status": 400,
            "code": "BadParameter",
            "message": "The specified version (2026-04-01) is not recognized. Consider using the latest supported version (7.4).",
        },
        {"status": 403, "code": "Forbidden", "inner_code": "ForbiddenByRbac"},
    ],
)
async def test_the_write_probe_accepts_no_other_refusal(azure_side: BehindTheSdks, reply: dict[str, Any]) -> None:
    """A 400 from a gateway, or for another reason, does not prove that secrets can be set."""
    azure_side.azure.faults.add(Fault.model_validate({"operation": "setSecret", **reply}))
    assert (await failure(vault_of(azure_side).probe_write())).record.http_status == reply["status"]


# Bodies

UNREADABLE: list[dict[str, Any]] = [
    {"body": "null"},
    {"body": "[]"},
    {"body": "[1, 2]"},
    {"body": "7"},
    {"body": '"text"'},
    {"body": "{}"},
    {"body": '{"id": "x", "value": "y"}'},
    {"body": "["},
    {"body": "[" * 30_000},
    {"body": "9" * 5_000},
    {"body": '{"value": 1e999, "attributes": {"exp": 1e999}}'},
    {"body": "not compressed", "headers": {"Content-Encoding": "gzip"}},
    {"body": "{}", "headers": {"Content-Encoding": "deflate"}},
    {"body": "{}", "headers": {"Content-Type": "application/json; charset=klingon"}},
    {"body": "{}", "headers": {"Content-Type": "application/json; charset=hex"}},
    {"body": "{}" + "-" * 200_000, "headers": {"Content-Type": "application/json; charset=punycode"}},
    {"body": " ", "repeat": MAX_BODY_BYTES + 1},
    {"body": " " * 65536, "repeat": 1024, "gzip": True},
]
CALLS = [
    ("getSecret", lambda vault: vault.read(NAME)),
    ("getDeletedSecret", lambda vault: vault.read(NAME)),
    ("listSecrets", lambda vault: vault.listing()),
    ("listVersions", lambda vault: listed_history(vault, VERSION)),
    ("updateSecret", lambda vault: vault.patch(NAME, VERSION, MARKED)),
]


@pytest.mark.parametrize("reply", UNREADABLE, ids=lambda reply: str(reply)[:40])
@pytest.mark.parametrize(("operation", "call"), CALLS, ids=[operation for operation, _ in CALLS])
async def test_a_malformed_reply_is_an_invalid_response(
    azure_side: BehindTheSdks, operation: str, call: Any, reply: dict[str, Any]
) -> None:
    """Whatever a parser makes of it: it is not called a bug of keysync."""
    await azure_side.target.prime()
    azure_side.azure.faults.add(Fault.model_validate({"operation": operation, "kind": "body", **reply}))
    record = (await failure(call(vault_of(azure_side)))).record
    assert (record.kind, record.cloud_error) == ("invalid_response", None)


@pytest.mark.parametrize("reply", UNREADABLE, ids=lambda reply: str(reply)[:40])
async def test_a_write_with_a_malformed_reply_is_sent_once(azure_side: BehindTheSdks, reply: dict[str, Any]) -> None:
    """It is read back."""
    fault = {"operation": "setSecret", "kind": "body", "after": True, **reply}
    azure_side.azure.faults.add(Fault.model_validate(fault))
    await azure_side.target.write(NAME, SecretValue(PRIMARY), MARKED, before=None)
    assert [value for value, *_ in azure_side.versions(NAME)] == [PRIMARY]
    assert azure_side.azure.counts["setSecret"] == 1


@pytest.mark.parametrize("reply", UNREADABLE, ids=lambda reply: str(reply)[:40])
async def test_an_error_with_a_malformed_body_keeps_its_status(
    azure_side: BehindTheSdks, reply: dict[str, Any]
) -> None:
    """The status alone decides how it is handled."""
    await azure_side.target.prime()
    fault = {"operation": "getSecret", "kind": "body", "status": 403, **reply}
    azure_side.azure.faults.add(Fault.model_validate(fault))
    record = (await failure(azure_side.target.read(NAME))).record
    assert (record.http_status, record.cloud_error) == (403, None)
    assert record.kind == "http_error"


def _nested(levels: int) -> str:
    return (
        '{"error": {"code": "Outer", "message": "m", "details": ['
        + '{"code": "c", "details": [' * levels
        + "]}" * (levels + 1)
        + "}"
    )


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (_nested(10_000), None),
        (_nested(200), "Outer"),
        (json.dumps({"error": {"code": "Outer", "details": [{"code": "c", "message": "m"}] * 10_000}}), None),
        (json.dumps({"error": {"code": "Outer", "message": "m" * 5_000_000}}), None),
        (json.dumps({"error": {"code": "Outer", "message": "m" * 60_000}}), "Outer"),
    ],
)
async def test_a_huge_error_is_one_failed_call(azure_side: BehindTheSdks, body: str, code: str | None) -> None:
    """It is requested once, and the error keeps only a short part."""
    await azure_side.target.prime()
    before = azure_side.azure.counts["getSecret"]
    azure_side.azure.faults.add(Fault(operation="getSecret", kind="body", status=403, body=body))
    record = (await failure(azure_side.target.read(NAME))).record
    assert (record.http_status, record.code) == (403, code)
    assert len(json.dumps(record.to_dict())) < 20_000
    assert azure_side.azure.counts["getSecret"] - before == 1


@pytest.mark.parametrize("status", [200, 403])
async def test_a_body_takes_no_more_memory_than_the_limit(azure_side: BehindTheSdks, status: int) -> None:
    """64 MiB compressed to 64 KB: only as much is decompressed as may be kept."""
    await azure_side.target.prime()
    bomb = Fault(operation="getSecret", kind="body", status=status, body=" " * 65536, repeat=1024, gzip=True)
    azure_side.azure.faults.add(bomb)
    tracemalloc.start()
    try:
        await failure(azure_side.target.read(NAME))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * MAX_BODY_BYTES


async def test_a_compressed_reply_is_read(azure_side: BehindTheSdks) -> None:
    """Compressed replies are allowed."""
    base = azure_side.azure.endpoints.vaults["main"]
    await azure_side.target.prime()
    lie(azure_side, "getSecret", secret(f"{base}/secrets/{NAME}/{VERSION}"), gzip=True)
    found = await azure_side.target.read(NAME)
    assert isinstance(found, StoredSecret)
    assert found.fingerprint == azure_side.fingerprinter.of(SecretValue(PRIMARY))


async def test_a_secret_without_a_value_is_a_failure(azure_side: BehindTheSdks) -> None:
    """It is not read as an empty value, which would be overwritten."""
    base = azure_side.azure.endpoints.vaults["main"]
    await azure_side.target.prime()
    lie(azure_side, "getSecret", secret(f"{base}/secrets/{NAME}/{VERSION}", value=None))
    assert (await failure(azure_side.target.read(NAME))).record.kind == "invalid_response"


async def test_another_value_behind_an_unreadable_reply_is_a_conflict(azure_side: BehindTheSdks) -> None:
    """A value that another writer wrote meanwhile is not overwritten."""
    before = azure_side.put(NAME, "old")
    azure_side.put(NAME, "of another tool")
    lie(azure_side, "setSecret", "null")
    with pytest.raises(WriteConflict):
        await azure_side.target.write(NAME, SecretValue(PRIMARY), MARKED, before=before)
    assert [value for value, *_ in azure_side.versions(NAME)] == ["old", "of another tool"]
