"""A runtime over memory: which accounts it serves, and what its runs cover, search and report."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest

from keysync.config.model import Config
from keysync.secret.redact import Redactor
from keysync.sources.discovery import Discovery, Inventory
from keysync.sources.filters import SkippedAccount
from keysync.sources.shard import Shard
from keysync.sync.items import Selection
from keysync.sync.run import run_sync
from keysync.sync.runtime import Runtime, Shared
from tests.support.memory import MemoryDirectory, MemorySource, MemoryVault
from tests.support.memory_generation import config_of

REFUSED = SkippedAccount("/subscriptions/s/refused", "its name is taken", 0, refused=True)


class MemorySources:
    """The key sources of accounts in memory. `covered` are the accounts of the last `cover`."""

    def __init__(self) -> None:
        self.covered: tuple[Any, ...] = ()

    key_names = ("primary", "secondary")
    content_type = "text/plain"

    async def cover(self, accounts: Any) -> None:
        self.covered = tuple(accounts)

    def source_of(self, account: Any) -> Any:
        return MemorySource("p" * 88, "s" * 88)


async def runtime_of(config: Config, shared: Shared | None = None) -> Runtime:
    """A runtime that serves the accounts of `config`."""
    shared = shared or Shared(Redactor())
    translator: Any = None

    async def open_target(_name: str) -> Any:
        return MemoryVault(shared.fingerprinter)

    runtime = Runtime(
        config,
        shared,
        MemorySources(),
        {},
        open_target,
        Discovery(config, {}, translator),
        MemoryDirectory,
        translator,
        lambda: (),
        AsyncExitStack(),
        Inventory(),
    )
    await runtime.cover(Inventory(config.accounts))
    return runtime


async def test_each_search_for_orphans_checks_accounts_afresh() -> None:
    """The existence check keeps its listings: an old one would prove an account gone while listings fail."""
    runtime = await runtime_of(config_of("alpha", owner="mine", orphans="delete"))
    checks = [search.existence for search in (runtime.orphan_search(), runtime.orphan_search()) if search is not None]
    assert len(checks) == 2
    assert checks[0] is not checks[1]


async def test_a_run_writes_the_keys_of_its_accounts() -> None:
    """Vaults are opened when an account needs them, and a run keeps the accounts that it began with."""
    runtime = await runtime_of(config_of("alpha", "beta"))
    assert list(runtime.targets) == ["main"]
    alpha, beta = runtime.accounts
    run = runtime.make_run([alpha])
    await runtime.cover(Inventory((beta,)))
    report = await run_sync(run)
    assert [(each.ref.account, each.outcome) for each in report.results] == [(alpha.resource_id, "created")] * 2
    assert runtime.accounts == (beta,)


async def test_only_the_selected_accounts_are_served() -> None:
    """The inventory keeps the others, so that their secrets are not orphans."""
    runtime = await runtime_of(config_of("alpha", "beta", owner="mine", orphans="delete"))
    inventory, (alpha, _) = runtime.inventory, runtime.accounts
    await runtime.cover(inventory, [alpha])
    assert (runtime.accounts, runtime.inventory) == ((alpha,), inventory)
    search = runtime.orphan_search()
    assert search is not None
    assert "beta-primary-key" in search.served["main"]


@pytest.mark.parametrize(
    ("selection", "searches"),
    [
        (Selection(), True),
        (Selection(dry_run=True), True),
        (Selection(accounts=("alpha",)), False),
        (Selection(secrets=frozenset({"main/alpha-primary-key"})), False),
        (Selection(adopt="untagged"), False),
    ],
)
async def test_a_run_over_named_accounts_or_secrets_searches_for_no_orphans(
    selection: Selection, searches: bool
) -> None:
    """Nor does `adopt`, which covers unmanaged secrets only."""
    config = config_of("alpha", owner="mine", orphans="delete")
    runtime = await runtime_of(config, Shared(Redactor(), selection=selection))
    run = runtime.make_run(runtime.accounts)
    assert (run.orphans is not None) == searches
    assert run.selection == selection


@pytest.mark.parametrize(
    ("schedules", "numbers", "general"),
    [((None, "1h"), [0], True), ((None, "1h"), [1], False), (("1h", "2h"), [1], True), ((None,), [], True)],
)
async def test_only_runs_of_the_general_schedule_search_for_orphans(
    schedules: tuple[str | None, ...], numbers: list[int], general: bool
) -> None:
    """They also report refused accounts. If no account has the general schedule, every run does."""
    config = config_of(*(f"account{n}" for n in range(len(schedules))), owner="mine", orphans="delete")
    runtime = await runtime_of(config)
    scheduled = tuple(
        account if every is None else account_with(every, account)
        for account, every in zip(runtime.accounts, schedules, strict=True)
    )
    await runtime.cover(Inventory(scheduled, skipped=(REFUSED,)))
    run = runtime.make_run([scheduled[number] for number in numbers], busy=2, patience=0.5)
    assert (run.orphans is not None, run.preflight.incomplete) == (general, general)
    assert (run.busy, run.collect_seconds) == (2, 0.5)


def account_with(every: str, account: Any) -> Any:
    """The same account with a schedule of its own."""
    (scheduled,) = config_of(account.name, accounts={"schedule": {"every": every}}).accounts
    return scheduled


async def test_the_shard_limits_discovery_unless_accounts_are_named() -> None:
    """An account of another shard is no typing error."""
    (mine,), (other,) = ([n for n in range(2) if Shard(i, 2).has(f"/a/{n}")][:1] or [0] for i in range(2))
    shared = Shared(Redactor(), shard=Shard(0, 2))
    assert (shared.discovered(f"/a/{mine}"), shared.discovered(f"/a/{other}")) == (True, False)
    named = Shared(Redactor(), shard=Shard(0, 2), selection=Selection(accounts=("alpha",)))
    assert named.discovered(f"/a/{other}")
