"""What clients may change of a Batch account: the bodies of PUT and PATCH, with the errors of the Batch provider.

Batch reports an invalid body as `InvalidRequestBody`, with the cause in `details`. Of the causes, the one about
keyVaultReference is from a real reply; the others have the wording of the library that the service uses, Newtonsoft.Json.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping
from typing import get_args

from keysync.emulator.data import AuthenticationMode, PublicNetworkAccess
from keysync.emulator.services.arm_errors import gateway_error
from keysync.emulator.services.batch_bodies import batch_error, iso_time
from keysync.emulator.state import Account
from keysync.emulator.wire import Call, Json, Refused, as_list, as_object, parse_json

MODES = get_args(AuthenticationMode)
_KEYS = ("Primary", "Secondary")
_ACCESS = get_args(PublicNetworkAccess)
_IDENTITIES = ("SystemAssigned", "UserAssigned", "None")
_UPDATE_SINCE = {
    "autoStorage": "",
    "encryption": "2020-05-01",
    "allowedAuthenticationModes": "2021-06-01",
    "publicNetworkAccess": "2022-06-01",
    "networkProfile": "2022-06-01",
}
"""The properties in a PATCH, with the first api-version that accepts each."""
_CREATE_SINCE = {
    **_UPDATE_SINCE,
    "publicNetworkAccess": "2020-05-01",
    "poolAllocationMode": "",
    "keyVaultReference": "",
}
_PERIMETER_SINCE = "2024-07-01"


class BatchBody:
    """The body of a request to Batch in an api-version. `now` is in seconds since 1970, for errors and for times."""

    def __init__(self, call: Call, now: float) -> None:
        self._call = call
        self._version = call.query.get("api-version", "")
        self._now = now

    def invalid(self, reason: str) -> Refused:
        """The refusal of a body."""
        message = "The specified Request Body is not syntactically valid."
        return Refused(batch_error(self._now, 400, "InvalidRequestBody", message, reason))

    def key_name(self) -> str:
        """The key to regenerate: ``Primary`` or ``Secondary``."""
        body = self._object(self._parsed(), "BatchAccountRegenerateKeyParameters", {"keyName"})
        if body.get("keyName") is None:
            raise self.invalid("Required property 'keyName' not found in JSON.")
        return self._one_of(body["keyName"], _KEYS, "AccountKeyType")

    def apply_update(self, account: Account) -> None:
        """Apply a PATCH to an account."""
        body = self._object(self._parsed(), "BatchAccountUpdateParameters", {"tags", "properties", "identity"})
        self._apply(account, body, "BatchAccountUpdateProperties", _UPDATE_SINCE)

    def apply_creation(self, account: Account) -> None:
        """Apply a PUT to a new or existing account, apart from its location."""
        names = {"location", "tags", "properties", "identity"}
        body = self._object(self._parsed(), "BatchAccountCreateParameters", names)
        properties = as_object(body.get("properties")) or {}
        if str(properties.get("poolAllocationMode")).lower() == "usersubscription" and not properties.get(
            "keyVaultReference"
        ):
            raise self.invalid(
                "keyVaultReference must be set if poolAllocationMode is specified as 'UserSubscription' on a PUT request"
            )
        self._apply(account, body, "BatchAccountCreateProperties", _CREATE_SINCE)

    def location(self) -> str:
        """The region of the account to create, in the form of ids."""
        location = as_object(self._parsed())
        if location is None or not isinstance(location.get("location"), str) or not location["location"]:
            raise Refused(
                gateway_error(400, "LocationRequired", "The location property is required for this definition.")
            )
        return str(location["location"]).replace(" ", "").lower()

    def _parsed(self) -> object:
        try:
            return parse_json(self._call.body or b"null")
        except ValueError as failure:
            if self._call.method == "POST":
                raise self.invalid(str(failure)) from failure
            message = f"The request content was invalid and could not be deserialized: '{failure}'."
            raise Refused(gateway_error(400, "InvalidRequestContent", message)) from failure

    def _object(self, value: object, kind: str, names: Collection[str]) -> Json:
        content = as_object(value)
        if content is None:
            raise self.invalid(f"Cannot deserialize the value into type '{kind}': it is not a JSON object.")
        for name in content:
            if name not in names:
                raise self.invalid(f"Could not find member '{name}' on object of type '{kind}'.")
        return content

    def _one_of(self, value: object, names: Collection[str], kind: str) -> str:
        """The name in `names` that `value` is, ignoring case, as enumerations of .NET are read."""
        for name in names:
            if isinstance(value, str) and value.lower() == name.lower():
                return name
        raise self.invalid(f"Error converting value {json.dumps(value)} to type '{kind}'.")

    def _apply(self, account: Account, body: Mapping[str, object], kind: str, since: Mapping[str, str]) -> None:
        known = {name for name, version in since.items() if version <= self._version}
        sent = self._object({} if body.get("properties") is None else body["properties"], kind, known)
        parsed = {name: self._property(name, value) for name, value in sent.items()}
        tags = self._tags(body.get("tags")) if body.get("tags") is not None else account.tags
        identity = self._identity(body["identity"], account) if body.get("identity") else account.identity
        account.tags, account.identity = tags, identity
        if "allowedAuthenticationModes" in parsed:
            account.authentication_modes = [
                str(mode) for mode in as_list(parsed.pop("allowedAuthenticationModes")) or []
            ]
        if "poolAllocationMode" in parsed:
            account.pool_allocation_mode = str(parsed.pop("poolAllocationMode"))
        account.properties = {**account.properties, **parsed}
        account.modified = self._now
        account.change = "created" if account.change == "created" else "updated"

    def _property(self, name: str, value: object) -> object:
        match name:
            case "allowedAuthenticationModes":
                return self._modes(value)
            case "poolAllocationMode":
                return self._one_of(value, ("BatchService", "UserSubscription"), "PoolAllocationMode")
            case "publicNetworkAccess":
                allowed = _ACCESS if self._version >= _PERIMETER_SINCE else _ACCESS[:2]
                return "Enabled" if value is None else self._one_of(value, allowed, "PublicNetworkAccessType")
            case "autoStorage":
                return self._auto_storage(value)
            case "networkProfile":
                return self._network_profile(value)
            case "encryption":
                content = self._object(value, "EncryptionProperties", {"keySource", "keyVaultProperties"})
                source = self._one_of(content.get("keySource"), ("Microsoft.Batch", "Microsoft.KeyVault"), "KeySource")
                return {**content, "keySource": source}
            case _:
                content = self._object(value, "KeyVaultReference", {"id", "url"})
                if set(content) != {"id", "url"}:
                    raise self.invalid("keyVaultReference needs both 'id' and 'url'.")
                return content

    def _modes(self, value: object) -> list[str]:
        """An empty list allows no mode, and null all of them."""
        if value is None:
            return list(MODES)
        modes = as_list(value)
        if modes is None:
            raise self.invalid("Cannot deserialize the value into type 'AuthenticationMode[]': it is not a JSON array.")
        return list(dict.fromkeys(self._one_of(mode, MODES, "AuthenticationMode") for mode in modes))

    def _auto_storage(self, value: object) -> Json | None:
        if value is None:
            return None
        names = {"storageAccountId", "authenticationMode", "nodeIdentityReference", "lastKeySync"}
        content = self._object(value, "AutoStorageBaseProperties", names)
        if not content.get("storageAccountId"):
            raise self.invalid("Required property 'storageAccountId' not found in JSON.")
        mode = self._one_of(
            content.get("authenticationMode", "StorageKeys"),
            ("StorageKeys", "BatchAccountManagedIdentity"),
            "AutoStorageAuthenticationMode",
        )
        return {**content, "lastKeySync": iso_time(self._now), "authenticationMode": mode}

    def _network_profile(self, value: object) -> Json | None:
        if value is None:
            return None
        profile = self._object(value, "NetworkProfile", {"accountAccess", "nodeManagementAccess"})
        parsed: Json = {}
        for name, access in profile.items():
            content = self._object(access, "EndpointAccessProfile", {"defaultAction", "ipRules"})
            action = self._one_of(content.get("defaultAction"), ("Allow", "Deny"), "EndpointAccessDefaultAction")
            parsed[name] = {**content, "defaultAction": action}
        return parsed

    def _tags(self, value: object) -> dict[str, str]:
        tags = as_object(value)
        if tags is None or not all(isinstance(text, str) for text in tags.values()):
            raise self.invalid("Cannot deserialize the value into type 'Dictionary<string, string>'.")
        return {name: str(text) for name, text in tags.items()}

    def _identity(self, value: object, account: Account) -> Json:
        content = self._object(
            value, "BatchAccountIdentity", {"type", "userAssignedIdentities", "principalId", "tenantId"}
        )
        kind = self._one_of(content.get("type"), _IDENTITIES, "ResourceIdentityType")
        if kind == "SystemAssigned":
            principal = str(uuid.uuid5(uuid.NAMESPACE_URL, account.id))
            return {"principalId": principal, "tenantId": account.tenant_id, "type": kind}
        if kind == "UserAssigned":
            identities = as_object(content.get("userAssignedIdentities")) or {}
            ids = {
                name: {
                    "principalId": str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
                    "clientId": str(uuid.uuid5(uuid.NAMESPACE_DNS, name)),
                }
                for name in identities
            }
            return {"type": kind, "userAssignedIdentities": ids}
        return {"type": kind}
