"""Saves the state to a file, and loads it (`--state DIR`)."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from keysync.emulator.private_files import check_private, write_private
from keysync.emulator.state import State
from keysync.emulator.vault_secrets import DeletedSecret, Secret
from keysync.files import open_regular

_FILE = "state.json"


@dataclass
class _VaultRecord:
    secrets: list[Secret]
    deleted: list[DeletedSecret]


@dataclass
class _Record:
    """All state that can change: the keys by account id, the secrets by vault name, and the key of backups (base64)."""

    keys: dict[str, tuple[str, str]]
    vaults: dict[str, _VaultRecord]
    backup_key: str = ""


_ADAPTER = TypeAdapter(_Record)


def load(state: State, directory: Path) -> None:
    """Load the saved state into `state`. Accounts and vaults that the data no longer has are ignored.

    Raises UsageError if `save` could not replace the file.
    """
    path = directory / _FILE
    if directory.exists():
        check_private(path, "--state")
    if not path.exists():
        return
    with open_regular(path) as file:
        record = _ADAPTER.validate_json(file.read())
    for account_id, (primary, secondary) in record.keys.items():
        account = state.accounts.get(account_id)
        if account is not None:
            account.primary, account.secondary = primary, secondary
    if record.backup_key:
        state.backups.key = base64.b64decode(record.backup_key)
    for vault in state.vaults:
        saved = record.vaults.get(vault.name.lower())
        if saved is not None:
            vault.restore(saved.secrets, saved.deleted)


def save(state: State, directory: Path) -> None:
    """Save `state` to `directory`, readable by its owner only."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys = {account_id: (account.primary, account.secondary) for account_id, account in state.accounts.items()}
    vaults = {vault.name.lower(): _VaultRecord(*vault.export()) for vault in state.vaults}
    backup_key = base64.b64encode(state.backups.key).decode()
    write_private(directory / _FILE, _ADAPTER.dump_json(_Record(keys, vaults, backup_key)))
