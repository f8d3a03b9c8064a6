"""Which proxy a call takes, and where each cloud is."""

from __future__ import annotations

import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme

from keysync.azure.clouds import endpoints_of
from keysync.azure.transport import SharedTransport, tls_context
from keysync.config.settings import CloudMapping
from keysync.errors import UsageError

PROXY = "http://proxy.example:3128"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def proxy_for(url: str) -> str | None:
    async with aiohttp.ClientSession() as session:
        return SharedTransport(session, connect_seconds=1).proxy_for(url)


async def test_without_a_proxy_calls_go_straight():
    """No variable, no proxy."""
    assert await proxy_for("https://management.azure.com/x") is None


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
async def test_https_proxy_is_honoured(monkeypatch: pytest.MonkeyPatch, variable: str):
    """HTTPS_PROXY, in either case, and ALL_PROXY serve a call over TLS."""
    monkeypatch.setenv(variable, PROXY)
    assert await proxy_for("https://management.azure.com/x") == PROXY


async def test_http_proxy_does_not_serve_https(monkeypatch: pytest.MonkeyPatch):
    """Each scheme has its own variable."""
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    assert await proxy_for("https://management.azure.com/x") is None
    assert await proxy_for("http://other.example/") == PROXY


@pytest.mark.parametrize("excluded", [".vault.azure.net", "kv.vault.azure.net", "a.example,vault.azure.net", "*"])
async def test_no_proxy_is_honoured(monkeypatch: pytest.MonkeyPatch, excluded: str):
    """A host that NO_PROXY names, or whose domain it names, is called directly."""
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", excluded)
    assert await proxy_for("https://kv.vault.azure.net/secrets/x") is None


async def test_no_proxy_for_one_host_leaves_the_others(monkeypatch: pytest.MonkeyPatch):
    """What NO_PROXY does not name goes through the proxy still."""
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", ".vault.azure.net")
    assert await proxy_for("https://management.azure.com/") == PROXY


@pytest.mark.parametrize("url", ["http://169.254.169.254/metadata/identity", "http://169.254.170.2:80/x"])
async def test_the_metadata_service_is_never_proxied(monkeypatch: pytest.MonkeyPatch, url: str):
    """A token of the machine's identity does not travel through a proxy."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, PROXY)
    assert await proxy_for(url) is None


def test_an_unreadable_bundle_is_told_at_start(tmp_path: Path):
    """A ca_bundle that is missing or no PEM is an error of use that names the file."""
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("no certificate")
    for path in (rubbish, tmp_path / "missing.pem"):
        with pytest.raises(UsageError, match=path.name):
            tls_context(path)


def test_the_trust_of_the_environment_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """OpenSSL goes on without a file that it cannot read; here the variable is told. Unset and empty it is no matter."""
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("no certificate")
    for path in (rubbish, tmp_path / "missing.pem"):
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        with pytest.raises(UsageError) as caught:
            tls_context(None)
        assert f"SSL_CERT_FILE={path}: " in str(caught.value)
        assert "or unset it" in str(caught.value)
    monkeypatch.setenv("SSL_CERT_FILE", "")
    assert tls_context(None).verify_mode == ssl.CERT_REQUIRED
    bundle = tmp_path / "bundle.pem"
    trustme.CA().cert_pem.write_to_path(str(bundle))
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    assert len(tls_context(None).get_ca_certs()) >= 1


@pytest.mark.parametrize(
    ("variable", "value", "shown"),
    [
        ("HTTPS_PROXY", "proxy.example:3128", "proxy.example:3128"),
        ("https_proxy", "//proxy.example", "***"),
        ("HTTP_PROXY", "http://", "http://"),
        ("ALL_PROXY", "socks5://proxy.example:1080", "socks5://proxy.example:1080"),
        ("HTTPS_PROXY", "http://proxy.example:port", "http://***"),
        ("HTTPS_PROXY", "robot:hunter2@proxy.example:3128", "***@proxy.example:3128"),
        ("HTTPS_PROXY", "socks5://robot:hunter2@proxy.example", "socks5://***@proxy.example"),
        ("HTTPS_PROXY", "http://robot:hunter2@", "http://***@"),
        ("HTTPS_PROXY", "http://robot:hunter2", "http://***"),
        ("HTTPS_PROXY", "http://robot:hunt/er2@proxy.example", "http://***@proxy.example"),
        ("HTTPS_PROXY", "socks5://robot:hunter2://x@[::1]:1080", "socks5://***@***"),
    ],
)
async def test_a_proxy_that_is_none_is_told_at_start(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, shown: str
):
    """By its variable, and by its value without what could be a password."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError) as caught:
        await proxy_for("https://management.azure.com/x")
    assert str(caught.value).startswith(f"{variable}={shown}: this is not the address of a proxy; ")
    assert "http://proxy.example.com:3128" in str(caught.value)
    assert "hunt" not in str(caught.value)


async def test_what_serves_no_call_over_tls_may_be_anything(monkeypatch: pytest.MonkeyPatch):
    """ALL_PROXY is often for other programs; it counts where HTTPS_PROXY is not set."""
    monkeypatch.setenv("ALL_PROXY", "socks5://proxy.example:1080")
    monkeypatch.setenv("HTTPS_PROXY", "http://robot:hunter2@proxy.example:3128/")
    assert await proxy_for("https://management.azure.com/x") == "http://robot:hunter2@proxy.example:3128/"


@pytest.mark.parametrize(
    ("cloud", "authority", "resource_manager", "scope"),
    [
        ("public", "login.microsoftonline.com", "management.azure.com", "management.azure.com"),
        (
            "usgovernment",
            "login.microsoftonline.us",
            "management.usgovcloudapi.net",
            "management.core.usgovcloudapi.net",
        ),
        ("china", "login.chinacloudapi.cn", "management.chinacloudapi.cn", "management.chinacloudapi.cn"),
    ],
)
def test_each_named_cloud_has_its_endpoints(cloud: str, authority: str, resource_manager: str, scope: str):
    """A cloud's name stands for its authority, its Resource Manager and the scope of its tokens."""
    endpoints = endpoints_of(cloud)  # type: ignore[arg-type]
    assert endpoints.authority == f"https://{authority}"
    assert endpoints.resource_manager == f"https://{resource_manager}"
    assert endpoints.resource_manager_scope == f"https://{scope}/.default"
    assert endpoints.known


def test_a_mapping_gives_its_own_endpoints():
    """A cloud by its addresses: the scope is the endpoint's unless set, and Entra is not asked about the authority."""
    mapping = {"authority": "https://login.local/", "resource_manager": "https://arm.local/"}
    endpoints = endpoints_of(CloudMapping(**mapping, resource_manager_scope=None, ca_bundle=None))
    assert endpoints.authority == "https://login.local"
    assert endpoints.resource_manager == "https://arm.local"
    assert endpoints.resource_manager_scope == "https://arm.local/.default"
    assert not endpoints.known
    own = CloudMapping(**mapping, resource_manager_scope="https://other/.default", ca_bundle=None)
    assert endpoints_of(own).resource_manager_scope == "https://other/.default"
