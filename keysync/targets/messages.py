"""Failures of a write that are not Azure's own: what happened, and how to fix it."""

from __future__ import annotations

from dataclasses import replace

from keysync.failures import FailureRecord


def changed(record: FailureRecord) -> FailureRecord:
    return replace(record, summary=f"another writer changed the secret during the write ({record.summary})")


def other_writer(name: str, url: str) -> FailureRecord:
    return FailureRecord(
        kind="conflict",
        summary=f"another writer wrote {name} right after keysync: two writers share this secret",
        hint=f"find the other writer (az keyvault secret list-versions --id {url}/secrets/{name}) and stop one of the two",
    )


def later_version(name: str) -> FailureRecord:
    return FailureRecord(
        kind="conflict",
        summary=f"the vault lists a later version of {name} than it returns: not written; the next run checks again",
    )


def kept_changing(name: str) -> FailureRecord:
    return FailureRecord(kind="conflict", summary=f"{name} kept changing while its versions were listed: not written")


def pending_write(name: str) -> FailureRecord:
    return FailureRecord(
        kind="timeout",
        summary=f"an earlier write of {name} may still take effect: not written again until its result is known",
    )
