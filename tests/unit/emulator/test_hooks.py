"""A test can stop the world at any request, before its effect or after it."""

import asyncio

import pytest

V = "?api-version=7.6"


async def _token_and_challenge_are_over(client):
    await client.vault(f"/secrets/many00{V}")


async def test_every_request_is_told_twice(client, azure):
    """Its number, operation, target and stage, a challenge and a refusal included; nothing once the watch has ended."""
    told = []

    async def note(*event):
        told.append(event)

    azure.hooks.install(note)
    await client.vault(f"/secrets/none{V}")
    async with client.session.get(f"{azure.endpoints.vaults['kv-a']}/secrets{V}") as reply:
        assert reply.status == 401
    azure.hooks.install(None)
    await client.vault(f"/secrets/none{V}")
    assert told == [
        (0, "token", azure.endpoints.tenant_id, "before"),
        (0, "token", azure.endpoints.tenant_id, "after"),
        (1, "getSecret", "kv-a/none", "before"),
        (1, "getSecret", "kv-a/none", "after"),
        (2, "challenge", "kv-a", "before"),
        (2, "challenge", "kv-a", "after"),
    ]


@pytest.mark.parametrize(("stage", "versions"), [("before", 0), ("after", 1)])
@pytest.mark.parametrize("client_stays", [True, False])
async def test_a_request_is_held_and_nothing_else_is(client, azure, stage, versions, client_stays):
    """Before: no effect yet, and none ever if the client goes away. After: the effect is there, the reply is not."""
    await _token_and_challenge_are_over(client)
    held, release, gone = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def hold(_index, operation, _target, at):
        if (operation, at) == ("setSecret", stage):
            held.set()
            try:
                await release.wait()
            except asyncio.CancelledError:
                gone.set()
                raise

    azure.hooks.install(hold)
    write = asyncio.create_task(client.vault(f"/secrets/new{V}", "PUT", json={"value": "x"}))
    await held.wait()
    assert (await client.vault(f"/secrets/many00{V}"))[0] == 200
    assert len(azure.state.vault("kv-a").versions("new")) == versions
    if client_stays:
        release.set()
        assert (await write)[0] == 200
    else:
        write.cancel()
        await gone.wait()
    assert len(azure.state.vault("kv-a").versions("new")) == (1 if client_stays else versions)
