"""A source of another service: three keys an account, through the whole flow to the embedded Azure's vault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from keysync.azure.errors import AzureFailureTranslator
from keysync.config.operation import Limits
from keysync.secret.redact import Redactor
from keysync.secret.value import SecretValue
from keysync.sources.interface import AccountKeys, KeyName, KeySource
from keysync.sync.apply import Applier
from keysync.sync.collect import Collector
from keysync.sync.items import Selection, work_items_of
from keysync.sync.locks import SecretLocks
from keysync.sync.model import Report
from keysync.sync.ownership import KEY
from keysync.sync.run import SyncRun, run_sync
from tests.contract.conftest import BehindTheSdks, behind_the_sdks
from tests.support.runs import Watcher, key
from tests.support.settings import config_of

ANY = {"subscription_id": "11111111-2222-3333-4444-555555555555", "vaults": ["main"]}


@dataclass
class ThreeKeys:
    """The module of such a source: a `KeySource` over the service's own replies."""

    replies: Mapping[KeyName, str]
    refused: Mapping[KeyName, str] = field(default_factory=dict)

    async def get_keys(self) -> AccountKeys:
        """The keys of the account."""
        usable = {name: SecretValue(text) for name, text in self.replies.items() if name not in self.refused}
        return AccountKeys(usable, self.refused)

    async def probe(self) -> None:
        """No-op."""


@dataclass
class Thing:
    """The configuration type of such an account, with what a run needs of it."""

    resource_id: str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Example/things/alpha"
    subscription_id: str = "s"
    vaults: tuple[str, ...] = ("main",)
    read_only: bool = False
    adopt: bool | None = None

    def secret_names(self) -> dict[KeyName, str]:
        """The name of the secret of each key."""
        return {name: f"alpha-{name}" for name in ("one", "two", "three")}


@dataclass
class Service:
    """One account of the service, and runs that keep its keys in a vault of the embedded Azure."""

    side: BehindTheSdks

    def run_over(self, source: KeySource) -> SyncRun:
        """The run that the runtime would make."""
        targets, translator, stop = {"main": self.side.target}, AzureFailureTranslator(Redactor()), asyncio.Event()
        config = config_of({"vaults": {"main": {"url": "https://main.vault.azure.net"}}, "discover": [ANY]})
        things: Any = [Thing()]
        return SyncRun(
            work_items=work_items_of(config, things, Selection(), lambda _thing: source, "text/plain; example"),
            collector=Collector(targets, self.side.fingerprinter, translator, concurrency=4, account_seconds=5),
            applier=Applier(targets, translator, SecretLocks(), concurrency=4, stop=stop, grace_seconds=1),
            limits={"main": Limits(creates=3)},
            observers=(Watcher(),),
            stop=stop,
            collect_seconds=5,
        )

    async def sync(self, **keys: str) -> dict[KeyName, tuple[str, str]]:
        """Outcome and verdict by key after a run over these keys."""
        return by_key(await run_sync(self.run_over(ThreeKeys({name: key(text) for name, text in keys.items()}))))


def by_key(report: Report) -> dict[KeyName, tuple[str, str]]:
    return {result.ref.key: (result.outcome, result.verdict) for result in report.results}


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    """An empty vault."""
    async with behind_the_sdks(monkeypatch) as side:
        yield Service(side)


async def test_every_key_has_its_secret(service: Service) -> None:
    """Three keys make three secrets, with the names and the content type that the source gives. The next run has nothing to do."""
    created = await service.sync(one="a", two="b", three="c")
    assert created == dict.fromkeys(("one", "two", "three"), ("created", "missing"))
    for name, text in (("one", "a"), ("two", "b"), ("three", "c")):
        ((value, tags, content_type),) = service.side.versions(f"alpha-{name}")
        assert (value, tags[KEY], content_type) == (key(text), name, "text/plain; example")
    unchanged = await service.sync(one="a", two="b", three="c")
    assert unchanged == dict.fromkeys(("one", "two", "three"), ("unchanged", "in_sync"))


async def test_a_regenerated_key_is_followed_alone(service: Service) -> None:
    """The others keep their version."""
    await service.sync(one="a", two="b", three="c")
    changed = await service.sync(one="a", two="new", three="c")
    assert changed == {"one": ("unchanged", "in_sync"), "two": ("updated", "stale"), "three": ("unchanged", "in_sync")}
    assert [len(service.side.versions(f"alpha-{name}")) for name in ("one", "two", "three")] == [1, 2, 1]


async def test_each_secret_is_compared_with_every_key(service: Service) -> None:
    """Keys that changed places are swapped. If all changed, the run says so."""
    await service.sync(one="a", two="b", three="c")
    assert set((await service.sync(one="b", two="c", three="a")).values()) == {("updated", "swapped")}
    assert set((await service.sync(one="x", two="y", three="z")).values()) == {("updated", "both_changed")}


async def test_an_unusable_key_is_refused_alone(service: Service) -> None:
    """The others are written."""
    source = ThreeKeys({"one": key("a"), "two": key("b"), "three": "?"}, refused={"three": "no base64"})
    outcomes = by_key(await run_sync(service.run_over(source)))
    assert {name: outcome for name, (outcome, _) in outcomes.items()} == {
        "one": "created",
        "two": "created",
        "three": "refused",
    }
    assert service.side.versions("alpha-three") == []


async def test_an_unmanaged_secret_names_the_key_that_it_has(service: Service) -> None:
    """The reason has the name that the source gives."""
    service.side.put("alpha-one", key("c"))
    source = ThreeKeys({"one": key("a"), "two": key("b"), "three": key("c")})
    report = await run_sync(service.run_over(source))
    (refused,) = [result for result in report.results if result.outcome == "refused"]
    assert "the secret holds the account's three key" in (refused.reason or "")
