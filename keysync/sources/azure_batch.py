"""The keys of a Batch account, through `get_keys` of the management SDK."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from azure.mgmt.batch.aio import BatchManagementClient

from keysync.azure.hints import with_hint
from keysync.azure.retry import Caller
from keysync.calls import Operation
from keysync.config.model import Account
from keysync.failures import CallFailed, FailureRecord
from keysync.names import fold
from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.redact import Redactor
from keysync.secret.value import SecretValue
from keysync.sources.interface import AccountKeys, KeyName
from keysync.sources.listing import ListedAccount

KEY_NAMES: Final[tuple[KeyName, ...]] = ("primary", "secondary")
"""The keys of a Batch account."""

# listKeys is a POST that changes nothing: it may be repeated.
LIST_KEYS: Final = Operation("batch", "listKeys")
GET_ACCOUNT: Final = Operation("batch", "getAccount")


class BatchAccount:
    """One configured account, as a `KeySource`.

    `keyless` contains the accounts (`Account.key`) that a listing or a GET showed without SharedKey or in UserSubscription
    mode. Every read of an account updates it.
    """

    __slots__ = ("_account", "_caller", "_client", "_fingerprinter", "_keyless", "_redactor")

    def __init__(
        self,
        account: Account,
        client: BatchManagementClient,
        caller: Caller,
        *,
        fingerprinter: Fingerprinter,
        redactor: Redactor,
        keyless: set[str] | None = None,
    ) -> None:
        self._account = account
        self._client = client
        self._caller = caller
        self._fingerprinter = fingerprinter
        self._redactor = redactor
        self._keyless = set[str]() if keyless is None else keyless

    @property
    def key_names(self) -> tuple[KeyName, ...]:
        """The keys of a Batch account."""
        return KEY_NAMES

    @property
    def account(self) -> Account:
        """The configured account."""
        return self._account

    async def get_keys(self) -> AccountKeys:
        """Both keys, each valid or refused with a reason.

        Raises CallFailed. Its kind is ``shared_key_disabled`` if the account has no usable keys by design. The code of
        listKeys for that case is not documented, so the account is read to find out.
        """
        try:
            keys = await self._caller.call(LIST_KEYS, self._account.resource_id, self._list_keys)
        except CallFailed as failure:
            if await self._shared_key_disabled(failure.record):
                raise CallFailed(self._disabled(failure.record)) from failure
            raise
        # listKeys may return keys that the data plane rejects.
        if self._account.key in self._keyless and await self._still_keyless():
            raise self._disabled_failure()
        return keys

    async def probe(self) -> None:
        """Reads the account. Raises CallFailed, also if it does not allow SharedKey."""
        if not await self._allows_shared_key():
            raise self._disabled_failure()

    async def _list_keys(self) -> AccountKeys:
        reply = await self._client.batch_account.get_keys(self._account.resource_group, self._account.name)
        keys: dict[KeyName, SecretValue | None] = {
            "primary": self._wrap(reply.primary),
            "secondary": self._wrap(reply.secondary),
        }
        if not isinstance(reply.account_name, str) or fold(reply.account_name) != fold(self._account.name):
            reason = f"the reply to listKeys for {self._account.name} names another account or none: not written"
            return AccountKeys({}, dict.fromkeys(KEY_NAMES, reason))
        return self._checked(keys)

    def _wrap(self, text: Any) -> SecretValue | None:  # noqa: ANN401  # a reply may contain anything
        return self._redactor.remember(SecretValue(text)) if isinstance(text, str) else None

    def _checked(self, keys: dict[KeyName, SecretValue | None]) -> AccountKeys:
        values: dict[KeyName, SecretValue] = {
            name: value for name, value in keys.items() if value is not None and value.is_base64_key()
        }
        refused: dict[KeyName, str] = {
            name: "the service returned no key, or one that is not base64 of at least 32 bytes: not written"
            for name in KEY_NAMES
            if name not in values
        }
        if len(values) == len(KEY_NAMES) and self._equal(values["primary"], values["secondary"]):
            # The keys of an account always differ, so such a reply is not trusted.
            reason = "primary and secondary are equal in the service's reply: not written"
            return AccountKeys({}, dict.fromkeys(KEY_NAMES, reason))
        return AccountKeys(values, refused)

    def _equal(self, first: SecretValue, second: SecretValue) -> bool:
        return self._fingerprinter.of(first) == self._fingerprinter.of(second)

    async def _shared_key_disabled(self, record: FailureRecord) -> bool:
        if record.kind == "http_error":
            return False  # a proxy's reply says nothing about the account
        if record.http_status is None or not 400 <= record.http_status < 500 or record.http_status in {404, 408, 429}:
            return False
        # A 401 from Resource Manager concerns the token, one from Batch the account.
        if record.http_status == 401 and (record.cloud_error is None or record.cloud_error.target != "BatchAccount"):
            return False
        if record.has_code("AuthorizationFailed", "ScopeLocked"):
            return False
        try:
            return not await self._allows_shared_key()
        except CallFailed:
            return False

    async def _still_keyless(self) -> bool:
        """Reads the account, since `keyless` may be out of date; true if the read fails."""
        try:
            return not await self._allows_shared_key()
        except CallFailed:
            return True

    async def _allows_shared_key(self) -> bool:
        allowed = await self._caller.call(GET_ACCOUNT, self._account.resource_id, self._get_account)
        if allowed:
            self._keyless.discard(self._account.key)
        else:
            self._keyless.add(self._account.key)
        return allowed

    async def _get_account(self) -> bool:
        account = await self._client.batch_account.get(self._account.resource_group, self._account.name)
        listed = ListedAccount.of(
            account.id,
            None,
            _text_list(account.allowed_authentication_modes),
            _text(account.pool_allocation_mode),
            None,
        )
        if fold(listed.id.resource_id) != self._account.key:
            summary = f"the reply is not about {self._account.resource_id}: not used"
            raise CallFailed(FailureRecord(kind="invalid_response", summary=summary))
        return listed.why_keyless is None

    def _disabled_failure(self) -> CallFailed:
        summary = "the account does not allow SharedKey, or its pools are in UserSubscription mode"
        return CallFailed(self._disabled(FailureRecord(kind="shared_key_disabled", summary=summary)))

    def _disabled(self, record: FailureRecord) -> FailureRecord:
        return with_hint(replace(record, kind="shared_key_disabled"), self._account.resource_id)


def _text_list(modes: Any) -> list[Any] | None:  # noqa: ANN401  # the SDK's enum members, or text that it does not know
    return None if modes is None else [_text(mode) for mode in modes]


def _text(value: Any) -> Any:  # noqa: ANN401  # as above
    return getattr(value, "value", value)
