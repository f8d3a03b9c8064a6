"""The keys of Batch accounts, through `get_keys` of the management SDK."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from azure.mgmt.batch.aio import BatchManagementClient

from keysync.azure.hints import with_hint
from keysync.azure.retry import Caller
from keysync.calls import Operation
from keysync.config.credentials import Credential
from keysync.config.model import Account
from keysync.failures import CallFailed, FailureRecord, invalid_response
from keysync.names import fold
from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.redact import Redactor
from keysync.secret.value import SecretValue
from keysync.sources.interface import AccountKeys, KeyName
from keysync.sources.listing import ListedAccount

KEY_NAMES: Final[tuple[KeyName, ...]] = ("primary", "secondary")
"""The keys of a Batch account."""
CONTENT_TYPE: Final = "text/plain; azure-batch-account-key"
"""The content type of new secrets, for people who open the vault."""

# listKeys is a POST that changes nothing: it may be repeated.
LIST_KEYS: Final = Operation("batch", "listKeys")
GET_ACCOUNT: Final = Operation("batch", "getAccount")

BatchAccess: TypeAlias = tuple[BatchManagementClient, Caller]
"""The client of one subscription and credential, and the caller that limits its calls."""


@dataclass(frozen=True, slots=True)
class BatchAccount:
    """One configured account, as a `KeySource`.

    `keyless` contains the accounts (`Account.key`) that a listing or a GET showed without SharedKey or in UserSubscription
    mode. Every read of an account updates it.
    """

    account: Account
    client: BatchManagementClient
    caller: Caller
    fingerprinter: Fingerprinter
    redactor: Redactor
    keyless: set[str] = field(default_factory=set[str])

    async def get_keys(self) -> AccountKeys:
        """Both keys, each valid or refused with a reason.

        Raises CallFailed. Its kind is ``shared_key_disabled`` if the account has no usable keys by design. The code of
        listKeys for that case is not documented, so the account is read to find out.
        """
        try:
            keys = await self.caller.call(LIST_KEYS, self.account.resource_id, self._list_keys)
        except CallFailed as failure:
            if _may_be_keyless(failure.record) and await self._is_keyless(if_unknown=False):
                raise self._disabled(failure.record) from failure
            raise
        # listKeys may return keys that the data plane rejects. `keyless` may be out of date, so the account is read.
        if self.account.key in self.keyless and await self._is_keyless(if_unknown=True):
            raise self._disabled()
        return keys

    async def probe(self) -> None:
        """Reads the account. Raises CallFailed, also if it does not allow SharedKey."""
        if not await self._allows_shared_key():
            raise self._disabled()

    async def _list_keys(self) -> AccountKeys:
        reply = await self.client.batch_account.get_keys(self.account.resource_group, self.account.name)
        texts: dict[KeyName, object] = {"primary": reply.primary, "secondary": reply.secondary}
        keys = {
            name: self.redactor.remember(SecretValue(text)) for name, text in texts.items() if isinstance(text, str)
        }
        if not isinstance(reply.account_name, str) or fold(reply.account_name) != fold(self.account.name):
            reason = f"the reply to listKeys for {self.account.name} names another account or none: not written"
            return AccountKeys({}, dict.fromkeys(KEY_NAMES, reason))
        values = {name: value for name, value in keys.items() if value.is_base64_key()}
        if len(values) > len({self.fingerprinter.of(value) for value in values.values()}):
            # The keys of an account always differ, so such a reply is not trusted.
            reason = "primary and secondary are equal in the service's reply: not written"
            return AccountKeys({}, dict.fromkeys(KEY_NAMES, reason))
        reason = "the service returned no key, or one that is not base64 of at least 32 bytes: not written"
        return AccountKeys(values, {name: reason for name in KEY_NAMES if name not in values})

    async def _is_keyless(self, *, if_unknown: bool) -> bool:
        try:
            return not await self._allows_shared_key()
        except CallFailed:
            return if_unknown

    async def _allows_shared_key(self) -> bool:
        async def get() -> bool:
            reply = await self.client.batch_account.get(self.account.resource_group, self.account.name)
            modes, pool_mode = reply.allowed_authentication_modes, reply.pool_allocation_mode
            shown = ListedAccount.of(reply.id, None, modes, pool_mode, None)
            if shown.id.key != self.account.key:
                raise invalid_response(f"the reply is not about {self.account.resource_id}: not used")
            return shown.why_keyless is None

        allowed = await self.caller.call(GET_ACCOUNT, self.account.resource_id, get)
        (self.keyless.discard if allowed else self.keyless.add)(self.account.key)
        return allowed

    def _disabled(self, record: FailureRecord | None = None) -> CallFailed:
        """The failure of an account without usable keys. `record`: of the call that failed because of that."""
        summary = "the account does not allow SharedKey, or its pools are in UserSubscription mode"
        record = record or FailureRecord(kind="shared_key_disabled", summary=summary)
        return CallFailed(with_hint(replace(record, kind="shared_key_disabled"), self.account.resource_id))


def _may_be_keyless(record: FailureRecord) -> bool:
    """Whether listKeys may have failed because the account has no usable keys."""
    status = record.http_status or 0
    # A proxy's reply (http_error) says nothing about the account.
    if record.kind == "http_error" or not 400 <= status < 500 or status in {404, 408, 429}:
        return False
    # A 401 from Resource Manager concerns the token, one from Batch the account.
    if status == 401 and (record.cloud_error is None or record.cloud_error.target != "BatchAccount"):
        return False
    return not record.has_code("AuthorizationFailed", "ScopeLocked")


@dataclass(slots=True)
class BatchSources:
    """Creates the `KeySource` of each covered account. Accounts with the same subscription and credential share a client.

    `open_access` opens the client of a subscription and credential; it may raise UsageError. `keyless` is as in `BatchAccount`.
    """

    open_access: Callable[[str, Credential | None], Awaitable[BatchAccess]]
    fingerprinter: Fingerprinter
    redactor: Redactor
    keyless: set[str]
    accesses: Mapping[tuple[str, Credential | None], BatchAccess] = field(default_factory=dict[Any, BatchAccess])
    key_names: tuple[KeyName, ...] = KEY_NAMES
    content_type: str = CONTENT_TYPE

    async def cover(self, accounts: Iterable[Account]) -> None:
        """Opens missing accesses for `accounts` and forgets unused ones. Raises UsageError."""
        keys = dict.fromkeys((account.subscription_id, account.credential) for account in accounts)
        self.accesses = {key: self.accesses.get(key) or await self.open_access(*key) for key in keys}

    def source_of(self, account: Account) -> BatchAccount:
        """The source of a covered account."""
        client, caller = self.accesses[account.subscription_id, account.credential]
        return BatchAccount(account, client, caller, self.fingerprinter, self.redactor, self.keyless)
