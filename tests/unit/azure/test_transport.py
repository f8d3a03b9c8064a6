"""Trusted certificates, and the endpoints of each cloud."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from keysync.azure.credentials import endpoints_of
from keysync.config.credentials import CloudMapping
from keysync.errors import UsageError
from keysync.http.session import tls_context


def test_an_unreadable_ca_bundle_is_an_error_at_startup(tmp_path: Path):
    """A ca_bundle that is missing or not PEM raises UsageError with the file's name."""
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("no certificate")
    for path in (rubbish, tmp_path / "missing.pem"):
        with pytest.raises(UsageError, match=path.name):
            tls_context(path)


def test_an_unreadable_ssl_cert_file_is_an_error_at_startup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """OpenSSL ignores a file that it cannot read; keysync names the variable. An empty variable is ignored."""
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
    """The authority, the Resource Manager and the scope of its tokens."""
    endpoints = endpoints_of(cloud)  # type: ignore[arg-type]
    assert endpoints.authority == f"https://{authority}"
    assert endpoints.resource_manager == f"https://{resource_manager}"
    assert endpoints.resource_manager_scope == f"https://{scope}/.default"
    assert endpoints.known


def test_a_mapping_sets_the_endpoints():
    """The default scope is that of the endpoint; instance discovery is disabled."""
    mapping = {"authority": "https://login.local/", "resource_manager": "https://arm.local/"}
    endpoints = endpoints_of(CloudMapping(**mapping, resource_manager_scope=None, ca_bundle=None))
    assert endpoints.authority == "https://login.local"
    assert endpoints.resource_manager == "https://arm.local"
    assert endpoints.resource_manager_scope == "https://arm.local/.default"
    assert not endpoints.known
    own = CloudMapping(**mapping, resource_manager_scope="https://other/.default", ca_bundle=None)
    assert endpoints_of(own).resource_manager_scope == "https://other/.default"
