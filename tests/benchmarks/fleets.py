"""Fleets of accounts for benchmarks: the data of the emulator and the configurations for it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keysync.sources.azure_batch import KEY_NAMES
from keysync.sync.ownership import KEY, KEYSYNC, MANAGED_BY, SOURCE

GROUP = "fleet"
VAULT_TAG = "keysync-vault"
_LONG_AGO = 1_700_000_000


@dataclass(frozen=True)
class Fleet:
    """The numbers of accounts, vaults and subscriptions; `unmanaged` is the number of unmanaged secrets in each vault.

    With `in_sync` the vaults have every key, as after an earlier run. Each account has a tag with its vault's name.
    """

    accounts: int
    vaults: int
    subscriptions: int = 1
    unmanaged: int = 0
    in_sync: bool = False

    def subscription(self, number: int) -> str:
        """The id of one subscription."""
        return f"5b000000-0000-4000-8000-{number % self.subscriptions:012d}"

    def vault(self, number: int) -> str:
        """The name of the vault of one account."""
        # Shifted by one after each round of subscriptions, so that each vault serves several subscriptions.
        return f"vault-{(number + number // self.subscriptions) % self.vaults}"

    def name(self, number: int) -> str:
        """The name of one account."""
        return f"acct{number:06d}"

    def resource_id(self, number: int) -> str:
        """The ARM id of one account."""
        group = f"/subscriptions/{self.subscription(number)}/resourceGroups/{GROUP}"
        return f"{group}/providers/Microsoft.Batch/batchAccounts/{self.name(number)}"

    def data(self) -> dict[str, Any]:
        """The data file of the emulator."""
        unmanaged = [{"name": f"unmanaged-{number}", "value": "x"} for number in range(self.unmanaged)]
        vaults = {f"vault-{number}": list(unmanaged) for number in range(self.vaults)}
        accounts: list[dict[str, Any]] = []
        for number in range(self.accounts):
            keys: dict[str, str] = {
                key: base64.b64encode(f"{key}-{number}".encode().ljust(64, b".")).decode() for key in KEY_NAMES
            }
            path = {"subscription_id": self.subscription(number), "resource_group": GROUP, "name": self.name(number)}
            accounts.append({**path, "tags": {VAULT_TAG: self.vault(number)}, **keys})
            if self.in_sync:
                vaults[self.vault(number)] += self._stored(number, keys)
        return {"accounts": accounts, "vaults": [{"name": name, "secrets": vaults[name]} for name in vaults]}

    def _stored(self, number: int, keys: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        common_tags = {MANAGED_BY: KEYSYNC, SOURCE: self.resource_id(number)}
        for key in KEY_NAMES:
            tags = {**common_tags, KEY: key}
            yield {"name": f"{self.name(number)}-{key}-key", "value": keys[key], "tags": tags, "created": _LONG_AGO}

    def listed(self) -> Sequence[dict[str, Any]]:
        """The key `accounts` of a configuration."""
        return [
            {
                "subscription_id": self.subscription(number),
                "resource_group": GROUP,
                "name": self.name(number),
                "vaults": [self.vault(number)],
            }
            for number in range(self.accounts)
        ]

    def discovered(self) -> Sequence[dict[str, Any]]:
        """The key `discover` of a configuration that finds every account."""
        return [
            {
                "subscriptions": [self.subscription(number) for number in range(self.subscriptions)],
                "vaults_by_tag": VAULT_TAG,
            }
        ]


def write_config(path: Path, document: Mapping[str, Any]) -> None:
    """Write a configuration as YAML, with one line for each account or vault."""
    lines: list[str] = []
    for name, value in document.items():
        if isinstance(value, list) and value:
            lines += [f"{name}:", *(f"  - {json.dumps(item)}" for item in value)]
        elif isinstance(value, dict) and value:
            lines += [f"{name}:", *(f"  {key}: {json.dumps(item)}" for key, item in value.items())]
        else:
            lines.append(f"{name}: {json.dumps(value)}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
