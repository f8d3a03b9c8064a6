"""A valid configuration, and fixtures that load a text and return its findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from keysync.config.load import load_config
from keysync.config.model import Config
from keysync.errors import ConfigError, Finding

RIGHT = """\
vaults:
  main: {url: https://kv-render.vault.azure.net}
accounts:
  - subscription_id: 00000000-0000-0000-0000-000000000000
    resource_group: default-azurebatch-japaneast
    name: sampleacct
    vaults: [main]
"""


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Config]:
    def load_text(text: str = RIGHT, environ: Mapping[str, str] | None = None) -> Config:
        file = tmp_path / "keysync.yaml"
        file.write_text(text, encoding="utf-8")
        return load_config(file, environ or {})

    return load_text


@pytest.fixture
def findings(load: Callable[..., Config]) -> Callable[..., tuple[Finding, ...]]:
    def findings_of(text: str, environ: Mapping[str, str] | None = None) -> tuple[Finding, ...]:
        with pytest.raises(ConfigError) as caught:
            load(text, environ)
        assert caught.value.exit_code == 2
        return caught.value.findings

    return findings_of
