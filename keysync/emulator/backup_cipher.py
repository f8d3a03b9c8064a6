"""The blobs of backups: a secret with all its versions, encrypted for the vaults of one subscription."""

from __future__ import annotations

import base64
import binascii
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import TypeAdapter

from keysync.emulator.vault_secrets import Secret

_HEADER: Final = b")AzureKeyVaultSecretBackupV1.microsoft.com"
"""What Azure's blobs begin with: this text, after its length in one byte."""
_NONCE_BYTES: Final = 12
_SECRET: Final = TypeAdapter(Secret)


class CorruptBackup(Exception):
    """The blob is no backup."""


class ForeignBackup(Exception):
    """The blob was made for another subscription, or by another emulator."""


class BackupCipher:
    """Encrypts and decrypts backups. Only the same `key` (32 bytes, random by default) decrypts them."""

    def __init__(self, key: bytes | None = None) -> None:
        self.key = key or AESGCM.generate_key(256)

    def encrypt(self, secret: Secret, subscription_id: str) -> str:
        """The blob (base64url) of a secret, for the vaults of this subscription."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = AESGCM(self.key).encrypt(nonce, _SECRET.dump_json(secret), subscription_id.lower().encode())
        return base64.urlsafe_b64encode(_HEADER + nonce + sealed).rstrip(b"=").decode()

    def decrypt(self, blob: str, subscription_id: str) -> Secret:
        """The secret of a blob. Raises CorruptBackup or ForeignBackup."""
        try:
            content = base64.b64decode(blob + "=" * (-len(blob) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as failure:
            raise CorruptBackup from failure
        start = len(_HEADER) + _NONCE_BYTES
        if not content.startswith(_HEADER) or len(content) <= start:
            raise CorruptBackup
        nonce, sealed = content[len(_HEADER) : start], content[start:]
        try:
            return _SECRET.validate_json(AESGCM(self.key).decrypt(nonce, sealed, subscription_id.lower().encode()))
        except InvalidTag as failure:
            raise ForeignBackup from failure
