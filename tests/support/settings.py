"""Settings as a file gives them: checked by the models, with every default, and then without anything of the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keysync.config import models
from keysync.config.settings import Config, Discover, LeaderElection


def config_of(document: Mapping[str, Any]) -> Config:
    """A whole configuration. Raises pydantic's ValidationError."""
    return models.Config.model_validate(document).plain()


def discover_of(**given: Any) -> Discover:  # keys of the file
    """An entry of `discover`."""
    made: Discover = models.Discover(**given).plain()
    return made


def election_of(**given: Any) -> LeaderElection:  # keys of the file
    """What stands under `leader_election`."""
    made: LeaderElection = models.LeaderElection(**given).plain()
    return made
