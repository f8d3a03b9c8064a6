"""No output of any command contains a key, token or client secret, however a call ends."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from keysync.emulator import Emulator, EmulatorData, Fault
from keysync.secret.redact import Redactor
from tests.support.azure import GROUP, SUBSCRIPTION, running_azure
from tests.support.daemon import running
from tests.support.receiver import Receiver, loopback_tls, receiving_in_a_thread
from tests.system.conftest import Ran, World, clean_environment

UNMANAGED_VALUE = "S3cr3t/of+Terraform=v1"
"""A value of another tool under a name that keysync would write."""
CLIENT_SECRET = "cl13nt.S3cret~of-the_test"
OTHER_SECRET = "0ther.S3cret~of-the_test"
SIGNING_SECRET = "s1gning.S3cret~of-the_webhook"
TIMEOUTS = {"request": "5s", "account": "8s", "collect": "200ms", "shutdown": "2s"}


def forms(secret: str) -> Iterator[str]:
    """Each form in which a text could contain a secret, including its beginning and its end."""
    yield base64.b64encode(secret.encode()).decode().rstrip("=")
    yield from (secret[:12], secret[-12:])
    yield from spellings(secret)


def spellings(secret: str) -> tuple[str, ...]:
    """A secret in the encodings of services, gateways and logs."""
    url = quote(secret, safe="")
    return (
        secret,
        secret.replace("+", "-").replace("/", "_"),
        base64.urlsafe_b64encode(secret.encode()).decode(),
        url,
        quote(url, safe=""),
        re.sub("%..", lambda results: results.group().lower(), url),
        re.sub(r"[^A-Za-z0-9]", lambda results: f"\\u{ord(results.group()):04x}", secret),
        re.sub(r"[^A-Za-z0-9]", lambda results: f"&#{ord(results.group())};", secret),
        re.sub(r"[^A-Za-z0-9]", lambda results: f"&#x{ord(results.group()):X};", secret),
        secret.encode().hex(),
        secret.encode().hex(":"),
        secret.encode().hex("-").upper(),
        " ".join(f"0x{byte:02x}" for byte in secret.encode()),
    )


def leaks(text: str, secrets: Mapping[str, str]) -> list[str]:
    """The names of the `secrets` in `text`, and whether it contains a token."""
    results = [name for name, secret in secrets.items() if any(form in text for form in forms(secret))]
    return [*results, *(["a token"] if "eyJ" in text else [])]


def outputs(ran: Ran, *folders: Path) -> Iterator[tuple[str, str]]:
    """Everything that a command wrote: both streams and every file, by name."""
    yield "stdout", ran.out
    yield "stderr", ran.err
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                yield str(file), f"{file.name}\n{file.read_bytes().decode('utf-8', errors='replace')}"


def shaped(key: str) -> str:
    """A key in all of its forms, as a careless service might repeat it."""
    wrapped = "\n    ".join(key[at : at + 20] for at in range(0, len(key), 20))
    return " | ".join((*spellings(key), base64.b64encode(key.encode()).decode(), wrapped, f"/batchAccounts/{key}"))


def echo(key: str, status: int = 409) -> dict[str, Any]:
    """A CloudError that repeats the key at each of its levels."""
    inner = {"code": "Inner", "message": f"bad value '{key}'", "target": key}
    details = [{"code": "Outer", "message": key, "target": key, "details": [inner], "innererror": {"was": {"k": key}}}]
    return {"kind": "status", "status": status, "code": "Odd", "message": f"got {key}!", "details": details}


def faults_for(key: str) -> dict[str, dict[str, Any]]:
    """Every way in which a call can fail, by name."""
    return {
        "echo": echo(key),
        "denied": echo(key, 403),
        "gone": echo(key, 404),
        "busy": {**echo(key, 429), "retry_after": "1200"},
        "code": {"kind": "status", "status": 400, "code": key, "message": "no", "inner_code": key},
        "header": {"kind": "status", "status": 409, "headers": {"x-ms-request-id": key, "WWW-Authenticate": key}},
        "reset": {"kind": "reset"},
        "truncated": {"kind": "truncated"},
        "html": {"kind": "html", "status": 200, "body": f"<html><title>{key}</title>{key}</html>"},
        "htmlerror": {"kind": "html", "status": 403, "body": f"<html><title>{key}</title>{key}</html>"},
        "empty": {"kind": "empty"},
        "nullkeys": {"kind": "null_keys"},
        "body": {"kind": "body", "body": key},
        "bodyerror": {"kind": "body", "body": key, "status": 400},
        "bodytext": {"kind": "body", "body": json.dumps(key)},
        "bodylist": {"kind": "body", "body": json.dumps([{"primary": key, "value": key}])},
        "bodyodd": {"kind": "body", "body": json.dumps({"primary": [key], "value": {"x": key}, "id": key})},
    }


LATE = ("echo", "reset", "truncated", "html", "body")
"""The possible replies to a write that has taken effect."""
FAULTS = [
    *((operation, fault_name) for operation in ("list", "get", "set") for fault_name in faults_for("")),
    *(("late", fault_name) for fault_name in LATE),
]


@dataclass
class Planted:
    """A world with known secrets, and the commands that run in it."""

    world: World
    temporary: Path
    secrets: dict[str, str] = field(default_factory=dict)

    def run(self, command: str, *arguments: str, env: Mapping[str, str] | None = None) -> Ran:
        """Runs a command with the debug log; its temporary files are in a folder of the test."""
        settings = {"TMPDIR": str(self.temporary), **(env or {})}
        return self.world.run(command, "--log-level", "debug", *arguments, env=settings)

    def search(self, ran: Ran) -> dict[str, list[str]]:
        """Every leak: the output and the secret."""
        everything = {name: leaks(text, self.secrets) for name, text in outputs(ran, self.world.folder, self.temporary)}
        return {name: results for name, results in everything.items() if results}

    def aim(self, faults: Iterable[Fault]) -> None:
        """Replaces the active faults with `faults`."""
        planned = list(faults)

        def replace(azure: Any) -> None:
            azure.faults.clear()
            for fault in planned:
                azure.faults.add(fault)

        self.world.running.do(replace)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    """One account for each failing operation and way to fail, and one healthy account."""
    names = ["fine", "unmanaged", "stuck", *(f"{operation}0{fault_name}" for operation, fault_name in FAULTS)]
    keys = {name: [base64.b64encode(os.urandom(64)).decode() for _ in range(2)] for name in names}
    common = {"subscription_id": SUBSCRIPTION, "resource_group": GROUP}
    accounts = [
        {**common, "name": name, "primary": primary, "secondary": secondary}
        for name, (primary, secondary) in keys.items()
    ]
    vault = {"name": "main", "secrets": [{"name": "foreign-primary-key", "value": UNMANAGED_VALUE}]}
    content = EmulatorData.model_validate({"client_secret": CLIENT_SECRET, "accounts": accounts, "vaults": [vault]})
    with ExitStack() as stack:
        azure = stack.enter_context(running_azure(content))
        folder, temporary = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("tmp")
        world = World(azure, folder)
        world.configure([name for name in names if name != "stuck"], timeouts=TIMEOUTS)
        planted = Planted(world, temporary)
        for name, pair in keys.items():
            planted.secrets |= dict(zip((f"{name} primary", f"{name} secondary"), pair, strict=True))
        planted.secrets |= {"unmanaged": UNMANAGED_VALUE, "client secret": CLIENT_SECRET}
        yield planted


def every_fault(stage: Planted) -> Iterator[Fault]:
    """One fault for each account that must fail, at the operation in its name."""
    for operation, fault_name in FAULTS:
        name = f"{operation}0{fault_name}"
        key = stage.secrets[f"{name} primary"]
        # Before a run has read a key, it recognises the key by its form only. A header takes one word.
        planned = faults_for(key if operation in {"list", "get"} or fault_name == "header" else shaped(key))[fault_name]
        target = name if operation == "list" else f"main/{name}-primary-key"
        called = {"list": "listKeys", "get": "getSecret"}.get(operation, "setSecret")
        yield Fault(operation=called, target=target, after=operation == "late", **planned)


COMMANDS = {
    "sync json": ("sync", ["--log-format", "json", "--output", "json"]),
    "sync text": ("sync", ["--log-format", "console", "--output", "text"]),
    "plan json": ("plan", ["--log-format", "console", "--output", "json"]),
    "check text": ("check", ["--log-format", "json", "--output", "text"]),
}


@pytest.fixture(scope="module")
def everything_failed(stage: Planted) -> dict[str, Ran]:
    """Runs each command once with all faults; in parallel, as most of the time is waiting between attempts."""
    stage.aim(every_fault(stage))

    def run(name: str) -> Ran:
        command, arguments = COMMANDS[name]
        metrics = ["--metrics-file", str(stage.world.folder / f"{name}.prom")] if command == "sync" else []
        return stage.run(command, *arguments, *metrics)

    with ThreadPoolExecutor() as pool:
        return dict(zip(COMMANDS, pool.map(run, COMMANDS), strict=True))


@pytest.mark.parametrize("name", COMMANDS)
def test_no_fault_leaks_a_secret(stage: Planted, everything_failed: dict[str, Ran], name: str) -> None:
    """With every failure, the debug log, the report and the files contain no secret."""
    ran = everything_failed[name]
    assert ran.code == 1, ran.err[-2000:]
    assert "list0echo" in ran.out
    # The two syncs run in parallel: a secret that the other wrote first is unchanged, and not in the text table.
    # The text of check summarises all secrets in one line.
    assert "fine" in ran.out or name in {"sync text", "check text"}
    assert "Request URL" in ran.err, "the SDK's own log is not on"
    if name == "sync json":
        listed = {where: outcome for where, outcome in ran.outcomes().items() if where.startswith("main/list0")}
        assert len(listed) == 2 * len(faults_for(""))
        assert {outcome for where, outcome in listed.items() if "-primary-" in where} <= {"failed", "refused"}
    if name.startswith("sync"):
        assert "keysync_secret_outcomes_total" in (stage.world.folder / f"{name}.prom").read_text()
    assert stage.search(ran) == {}


@pytest.mark.parametrize("code", ["AADSTS7000222", "AADSTS7000215"])
def test_a_refused_token_request_shows_no_client_secret(stage: Planted, code: str) -> None:
    """Entra's code is shown; the client secret that Entra's message repeats is not."""
    message = f"{code}: the client secret {CLIENT_SECRET} ({quote(CLIENT_SECRET, safe='')}) is not good."
    planned = {"kind": "status", "status": 401, "code": "invalid_client", "message": message}
    stage.aim([Fault(operation="token", **planned)])
    ran = stage.run("sync", "--output", "json", "--account", "fine", "--account", "unmanaged")
    assert ran.code == 1
    assert code in ran.out
    assert stage.search(ran) == {}


def test_a_client_secret_from_a_file_is_not_shown(stage: Planted, tmp_path: Path) -> None:
    """Entra's message repeats the configured secret, and the output does not show it."""
    world = World(stage.world.running, tmp_path / "configured")
    world.folder.mkdir()
    mounted = tmp_path / "mounted"
    mounted.write_text(OTHER_SECRET + "\n")
    endpoints = world.running.azure.endpoints
    credential = {"type": "client_secret", "tenant_id": endpoints.tenant_id, "client_id": endpoints.client_id}
    world.configure(["fine"], timeouts=TIMEOUTS, credential={**credential, "client_secret_file": str(mounted)})
    other = Planted(world, stage.temporary, {**stage.secrets, "other client secret": OTHER_SECRET})
    message = f"AADSTS7000215: {shaped(OTHER_SECRET)} is wrong"
    other.aim([Fault(operation="token", kind="status", status=401, code="invalid_client", message=message)])
    ran = other.run("sync")
    assert ran.code == 1
    assert "AADSTS7000215" in ran.out
    assert other.search(ran) == {}


def test_an_interrupted_run_shows_no_secret(stage: Planted, tmp_path: Path) -> None:
    """The report on interrupted writes does not show their values."""
    world = World(stage.world.running, tmp_path / "interrupted")
    world.folder.mkdir()
    world.configure(["stuck"], timeouts={**TIMEOUTS, "shutdown": "500ms"})
    other = Planted(world, stage.temporary, stage.secrets)
    other.aim([Fault(operation="setSecret", target="main/stuck-*", kind="hang", after=True)])
    before = world.running.do(lambda azure: azure.counts["setSecret"])
    process = subprocess.Popen(
        [sys.executable, "-m", "keysync", "sync", "-c", str(world.path), "--log-level", "debug", "--output", "json"],
        env={**clean_environment(), **world.running.environ, "TMPDIR": str(other.temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 10
    while world.running.do(lambda azure: azure.counts["setSecret"]) < before + 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 143, err[-2000:]
    assert '"interrupted": true' in out
    assert '"outcome": "unknown"' in out
    assert other.search(Ran(process.returncode, out, err)) == {}


BROKEN = """
import os, sys
key = os.environ["A_KEY"]
def fails(*_, **__):
    local = key
    raise RuntimeError(f"unexpected {local}") from ValueError(local)
import keysync.cli.main, keysync.cli.sync, keysync.sync.run, keysync.targets.key_vault as target
{broken}
keysync.cli.main.main()
"""
"""The command with a bug in it."""


@pytest.mark.parametrize(
    "broken", ["target.KeyVault.read = fails", "keysync.cli.sync._print = fails", "target.reveal = fails"]
)
def test_a_bug_in_keysync_shows_no_secret(stage: Planted, broken: str) -> None:
    """An unexpected exception is logged with its type and position, without its text."""
    stage.aim([])
    key = stage.secrets["get0empty primary"]
    stage.world.running.do(lambda azure: azure.state.regenerate("fine", "Primary"))
    arguments = ["sync", "-c", str(stage.world.path), "--log-level", "debug", "--account", "fine"]
    done = subprocess.run(
        [sys.executable, "-c", BROKEN.replace("{broken}", broken), *arguments],
        env={**clean_environment(), **stage.world.running.environ, "A_KEY": key, "TMPDIR": str(stage.temporary)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    ran = Ran(done.returncode, done.stdout, done.stderr)
    assert ran.code == 1
    assert "RuntimeError" in ran.out + ran.err
    assert "Traceback" not in ran.err
    assert stage.search(ran) == {}


PAGES = ("/", "/?state=failing&sort=-name", "/api/status", "/metrics", "/healthz", "/readyz", "/static/page.js")


@dataclass
class Left:
    """All output of a daemon with faults, by source, and its exit code."""

    outputs_by_source: dict[str, str]
    code: int


def bodies(receiver: Receiver, read: Callable[[bytes], str]) -> str:
    """Everything that a receiver got, with headers, decompressed and decoded."""
    planned = []
    for request in list(receiver.received):
        body = gzip.decompress(request.body) if request.headers.get("Content-Encoding") == "gzip" else request.body
        planned.append(f"{request.headers}\n{read(body)}")
    return "\n".join(planned)


def spans(body: bytes) -> str:
    """Traces as text: in the raw bytes a key's name may look like the beginning of a token."""
    otlp = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    return str(otlp.ExportTraceServiceRequest.FromString(body))


def renewed(stage: Planted, names: Sequence[str]) -> dict[str, str]:
    """Regenerates each account's secondary key; returns the new values."""

    def renew(azure: Emulator) -> dict[str, str]:
        for name in names:
            azure.state.regenerate(name, "Secondary")
        return {f"{name} secondary, renewed": azure.state.keys(name)[1] for name in names}

    return stage.world.running.do(renew)


@pytest.fixture(scope="module")
def daemon_left(stage: Planted, tmp_path_factory: pytest.TempPathFactory) -> Left:
    """The output of a daemon with the debug log, over a run in which everything fails and one that writes new keys."""
    pytest.importorskip("opentelemetry.sdk", reason="the extra `tracing` is not installed")
    folder = tmp_path_factory.mktemp("daemon")
    world = World(stage.world.running, folder)
    context, bundle = loopback_tls(folder)
    signing = folder / "signing"
    signing.write_text(SIGNING_SECRET)
    names = [name.split()[0] for name in stage.secrets if name.endswith(" primary") and not name.startswith("stuck")]
    with receiving_in_a_thread(context) as hook, receiving_in_a_thread() as collector:
        world.configure(
            names,
            timeouts=TIMEOUTS,
            schedule={"every": "1h"},
            listen="127.0.0.1:0",
            notify={"url": f"{hook.base}/hook", "secret_file": str(signing)},
        )
        env = {
            **clean_environment(),
            **world.running.environ,
            "TMPDIR": str(stage.temporary),
            "SSL_CERT_FILE": str(bundle),
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.base,
        }
        stage.aim(every_fault(stage))
        with running(world.path, env, "--log-level", "debug") as daemon:
            daemon.until_event("run.finished")
            outputs_by_source = {f"amid {path}": daemon.get(path).text for path in PAGES}
            stage.aim([])
            stage.secrets |= renewed(stage, names)
            daemon.sync()
            outputs_by_source |= {f"after {path}": daemon.get(path).text for path in PAGES}
            # The remaining data is sent within a short time at the end, which a busy machine may exceed.
            daemon.until(lambda: '"recovered"' in bodies(hook, bytes.decode))
            code = daemon.end()
            outputs_by_source["log"] = daemon.err
        outputs_by_source |= {"webhook": bodies(hook, bytes.decode), "traces": bodies(collector, spans)}
    signing.unlink()
    return Left(outputs_by_source, code)


def test_a_daemon_shows_no_secret_in_any_output(stage: Planted, daemon_left: Left) -> None:
    """Log, page, API, probes, metrics, webhook and traces contain no secret."""
    outputs_by_source = daemon_left.outputs_by_source
    assert daemon_left.code == 0, outputs_by_source["log"][-2000:]
    assert "Request URL" in outputs_by_source["log"], "the SDK's own log is not on"
    assert "list0echo" in outputs_by_source["amid /"]
    for account in json.loads(outputs_by_source["amid /api/status"])["accounts"]:
        expected = {"in_sync", "changed"} if account["name"] == "fine" else {"failing", "refused", "changed", "in_sync"}
        assert account["state"] in expected
    assert "keysync_account_failures" in outputs_by_source["amid /metrics"]
    assert {'"failed"', '"changed"', '"recovered"'} <= set(
        re.findall(r'"(?:failed|changed|recovered)"', outputs_by_source["webhook"])
    )
    assert "keysync.account" in outputs_by_source["traces"]
    secrets = {**stage.secrets, "signing secret": SIGNING_SECRET}
    results = {where: leaks(text, secrets) for where, text in outputs_by_source.items()}
    assert {where: names for where, names in results.items() if names} == {}


def pasted(document: dict[str, Any], slip: str) -> None:
    """Puts a client secret under a wrong key."""
    if slip == "notify.url":
        document["notify"] = {"url": f"https://bot:{OTHER_SECRET}@hook.example"}
    elif slip == "notify.secret_file":
        document["notify"] = {"url": "https://hook.example", "secret_file": OTHER_SECRET}
    elif slip == "vaults.main.url":
        document["vaults"]["main"]["url"] = f"https://bot:{OTHER_SECRET}@main.vault.azure.net"
    else:
        name = slip.rpartition(".")[2]
        document["credential"] = {"type": "client_secret", "tenant_id": "t", "client_id": "c", name: OTHER_SECRET}


SLIPS = (
    "credential.client_secret_file",
    "credential.client_secret",
    "credential.password_file",
    "notify.url",
    "notify.secret_file",
    "vaults.main.url",
)


def test_a_reload_shows_nothing_of_a_pasted_secret(make_world: Callable[..., World]) -> None:
    """Each refusal is on the page, in the API and in the log, without the value."""
    world = make_world("alpha")
    world.configure(["alpha"], listen="127.0.0.1:0", schedule={"every": "1h"})
    good = world.path.read_text()
    with running(world.path, {**clean_environment(), **world.running.environ}, "--log-level", "debug") as daemon:
        daemon.until_event("run.finished")
        outputs_by_source: dict[str, str] = {}
        for number, slip in enumerate(SLIPS, 1):
            document = json.loads(good)
            pasted(document, slip)
            world.path.write_text(json.dumps(document))
            daemon.send(signal.SIGHUP)
            daemon.until_event("config.refused", number)
            daemon.until(lambda slip=slip: slip.rpartition(".")[2] in (daemon.status()["config_error"] or ""))
            outputs_by_source |= {f"{slip} {path}": daemon.get(path).text for path in PAGES}
            assert "The new configuration is invalid" in outputs_by_source[f"{slip} /"]
        assert daemon.end() == 0
        outputs_by_source["log"] = daemon.err
    results = {where: leaks(text, {"pasted": OTHER_SECRET}) for where, text in outputs_by_source.items()}
    assert {where: names for where, names in results.items() if names} == {}


def test_a_key_that_was_never_read_is_recognised_by_its_form() -> None:
    """A key that a service repeats before keysync has read it is redacted in each of its forms."""
    key = base64.b64encode(bytes(range(11, 250, 7)) + bytes(range(3, 255, 9)) + b"\xff\xef").decode()
    text = Redactor().redact(f"before {shaped(key)} behind")
    assert leaks(text, {"key": key}) == []
    assert text.startswith("before ")
    assert text.endswith(" behind")


def test_the_search_finds_every_form_of_a_secret(tmp_path: Path) -> None:
    """It finds a secret in each of its forms, and a token, in both streams and in files of any folder depth."""
    key = base64.b64encode(os.urandom(64)).decode()
    planted = {"key": key, "unmanaged": UNMANAGED_VALUE}
    for form in forms(key):
        assert leaks(f"before {form} behind", planted) == ["key"]
    assert leaks('{"authorization": "Bearer eyJ0eXAi"}', planted) == ["a token"]
    assert leaks("nothing here", planted) == []
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "left.bin").write_bytes(b"\xff\x00" + quote(UNMANAGED_VALUE, safe="").encode())
    results = {Path(name).name: leaks(text, planted) for name, text in outputs(Ran(0, key, f"x{key[:12]}x"), tmp_path)}
    assert results == {"stdout": ["key"], "stderr": ["key"], "left.bin": ["unmanaged"]}
