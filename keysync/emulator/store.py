"""Saves the state to a file, and loads it (`--state DIR`)."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from keysync.emulator.data import AccountData
from keysync.emulator.private_files import check_private, write_private
from keysync.emulator.queues import Queue
from keysync.emulator.roles import SavedRoles
from keysync.emulator.state import Account, State
from keysync.emulator.vault_secrets import DeletedSecret, Secret
from keysync.errors import UsageError
from keysync.files import open_regular

_FILE = "state.json"


@dataclass
class _VaultRecord:
    secrets: list[Secret]
    deleted: list[DeletedSecret]


@dataclass
class _AccountRecord:
    """What clients changed of an account, or the whole account if one created it."""

    subscription_id: str
    resource_group: str
    name: str
    location: str
    change: Literal["none", "updated", "created"]
    tags: dict[str, str]
    authentication_modes: list[str]
    pool_allocation_mode: str
    properties: dict[str, object]
    identity: dict[str, object]
    modified: float


@dataclass
class _Record:
    """All state that can change: the keys by account id, the secrets by vault name, the key of backups (base64), the accounts
    that clients changed, the ids of the accounts that they deleted, the roles, and the queues.
    """

    keys: dict[str, tuple[str, str]]
    vaults: dict[str, _VaultRecord]
    backup_key: str = ""
    accounts: list[_AccountRecord] = field(default_factory=list[_AccountRecord])
    deleted_accounts: list[str] = field(default_factory=list[str])
    roles: SavedRoles | None = None
    queues: list[Queue] = field(default_factory=list[Queue])


_ADAPTER = TypeAdapter(_Record)
_PLACE = ("subscription_id", "resource_group", "name", "location")


def load(state: State, directory: Path) -> None:
    """Load the saved state into `state`. Accounts and vaults that the data no longer has are ignored.

    Creates the folder. Raises UsageError if it cannot be created, or if `save` could not replace the file.
    """
    path = directory / _FILE
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--state {directory}: {error.strerror}") from None
    check_private(path, "--state")
    if not path.exists():
        return
    with open_regular(path) as file:
        content = file.read()
    try:
        record = _ADAPTER.validate_json(content)
    except ValidationError:  # its text would show values
        message = (
            f"--state {path}: this version of keysync did not save it; remove the file to begin with the data file"
        )
        raise UsageError(message) from None
    _load_accounts(state, record)
    for account_id, (primary, secondary) in record.keys.items():
        account = state.accounts.get(account_id)
        if account is not None:
            account.primary, account.secondary = primary, secondary
    if record.backup_key:
        state.backups.key = base64.b64decode(record.backup_key)
    if record.roles is not None:
        state.roles.restore(record.roles)
    for vault in state.vaults:
        saved = record.vaults.get(vault.name.lower())
        if saved is not None:
            vault.restore(saved.secrets, saved.deleted)
    state.queues.restore(record.queues)


def save(state: State, directory: Path) -> None:
    """Save `state` to `directory`, readable by its owner only."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys = {account_id: (account.primary, account.secondary) for account_id, account in state.accounts.items()}
    vaults = {vault.name.lower(): _VaultRecord(*vault.export()) for vault in state.vaults}
    backup_key = base64.b64encode(state.backups.key).decode()
    accounts = [_account_record(each) for each in state.accounts.values() if each.change != "none"]
    record = _Record(
        keys, vaults, backup_key, accounts, state.deleted_accounts, state.roles.export(), state.queues.all()
    )
    write_private(directory / _FILE, _ADAPTER.dump_json(record))


def _account_record(account: Account) -> _AccountRecord:
    return _AccountRecord(**{each.name: getattr(account, each.name) for each in fields(_AccountRecord)})


def _load_accounts(state: State, record: _Record) -> None:
    for account_id in record.deleted_accounts:
        deleted = state.accounts.get(account_id)
        if deleted is not None:
            state.forget(deleted)
    for saved in record.accounts:
        data = AccountData.model_validate({name: getattr(saved, name) for name in _PLACE})
        account = state.new_account(data)
        existing = state.accounts.get(account.id.lower())
        if existing is None and saved.change != "created":
            continue
        if existing is None:
            state.add(account)
        for name in (each.name for each in fields(saved) if each.name not in _PLACE):
            setattr(existing or account, name, getattr(saved, name))
