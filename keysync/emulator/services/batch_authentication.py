"""Who may call the Batch service: SharedKey signatures and Entra tokens."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime

from keysync.emulator.access import Access
from keysync.emulator.services.batch_error import batch_error
from keysync.emulator.services.entra import BadToken, Entra
from keysync.emulator.services.shared_key import SharedKey, is_signed_with, shared_key_of, string_to_sign
from keysync.emulator.state import Account
from keysync.emulator.times import timestamp
from keysync.emulator.tokens import issuer_of
from keysync.emulator.wire import Call, Reply

BATCH_AUDIENCES = (
    "https://batch.core.windows.net/",
    "https://batch.core.usgovcloudapi.net/",
    "https://batch.chinacloudapi.cn/",
)
"""The audiences of the clouds. The slash counts: https://github.com/Azure/azure-sdk-for-net/issues/8026."""

_MAX_SKEW = 15 * 60
"""Between the time that a client signed and the time of the service, in seconds."""

_ACTIONS = {
    "listNodeCounts": "pools/read",
    "listJobs": "jobs/read",
    "getJob": "jobs/read",
    "listPools": "pools/read",
    "getPool": "pools/read",
}
"""The action for an operation: https://learn.microsoft.com/azure/batch/batch-role-based-access-control."""

_NOT_AUTHENTICATED = (
    "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly"
)


class BatchAuthentication:
    """Checks who calls. `authority` is the emulator's Entra, another valid audience: that of `az cloud register`."""

    def __init__(self, entra: Entra, access: Access, authority: str) -> None:
        self._entra = entra
        self._access = access
        self._authority = authority

    def refusal(self, call: Call, account: Account, operation: str) -> Reply | None:
        """The reply to a caller that may not carry out `operation` on `account`, None if it may."""
        if account.properties.get("publicNetworkAccess") == "Disabled":
            return _not_authorized(call, account)
        if not call.headers.get("Authorization"):
            challenge = (
                f'Bearer authorization_uri="{self._authority}/{account.tenant_id}", resource_id="{BATCH_AUDIENCES[0]}"'
            )
            return _token_refused(call, account, None, challenge=challenge)
        if call.bearer is not None:
            return self._token_refusal(call, account, call.bearer) or self._denial(call, account, operation)
        sent = shared_key_of(call)
        if sent is None:
            return batch_error(call, 400, "InvalidAuthenticationInfo", account.clock())
        return _signature_refusal(call, account, sent)

    def _token_refusal(self, call: Call, account: Account, bearer: str) -> Reply | None:
        if "AAD" not in account.authentication_modes:
            return _token_refused(
                call, account, "The specified type of authentication AAD is not allowed for this account."
            )
        try:
            token = self._entra.read(bearer)
        except BadToken:
            return _token_refused(call, account, "The access token is invalid.")
        if token.audience not in {*BATCH_AUDIENCES, self._authority, f"{self._authority}/"}:
            detail = (
                f"The access token has been obtained from wrong audience or resource '{token.audience}'. It should exactly "
                f"match (including forward slash) with one of the allowed audiences '{BATCH_AUDIENCES[0]}'"
            )
            return _token_refused(call, account, detail)
        if token.expires <= account.clock():
            detail = (
                f"The access token expiry UTC time '{timestamp(token.expires)}' is earlier than current UTC time "
                f"'{timestamp(account.clock())}'."
            )
            return _token_refused(call, account, detail)
        if token.tenant_id.lower() != account.tenant_id.lower():
            detail = (
                f"The access token is from the wrong issuer '{token.issuer}'. It must match the tenant "
                f"'{issuer_of(account.tenant_id)}' associated with this subscription. Please use the authority (URL) "
                f"'{self._authority}/{account.tenant_id}' to get the token."
            )
            return _token_refused(call, account, detail)
        return None

    def _denial(self, call: Call, account: Account, operation: str) -> Reply | None:
        """A role may allow an operation as an action or, as those made for Batch do, as an action on data."""
        token = self._entra.read(call.bearer or "")
        action = f"Microsoft.Batch/batchAccounts/{_ACTIONS.get(operation, 'read')}"
        allowed = any(self._access.decide(token, action, account.id, data=data).allowed for data in (False, True))
        if allowed and operation not in account.denied:
            return None
        return _not_authorized(call, account)


def _not_authorized(call: Call, account: Account) -> Reply:
    # As in https://github.com/Azure/BatchExplorer/issues/2203.
    return batch_error(call, 403, "AuthorizationFailure", account.clock())


def _signature_refusal(call: Call, account: Account, sent: SharedKey) -> Reply | None:
    if not account.has_shared_keys:
        # As in https://github.com/Azure/BatchExplorer/issues/239.
        return _signature_refused(
            call, account, "The specified type of authentication SharedKey is not allowed for this account."
        )
    problem = _date_problem(call, account.clock())
    if problem is not None:
        return _signature_refused(call, account, problem)
    keys = account.accepted_keys() if sent.account.lower() == account.name.lower() else []
    if is_signed_with(call, sent, keys):
        return None
    # As in https://github.com/Azure/azure-sdk-for-net/issues/3170.
    detail = (
        f"The MAC signature found in the HTTP request '{sent.signature}' is not the same as any computed signature. Server "
        f"used following string to sign: '{string_to_sign(call, sent.account)}'."
    )
    return _signature_refused(call, account, detail)


def _date_problem(call: Call, now: float) -> str | None:
    sent = call.headers.get("ocp-date") or call.headers.get("Date", "")
    try:
        signed = parsedate_to_datetime(sent)
    except ValueError:
        return "The Date header in the request is incorrect."
    behind = now - (signed if signed.tzinfo else signed.replace(tzinfo=UTC)).timestamp()
    if behind > _MAX_SKEW:
        return f"Request date header too old: '{sent}'"
    return "The Date header in the request is incorrect." if behind < -_MAX_SKEW else None


def _signature_refused(call: Call, account: Account, detail: str) -> Reply:
    message = f"{_NOT_AUTHENTICATED} including the signature."
    values = {"AuthenticationErrorDetail": detail}
    return batch_error(call, 403, "AuthenticationFailed", account.clock(), message=message, values=values)


def _token_refused(call: Call, account: Account, detail: str | None, *, challenge: str | None = None) -> Reply:
    values = {} if detail is None else {"AuthenticationErrorDetail": detail}
    headers = {} if challenge is None else {"WWW-Authenticate": challenge}
    message = f"{_NOT_AUTHENTICATED}."
    now = account.clock()
    return batch_error(call, 401, "AuthenticationFailed", now, message=message, values=values, headers=headers)
