"""Requests stay at their service."""

from __future__ import annotations

import pytest

from keysync.azure.clients import HostPolicy
from keysync.failures import CallFailed


@pytest.mark.parametrize(
    "url",
    [
        "https://management.azure.com/subscriptions?api-version=1",
        "https://MANAGEMENT.azure.com/subscriptions",
        "https://management.azure.com:443/subscriptions",
        "https://westeurope.management.azure.com/subscriptions",
    ],
)
def test_requests_to_resource_manager_and_its_regions_are_sent(url: str) -> None:
    """In any spelling of the URL."""
    HostPolicy("https://management.azure.com", "Resource Manager", subdomains=True).check(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://management.azure.com.evil.example/",
        "https://evilmanagement.azure.com/",
        "https://management.azure.com@evil.example/",
        "https://management.azure.com:8443/",
        "http://management.azure.com/",
        "https://graph.microsoft.com/",
        "//evil.example/x",
    ],
)
def test_only_resource_manager_gets_the_token(url: str) -> None:
    """A request to another host, port or scheme is not sent."""
    with pytest.raises(CallFailed, match="not followed") as caught:
        HostPolicy("https://management.azure.com", "Resource Manager", subdomains=True).check(url)
    assert caught.value.record.kind == "invalid_response"


VAULT = "https://kv-render.vault.azure.net"


@pytest.mark.parametrize("url", [f"{VAULT}/secrets", "https://KV-RENDER.vault.azure.net:443/secrets", VAULT])
def test_requests_to_the_vault_are_sent(url: str) -> None:
    """In any spelling of its URL."""
    HostPolicy(VAULT, "the vault").check(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://kv-other.vault.azure.net/secrets",
        "https://kv-render.vault.azure.net.evil.example/",
        "https://kv-render.vault.azure.net@evil.example/",
        "https://eu.kv-render.vault.azure.net/",
        "https://kv-render.vault.azure.net:8443/",
        "http://kv-render.vault.azure.net/",
    ],
)
def test_only_the_vault_gets_the_token(url: str) -> None:
    """A request to another vault, port or scheme is not sent."""
    with pytest.raises(CallFailed, match="not the vault: not followed"):
        HostPolicy(VAULT, "the vault").check(url)
