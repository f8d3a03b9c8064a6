"""The api-versions of Key Vault's secrets. Source: the services' descriptions in Azure/azure-rest-api-specs."""

from __future__ import annotations

from typing import Final

VERSIONS: Final = ("2016-10-01", "7.0", "7.1", "7.2", "7.3", "7.4", "7.5", "7.6", "2025-07-01", "2026-04-01")
"""The supported api-versions, oldest first."""


def is_since(version: str, first: str) -> bool:
    """Whether `version` is `first` or a later one. Both are in `VERSIONS`."""
    return VERSIONS.index(version) >= VERSIONS.index(first)
