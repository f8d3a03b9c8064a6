"""Settings as from a file: validated by the model, with every default, and without the rest of the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from keysync.config.load import ValidConfig
from keysync.config.model import Account, Config, Discover
from keysync.config.operation import LeaderElection
from keysync.config.validate import adapter

_ANY_ENTRY: Final = {"subscription_id": "00000000-0000-0000-0000-000000000000", "vaults": ["main"]}


def config_of(document: Mapping[str, Any]) -> Config:
    """A complete configuration. Raises pydantic's ValidationError."""
    config: Config = adapter(ValidConfig).validate_python(document)
    return config


def discover_of(**given: Any) -> Discover:  # keys of the file
    """An entry of `discover`."""
    settings: Discover = adapter(Discover).validate_python(given)
    return settings


def election_of(**given: Any) -> LeaderElection:  # keys of the file
    """The settings under `leader_election`."""
    settings: LeaderElection = adapter(LeaderElection).validate_python(given)
    return settings


def discovery_config(
    vaults: Mapping[str, str], entries: Sequence[Discover], listed: Sequence[Account] = (), account_seconds: float = 120
) -> Config:
    """A configuration with these vaults (name to URL), `discover` entries and accounts under `accounts`."""
    document = {"vaults": {name: {"url": url} for name, url in vaults.items()}, "discover": [_ANY_ENTRY]}
    config = config_of(document)
    timeouts = replace(config.timeouts, account=timedelta(seconds=account_seconds))
    return replace(config, discover=tuple(entries), accounts=tuple(listed), timeouts=timeouts)
