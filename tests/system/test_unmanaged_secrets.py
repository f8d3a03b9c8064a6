"""Unmanaged secrets never change, even under names that the configuration would write.

One vault has only such secrets; in value and tags each is almost keysync's. A command that must not change them is an
`Attempt`. All attempts are repeated several times, and every field of every version is compared.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from keysync.emulator import Emulator
from keysync.emulator.data import new_account_key
from keysync.sync.orphans import PROOF_RUNS
from tests.support.crash import Snapshot
from tests.support.random_worlds import LONG_AGO, marks_of
from tests.support.warm_process import WarmKeysync
from tests.system.conftest import World, clean_environment

OWNER = "blue"
KEYS = ("primary", "secondary")
WRITES = {"setSecret", "updateSecret", "deleteSecret", "recoverSecret", "purgeSecret"}
FULL = {f"tag-{number}": "x" * 256 for number in range(15)}

Tags = Mapping[str, str]


@dataclass(frozen=True)
class Unmanaged:
    """One way in which a secret is unmanaged. `tags` are made from keysync's own tags."""

    tags: Callable[[dict[str, str]], Tags] = lambda _marks: {}
    fields: Mapping[str, Any] = field(default_factory=dict)
    deleted: bool = False
    older: Callable[[dict[str, str]], Tags] | None = None
    """Tags of a version before the latest one."""


def without(*names: str) -> Callable[[dict[str, str]], Tags]:
    return lambda marks: {name: value for name, value in marks.items() if name not in names}


def with_(**changed: str) -> Callable[[dict[str, str]], Tags]:
    return lambda marks: {**marks, **{name.replace("_", "-"): value for name, value in changed.items()}}


def renamed(old: str, new: str) -> Callable[[dict[str, str]], Tags]:
    return lambda marks: {new if name == old else name: value for name, value in marks.items()}


def other_key(marks: dict[str, str]) -> Tags:
    return {**marks, "keysync-key": "secondary" if marks["keysync-key"] == "primary" else "primary"}


def other_account(marks: dict[str, str]) -> Tags:
    return {**marks, "keysync-source": f"{marks['keysync-source']}2"}


def exactly(marks: dict[str, str]) -> Tags:
    return marks


UNMANAGED_KINDS: dict[str, Unmanaged] = {
    "untagged": Unmanaged(),
    "withtags": Unmanaged(lambda _marks: {"team": "render"}, {"content_type": "text/plain"}),
    "full": Unmanaged(lambda _marks: FULL),
    "terraform": Unmanaged(lambda _marks: {"managed-by": "terraform"}),
    "terraformed": Unmanaged(with_(managed_by="terraform")),
    "nomanager": Unmanaged(without("managed-by")),
    "nosource": Unmanaged(without("keysync-source")),
    "nokey": Unmanaged(without("keysync-key")),
    "noowner": Unmanaged(without("keysync-owner")),
    "manageronly": Unmanaged(lambda _marks: {"managed-by": "keysync"}),
    "otherowner": Unmanaged(with_(keysync_owner="green")),
    "ownercase": Unmanaged(with_(keysync_owner="Blue")),
    "otherkey": Unmanaged(other_key),
    "keycase": Unmanaged(lambda marks: {**marks, "keysync-key": marks["keysync-key"].title()}),
    "otheraccount": Unmanaged(other_account),
    "longersource": Unmanaged(lambda marks: {**marks, "keysync-source": f"{marks['keysync-source']}/"}),
    "valuecase": Unmanaged(with_(managed_by="Keysync")),
    "valuespace": Unmanaged(with_(managed_by="keysync ")),
    "namecase": Unmanaged(renamed("managed-by", "Managed-By")),
    "nameunderscore": Unmanaged(renamed("managed-by", "managed_by")),
    "onceours": Unmanaged(older=exactly),
    "disabled": Unmanaged(fields={"enabled": False}),
    "disabledof": Unmanaged(other_account, {"enabled": False}),
    "expired": Unmanaged(fields={"expires": LONG_AGO + 1, "not_before": LONG_AGO}),
    "certificate": Unmanaged(fields={"managed": True}),
    "certmarked": Unmanaged(exactly, {"managed": True}),
    "deleted": Unmanaged(deleted=True),
    "deletedof": Unmanaged(other_account, deleted=True),
    "UPPERCASE": Unmanaged(),
}


_SLOW = pytest.mark.slow


@dataclass(frozen=True)
class Attempt:
    """A command that must change none of them: arguments, settings and the expected exit code."""

    arguments: Sequence[str]
    code: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    def make(self, world: World, keysync: WarmKeysync) -> None:
        """Runs the command once."""
        environment = {**clean_environment(), **world.running.environ, "KEYSYNC_CONFIG": str(world.path)}
        done = keysync.run(self.arguments, env=environment, folder=world.folder)
        assert done.code == self.code, f"{done.out}\n{done.err}"


class Daemon(Attempt):
    """The daemon, for as many runs as an orphan's proof needs, plus one."""

    def make(self, world: World, keysync: WarmKeysync) -> None:
        """Runs the daemon and ends it by SIGTERM."""
        environment = {**clean_environment(), **world.running.environ, "KEYSYNC_CONFIG": str(world.path)}
        out, log = world.folder / "stdout", world.folder / "stderr"
        log.write_text("")
        keysync.start(["run"], env=environment, out=out, err=log)
        until = time.monotonic() + 30
        while log.read_text().count('"run.finished"') <= PROOF_RUNS:
            assert time.monotonic() < until, log.read_text()
            assert not keysync.has_ended(), log.read_text()
            time.sleep(0.05)
        keysync.kill(signal.SIGTERM)
        assert keysync.wait() == self.code


_OFTEN = {"schedule": {"every": "1s"}, "listen": "127.0.0.1:0"}

ATTEMPTS = [
    pytest.param(Attempt(["sync"], 1), id="sync"),
    pytest.param(
        Attempt(["sync"], 1, {"adopt": False, "recover": "report", "orphans": "keep"}), id="explicit defaults"
    ),
    pytest.param(Attempt(["sync"], 1, {"limits": {"update_percent": 100, "creates": 10_000}}), id="wide limits"),
    pytest.param(Attempt(["sync"], 1, {"recover": "owned", "disabled": "enable"}), id="recovers and enables managed"),
    pytest.param(Attempt(["sync"], 1, {"orphans": "delete", "limits": {"removal_percent": 100}}), id="removes orphans"),
    pytest.param(Attempt(["sync", "--dry-run"], 1), id="dry run"),
    pytest.param(Attempt(["plan"], 1), id="plan"),
    pytest.param(Attempt(["adopt", "--replace"], 1), id="adopt without --yes"),
    pytest.param(Daemon(["run"], 0, {**_OFTEN, "recover": "owned", "disabled": "enable"}), id="daemon", marks=_SLOW),
    pytest.param(
        Daemon(["run"], 0, {**_OFTEN, "orphans": "delete", "limits": {"removal_percent": 100}}),
        id="daemon that removes orphans",
        marks=_SLOW,
    ),
]


def unmanaged_world(make_world: Callable[..., World]) -> World:
    """A vault of unmanaged secrets: the primary's has another value, the secondary's has the live one."""
    accounts = [
        {"name": name, "primary": new_account_key(), "secondary": new_account_key()}
        for name in (kind.lower() for kind in UNMANAGED_KINDS)
    ]
    vault: dict[str, Any] = {"name": "main", "secrets": [], "deleted": []}
    for (kind, unmanaged), account in zip(UNMANAGED_KINDS.items(), accounts, strict=True):
        for key in KEYS:
            value = account["secondary"] if key == "secondary" else new_account_key()
            vault["deleted" if unmanaged.deleted else "secrets"].append(_secret(kind, unmanaged, key, value))
    world = make_world(*accounts, vaults=(vault,))
    for kind, unmanaged in UNMANAGED_KINDS.items():
        if unmanaged.older is not None:
            for key in KEYS:
                _put_a_version_on_top(world, f"{kind}-{key}-key")
    return world


def _secret(kind: str, unmanaged: Unmanaged, key: str, value: str) -> dict[str, Any]:
    marks = marks_of(kind.lower(), key, OWNER)
    tags = unmanaged.older or unmanaged.tags
    name = f"{kind}-{key}-key"
    return {
        "name": name.upper() if kind.isupper() else name,
        "value": value,
        "tags": dict(tags(marks)),
        "created": LONG_AGO,
        **unmanaged.fields,
    }


def _put_a_version_on_top(world: World, name: str) -> None:
    value = world.versions("main", name)[-1].value
    world.running.do(lambda azure: azure.state.vault("main").add_version(name, value))


def regenerate(world: World, account: str) -> None:
    """Regenerates both keys of an account."""
    for key in ("Primary", "Secondary"):
        world.running.do(partial(_regenerate, account, key))


def _regenerate(account: str, key: str, azure: Emulator) -> None:
    azure.state.regenerate(account, key)


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_unmanaged_secrets_never_change(
    make_world: Callable[..., World], keysync: WarmKeysync, attempt: Attempt
) -> None:
    """Every field of every version is unchanged after each of several rounds, with keys regenerated in between."""
    world = unmanaged_world(make_world)
    names = [kind.lower() for kind in UNMANAGED_KINDS]
    world.configure(names, **{"owner": OWNER, **attempt.settings})
    before = Snapshot.of(world.running).vaults["main"]
    assert len(before.names) == 2 * len(UNMANAGED_KINDS)
    for regenerated in ([], names, names[::2]):
        for name in regenerated:
            regenerate(world, name)
        attempt.make(world, keysync)
        after = Snapshot.of(world.running).vaults["main"]
        assert sorted(name for name in before.names | after.names if after.of(name) != before.of(name)) == []
        assert after == before
    assert world.running.do(lambda azure: WRITES & azure.counts.keys()) == set()


def test_an_unmanaged_secret_with_all_tags_is_managed(make_world: Callable[..., World], keysync: WarmKeysync) -> None:
    """The unmanaged secrets are made from real tags: with all tags in place, the same secret is written."""
    live = {"primary": new_account_key(), "secondary": new_account_key()}
    ours = _secret("ours", Unmanaged(exactly), "primary", new_account_key())
    world = make_world({"name": "ours", **live}, vaults=({"name": "main", "secrets": [ours]},))
    world.configure(["ours"], owner=OWNER)
    Attempt(["sync"], 0).make(world, keysync)
    assert [version.value for version in world.versions("main", "ours-primary-key")] == [ours["value"], live["primary"]]
