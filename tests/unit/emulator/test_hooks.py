"""A test can suspend any request, before or after its effect."""

import asyncio

import pytest

V = "?api-version=7.6"


async def _sign_in(client):
    await client.vault(f"/secrets/many00{V}")


async def test_the_hook_runs_twice_for_each_request(client, azure):
    """With number, operation, target and stage, also for challenges and refusals. It no longer runs once it is removed."""
    events = []

    async def note(*event):
        events.append(event)

    azure.hooks.install(note)
    await client.vault(f"/secrets/none{V}")
    async with client.session.get(f"{azure.endpoints.vaults['kv-a']}/secrets{V}") as reply:
        assert reply.status == 401
    azure.hooks.install(None)
    await client.vault(f"/secrets/none{V}")
    assert events == [
        (0, "token", azure.endpoints.tenant_id, "before"),
        (0, "token", azure.endpoints.tenant_id, "after"),
        (1, "getSecret", "kv-a/none", "before"),
        (1, "getSecret", "kv-a/none", "after"),
        (2, "challenge", "kv-a", "before"),
        (2, "challenge", "kv-a", "after"),
    ]


@pytest.mark.parametrize(("stage", "versions"), [("before", 0), ("after", 1)])
@pytest.mark.parametrize("client_stays", [True, False])
async def test_a_hook_suspends_one_request(client, azure, stage, versions, client_stays):
    """Before: the request has no effect, and never has one if the client disconnects. After: it took effect, without a reply."""
    await _sign_in(client)
    suspended, release, cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def suspend(_index, operation, _target, at):
        if (operation, at) == ("setSecret", stage):
            suspended.set()
            try:
                await release.wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

    azure.hooks.install(suspend)
    write = asyncio.create_task(client.vault(f"/secrets/new{V}", "PUT", json={"value": "x"}))
    await suspended.wait()
    assert (await client.vault(f"/secrets/many00{V}"))[0] == 200
    assert len(azure.state.vault("kv-a").versions("new")) == versions
    if client_stays:
        release.set()
        assert (await write)[0] == 200
    else:
        write.cancel()
        await cancelled.wait()
    assert len(azure.state.vault("kv-a").versions("new")) == (1 if client_stays else versions)
