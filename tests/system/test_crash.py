"""keysync is killed at any point: the next run brings every secret in sync without an extra version.

A killed process leaves the vault as it was before or after one of its writes. So each request of a run is stopped once
before and once after its effect, and the process is killed while it waits (`Stopper`). Other tests kill runs at random
moments in random worlds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from keysync.emulator import Stage
from keysync.emulator.data import new_account_key
from tests.support.crash import Moment, SecretCase, Snapshot, Stopper, Story
from tests.support.random_worlds import LONG_AGO, marks_of, random_world
from tests.support.warm_process import Done, WarmKeysync
from tests.system.conftest import World, clean_environment

MakeWorld = Callable[..., World]

KEYS = ("primary", "secondary")
WRITES = {"setSecret", "updateSecret", "recoverSecret"}
SIGKILLED = -9
SYNC = ("sync", "--output", "json")
CHUNKS, KILLS_IN_A_CHUNK = 12, 25


class Runs:
    """Runs over one world, in processes that can be killed."""

    def __init__(self, world: World, keysync: WarmKeysync) -> None:
        self.world = world
        self.keysync = keysync
        self._out, self._err = world.folder / "stdout", world.folder / "stderr"
        self._environment = {**clean_environment(), **world.running.environ, "KEYSYNC_CONFIG": str(world.path)}

    def _start(self) -> None:
        self.keysync.start(SYNC, env=self._environment, out=self._out, err=self._err)

    def complete(self) -> Done:
        """A run until its end."""
        return self.keysync.run(SYNC, env=self._environment, folder=self.world.folder)

    def killed_at(self, moment: Moment | int) -> bool:
        """Kills a run while the world is stopped at a moment. Returns false if that moment did not occur."""
        with Stopper(self.world.running, moment) as stopper:
            self._start()
            while not stopper.came.wait(0.02) and not self.keysync.has_ended():
                pass
            self.keysync.kill()
            code = self.keysync.wait()
            assert stopper.free.wait(10), "a request outlived its client"
        return code == SIGKILLED

    def killed_after(self, event: int, seconds: float) -> bool:
        """Kills a run some time after its `event`-th request or reply, while the world continues."""
        with Stopper(self.world.running, event, hold=False) as stopper:
            self._start()
            while not stopper.came.wait(0.02) and not self.keysync.has_ended():
                pass
            time.sleep(seconds)
            self.keysync.kill()
            return self.keysync.wait() == SIGKILLED

    def moments(self) -> list[Moment]:
        """Every moment of a complete run."""
        with Stopper(self.world.running, None) as stopper:
            self.complete()
            return stopper.moments


def small_world(make_world: MakeWorld) -> tuple[World, list[SecretCase]]:
    """One account whose two keys have changed, one with a missing secret, and one whose secret will be adopted."""
    others = {"team": "render", "cost-centre": "17"}
    accounts = [
        {"name": name, "primary": new_account_key(), "secondary": new_account_key()}
        for name in ("alpha", "beta", "gamma")
    ]
    alpha = [
        {
            "name": f"alpha-{key}-key",
            "value": new_account_key(),
            "tags": {**others, **marks_of("alpha", key)},
            "content_type": "text/plain",
            "created": LONG_AGO,
        }
        for key in KEYS
    ]
    gamma = {"name": "gamma-primary-key", "value": accounts[2]["primary"], "tags": others, "created": LONG_AGO}
    world = make_world(*accounts, vaults=({"name": "main", "secrets": [*alpha, gamma]},))
    primary_only = {"secrets": {"secondary": None}}
    world.configure(["alpha", {"name": "beta", **primary_only}, {"name": "gamma", "adopt": True, **primary_only}])
    alpha_cases = [SecretCase("main", f"alpha-{key}-key", "alpha", key, marks_of("alpha", key)) for key in KEYS]
    beta_case = SecretCase("main", "beta-primary-key", "beta", "primary", marks_of("beta", "primary"))
    gamma_case = SecretCase(
        "main", "gamma-primary-key", "gamma", "primary", marks_of("gamma", "primary"), None, patched=True
    )
    return world, [*alpha_cases, beta_case, gamma_case]


def world_to_bring_back(make_world: MakeWorld, recover_delay: float) -> tuple[World, list[SecretCase]]:
    """One account with out-of-date secrets, one of which is also soft-deleted and one disabled.

    `recover_delay` is the time in seconds that a recovery takes.
    """
    live = {key: new_account_key() for key in KEYS}
    stored = {
        key: {
            "name": f"alpha-{key}-key",
            "value": new_account_key(),
            "tags": {"team": "render", **marks_of("alpha", key)},
            "content_type": "text/plain",
            "created": LONG_AGO,
        }
        for key in KEYS
    }
    vault = {
        "name": "main",
        "secrets": [{**stored["secondary"], "enabled": False}],
        "deleted": [stored["primary"]],
        "recover_delay": recover_delay,
    }
    world = make_world({"name": "alpha", **live}, vaults=(vault,))
    world.configure(["alpha"], recover="owned", disabled="enable")
    cases = [SecretCase("main", f"alpha-{key}-key", "alpha", key, marks_of("alpha", key), patched=True) for key in KEYS]
    return world, cases


def heal(runs: Runs, story: Story, how: str) -> None:
    """Asserts that the next run converges and says so. `how` describes what came before it."""
    done = runs.complete()
    details = f"{how}\n{done.out}\n{done.err}"
    try:
        code = story.check()
    except AssertionError as failure:
        raise AssertionError(f"{failure}\n{details}") from failure
    assert code == done.code, details


def kill_at_each(world: World, cases: list[SecretCase], keysync: WarmKeysync, chosen: Callable[[Moment], bool]) -> int:
    """Kills a run at each chosen moment and lets the next run converge; returns the number of moments."""
    runs, start = Runs(world, keysync), Snapshot.of(world.running)
    moments = runs.moments()
    assert {moment.operation for moment in moments} >= {"setSecret", "updateSecret", "listKeys", "getSecret"}
    killed = 0
    for moment in filter(chosen, moments):
        start.put_back(world.running)
        assert runs.killed_at(moment), f"{moment} never came"
        killed += 1
        heal(runs, Story(world.running, cases, start), f"killed at {moment}")
    return killed


def test_the_next_run_completes_a_run_killed_at_any_write(make_world: MakeWorld, keysync: WarmKeysync) -> None:
    """Two changed keys, one secret to create and one to adopt: four writes, each stopped before and after its
    effect."""
    assert kill_at_each(*small_world(make_world), keysync, lambda moment: moment.operation in WRITES) == 8


def test_the_next_run_completes_a_run_killed_at_any_request(make_world: MakeWorld, keysync: WarmKeysync) -> None:
    """The same for requests that only read or sign in."""
    assert kill_at_each(*small_world(make_world), keysync, lambda moment: moment.operation not in WRITES) > 20


@pytest.mark.parametrize("recover_delay", [0.0, pytest.param(0.2, marks=pytest.mark.slow)])
def test_the_next_run_completes_a_run_killed_while_recovering(
    make_world: MakeWorld, keysync: WarmKeysync, recover_delay: float
) -> None:
    """A recovery continues after the kill. Recovered and enabled secrets have an old value; the next run updates
    them."""
    world, cases = world_to_bring_back(make_world, recover_delay)
    assert kill_at_each(world, cases, keysync, lambda moment: moment.operation in WRITES) >= 8


@pytest.mark.parametrize("operation", ["getDeletedSecret", "recoverSecret"])
def test_a_recovery_that_ends_during_the_next_run_is_no_failure(
    make_world: MakeWorld, keysync: WarmKeysync, operation: str
) -> None:
    """A killed run began it. Between two requests of the next run the name may be free, deleted or in use."""
    world, cases = world_to_bring_back(make_world, 3600)
    start = Snapshot.of(world.running)
    vault = world.running.azure.state.vault("main")
    world.running.do(lambda _azure: vault.recover("alpha-primary-key"))

    async def end_it(_index: int, asked: str, _target: str, _stage: Stage) -> None:
        under_way = vault.find_deleted("alpha-primary-key")
        if asked == operation and under_way is not None:
            under_way.recovered_at = 0

    world.running.do(lambda azure: azure.hooks.install(end_it))
    heal(Runs(world, keysync), Story(world.running, cases, start), f"recovered as {operation} came")
    assert vault.find_deleted("alpha-primary-key") is None


def test_the_next_run_completes_an_installed_command_killed_after_a_write(make_world: MakeWorld) -> None:
    """Once without a forked process: the command starts as everywhere, in a new interpreter."""
    world, cases = small_world(make_world)
    start = Snapshot.of(world.running)
    command = [sys.executable, "-m", "keysync", "sync", "-c", str(world.path)]
    with Stopper(world.running, Moment("setSecret", 1, "after")) as stopper:
        with subprocess.Popen(command, env={**clean_environment(), **world.running.environ}) as process:
            assert stopper.came.wait(30)
            process.kill()
        assert process.returncode == SIGKILLED
        assert stopper.free.wait(10)
    ran = world.sync()
    assert Story(world.running, cases, start).check() == ran.code, ran.err


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_the_next_run_completes_runs_killed_at_random(make_world: MakeWorld, keysync: WarmKeysync, chunk: int) -> None:
    """300 kills in total, in a random world for each chunk; KEYSYNC_CRASH_SEED repeats a run."""
    seed = f"{os.environ.get('KEYSYNC_CRASH_SEED') or time.time_ns()}"
    print(f"KEYSYNC_CRASH_SEED={seed}")  # noqa: T201  # shown by pytest if the test fails
    rng = Random(f"{seed} {chunk}")  # noqa: S311  # nothing is kept secret by it
    content = random_world(rng)
    world = make_world(*content.accounts, vaults=tuple(content.vaults))
    world.configure(content.configured, **content.settings)
    runs, start = Runs(world, keysync), Snapshot.of(world.running)
    count, kills = len(runs.moments()), 0
    while kills < KILLS_IN_A_CHUNK:
        start.put_back(world.running)
        story = Story(world.running, content.cases, start)
        for _ in range(rng.choice([1, 1, 1, 2])):
            regenerate_some(rng, story, content.accounts)
            kills += kill_somewhere(rng, runs, count)
        heal(runs, story, f"KEYSYNC_CRASH_SEED={seed}")


def regenerate_some(rng: Random, story: Story, accounts: list[dict[str, Any]]) -> None:
    """Regenerates each key with a probability of one half."""
    for account in accounts:
        for key in KEYS:
            if rng.random() < 0.5:
                story.regenerate(account["name"], key)


def kill_somewhere(rng: Random, runs: Runs, count: int) -> bool:
    """Kills a run within its first `count` requests and replies, in a world that is stopped or continues."""
    event = rng.randrange(count)
    return runs.killed_at(event) if rng.random() < 0.5 else runs.killed_after(event, rng.uniform(0.0, 0.004))
