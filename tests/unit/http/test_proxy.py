"""The selection of a proxy, its credentials, and its failures."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trustme
from structlog.testing import capture_logs

from keysync.azure.errors import AzureFailureTranslator
from keysync.azure.retry import RetryPolicy
from keysync.azure.transport import SharedTransport, open_transport
from keysync.errors import UsageError
from keysync.failures import FailureRecord, FailureTranslator
from keysync.http.proxy import Proxies
from keysync.secret.redact import Redactor
from tests.support.proxy import proxying
from tests.support.receiver import receiving

PROXY = "http://proxy.example:3128"
ARM = "https://management.azure.com/x"
PASSWORD = "p:ä#s/s w@rd"
ENCODED = "p%3A%C3%A4%23s%2Fs%20w%40rd"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def proxy_for(url: str, **environ: str) -> str | None:
    """The address of the proxy for `url`."""
    proxy = Proxies(Redactor(), environ).proxy_for(url)
    return None if proxy is None else proxy.url


def test_without_a_proxy_calls_are_direct() -> None:
    """Also with an empty variable."""
    assert proxy_for(ARM) is None
    assert proxy_for(ARM, HTTPS_PROXY="") is None


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_https_proxy_is_honoured(variable: str) -> None:
    """HTTPS_PROXY and ALL_PROXY, in upper or lower case, apply to calls over TLS."""
    assert proxy_for(ARM, **{variable: PROXY}) == PROXY


def test_the_lower_case_name_takes_precedence() -> None:
    """As in curl. HTTPS_PROXY takes precedence over ALL_PROXY."""
    assert proxy_for(ARM, HTTPS_PROXY="http://upper.example", https_proxy=PROXY) == PROXY
    assert proxy_for(ARM, HTTPS_PROXY=PROXY, ALL_PROXY="socks5://other.example:1080") == PROXY


def test_http_proxy_does_not_apply_to_https() -> None:
    """Each scheme has its own variable."""
    assert proxy_for(ARM, HTTP_PROXY=PROXY) is None
    assert proxy_for("http://other.example/", HTTP_PROXY=PROXY) == PROXY


@pytest.mark.parametrize(
    ("no_proxy", "url"),
    [
        (".vault.azure.net", "https://kv.vault.azure.net/x"),
        ("vault.azure.net", "https://kv.vault.azure.net/x"),
        ("vault.azure.net.", "https://vault.azure.net/x"),
        ("KV.Vault.Azure.NET", "https://kv.vault.azure.net/x"),
        ("a.example, vault.azure.net", "https://kv.vault.azure.net/x"),
        ("a.example vault.azure.net", "https://kv.vault.azure.net/x"),
        ("*", "https://kv.vault.azure.net/x"),
        ("a.example,*", "https://kv.vault.azure.net/x"),
        ("10.0.0.0/8", "https://10.1.2.3/x"),
        ("10.1.2.3", "https://10.1.2.3/x"),
        ("2001:db8::/32", "https://[2001:db8::7]/x"),
        ("[2001:db8::7]", "https://[2001:db8::7]/x"),
        ("kv.vault.azure.net:443", "https://kv.vault.azure.net/x"),
        ("10.1.2.3:8443", "https://10.1.2.3:8443/x"),
    ],
)
def test_no_proxy_is_read_as_curl_reads_it(no_proxy: str, url: str) -> None:
    """Hosts, suffixes with and without a dot, `*`, CIDR and ports, separated by commas or spaces."""
    assert proxy_for(url, HTTPS_PROXY=PROXY, NO_PROXY=no_proxy) is None
    assert proxy_for(url, HTTPS_PROXY=PROXY, no_proxy=no_proxy) is None


@pytest.mark.parametrize(
    ("no_proxy", "url"),
    [
        ("ault.azure.net", "https://kv.vault.azure.net/x"),
        (".vault.azure.net", ARM),
        ("kv.vault.azure.net:8443", "https://kv.vault.azure.net/x"),
        ("10.0.0.0/8", "https://11.1.2.3/x"),
        ("10.0.0.0/8", "https://10.example/x"),
        ("", ARM),
    ],
)
def test_other_hosts_use_the_proxy(no_proxy: str, url: str) -> None:
    """A part of a label, another port or another network does not match."""
    assert proxy_for(url, HTTPS_PROXY=PROXY, NO_PROXY=no_proxy) == PROXY


def test_an_invalid_entry_of_no_proxy_is_logged_once() -> None:
    """It is ignored, the others apply, and its text is not shown."""
    with capture_logs() as lines:
        proxies = Proxies(Redactor(), {"HTTPS_PROXY": PROXY, "NO_PROXY": "*.example.com,10.0.0.0/99,vault.azure.net"})
        for _ in range(3):
            assert proxies.proxy_for("https://kv.vault.azure.net/") is None
            assert proxies.proxy_for("https://a.example.com/") is not None
    assert [(line["event"], line["log_level"]) for line in lines] == [("proxy.exclusion_ignored", "warning")] * 2
    assert "example.com" not in str(lines)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/metadata/identity",
        "http://169.254.170.2:80/x",
        "http://localhost:8080/msi/token",
        "https://kv.localhost:8443/",
        "http://127.0.0.9/x",
        "http://[::1]/x",
        "http://10.9.8.7:42356/msi/token",
        "http://imds.example/metadata",
        "http://arc.example:40342/x",
        "http://pod-identity.example/x",
        "https://10.0.0.1:443/apis/coordination.k8s.io",
    ],
)
def test_identity_endpoints_and_the_cluster_are_never_proxied(url: str) -> None:
    """A proxy could read the token of the machine's identity."""
    environ = {
        "IDENTITY_ENDPOINT": "http://10.9.8.7:42356/msi/token",
        "IMDS_ENDPOINT": "http://imds.example",
        "MSI_ENDPOINT": "http://arc.example:40342/metadata/identity/oauth2/token",
        "AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://pod-identity.example",
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    }
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        every = {"HTTP_PROXY": PROXY, "HTTPS_PROXY": PROXY, variable: PROXY}
        assert proxy_for(url, **environ, **every) is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HTTPS_PROXY", "proxy.example:3128"),
        ("https_proxy", "//proxy.example"),
        ("HTTP_PROXY", "http://"),
        ("ALL_PROXY", "socks5://proxy.example:1080"),
        ("HTTPS_PROXY", "http://proxy.example:port"),
        ("HTTPS_PROXY", "robot:hunter2@proxy.example:3128"),
        ("HTTPS_PROXY", "http://robot:hunter2@"),
        ("HTTPS_PROXY", "http://robot:12#hunter2@proxy.example:3128"),
        ("HTTPS_PROXY", "http://robot:12?hunter2@proxy.example:3128"),
        ("HTTPS_PROXY", "http://robot:12/hunter2@proxy.example:3128"),
        ("HTTPS_PROXY", "http://robot:hunter 2@proxy.example:3128"),
        ("HTTPS_PROXY", "http://rob%3Aot:hunter2@proxy.example:3128"),
    ],
)
def test_the_error_of_an_invalid_proxy_hides_the_value(variable: str, value: str) -> None:
    """It is raised before the first request and names the variable."""
    with pytest.raises(UsageError) as caught:
        Proxies(Redactor(), {variable: value})
    message = str(caught.value)
    assert message.startswith(f"{variable}: ")
    assert not any(part in message for part in ("hunter", "robot", "socks5", "proxy.example:"))


async def test_an_unused_all_proxy_is_not_checked() -> None:
    """ALL_PROXY is often for other programs; keysync uses it only if HTTPS_PROXY is not set."""
    environ = {"ALL_PROXY": "socks5://proxy.example:1080", "HTTPS_PROXY": PROXY}
    assert proxy_for(ARM, **environ) == PROXY


def test_user_and_password_are_not_part_of_the_address() -> None:
    """They are decoded as UTF-8, sent as Basic authentication, and masked in all text."""
    redactor = Redactor()
    proxies = Proxies(redactor, {"HTTPS_PROXY": f"http://bot:{ENCODED}@proxy.example:3128/"})
    proxy = proxies.proxy_for(ARM)
    assert proxy is not None
    assert proxy.url == PROXY
    basic = base64.b64encode(f"bot:{PASSWORD}".encode()).decode()
    assert proxy.headers == {"Proxy-Authorization": f"Basic {basic}"}
    text = redactor.redact(f"{PASSWORD} | {ENCODED} | {basic} | {proxy!r}")
    assert not any(secret in text for secret in (PASSWORD, ENCODED, basic, "s w@rd"))


@asynccontextmanager
async def transport_through(
    port: int, monkeypatch: pytest.MonkeyPatch, *, bundle: Path | None = None
) -> AsyncIterator[tuple[SharedTransport, FailureTranslator]]:
    """A transport whose calls over TLS use the proxy on `port`."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://bot:{ENCODED}@127.0.0.1:{port}")
    redactor = Redactor()
    async with AsyncExitStack() as stack:
        transport = await open_transport(stack, ca_bundle=bundle, connect_seconds=5, redactor=redactor)
        yield transport, AzureFailureTranslator(redactor)


async def record_of(transport: SharedTransport, translator: FailureTranslator) -> FailureRecord:
    """The record of a failed call through the proxy."""
    from azure.core.rest import HttpRequest  # noqa: PLC0415  # the SDK's own type

    with pytest.raises(Exception) as caught:  # noqa: PT011  # the SDK's own exception
        await transport.send(HttpRequest("GET", "https://service.example/x"))
    return translator.record(caught.value, operation="listKeys", scope="/subscriptions/s")


async def test_only_the_proxy_gets_its_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CONNECT has Proxy-Authorization; the request in the tunnel does not."""
    authority, bundle = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("service.example").configure_cert(tls)
    async with receiving(tls) as receiver:
        upstream = ("127.0.0.1", int(receiver.base.rpartition(":")[2]))
        async with (
            proxying("tunnel", upstream) as proxy,
            transport_through(proxy.port, monkeypatch, bundle=bundle) as (transport, _),
        ):
            from azure.core.rest import HttpRequest  # noqa: PLC0415  # the SDK's own type

            response = await transport.send(HttpRequest("GET", "https://service.example/x"))
            assert response.status_code == 200
    assert proxy.connects == ["CONNECT service.example:443 HTTP/1.1"]
    basic = base64.b64encode(f"bot:{PASSWORD}".encode()).decode()
    assert proxy.authorizations == [f"Basic {basic}"]
    assert "proxy-authorization" not in {name.lower() for name in receiver.received[0].headers}


@pytest.mark.parametrize(
    ("answer", "kind", "status", "retried", "hint"),
    [
        ("407", "http_error", 407, False, "HTTPS_PROXY has a user and password that the proxy refuses: "),
        ("502", "http_error", 502, True, "allow service.example:443 in the proxy http://127.0.0.1:"),
        ("302", "http_error", 302, False, "allow service.example:443 in the proxy http://127.0.0.1:"),
        ("garbage", "http_error", 400, False, "allow service.example:443 in the proxy http://127.0.0.1:"),
    ],
)
async def test_the_failure_of_a_refusing_proxy_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, answer: str, kind: str, status: int, retried: bool, hint: str
) -> None:
    """It does not show user and password; 407 is not retried."""
    async with (
        proxying(answer) as proxy,
        transport_through(proxy.port, monkeypatch) as (transport, translator),
    ):
        record = await record_of(transport, translator)
    assert (record.kind, record.http_status) == (kind, status)
    assert record.hint is not None
    assert record.hint.startswith(hint)
    assert "HTTPS_PROXY" in record.summary
    assert (RetryPolicy().delay(1, record) is not None) is retried
    assert not any(part in str(record) for part in ("bot", "w@rd", ENCODED))


async def test_the_failure_of_an_unreachable_proxy_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy may recover, so the call is retried."""
    async with proxying("407") as proxy:
        port = proxy.port
    async with transport_through(port, monkeypatch) as (transport, translator):
        record = await record_of(transport, translator)
    assert (record.kind, record.http_status, record.ambiguous) == ("connection", None, False)
    assert record.summary == f"the proxy http://127.0.0.1:{port} of HTTPS_PROXY cannot be reached"
    assert record.hint == (
        f"start the proxy http://127.0.0.1:{port}, correct HTTPS_PROXY, or unset it; NO_PROXY excludes hosts that are called "
        "directly"
    )
    assert RetryPolicy().delay(1, record) is not None
