"""The secrets of a key vault, with the limits and the errors of the real service."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict

from keysync.emulator.entra import BadToken, Entra, Token
from keysync.emulator.faults import Operation
from keysync.emulator.paging import decode_token, encode_token
from keysync.emulator.policy import denial
from keysync.emulator.state import KEEP_DELETED_DAYS, DeletedSecret, Secret, SecretVersion, Vault
from keysync.emulator.throttle import VAULT_CREATES, VAULT_OTHERS, TokenBuckets
from keysync.emulator.wire import Call, Json, Refused, Reply, Route, error, json_body

VERSIONS = ("7.4", "7.5", "7.6", "2025-07-01", "2026-04-01")
"""The api-versions that secrets are served with."""

MAX_PAGE = 25
MAX_VALUE = 25 * 1024
MAX_TAGS = 15
MAX_TAG = 256
MAX_CONTENT_TYPE = 255

_NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")
_PUBLIC_AUDIENCE = "https://vault.azure.net"
_ACTIONS = {
    "getSecret": "getSecret/action",
    "setSecret": "setSecret/action",
    "updateSecret": "update/action",
    "listSecrets": "readMetadata/action",
    "listVersions": "readMetadata/action",
    "listDeletedSecrets": "readMetadata/action",
    "getDeletedSecret": "readMetadata/action",
    "deleteSecret": "delete",
    "recoverSecret": "recover/action",
    "purgeSecret": "purge/action",
}
_PERMISSIONS = {
    "getSecret": "get",
    "setSecret": "set",
    "updateSecret": "set",
    "listSecrets": "list",
    "listVersions": "list",
    "listDeletedSecrets": "list",
    "getDeletedSecret": "get",
    "deleteSecret": "delete",
    "recoverSecret": "recover",
    "purgeSecret": "purge",
}
"""The permissions of an access policy."""
CHANGES = {
    "setSecret": "SecretSet",
    "updateSecret": "SecretUpdate",
    "deleteSecret": "SecretDelete",
    "recoverSecret": "SecretRecover",
    "purgeSecret": "SecretPurge",
}
"""What changes a vault, as the service names it in its messages and logs."""


class KeyVault:
    """The operations on one vault."""

    def __init__(
        self, vault: Vault, entra: Entra, clock: Callable[[], float], *, authority: str, buckets: TokenBuckets | None
    ) -> None:
        self._vault = vault
        self._entra = entra
        self._clock = clock
        self._authority = authority
        self._buckets = buckets

    def route(self, call: Call) -> Route:
        """What a call asks of the vault."""
        parts = call.segments
        operation, run = self._find(call, parts)
        name = parts[1] if len(parts) > 1 else ""
        return Route(
            operation,
            f"{self._vault.name}/{name}" if name else self._vault.name,
            run,
            gate=lambda: self._gate(call, operation, name),
            limit=lambda headers: self._limit(operation, headers),
            service="vault",
            now=self._vault.now,
        )

    def _find(self, call: Call, parts: list[str]) -> tuple[Operation, Callable[[], Reply]]:  # noqa: C901  # a table of paths
        match (call.method, parts[0].lower() if parts else "", *parts[1:]):
            case ("GET", "secrets"):
                return "listSecrets", lambda: self._list(call)
            case ("PUT", "secrets", name):
                return "setSecret", lambda: self._set(call, name)
            case ("DELETE", "secrets", name):
                return "deleteSecret", lambda: self._delete(call, name)
            case ("GET", "secrets", name):
                return "getSecret", lambda: self._get(call, name, None)
            case ("GET", "secrets", name, versions) if versions.lower() == "versions":
                return "listVersions", lambda: self._list_versions(call, name)
            case ("GET", "secrets", name, version):
                return "getSecret", lambda: self._get(call, name, version)
            case ("PATCH", "secrets", name, *version):
                return "updateSecret", lambda: self._update(call, name, version[0] if version else None)
            case ("GET", "deletedsecrets"):
                return "listDeletedSecrets", lambda: self._list_deleted(call)
            case ("GET", "deletedsecrets", name):
                return "getDeletedSecret", lambda: self._get_deleted(call, name)
            case ("DELETE", "deletedsecrets", name):
                return "purgeSecret", lambda: self._purge(name)
            case ("POST", "deletedsecrets", name, "recover"):
                return "recoverSecret", lambda: self._recover(call, name)
        told = f"The emulator does not serve {call.method} {call.raw_path}."
        return "unknown", lambda: error(404, "NotFound", told)

    # Who asks, and how often

    def _gate(self, call: Call, operation: str, name: str) -> Reply | None:
        if call.bearer is None:
            return self._challenge(call, "AKV10000: Request is missing a Bearer or PoP token.")
        try:
            token = self._entra.read(call.bearer)
        except BadToken:
            return self._challenge(call, "AKV10001: The token is malformed or its signature is not valid.")
        if token.tenant_id.lower() != self._vault.tenant_id.lower():
            return self._challenge(call, f"AKV10032: Invalid issuer: the vault belongs to {self._vault.tenant_id}.")
        if token.audience.rstrip("/") not in {call.base, _resource(call), _PUBLIC_AUDIENCE}:
            return self._challenge(
                call, f"AKV10022: Invalid audience: expected {_resource(call)}, found {token.audience}."
            )
        if token.expires <= self._clock():
            return self._challenge(call, "AKV10001: The token has expired.")
        version = call.query.get("api-version", "")
        if not version:
            return error(400, "BadParameter", "api-version must be specified")
        known = self._vault.api_versions or VERSIONS
        if version not in known:
            told = f"The specified version ({version}) is not recognized. Consider using the latest supported version ({known[-1]})."
            return error(400, "BadParameter", told)
        if operation in self._vault.denied:
            denied = self._no_permission if self._vault.access_policies else self._no_role
            return denied(call, token, operation, name)
        if self._vault.read_only and operation in CHANGES:
            return _read_only(operation)
        return None

    def _challenge(self, call: Call, message: str) -> Reply:
        challenge = f'Bearer authorization="{self._authority}/{self._vault.tenant_id}", resource="{_resource(call)}"'
        return error(401, "Unauthorized", message, headers={"WWW-Authenticate": challenge})

    def _no_role(self, call: Call, token: Token, operation: str, name: str) -> Reply:
        secret = f"/secrets/{name}" if name else ""
        told = (
            "Caller is not authorized to perform action on resource.\r\n"
            "If role assignments, deny assignments or role definitions were changed recently, please observe "
            "propagation time.\r\n"
            f"Caller: appid={token.client_id};oid={token.object_id};iss={self._authority}/{token.tenant_id}/\r\n"
            f"Action: 'Microsoft.KeyVault/vaults/secrets/{_ACTIONS[operation]}'\r\n"
            f"Resource: '{call.base}{secret}'\r\n"
            f"Assignment: (not found)\r\nDenyAssignmentId: null\r\nDecisionReason: null \r\nVault: {self._vault.name}\r\n"
        )
        return error(403, "Forbidden", told, inner="ForbiddenByRbac")

    def _no_permission(self, _call: Call, token: Token, operation: str, _name: str) -> Reply:
        """How a vault with access policies denies an operation: quoted in public issues."""
        told = (
            f"The user, group or application 'appid={token.client_id};oid={token.object_id};iss={self._authority}/{token.tenant_id}/' "
            f"does not have secrets {_PERMISSIONS[operation]} permission on key vault '{self._vault.name};location=westeurope'."
        )
        return error(403, "Forbidden", told, inner="ForbiddenByPolicy")

    def _limit(self, operation: str, headers: dict[str, str]) -> Reply | None:
        if self._buckets is None:
            return None
        kind, limit = ("creates", VAULT_CREATES) if operation == "setSecret" else ("others", VAULT_OTHERS)
        verdict = self._buckets.take((kind, self._vault.name.lower()), limit)
        if verdict.allowed:
            return None
        told = "Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached"
        headers["Retry-After"] = str(verdict.retry_after)
        return error(429, "Throttled", told, headers=headers)

    # Reading

    def _secret(self, name: str, find: Callable[[str], Secret | None] | None = None) -> Secret:
        _check_name(name)
        found = (find or self._vault.find)(name)
        if found is None:
            raise Refused(_not_found(name))
        return found

    def _get(self, call: Call, name: str, version: str | None) -> Reply:
        secret = self._secret(name, self._vault.read if version is None else None)
        found = _version(secret, version)
        if not found.enabled:
            told = "Operation get is not allowed on a disabled secret."
            return error(403, "Forbidden", told, inner="SecretDisabled")
        return Reply(200, {"value": found.value, **_bundle(call, secret, found)})

    def _list(self, call: Call) -> Reply:
        place, size = _page(call)
        page, after = self._vault.page(place, size)
        told = [_item(call, secret, secret.latest, versioned=False) for secret in page]
        return Reply(200, {"value": told, "nextLink": _next(call, size, after)})

    def _list_versions(self, call: Call, name: str) -> Reply:
        place, size = _page(call)
        secret = self._secret(name)
        # By identifier, as the order of versions means nothing in Azure either.
        behind = sorted((found for found in secret.versions if found.version > place), key=lambda found: found.version)
        after = behind[size - 1].version if len(behind) > size else None
        told = [_item(call, secret, found, versioned=True) for found in behind[:size]]
        return Reply(200, {"value": told, "nextLink": _next(call, size, after)})

    # Writing

    def _set(self, call: Call, name: str) -> Reply:
        _check_name(name)
        body = json_body(call)
        value = body.get("value")
        if not isinstance(value, str):
            raise Refused(_bad("Property value is required and has to be a string."))
        if len(value.encode("utf-8", "surrogatepass")) > MAX_VALUE:
            raise Refused(_bad(f"The secret's value is longer than {MAX_VALUE} bytes."))
        wanted = _properties(body)
        self._check_free(name)
        existing = self._vault.find(name)
        if existing is not None and existing.managed:
            told = "Operation set is not allowed on this secret, since it is associated with a certificate."
            return error(403, "Forbidden", told)
        self._check_policy({**wanted, "created": int(self._vault.now())})
        secret, made = self._vault.add_version(name, value)
        _apply(made, wanted)
        return Reply(200, {"value": value, **_bundle(call, secret, made)})

    def _check_free(self, name: str) -> None:
        gone = self._vault.find_deleted(name)
        if gone is None:
            return
        if gone.recovered_at is not None:
            told, inner = f"Secret {name} is currently being recovered, retry later.", "ObjectIsBeingRecovered"
        elif not self._vault.is_visible(gone):
            told, inner = f"Secret {name} is currently being deleted.", "ObjectIsBeingDeleted"
        else:
            told = (
                f"Secret {name} is currently in a deleted but recoverable state, and its name cannot be reused; in "
                "this state, the secret can only be recovered or purged."
            )
            inner = "ObjectIsDeletedButRecoverable"
        raise Refused(error(409, "Conflict", told, inner=inner))

    def _check_policy(self, version: Mapping[str, object]) -> None:
        told = denial(self._vault.policy, version) if self._vault.policy is not None else None
        if told is not None:
            raise Refused(error(403, "Forbidden", told, inner="ForbiddenByPolicy"))

    def _update(self, call: Call, name: str, version: str | None) -> Reply:
        secret = self._secret(name)
        found = _version(secret, version)
        wanted = _properties(json_body(call))
        if secret.managed:
            told = "Operation update is not allowed on this secret, since it is associated with a certificate."
            return error(403, "Forbidden", told)
        self._check_policy({**asdict(found), **wanted})
        _apply(found, wanted)
        self._vault.touch(found)
        return Reply(200, _bundle(call, secret, found))

    # Deleting and recovering

    def _delete(self, call: Call, name: str) -> Reply:
        _check_name(name)
        if self._vault.find(name) is None:
            self._check_free(name)
        if self._secret(name).managed:
            told = "Operation delete is not allowed on this secret, since it is associated with a certificate."
            return error(403, "Forbidden", told)
        return Reply(200, self._deleted(call, self._vault.delete(name)))

    def _gone(self, name: str) -> DeletedSecret:
        _check_name(name)
        found = self._vault.find_deleted(name)
        if found is None or not self._vault.is_visible(found):
            raise Refused(error(404, "SecretNotFound", f"Deleted Secret not found: {name}"))
        return found

    def _get_deleted(self, call: Call, name: str) -> Reply:
        return Reply(200, self._deleted(call, self._gone(name)))

    def _list_deleted(self, call: Call) -> Reply:
        place, size = _page(call)
        behind = [gone for gone in self._vault.deleted_secrets() if gone.secret.name.lower() > place]
        after = behind[size - 1].secret.name.lower() if len(behind) > size else None
        told = [self._deleted(call, gone, versioned=False) for gone in behind[:size]]
        return Reply(200, {"value": told, "nextLink": _next(call, size, after)})

    def _recover(self, call: Call, name: str) -> Reply:
        self._gone(name)
        secret = self._vault.recover(name)
        return Reply(200, _bundle(call, secret, secret.latest))

    def _purge(self, name: str) -> Reply:
        if self._vault.purge_protection:
            return error(403, "Forbidden", 'Operation "purge" is not enabled for this vault.')
        if self._gone(name).recovered_at is not None:
            self._check_free(name)
        self._vault.purge(name)
        return Reply(204)

    def _deleted(self, call: Call, gone: DeletedSecret, *, versioned: bool = True) -> Json:
        level = "Recoverable" if self._vault.purge_protection else "Recoverable+Purgeable"
        return {
            **_item(call, gone.secret, gone.secret.latest, versioned=versioned),
            "attributes": {**_attributes(gone.secret.latest), "recoveryLevel": level},
            "recoveryId": f"{call.base}/deletedsecrets/{gone.secret.name}",
            "deletedDate": gone.deleted,
            "scheduledPurgeDate": gone.deleted + KEEP_DELETED_DAYS * 86_400,
        }


# Checks and shapes


def _resource(call: Call) -> str:
    """The resource that the challenge names: the domain above the vault's host.

    Azure's is https://vault.azure.net, and the SDKs refuse a challenge whose resource is not a parent of the host
    that they called. The same cut makes a resource of 127.0.0.1 that runs that check; `localhost` has no parent, so
    a client that calls it by that name has to be told not to check.
    """
    scheme, _, host = call.base.partition("://")
    return f"{scheme}://{host.partition('.')[2] or host}"


def _bad(message: str) -> Reply:
    return error(400, "BadParameter", message)


def _read_only(operation: str) -> Reply:
    """What a vault answers to writes after a failover: seen in Azure/azure-cli#25693 and MSEndpointMgr/CloudLAPS#70."""
    told = f'Operation "{CHANGES[operation]}" is unavailable: the service is currently in a read-only state.'
    return error(503, "ServiceUnavailable", told)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise Refused(_bad(f"The request URI contains an invalid name: {name}"))


def _not_found(name: str) -> Reply:
    told = (
        f"A secret with (name/id) {name} was not found in this key vault. If you recently deleted this secret you may "
        "be able to recover it using the correct recovery command."
    )
    return error(404, "SecretNotFound", told)


def _version(secret: Secret, version: str | None) -> SecretVersion:
    if version is None:
        return secret.latest
    for found in secret.versions:
        if found.version == version.lower():
            return found
    raise Refused(_not_found(f"{secret.name}/{version}"))


def _properties(body: Mapping[str, object]) -> dict[str, object]:
    """The properties that a body sets, checked; those that it does not name are left out."""
    wanted: dict[str, object] = {}
    if (kind := body.get("contentType")) is not None:
        if not isinstance(kind, str) or len(kind) > MAX_CONTENT_TYPE:
            raise Refused(_bad(f"contentType is a string of at most {MAX_CONTENT_TYPE} characters."))
        wanted["content_type"] = kind
    if (tags := body.get("tags")) is not None:
        wanted["tags"] = _tags(tags)
    attributes = body.get("attributes") or {}
    if not isinstance(attributes, dict):
        raise Refused(_bad("attributes is an object."))
    if (enabled := attributes.get("enabled")) is not None:
        if not isinstance(enabled, bool):
            raise Refused(_bad("attributes.enabled is true or false."))
        wanted["enabled"] = enabled
    for sent, kept in (("nbf", "not_before"), ("exp", "expires")):
        if (when := attributes.get(sent)) is not None:
            if not isinstance(when, int) or isinstance(when, bool) or when < 0:
                raise Refused(_bad(f"attributes.{sent} is a number of seconds since 1970."))
            wanted[kept] = when
    return wanted


def _tags(tags: object) -> dict[str, str]:
    if not isinstance(tags, dict):
        raise Refused(_bad("tags is an object."))
    if len(tags) > MAX_TAGS:
        raise Refused(_bad(f"A secret has at most {MAX_TAGS} tags; the request has {len(tags)}."))
    for name, value in tags.items():
        if not isinstance(value, str):
            raise Refused(_bad(f"The value of the tag {name[:MAX_TAG]} is not a string."))
        if not name or max(len(name), len(value)) > MAX_TAG:
            raise Refused(
                _bad(f"Names and values of tags have at most {MAX_TAG} characters, and a name has at least 1.")
            )
    return dict(tags)


def _apply(version: SecretVersion, wanted: Mapping[str, object]) -> None:
    for name, value in wanted.items():
        setattr(version, name, value)


def _page(call: Call) -> tuple[str, int]:
    asked = call.query.get("maxresults", str(MAX_PAGE))
    if not asked.isdigit() or not 1 <= int(asked) <= MAX_PAGE:
        raise Refused(_bad(f"maxresults is between 1 and {MAX_PAGE}."))
    return decode_token(call.query.get("$skiptoken", "")), int(asked)


def _next(call: Call, size: int, after: str | None) -> str | None:
    if after is None:
        return None
    version = call.query["api-version"]
    return f"{call.base}{call.raw_path}?api-version={version}&$skiptoken={encode_token(after)}&maxresults={size}"


def _attributes(version: SecretVersion) -> Json:
    told: Json = {
        "enabled": version.enabled,
        "created": version.created,
        "updated": version.updated,
        "recoveryLevel": "Recoverable+Purgeable",
        "recoverableDays": KEEP_DELETED_DAYS,
    }
    if version.not_before is not None:
        told["nbf"] = version.not_before
    if version.expires is not None:
        told["exp"] = version.expires
    return told


def _item(call: Call, secret: Secret, version: SecretVersion, *, versioned: bool) -> Json:
    place = f"{call.base}/secrets/{secret.name}"
    told: Json = {
        "id": f"{place}/{version.version}" if versioned else place,
        "attributes": _attributes(version),
    }
    if version.tags:
        told["tags"] = version.tags
    if version.content_type is not None:
        told["contentType"] = version.content_type
    if secret.managed:
        told["managed"] = True
    return told


def _bundle(call: Call, secret: Secret, version: SecretVersion) -> Json:
    return _item(call, secret, version, versioned=True)
