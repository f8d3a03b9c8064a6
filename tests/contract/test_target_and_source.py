"""What the sync relies on, for the fake of its unit tests and for the SDKs against the embedded Azure."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keysync.emulator import Fault
from keysync.failures import CallFailed
from keysync.secret.value import SecretValue
from keysync.targets.interface import (
    Absent,
    Disabled,
    History,
    Metadata,
    NotKept,
    SoftDeleted,
    StoredSecret,
    WriteConflict,
    WriteUnknown,
)
from tests.contract.conftest import PRIMARY, SECONDARY, BehindTheSdks, Side, uncounted, untagged
from tests.support.other_writers import without_count

NAME = "alpha-primary-key"
MARKED = Metadata({"managed-by": "keysync", "team": "render"}, "text/plain")


async def test_an_absent_secret_is_absent(side: Side) -> None:
    """A free name is reported as free, before and after `prime`."""
    assert await side.target.read(NAME) == Absent()
    await side.target.prime()
    assert await side.target.read(NAME) == Absent()


async def test_an_existing_secret_shows_version_tags_and_a_fingerprint(side: Side) -> None:
    """The latest version counts, and the fingerprint equals that of the same text only."""
    side.put(NAME, "old", {"a": "1"})
    latest = side.put(NAME, PRIMARY, {"b": "2"})
    found = await side.target.read(NAME)
    assert isinstance(found, StoredSecret)
    assert (found.version, dict(found.tags), found.content_type, found.managed) == (latest, {"b": "2"}, None, False)
    assert found.fingerprint == side.fingerprinter.of(SecretValue(PRIMARY))
    assert found.fingerprint != side.fingerprinter.of(SecretValue("old"))


async def test_a_disabled_secret_is_disabled(side: Side) -> None:
    """The latest version decides, whatever the earlier ones are."""
    side.put(NAME, "old")
    side.put(NAME, PRIMARY, enabled=False)
    found = await side.target.read(NAME)
    assert isinstance(found, Disabled)


async def test_a_soft_deleted_secret_is_not_a_free_name(side: Side) -> None:
    """A deleted secret that still occupies the name is distinguished from a free name."""
    side.put(NAME, PRIMARY)
    side.soft_delete(NAME)
    assert await side.target.read(NAME) == SoftDeleted({})


async def test_a_deleted_secret_shows_whether_it_may_be_purged(azure_side: BehindTheSdks) -> None:
    """By its `recoveryLevel`; with the day if only Azure can purge it."""
    azure_side.put(NAME, PRIMARY)
    azure_side.soft_delete(NAME)
    open_to_all = await azure_side.target.read(NAME)
    azure_side.azure.state.vault("main").purge_protection = True
    protected = await azure_side.target.read(NAME)
    assert isinstance(open_to_all, SoftDeleted)
    assert isinstance(protected, SoftDeleted)
    assert (open_to_all.purgeable, protected.purgeable) == (True, False)
    assert protected.purged_on is not None
    assert timedelta(days=89) < protected.purged_on - datetime.now(UTC) < timedelta(days=91)


async def test_a_write_creates_one_version_with_its_metadata(side: Side) -> None:
    """One version, whose id is returned and whose value, tags and content type are read back."""
    made = await side.target.write(NAME, SecretValue(PRIMARY), MARKED, before=None)
    assert uncounted(side.versions(NAME)) == [(PRIMARY, MARKED.tags, "text/plain")]
    found = await side.target.read(NAME)
    assert isinstance(found, StoredSecret)
    found = replace(found, tags=without_count(found.tags))
    assert found == StoredSecret(made, side.fingerprinter.of(SecretValue(PRIMARY)), dict(MARKED.tags), "text/plain")


async def test_a_second_write_keeps_the_first_version(side: Side) -> None:
    """A change adds a version and does not change the old one."""
    first = await side.target.write(NAME, SecretValue(PRIMARY), MARKED, before=None)
    second = await side.target.write(NAME, SecretValue(SECONDARY), Metadata({}, None), before=first)
    assert second != first
    assert uncounted(side.versions(NAME)) == [(PRIMARY, MARKED.tags, "text/plain"), (SECONDARY, {}, None)]


async def test_tagging_creates_no_version(side: Side) -> None:
    """Tags and content type change in place; value and version stay the same."""
    version = side.put(NAME, PRIMARY, {"a": "1"})
    await side.target.patch(NAME, version, MARKED)
    assert side.versions(NAME) == [(PRIMARY, dict(MARKED.tags), "text/plain")]
    found = await side.target.read(NAME)
    assert isinstance(found, StoredSecret)
    assert found.version == version


async def test_an_account_gives_both_keys(side: Side) -> None:
    """Both keys, each with the account's value, and no refusal."""
    await side.source.probe()
    keys = await side.source.get_keys()
    assert dict(keys.refused) == {}
    assert {name: side.fingerprinter.of(value) for name, value in keys.values.items()} == {
        "primary": side.fingerprinter.of(SecretValue(PRIMARY)),
        "secondary": side.fingerprinter.of(SecretValue(SECONDARY)),
    }


@pytest.mark.parametrize("kind", ["reset", "truncated", "html"])
@pytest.mark.parametrize("existed", [False, True])
async def test_a_write_with_a_lost_reply_creates_one_version(
    azure_side: BehindTheSdks, kind: str, existed: bool
) -> None:
    """The version of the lost reply is found by reading, not made a second time."""
    before = azure_side.put(NAME, "old") if existed else None
    azure_side.azure.faults.add(Fault(operation="setSecret", kind=kind, status=502, after=True, times=1))
    made = await azure_side.target.write(NAME, SecretValue(PRIMARY), MARKED, before=before)
    versions = azure_side.azure.state.vault("main").versions(NAME)
    assert [version.value for version in versions] == (["old"] if existed else []) + [PRIMARY]
    assert versions[-1].version == made
    assert azure_side.azure.counts["setSecret"] == 1


async def test_a_write_with_an_unknown_result_is_not_sent_again(azure_side: BehindTheSdks) -> None:
    """After a dropped connection it may still take effect, so neither this call nor the next one repeats it."""
    azure_side.azure.faults.add(Fault(operation="setSecret", kind="reset", times=1))
    for _ in range(2):
        with pytest.raises(WriteUnknown):
            await azure_side.target.write(NAME, SecretValue(PRIMARY), MARKED, before=None)
    assert azure_side.versions(NAME) == []
    assert azure_side.azure.counts["setSecret"] == 1


async def test_another_writers_value_is_not_overwritten_by_a_retry(azure_side: BehindTheSdks) -> None:
    """If another value is found after a broken write, the write ends as a conflict and does not overwrite it."""
    before = azure_side.put(NAME, "old")
    azure_side.put(NAME, "of another tool")
    azure_side.azure.faults.add(Fault(operation="setSecret", kind="reset", times=1))
    with pytest.raises(WriteConflict):
        await azure_side.target.write(NAME, SecretValue(PRIMARY), MARKED, before=before)
    assert [value for value, *_ in azure_side.versions(NAME)] == ["old", "of another tool"]


async def test_a_denied_write_is_sent_once(azure_side: BehindTheSdks) -> None:
    """A refusal is final: no retry, no version, and the error names the missing action."""
    fault = Fault(operation="setSecret", status=403, code="Forbidden", inner_code="ForbiddenByRbac")
    azure_side.azure.faults.add(fault)
    with pytest.raises(CallFailed) as caught:
        await azure_side.target.write(NAME, SecretValue(PRIMARY), MARKED, before=None)
    assert caught.value.record.http_status == 403
    assert "setSecret" in (caught.value.record.hint or "")
    assert azure_side.versions(NAME) == []
    assert azure_side.azure.counts["setSecret"] == 1


@pytest.mark.parametrize("operation", ["listVersions", "listSecrets"])
async def test_a_link_to_another_service_is_not_followed(azure_side: BehindTheSdks, operation: str) -> None:
    """The token would go with the request, to whatever host the link names."""
    latest = azure_side.put(NAME, PRIMARY)
    ends = azure_side.azure.endpoints
    body = json.dumps({"value": [], "nextLink": f"{ends.resource_manager}/secrets/{NAME}/versions?api-version=7.6"})
    azure_side.azure.faults.add(Fault(operation=operation, kind="body", body=body))
    vault: Any = azure_side.target
    with pytest.raises(CallFailed, match="not the vault: not followed") as caught:
        await (
            vault.history(NAME, untagged(latest), at_most=History(0))
            if operation == "listVersions"
            else vault.listing()
        )
    assert caught.value.record.kind == "invalid_response"
    assert azure_side.azure.counts["unknown"] == 0
    assert azure_side.azure.counts[operation] == 1


async def test_a_change_by_another_writer_is_always_found(azure_side: BehindTheSdks) -> None:
    """A listing saves the read of an unchanged value, never of an overwritten one, even in the same second."""
    vault = azure_side.azure.state.vault("main")
    names = [f"kept-{number}" for number in range(6)]
    for name in names:
        _, made = vault.add_version(name, PRIMARY, tags=dict(MARKED.tags))
        made.created = made.updated = made.updated - 60

    async def one_by_one() -> list[str]:
        """The names that had to be read, as in a run."""
        validate_by_listing = azure_side.target.validate_by_listing(names)
        read = [name for name in names if await validate_by_listing.confirmed(name) is None]
        await validate_by_listing.close()
        for name in read:
            await azure_side.target.read(name)
        return read

    assert await one_by_one() == names  # the cache is empty
    assert await one_by_one() == []
    vault.add_version("kept-2", SECONDARY, tags=dict(MARKED.tags))
    assert await one_by_one() == ["kept-2"]
    # Another write in the same second as that update: the time of the last update is the same.
    _, made = vault.add_version("kept-2", "of another tool", tags=dict(MARKED.tags))
    made.created = made.updated = vault.versions("kept-2")[-2].updated
    assert await one_by_one() == ["kept-2"]
    found = await azure_side.target.read("kept-2")
    assert isinstance(found, StoredSecret)
    assert found.fingerprint == azure_side.fingerprinter.of(SecretValue("of another tool"))


async def test_a_stale_read_returns_what_this_process_wrote(azure_side: BehindTheSdks) -> None:
    """However many reads are stale, the process knows its own version."""
    before = azure_side.put(NAME, "old")
    azure_side.azure.faults.add(Fault(operation="setSecret", kind="stale", reads=20, times=1))
    made = await azure_side.target.write(NAME, SecretValue(PRIMARY), MARKED, before=before)
    found = await azure_side.target.read(NAME)
    assert isinstance(found, StoredSecret)
    assert (found.version, found.fingerprint) == (made, azure_side.fingerprinter.of(SecretValue(PRIMARY)))


async def test_a_change_that_was_not_kept_is_not_sent_again(azure_side: BehindTheSdks) -> None:
    """The vault accepts tags but does not store them: that is an error each time, with one request in total."""
    version = azure_side.put(NAME, PRIMARY)
    azure_side.azure.faults.add(Fault(operation="updateSecret", kind="ignored"))
    for _ in range(3):
        with pytest.raises(NotKept):
            await azure_side.target.patch(NAME, version, MARKED)
    assert azure_side.azure.counts["updateSecret"] == 1


async def test_a_read_only_vault_after_a_failover_did_not_write(azure_side: BehindTheSdks) -> None:
    """After a failover the vault says so itself: the write failed, and keysync does not wait for it."""
    azure_side.azure.state.vault("main").read_only = True
    with pytest.raises(CallFailed) as failed:
        await azure_side.target.write(NAME, SecretValue(PRIMARY), MARKED, before=None)
    assert not isinstance(failed.value, WriteUnknown)
    assert (failed.value.record.http_status, failed.value.record.ambiguous) == (503, False)
    assert azure_side.versions(NAME) == []
