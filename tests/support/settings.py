"""Settings as from a file: validated by the models, with every default, and without the rest of the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keysync.config import models
from keysync.config.model import Config, Discover, LeaderElection


def config_of(document: Mapping[str, Any]) -> Config:
    """A complete configuration. Raises pydantic's ValidationError."""
    return models.Config.model_validate(document).plain()


def discover_of(**given: Any) -> Discover:  # keys of the file
    """An entry of `discover`."""
    settings: Discover = models.Discover(**given).plain()
    return settings


def election_of(**given: Any) -> LeaderElection:  # keys of the file
    """The settings under `leader_election`."""
    settings: LeaderElection = models.LeaderElection(**given).plain()
    return settings
