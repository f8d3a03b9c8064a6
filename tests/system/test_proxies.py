"""A proxy that refuses requests: one finding that names its variable, and no output with its password."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.daemon import running
from tests.support.proxy import ForwardProxy, proxying_in_a_thread
from tests.system.conftest import clean_environment, run_keysync

PASSWORD = "pr0xy+P4ss/w0rd=of-the test"
ENCODED = "pr0xy%2BP4ss%2Fw0rd%3Dof-the%20test"
BASIC = base64.b64encode(f"bot:{PASSWORD}".encode()).decode()
TENANT = "7e000000-0000-4000-8000-00000000007e"
CONFIG = f"""\
credential: {{type: client_secret, tenant_id: {TENANT}, client_id: {TENANT}, client_secret_file: secret}}
schedule: {{every: 1h}}
listen: 127.0.0.1:0
timeouts: {{request: 5s, account: 20s, collect: 1s, shutdown: 2s}}
vaults:
  main: {{url: https://kv-render.vault.azure.net}}
accounts:
  - {{subscription_id: {TENANT}, resource_group: group, name: alpha, vaults: [main]}}
notify: {{url: https://hooks.example/x, secret_file: secret}}
"""
ANSWERS = ("407", "502", "302", "garbage")


def leaks(texts: Mapping[str, str]) -> list[str]:
    """The outputs that contain any form of the password, including its beginning and its end."""
    forms = (
        PASSWORD,
        ENCODED,
        BASIC,
        PASSWORD[:8],
        PASSWORD[-8:],
        ENCODED[:10],
        ENCODED[-10:],
        BASIC[:10],
        BASIC[-10:],
    )
    return [where for where, text in texts.items() if any(form in text for form in forms)]


@pytest.fixture(params=ANSWERS)
def proxy(request: pytest.FixtureRequest) -> Iterator[ForwardProxy]:
    """A proxy that refuses every request."""
    with proxying_in_a_thread(request.param) as serving:
        yield serving


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with Azure's own addresses, all of which need the proxy."""
    (tmp_path / "secret").write_text("of-no-importance")
    path = tmp_path / "keysync.yaml"
    path.write_text(CONFIG)
    return path


def environ(proxy: ForwardProxy) -> dict[str, str]:
    """The variable that names the proxy, with the password."""
    return {"HTTPS_PROXY": f"http://bot:{ENCODED}@127.0.0.1:{proxy.port}"}


def test_no_command_shows_the_password_of_a_proxy(proxy: ForwardProxy, config: Path) -> None:
    """The proxy got the password, the output does not contain it, and names the variable."""
    for command in (["sync", "--output", "json"], ["check"]):
        ran = run_keysync(*command, "-c", str(config), "--log-level", "debug", env=environ(proxy))
        assert ran.code == 1
        assert leaks({"stdout": ran.out, "stderr": ran.err}) == []
        assert "HTTPS_PROXY" in ran.out
    assert set(proxy.authorizations) == {f"Basic {BASIC}"}


def test_a_proxy_that_wants_other_credentials_is_asked_once(config: Path) -> None:
    """Further attempts could lock the user. The hint says what to correct."""
    with proxying_in_a_thread("407") as proxy:
        ran = run_keysync("sync", "--output", "json", "-c", str(config), env=environ(proxy))
    errors = [item["error"] for item in json.loads(ran.out)["items"]]
    assert {(error["kind"], error["http_status"]) for error in errors} == {("http_error", 407)}
    assert all(
        error["hint"].startswith("HTTPS_PROXY has a user and password that the proxy refuses") for error in errors
    )
    # One for the account and one for the vault; neither is repeated.
    assert len(proxy.connects) == 2


def test_a_default_credential_behind_a_dead_proxy_reports_the_proxy(config: Path) -> None:
    """The credential chain drops the proxy's error; its hint would be to configure another credential."""
    text = config.read_text().replace(
        f"{{type: client_secret, tenant_id: {TENANT}, client_id: {TENANT}, client_secret_file: secret}}",
        "{type: default}",
    )
    config.write_text(text)
    with proxying_in_a_thread("407") as proxy:
        address = environ(proxy)
    signed = {"AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": TENANT, "AZURE_CLIENT_SECRET": "of-no-importance"}
    ran = run_keysync("sync", "--output", "json", "-c", str(config), env={**address, **signed})
    hints = {item["error"]["hint"] for item in json.loads(ran.out)["items"]}
    assert len(hints) == 1
    assert hints.pop().startswith("HTTPS_PROXY names the proxy http://127.0.0.1:")


def test_the_daemon_shows_no_password_of_a_proxy(config: Path) -> None:
    """Neither the page, the API, the log nor the warnings about the webhook contain it."""
    with proxying_in_a_thread("407") as proxy:
        env = {**clean_environment(), **environ(proxy)}
        with running(config, env, "--log-level", "debug") as daemon:
            daemon.until_event("run.finished")
            daemon.until_event("notify.failed")
            texts = {path: daemon.get(path).text for path in ("/", "/api/status", "/metrics")}
            assert daemon.end() == 0
            texts["log"] = daemon.err
    assert "HTTPS_PROXY" in texts["/"]
    assert "HTTPS_PROXY" in texts["/api/status"]
    assert leaks(texts) == []
