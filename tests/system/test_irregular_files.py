"""FIFOs, devices and folders in place of files, and files behind symbolic links."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.azure import SUBSCRIPTION
from tests.support.daemon import serving
from tests.system.conftest import Ran, World, run_keysync

MakeWorld = Callable[..., World]


def refused(world: World, ran: Ran) -> str:
    """The message of a command that ends before its first request."""
    assert ran.code == 2, ran.err
    assert "Traceback" not in ran.err
    assert world.running.do(lambda azure: dict(azure.counts)) == {}
    return ran.err


def make(path: Path, kind: str) -> Path:
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/null")
    return path


@pytest.mark.parametrize("kind", ["a FIFO", "a folder", "a device"])
def test_an_irregular_metrics_file_makes_no_request(make_quick_world: MakeWorld, kind: str) -> None:
    """Otherwise keysync would replace it, or wait forever."""
    world = make_quick_world("alpha")
    world.configure(["alpha"])
    path = make(world.folder / "keysync.prom", kind)
    before = os.lstat(path)
    message = refused(world, world.sync("--metrics-file", str(path)))
    assert f"--metrics-file {path}: it is {kind}, expected a regular file" in message
    assert os.lstat(path) == before


def test_a_metrics_file_behind_a_link_is_replaced(make_quick_world: MakeWorld) -> None:
    """The link stays, and its target has the metrics."""
    world = make_quick_world("alpha")
    world.configure(["alpha"])
    (world.folder / "elsewhere").mkdir()
    target, link = world.folder / "elsewhere" / "target.prom", world.folder / "keysync.prom"
    target.write_text("old")
    link.symlink_to("elsewhere/target.prom")
    assert world.sync("--metrics-file", str(link)).code == 0
    assert link.is_symlink()
    assert "keysync_runs_total" in target.read_text()
    assert [path.name for path in target.parent.iterdir()] == ["target.prom"]


def test_an_irregular_ready_file_is_refused(tmp_path: Path) -> None:
    """Before the server starts."""
    path = make(tmp_path / "ready.json", "a FIFO")
    ran = run_keysync("emulator", "--ready-file", str(path))
    assert (ran.code, ran.out) == (2, "")
    assert f"--ready-file {path}: it is a FIFO, expected a regular file" in ran.err
    assert stat.S_ISFIFO(path.stat().st_mode)


@pytest.mark.parametrize(
    ("credential", "variable"),
    [
        ("workload_identity", "AZURE_FEDERATED_TOKEN_FILE"),
        ("default", "AZURE_FEDERATED_TOKEN_FILE"),
        ("environment", "AZURE_CLIENT_CERTIFICATE_PATH"),
        ("default", "AZURE_CLIENT_CERTIFICATE_PATH"),
        ("environment", "SSL_CERT_FILE"),
    ],
)
def test_a_variable_that_names_a_fifo_makes_no_request(make_world: MakeWorld, credential: str, variable: str) -> None:
    """Otherwise the SDK or OpenSSL would wait forever for a writer."""
    world = make_world("alpha")
    world.configure(["alpha"], credential={"type": credential})
    path = make(world.folder / "fifo", "a FIFO")
    env = {**world.running.environ, variable: str(path)}
    if variable == "AZURE_CLIENT_CERTIFICATE_PATH":
        del env["AZURE_CLIENT_SECRET"]
    message = refused(world, run_keysync("sync", "-c", str(world.path), env=env))
    assert f"{variable}={path}" in message
    assert "it is a FIFO, expected a regular file" in message


IDS = {"tenant_id": SUBSCRIPTION, "client_id": SUBSCRIPTION}


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ({"credential": {"type": "workload_identity", **IDS, "token_file": "fifo"}}, "credential.token_file"),
        ({"credential": {"type": "client_secret", **IDS, "client_secret_file": "fifo"}}, "credential.client_secret_file"),
        ({"credential": {"type": "client_certificate", **IDS, "certificate_file": "fifo"}}, "credential.certificate_file"),
        (
            {
                "credential": {
                    "type": "client_certificate",
                    **IDS,
                    "certificate_file": "keysync.yaml",
                    "password_file": "fifo",
                }
            },
            "credential.password_file",
        ),
        ({"notify": {"url": "https://hooks.example.com/x", "secret_file": "fifo"}}, "notify.secret_file"),
        ({"cloud": {"ca_bundle": "fifo"}}, "cloud.ca_bundle"),
    ],
)  # fmt: skip
def test_a_setting_that_names_a_fifo_makes_no_request(
    make_quick_world: MakeWorld, setting: dict[str, Any], key: str
) -> None:
    """The message names the key and its line."""
    world = make_quick_world("alpha")
    world.configure(["alpha"], **setting)
    make(world.folder / "fifo", "a FIFO")
    message = refused(world, world.sync())
    assert f" {key}: " in message
    assert "expected a regular file" in message


async def test_a_token_file_that_becomes_a_fifo_fails_and_recovers(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop continues, the failure names the file, and the next run with a regular file succeeds."""
    world = make_world("alpha")
    for name in ("AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE", "KEYSYNC_READ_ONLY"):
        monkeypatch.delenv(name, raising=False)
    entra = world.running.azure._entra
    # Tokens are so short-lived that each run needs a new one.
    monkeypatch.setattr(entra.tokens, "lifetime", 60)
    token = world.folder / "token"
    token.write_text("assertion")
    ends = world.running.azure.endpoints
    credential = {"type": "workload_identity", "tenant_id": ends.tenant_id, "client_id": ends.client_id}
    world.configure(
        ["alpha"],
        credential={**credential, "token_file": str(token)},
        schedule={"every": "1h"},
        listen="127.0.0.1:0",
    )
    async with serving(world.path) as daemon:
        await daemon.first_run()
        token.unlink()
        os.mkfifo(token)
        world.running.do(lambda azure: azure.revoke_tokens())
        (report,) = await daemon.sync()
        assert {result.outcome for result in report.results} == {"failed"}
        summaries = {result.error.summary for result in report.results if result.error}
        assert summaries == {
            f"workload_identity: token_file: {token}: the file cannot be read (it is a FIFO, expected a regular file)"
        }
        token.unlink()
        token.write_text("assertion")
        (report,) = await daemon.sync()
        assert {result.outcome for result in report.results} == {"unchanged"}
