"""A secret has the same value from every source: characters that editors and tools add are removed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.conftest import World

AROUND = {
    "bare": lambda secret: secret,
    "line end": lambda secret: f"{secret}\n",
    "line end of Windows": lambda secret: f"{secret}\r\n",
    "byte order mark": lambda secret: f"\ufeff{secret}\r\n",
}


@pytest.mark.parametrize("way", ["file", "variable in the file", "environment"])
@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
def test_line_end_and_byte_order_mark_are_removed_from_a_client_secret(
    make_quick_world: Callable[..., World], tmp_path: Path, way: str, around: Callable[[str], str]
) -> None:
    """Entra accepts the secret from a mounted file, from `${NAME}` and from AZURE_CLIENT_SECRET."""
    world = make_quick_world("sampleacct")
    endpoints = world.running.azure.endpoints
    written = around(endpoints.client_secret)
    mounted = tmp_path / "mounted"
    mounted.write_bytes(written.encode())
    principal = {"type": "client_secret", "tenant_id": endpoints.tenant_id, "client_id": endpoints.client_id}
    credential, env = {
        "file": ({**principal, "client_secret_file": str(mounted)}, {"AZURE_CLIENT_SECRET": ""}),
        "variable in the file": ({**principal, "client_secret": "${MOUNTED}"}, {"MOUNTED": written}),
        "environment": ({"type": "environment"}, {"AZURE_CLIENT_SECRET": written}),
    }[way]
    world.configure(["sampleacct"], credential=credential)
    ran = world.sync(env=env)
    assert ran.code == 0, ran.err[-2000:]
    assert set(ran.outcomes().values()) == {"created"}
