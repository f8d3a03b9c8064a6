"""Keys of a Batch account through the management SDK's `get_keys`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from azure.mgmt.batch.aio import BatchManagementClient

from keysync.azure.errors import AzureFailure, FailureRecord
from keysync.azure.hints import hint_for
from keysync.azure.retry import Caller, Operation
from keysync.config.forms import fold
from keysync.config.settings import Account
from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.scrub import Scrubber
from keysync.secret.value import SecretValue
from keysync.sources.interface import KEY_NAMES, AccountKeys, KeyName

# listKeys is a POST that changes nothing: it may be repeated.
LIST_KEYS: Final = Operation("batch", "listKeys")
GET_ACCOUNT: Final = Operation("batch", "getAccount")


class BatchAccount:
    """One configured account, as a `KeySource`."""

    __slots__ = ("_account", "_caller", "_client", "_fingerprinter", "_scrubber")

    def __init__(
        self,
        account: Account,
        client: BatchManagementClient,
        caller: Caller,
        *,
        fingerprinter: Fingerprinter,
        scrubber: Scrubber,
    ) -> None:
        self._account = account
        self._client = client
        self._caller = caller
        self._fingerprinter = fingerprinter
        self._scrubber = scrubber

    @property
    def account(self) -> Account:
        """The account as it was configured."""
        return self._account

    async def get_keys(self) -> AccountKeys:
        """Both keys, each usable or refused with the reason.

        Raises AzureFailure; its kind is ``shared_key_disabled`` where the account gives no keys by design. Which code
        listKeys then fails with is not documented, so the account itself is read to tell.
        """
        try:
            return await self._caller.call(LIST_KEYS, self._account.resource_id, self._list_keys)
        except AzureFailure as failure:
            if await self._shared_key_disabled(failure.record):
                raise AzureFailure(self._disabled(failure.record)) from failure
            raise

    async def probe(self) -> None:
        """Reads the account. Raises AzureFailure, also where SharedKey is not allowed."""
        account = await self._read()
        if _no_shared_key(account):
            record = FailureRecord(kind="shared_key_disabled", summary="the account does not allow SharedKey")
            raise AzureFailure(self._disabled(record))

    async def _list_keys(self) -> AccountKeys:
        reply = await self._client.batch_account.get_keys(self._account.resource_group, self._account.name)
        return self._checked({"primary": self._wrap(reply.primary), "secondary": self._wrap(reply.secondary)})

    def _wrap(self, text: Any) -> SecretValue | None:  # noqa: ANN401  # a reply may hold anything
        return self._scrubber.remember(SecretValue(text)) if isinstance(text, str) else None

    def _checked(self, keys: dict[KeyName, SecretValue | None]) -> AccountKeys:
        values = {name: value for name, value in keys.items() if value is not None and value.is_base64_key()}
        refused: dict[KeyName, str] = {
            name: "the service gave no key, or none that is base64: not written"
            for name in KEY_NAMES
            if name not in values
        }
        if len(values) == len(KEY_NAMES) and self._equal(values["primary"], values["secondary"]):
            # Two distinct keys are the account's own rule; a reply that breaks it is not to be trusted.
            reason = "primary and secondary are the same in the service's reply: not written"
            return AccountKeys({}, dict.fromkeys(KEY_NAMES, reason))
        return AccountKeys(values, refused)

    def _equal(self, one: SecretValue, other: SecretValue) -> bool:
        return self._fingerprinter.of(one) == self._fingerprinter.of(other)

    async def _shared_key_disabled(self, record: FailureRecord) -> bool:
        if record.kind == "http_error":
            return False  # a proxy's answer says nothing about the account
        if record.http_status is None or not 400 <= record.http_status < 500 or record.http_status in {404, 408, 429}:
            return False
        # A 401 of Resource Manager is about the token, one of Batch about the account.
        if record.http_status == 401 and (record.cloud_error is None or record.cloud_error.target != "BatchAccount"):
            return False
        if record.has_code("AuthorizationFailed", "ScopeLocked"):
            return False
        try:
            return _no_shared_key(await self._read())
        except AzureFailure:
            return False

    async def _read(self) -> Any:  # noqa: ANN401  # the SDK's model
        return await self._caller.call(
            GET_ACCOUNT,
            self._account.resource_id,
            lambda: self._client.batch_account.get(self._account.resource_group, self._account.name),
        )

    def _disabled(self, record: FailureRecord) -> FailureRecord:
        hint = hint_for(
            kind="shared_key_disabled",
            codes=(),
            message="",
            operation=LIST_KEYS.name,
            scope=self._account.resource_id,
        )
        return replace(record, kind="shared_key_disabled", hint=hint)


def _no_shared_key(account: Any) -> bool:  # noqa: ANN401  # the SDK's model, whose fields may all be absent
    modes = account.allowed_authentication_modes
    named = {fold(str(getattr(mode, "value", mode))) for mode in modes or ()}
    pool_mode = account.pool_allocation_mode
    return (modes is not None and "sharedkey" not in named) or str(
        getattr(pool_mode, "value", pool_mode)
    ) == "UserSubscription"
