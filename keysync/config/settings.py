"""What a configuration means, for everything that works by it."""

from __future__ import annotations

from keysync.config.models import (
    Account,
    Cloud,
    CloudMapping,
    Config,
    Credential,
    Discover,
    LeaderElection,
    Schedule,
    SecretNames,
    Vault,
)

__all__ = [
    "Account",
    "Cloud",
    "CloudMapping",
    "Config",
    "Credential",
    "Discover",
    "LeaderElection",
    "Schedule",
    "SecretNames",
    "Vault",
]
