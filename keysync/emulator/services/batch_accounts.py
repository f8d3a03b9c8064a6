"""The provider Microsoft.Batch: accounts and their keys.

Resource Manager answers for an account that it does not know (ResourceNotFound), Batch for one that was just deleted
(AccountNotFound), and for every other error of an account.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar

from keysync.emulator.data import AccountData
from keysync.emulator.faults import Operation
from keysync.emulator.services.arm import ArmOperation, ArmRequest
from keysync.emulator.services.arm_errors import gateway_error, resource_not_found
from keysync.emulator.services.arm_paging import page_of
from keysync.emulator.services.arm_versions import LOCATIONS
from keysync.emulator.services.batch_bodies import BATCH_VERSIONS, account_body, batch_error, validators
from keysync.emulator.services.batch_changes import BatchBody
from keysync.emulator.services.gateway import Gateway
from keysync.emulator.state import Account, State
from keysync.emulator.wire import Refused, Reply

_APPLICATIONS = ("GET", "applications")
_ACCOUNT_NAME_LENGTHS = range(3, 25)

Handler = Callable[[ArmRequest, Account], Reply]


class BatchAccounts:
    """The operations of Microsoft.Batch on `state`."""

    namespace: ClassVar[str] = "Microsoft.Batch"
    versions: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "batchAccounts": BATCH_VERSIONS,
        "batchAccounts/applications": BATCH_VERSIONS,
        "batchAccounts/applications/versions": BATCH_VERSIONS,
        "locations/quotas": BATCH_VERSIONS,
    }

    def __init__(self, state: State, gateway: Gateway, *, page_size: int) -> None:
        self._state = state
        self._gateway = gateway
        self._page_size = page_size
        self._handlers: dict[tuple[str, ...], tuple[Operation, str, Handler]] = {
            ("GET",): ("getAccount", "read", self._get),
            ("PATCH",): ("updateAccount", "write", self._update),
            ("DELETE",): ("deleteAccount", "delete", self._delete),
            ("POST", "listkeys"): ("listKeys", "listKeys/action", self._list_keys),
            ("POST", "regeneratekeys"): ("regenerateKeys", "regenerateKeys/action", self._regenerate),
            # An account of the emulator has no applications.
            _APPLICATIONS: ("listApplications", "applications/read", self._list_applications),
            (*_APPLICATIONS, ""): ("getApplication", "applications/read", self._no_application),
        }

    def find(self, request: ArmRequest) -> ArmOperation | None:
        """The operation that a request is for, None if there is none."""
        method = request.call.method
        match request.words:
            case ("batchaccounts",) if method == "GET":
                target = request.group or request.subscription
                return ArmOperation("listAccounts", target, partial(self._list, request))
            case ("batchaccounts", _, *rest):
                return self._on_account(request, (method, *rest))
            case ("locations", location, "quotas") if method == "GET":
                return ArmOperation("getQuota", location, lambda: Reply(200, {"accountQuota": 3}))
            case _:
                return None

    def _on_account(self, request: ArmRequest, key: tuple[str, ...]) -> ArmOperation | None:
        name = request.path[1]
        if key == ("PUT",):
            return _operation("createAccount", name, "write", request.resource_id, partial(self._create, request, name))
        if len(key) > len(_APPLICATIONS) and key[: len(_APPLICATIONS)] == _APPLICATIONS:
            key = (*_APPLICATIONS, "")
        if key not in self._handlers:
            return None
        operation, action, handler = self._handlers[key]
        return _operation(
            operation, name, action, request.resource_id, lambda: handler(request, self._account(request))
        )

    def _account(self, request: ArmRequest) -> Account:
        account = self._state.accounts.get(request.resource_id.lower())
        if account is not None:
            return account
        if self._state.is_remembered(request.resource_id):
            raise Refused(self._error(404, "AccountNotFound", "The specified account does not exist."))
        raise Refused(resource_not_found(f"Microsoft.Batch/batchAccounts/{request.path[1]}", request.group))

    def _error(self, status: int, code: str, message: str) -> Reply:
        return batch_error(self._state.clock(), status, code, message)

    def _list(self, request: ArmRequest) -> Reply:
        subscription, group = request.subscription.lower(), request.group.lower()
        accounts = self._state.by_group[subscription, group] if group else self._state.by_subscription[subscription]
        action = f"{self.namespace}/batchAccounts/read"
        readable = self._gateway.readable(request.call, action, request.scope_id, accounts, lambda account: account.id)
        return page_of(request, readable, lambda account: account_body(account, request.version), self._page_size)

    def _get(self, request: ArmRequest, account: Account) -> Reply:
        return Reply(200, account_body(account, request.version), validators(account))

    def _update(self, request: ArmRequest, account: Account) -> Reply:
        BatchBody(request.call, self._state.clock()).apply_update(account)
        return self._get(request, account)

    def _delete(self, _request: ArmRequest, account: Account) -> Reply:
        self._state.delete(account)
        return Reply(200)

    def _create(self, request: ArmRequest, name: str) -> Reply:
        body = BatchBody(request.call, self._state.clock())
        location = body.location()
        account = self._state.accounts.get(request.resource_id.lower())
        if account is not None:
            if account.location != location:
                raise Refused(_other_location(account, location))
            body.apply_creation(account)
            return self._get(request, account)
        if location not in {*LOCATIONS, *(known.location for known in self._state.accounts.values())}:
            raise Refused(_unknown_location(location))
        if not name.isalnum() or not name.islower() or len(name) not in _ACCOUNT_NAME_LENGTHS:
            raise Refused(self._error(400, "InvalidAccountName", "The specified account name is invalid."))
        data = AccountData(
            subscription_id=request.subscription, resource_group=request.group, name=name, location=location
        )
        account = self._state.new_account(data)
        account.change = "created"
        body.apply_creation(account)
        self._state.add(account)
        return self._get(request, account)

    def _list_keys(self, _request: ArmRequest, account: Account) -> Reply:
        self._check_keys(account)
        return Reply(200, _keys(account))

    def _regenerate(self, request: ArmRequest, account: Account) -> Reply:
        self._check_keys(account)
        account.regenerate(BatchBody(request.call, self._state.clock()).key_name())
        return Reply(200, _keys(account))

    def _check_keys(self, account: Account) -> None:
        if not account.has_shared_keys:
            message = (
                f"Shared key access is not allowed on the Batch account '{account.name}'. (The code of this reply is invented: "
                "no public reply shows the real one. Read allowedAuthenticationModes of the account to be sure of the cause.)"
            )
            raise Refused(self._error(403, "SharedKeyAccessNotAllowed", message))

    def _list_applications(self, _request: ArmRequest, _account: Account) -> Reply:
        return Reply(200, {"value": []})

    def _no_application(self, _request: ArmRequest, _account: Account) -> Reply:
        return self._error(404, "ApplicationNotFound", "The specified application does not exist.")


def _operation(name: Operation, target: str, action: str, scope: str, run: Callable[[], Reply]) -> ArmOperation:
    return ArmOperation(name, target, run, f"Microsoft.Batch/batchAccounts/{action}", scope)


def _keys(account: Account) -> dict[str, object]:
    return {"accountName": account.name, "primary": account.primary, "secondary": account.secondary}


def _other_location(account: Account, location: str) -> Reply:
    message = (
        f"The resource '{account.name}' already exists in location '{account.location}' in resource group "
        f"'{account.resource_group}'. A resource with the same name cannot be created in location '{location}'. Please select a "
        "new resource name."
    )
    return gateway_error(409, "InvalidResourceLocation", message)


def _unknown_location(location: str) -> Reply:
    message = (
        f"The provided location '{location}' is not available for resource type 'Microsoft.Batch/batchAccounts'. List of "
        f"available regions for the resource type is '{','.join(LOCATIONS)}'."
    )
    return gateway_error(400, "LocationNotAvailableForResourceType", message)
