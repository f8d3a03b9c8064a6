"""Recorded replies of Azure's services, through the real SDKs: the results, and the messages for the operator."""

from __future__ import annotations

import asyncio
import base64
import re
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from azure.keyvault.secrets._shared import http_challenge_cache

from keysync.azure.clients import batch_client, vault_client
from keysync.azure.credentials import Credentials, endpoints_of
from keysync.azure.errors import AzureFailureTranslator
from keysync.azure.retry import Caller, RetryPolicy
from keysync.azure.single_flight_credential import SingleFlightCredential
from keysync.azure.transport import open_transport
from keysync.calls import Operation
from keysync.config import credentials, model
from keysync.failures import CallFailed
from keysync.secret.fingerprint import Fingerprinter
from keysync.secret.redact import Redactor
from keysync.secret.value import SecretValue
from keysync.sources.azure_batch import BatchAccount
from keysync.sources.list_batch import BatchAccountExistence, BatchLister
from keysync.sources.listing import ListedAccount
from keysync.targets.interface import Absent, Disabled, Metadata, StoredSecret
from keysync.targets.key_vault import KeyVault
from tests.contract.conftest import LookingAgain
from tests.support.certificates import certificate_pem
from tests.support.replay import ReceivedRequest, Recorded, Replay, as_json, replaying
from tests.support.settings import config_of, discover_of

FOLDER: Final = Path(__file__).parents[1] / "data" / "real_replies"
SUBSCRIPTION: Final = "00000000-0000-0000-0000-000000000001"
GROUP: Final = "default-azurebatch-japaneast"
ACCOUNT: Final = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Batch/batchAccounts/sampleacct"
)
URL: Final = "https://kv-replay.vault.azure.net"
SCOPE: Final = "https://management.azure.com/.default"
TENANT: Final = "00000000-0000-0000-0000-0000000000aa"
CHALLENGE: Final = (
    f'Bearer authorization="https://login.microsoftonline.com/{TENANT}", resource="https://vault.azure.net"'
)
CLIENT: Final = "00000000-0000-0000-0000-0000000000cc"
PRIMARY: Final = base64.b64encode(b"the primary key of the account, as long as a real one").decode()
SECONDARY: Final = base64.b64encode(b"the secondary key of the account").decode()
TOKEN: Final = {"token_type": "Bearer", "expires_in": 3599, "access_token": "a-token"}
CLOUDS: Final[dict[str, tuple[credentials.Cloud, str]]] = {
    "kv-challenge-china": ("china", "kv-replay.vault.azure.cn"),
    "kv-challenge-usgov": ("usgovernment", "kv-replay.vault.usgovcloudapi.net"),
}
HOSTS: Final = (
    "login.microsoftonline.com", "management.azure.com", "kv-replay.vault.azure.net",
    "login.chinacloudapi.cn", "kv-replay.vault.azure.cn", "login.microsoftonline.us", "kv-replay.vault.usgovcloudapi.net",
)  # fmt: skip


async def at_once(_seconds: float) -> None:
    """A wait that takes no time."""
    await asyncio.sleep(0)


def cases() -> dict[str, list[Recorded]]:
    """The recorded replies by case; a case of several files has a number at the end of each name."""
    found: defaultdict[str, list[Recorded]] = defaultdict(list)
    for path in sorted(FOLDER.glob("*.json")):
        found[re.sub(r"-[12]$", "", path.stem)].append(Recorded.read(path))
    return dict(found)


class Service:
    """Entra, Resource Manager, a vault and an identity endpoint, with the replies of a case, and good ones for the
    rest.
    """

    def __init__(self, replies: list[Recorded], operation: str) -> None:
        self.replies = replies
        self.operation = operation
        self.challenge = "challenge" in replies[0].name and "cae" not in replies[0].name

    def __call__(self, asked: ReceivedRequest) -> web.Response:
        recorded = self._recorded(asked)
        if _service(asked.host) == "kv" and not asked.has_token:
            if self.challenge and recorded is not None:
                return recorded.reply(asked)
            return as_json({"error": {"code": "Unauthorized"}}, 401, {"WWW-Authenticate": CHALLENGE})
        return self._good(asked) if recorded is None or self.challenge else recorded.reply(asked)

    def _recorded(self, asked: ReceivedRequest) -> Recorded | None:
        mine = (reply for reply in self.replies if not reply.spent and _is_for(reply, asked))
        return next(mine, None)

    def _good(self, asked: ReceivedRequest) -> web.Response:
        match _service(asked.host):
            case "aad" | "msi":
                return as_json({**TOKEN, "resource": SCOPE, "expires_on": "4102444800"})
            case "kv":
                return self._good_secret(asked)
            case _ if asked.path.endswith("/listKeys"):
                return as_json({"accountName": "sampleacct", "primary": PRIMARY, "secondary": SECONDARY})
            case _ if asked.path.endswith("/batchAccounts"):
                return as_json({"value": []})
            case _:
                properties = {"poolAllocationMode": "BatchService", "provisioningState": "Succeeded"}
                return as_json({"id": ACCOUNT, "name": "sampleacct", "properties": properties})

    def _good_secret(self, asked: ReceivedRequest) -> web.Response:
        kind, name = asked.path.split("/")[1:3]
        if asked.path.endswith("/versions"):
            return as_json({"value": []})
        missing = "deletedsecrets" if self.operation.startswith("read") else ""
        if any(reply.request["path"] == "deletedsecrets" for reply in self.replies):
            missing = "secrets"
        if kind == missing and asked.method == "GET":
            return as_json({"error": {"code": "SecretNotFound", "message": f"Secret not found: {name}"}}, 404)
        attributes = {"enabled": True, "created": 1795852094, "updated": 1795852094}
        return as_json(
            {"value": "a-value", "id": f"https://{asked.host}/secrets/{name}/0123", "attributes": attributes}
        )


def _service(host: str) -> str:
    """The service of a host, abbreviated as in the file names."""
    for part, service in {"login.": "aad", "management.": "arm", ".vault.": "kv"}.items():
        if part in host:
            return service
    return "msi"


def _is_for(reply: Recorded, asked: ReceivedRequest) -> bool:
    """Whether it is the reply to such a request. A reply to a request that keysync never sends (PUT of an account)
    counts for GET.
    """
    method, path = reply.request["method"], reply.request["path"]
    service = {"batch": "arm", "c7n": "arm"}.get(reply.name.partition("-")[0], reply.name.partition("-")[0])
    if service != _service(asked.host):
        return False
    if service in {"aad", "msi"} or "-challenge-" in reply.name:
        return True
    if service == "kv":
        return asked.path.startswith("/deletedsecrets/") == (path == "deletedsecrets") and method == asked.method
    if asked.path.endswith("/batchAccounts"):
        return "$skiptoken" in asked.query if path == "skiptoken" else path.endswith("/batchAccounts")
    return not path.endswith("/batchAccounts") and (method == "POST") == (asked.method == "POST")


@dataclass
class Side:
    """keysync's clients on the real SDKs, and the requests to the services."""

    service: Service
    replay: Replay
    credential: SingleFlightCredential
    caller: Caller
    client: Any
    account: BatchAccount
    directory: BatchAccountExistence
    vault: KeyVault
    vault_host: str

    async def open(self, _entry: model.Discover, _subscription: str) -> tuple[Any, Caller]:
        """The clients that list accounts."""
        return self.client, self.caller

    async def do(self) -> Any:
        """Runs the operation of the case."""
        operation, _, name = self.service.operation.partition(" ")
        match operation:
            case "token":
                ask = lambda: self.credential.get_token_info(SCOPE)  # noqa: E731
                return await self.caller.call(Operation("entra", "token"), SCOPE, ask)
            case "keys":
                return await self.account.get_keys()
            case "listing":
                entry = discover_of(subscription_id=SUBSCRIPTION, vaults=["main"])
                (scope,) = BatchLister(self.open).scopes(entry)
                return [
                    each.id.name async for page in scope.pages() for each in page if isinstance(each, ListedAccount)
                ]
            case "presence":
                return await self.directory.presence(ACCOUNT)
            case "probe":
                return await self.account.probe()
            case "read":
                return await self.vault.read(name)
            case "write":
                target: Any = LookingAgain(self.vault)
                return await target.write(name, SecretValue("a-value"), Metadata({}, None), before=None)
            case "patch":
                return await self.vault.patch(name, "323c8db683d942028d0aa1221d268d43", Metadata({}, None))
            case "delete":
                return await self.vault.delete(name)
            case _:
                raise AssertionError(operation)


@asynccontextmanager
async def side_of(
    replies: list[Recorded], operation: str, credential: credentials.Credential, folder: Path, patch: pytest.MonkeyPatch
) -> AsyncIterator[Side]:
    """The case behind the real SDKs."""
    service = Service(replies, operation)
    cloud, host = CLOUDS.get(replies[0].name, ("public", "kv-replay.vault.azure.net"))
    async with replaying(service, folder, HOSTS) as replay, AsyncExitStack() as stack:
        for name in ("HTTP_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
            patch.delenv(name, raising=False)
        federated = folder / "federated"
        federated.write_text("a-federated-token")
        for name, value in {
            "HTTPS_PROXY": replay.proxy,
            "SSL_CERT_FILE": str(replay.bundle),
            "AZURE_TENANT_ID": TENANT,
            "AZURE_CLIENT_ID": CLIENT,
            "AZURE_CLIENT_SECRET": "cl13nt.S3cret~of-the_test",
            "AZURE_FEDERATED_TOKEN_FILE": str(federated),
        }.items():
            patch.setenv(name, value)
        if replies[0].name.startswith("msi-imds"):
            patch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", replay.identity)
        else:
            patch.setenv("IDENTITY_ENDPOINT", f"{replay.identity}/msi/token")
            patch.setenv("IDENTITY_HEADER", "an-identity-header")
        http_challenge_cache.clear()  # it outlives clients
        redactor, endpoints, fingerprinter = Redactor(), endpoints_of(cloud), Fingerprinter()
        transport = await open_transport(stack, ca_bundle=None, connect_seconds=5, redactor=redactor)
        opened = await Credentials(stack, endpoints, transport, redactor, timeout=20).open(credential)
        batch = batch_client(opened, SUBSCRIPTION, endpoints, transport, None)
        secrets = vault_client(opened, f"https://{host}", transport, verify_challenge=True, api_version=None)
        caller = Caller(
            AzureFailureTranslator(redactor), RetryPolicy(sleep=at_once), timeout=20, observe=lambda *_: None
        )
        vault = KeyVault(f"https://{host}", secrets, caller, fingerprinter=fingerprinter, redactor=redactor)
        stack.push_async_callback(vault.close)
        document = {"subscription_id": SUBSCRIPTION, "resource_group": GROUP, "name": "sampleacct", "vaults": ["main"]}
        config = config_of({"vaults": {"main": {"url": URL}}, "accounts": [document]})
        account = BatchAccount(config.accounts[0], batch, caller, fingerprinter=fingerprinter, redactor=redactor)

        async def batch_of(_subscription: str) -> Any:
            return batch

        yield Side(
            service, replay, opened, caller, batch, account, BatchAccountExistence(batch_of, caller), vault, host
        )


@dataclass(frozen=True)
class Failed:
    """An expected failure: its kind, status and codes, and parts of its hint and summary."""

    kind: str
    status: int | None
    codes: tuple[str, ...]
    hint: tuple[str, ...] | None
    summary: tuple[str, ...] = ()

    def check(self, outcome: Any) -> None:
        assert isinstance(outcome, CallFailed), outcome
        record = outcome.record
        assert (record.kind, record.http_status, record.codes) == (self.kind, self.status, self.codes)
        assert (record.hint is None) == (self.hint is None), record.hint
        for part in self.hint or ():
            assert part in (record.hint or "")
        for part in self.summary:
            assert record.summary.count(part) == 1, record.summary
        assert "RequestId" not in record.summary
        assert "169.254" not in record.summary  # no text from a body whose sender is unknown


@dataclass(frozen=True)
class Gives:
    """An expected success: the result and its type."""

    result: Any

    def check(self, outcome: Any) -> None:
        if isinstance(outcome, Exception):
            raise outcome
        assert outcome == self.result


class Keys:
    """Both keys, or for each a reason why it is missing."""

    def __init__(self, *, refused: bool = False) -> None:
        self.refused = refused

    def check(self, outcome: Any) -> None:
        if isinstance(outcome, Exception):
            raise outcome
        both = {"primary", "secondary"}
        assert (set(outcome.values), set(outcome.refused)) == ((set(), both) if self.refused else (both, set()))


class Token:
    """A token."""

    def check(self, outcome: Any) -> None:
        if isinstance(outcome, Exception):
            raise outcome
        assert outcome.token in {"a-token", "access_token.x", "eyJ0eXAi..."}


@dataclass(frozen=True)
class Stored:
    """A secret with this version and these fields."""

    version: str
    fields: tuple[tuple[str, Any], ...] = ()

    def check(self, outcome: Any) -> None:
        assert isinstance(outcome, StoredSecret), outcome
        assert outcome.version == self.version
        for name, value in self.fields:
            assert getattr(outcome, name) == value


NAME: Final = "sampleacct-primary-key"
READ: Final = f"read {NAME}"
WRITE: Final = f"write {NAME}"
GONE_ACCOUNT: Final = ("no such Batch account", "resource_group", ACCOUNT)
DISABLED: Final = ("SharedKey",)
DENIED_GET: Final = (
    "az keyvault set-policy --name kv-replay",
    "--object-id 00000000-0000-0000-0000-0000000000dd",
    "get list set",
)
CRUD: Final = "323c8db683d942028d0aa1221d268d43"
PLAIN: Final = "f9557720362042d4954a56ac75da2726"
NEWER: Final = "e88a39520d6d4382a5ac03f25d81e1b2"
DETAILS: Final = ("InvalidRequestBody", "Reason: keyVaultReference must be set")
UNREADABLE: Final = ("managed-identity endpoint", "did not reply with a token")

EXPECTED: Final[dict[str, tuple[str, Any]]] = {
    # Entra: its code once in the summary, and in the hint if the wrong part has a source to name
    "aad-429-90025": ("token", Token()),
    "aad-503-90033": ("token", Token()),
    "aad-700016": ("token", Failed("authentication", 400, ("AADSTS700016",), ("AZURE_TENANT_ID", "AZURE_CLIENT_ID"), ("AADSTS700016",))),
    "aad-7000215": ("token", Failed("authentication", 401, ("AADSTS7000215",), ("client secret is wrong", "AZURE_CLIENT_SECRET"), ("AADSTS7000215",))),
    "aad-7000222": ("token", Failed("authentication", 401, ("AADSTS7000222",), ("expired", "AZURE_CLIENT_SECRET", f"az ad app credential reset --append --id {CLIENT}"), ("AADSTS7000222",))),
    "aad-7000222-2019": ("token", Failed("authentication", 401, ("AADSTS7000222",), ("expired", "AZURE_CLIENT_SECRET", "--id CLIENT_ID"), ("AADSTS7000222",))),
    "aad-700024-federated": ("token", Failed("authentication", 401, ("AADSTS700024",), ("federated token", "AZURE_FEDERATED_TOKEN_FILE=/"), ("AADSTS700024",))),
    "aad-700211-federated-issuer": ("token", Failed("authentication", 400, ("AADSTS700211",), ("AZURE_FEDERATED_TOKEN_FILE=/", "issuer 'https://oidc.example/'", "federated credential"), ("AADSTS700211",))),
    "aad-90002-token": ("token", Failed("authentication", 400, ("AADSTS90002",), ("tenant", "AZURE_TENANT_ID", "`cloud`"), ("AADSTS90002",))),
    "aad-token-200-no-refresh-in-3599": ("token", Token()),
    # Resource Manager
    "arm-401-cae-claims": ("keys", Keys()),
    "arm-401-expired": ("keys", Failed("authentication", 401, ("ExpiredAuthenticationToken",), ("clock", "NTP"))),
    "arm-401-tenant": ("keys", Failed("authentication", 401, ("InvalidAuthenticationTokenTenant",), (f"({TENANT})", "0000000000bb)", "`tenant_id`", "AZURE_TENANT_ID", ACCOUNT))),
    "arm-429-resource-collection": ("keys", Keys()),
    "arm-429-subscription": ("keys", Keys()),
    "arm-503-server-timeout": ("keys", Keys()),
    "arm-504-gateway-timeout": ("keys", Keys()),
    "arm-api-version-unknown": ("keys", Failed("cloud_error", 400, ("NoRegisteredProviderFound",), ('api_versions: {batch: "2024-07-01"}',))),
    "arm-authorization-failed-2022": ("keys", Failed("cloud_error", 403, ("AuthorizationFailed",), ("Microsoft.Batch/batchAccounts/listKeys/action", ACCOUNT, "role"))),
    "arm-deny-assignment": ("keys", Failed("cloud_error", 403, ("DenyAssignmentAuthorizationFailed",), ("deny assignment 'Deny assignment created by Deployment Stack'", f"/subscriptions/{SUBSCRIPTION} ", "no role overrides it"))),
    "arm-disabled-subscription": ("keys", Failed("cloud_error", 409, ("ReadOnlyDisabledSubscription",), ("disabled", "read-only", ACCOUNT))),
    "arm-list-disallowed-operation": ("listing", Failed("cloud_error", 400, ("DisallowedOperation",), ("subscription_id",))),
    "arm-listkeys-null-keys": ("keys", Keys(refused=True)),
    "arm-not-registered": ("keys", Failed("cloud_error", 409, ("MissingSubscriptionRegistration",), ("az provider register --namespace Microsoft.Batch",), ("MissingSubscriptionRegistration",))),
    "arm-rec-node-resourcegroupnotfound": ("presence", Gives("gone")),
    "arm-resource-group-not-found": ("keys", Failed("cloud_error", 404, ("ResourceGroupNotFound",), ("resource_group", ACCOUNT))),
    "arm-resource-not-found": ("keys", Failed("cloud_error", 404, ("ResourceNotFound",), GONE_ACCOUNT)),
    "arm-scope-locked": ("keys", Failed("cloud_error", 409, ("ScopeLocked",), ("lock", f"/subscriptions/{SUBSCRIPTION}/resourcegroups/{GROUP} ", "delete lock"))),
    "arm-subscription-not-found": ("keys", Failed("cloud_error", 404, ("SubscriptionNotFound",), ("subscription_id", ACCOUNT))),
    # Batch
    "batch-400-details-reason": ("keys", Failed("cloud_error", 400, ("InvalidRequestBody", "Reason"), None, DETAILS)),
    "batch-account-not-found-rp": ("keys", Failed("cloud_error", 404, ("AccountNotFound",), GONE_ACCOUNT)),
    "batch-byos-2019-no-modes-field": ("keys", Failed("shared_key_disabled", 403, ("OperationNotAllowedX",), DISABLED)),
    "batch-list-2019-shape": ("listing", Gives(["sampleacct"])),
    "batch-list-empty": ("listing", Gives([])),
    "batch-list-nextlink-empty-page": ("listing", Gives(["sampleacct"])),
    "batch-listkeys-200-2020": ("keys", Keys()),
    "batch-listkeys-200-2024": ("keys", Keys()),
    "batch-listkeys-200-2025-globalwrites": ("keys", Keys()),
    "batch-listkeys-200-fakeKey": ("keys", Keys(refused=True)),
    "batch-no-sharedkey-status400": ("keys", Failed("shared_key_disabled", 400, ("AuthenticationModeX",), DISABLED)),
    "batch-no-sharedkey-status401": ("keys", Failed("shared_key_disabled", 401, ("AuthenticationModeX",), DISABLED)),
    "batch-no-sharedkey-status403": ("keys", Failed("shared_key_disabled", 403, ("AuthenticationModeX",), DISABLED)),
    "batch-no-sharedkey-status405": ("keys", Failed("shared_key_disabled", 405, ("AuthenticationModeX",), DISABLED)),
    "batch-no-sharedkey-status409": ("keys", Failed("shared_key_disabled", 409, ("AuthenticationModeX",), DISABLED)),
    "batch-rec-account-404-accountnotfound": ("presence", Gives("gone")),
    "batch-rec-account-get": ("presence", Gives("there")),
    "batch-rec-application-404": ("presence", Failed("cloud_error", 404, ("ApplicationNotFound",), None)),
    "batch-rec-listkeys": ("keys", Keys()),
    "batch-rec-node-byos-400-details": ("presence", Failed("cloud_error", 400, ("InvalidRequestBody", "Reason"), None, DETAILS)),
    "batch-rec-node-listkeys": ("keys", Keys()),
    "batch-rec-node-regeneratekeys": ("keys", Keys()),
    "batch-rec-regeneratekeys": ("keys", Keys()),
    "batch-usersub-2021": ("keys", Failed("shared_key_disabled", 403, ("X",), DISABLED)),
    "c7n-rec-batchtest": ("listing", Gives(["cctest"])),
    # Key Vault
    "kv-400-api-version": (READ, Failed("cloud_error", 400, ("BadParameter",), ('api_versions: {secrets: "7.4"}',))),
    "kv-401-akv10032-issuer": (READ, Failed("authentication", 401, ("Unauthorized",), (f"({TENANT})", "0000000000bb)", "`tenant_id`", "AZURE_TENANT_ID", URL))),
    "kv-403-ForbiddenByPolicy-obo": (READ, Failed("cloud_error", 403, ("Forbidden", "ForbiddenByPolicy"), (*DENIED_GET, "on a user's behalf"))),
    "kv-403-access-policy-ForbiddenByPolicy-get": (READ, Failed("cloud_error", 403, ("Forbidden", "ForbiddenByPolicy"), (*DENIED_GET, "access policies", "permission get"))),
    "kv-403-connection": (READ, Failed("cloud_error", 403, ("Forbidden", "ForbiddenByConnection"), ("private endpoints", URL))),
    "kv-403-firewall": (READ, Failed("cloud_error", 403, ("Forbidden", "ForbiddenByFirewall"), (URL, "az keyvault network-rule add --name kv-replay --ip-address 192.0.2.10"))),
    "kv-403-rbac-get": (READ, Failed("cloud_error", 403, ("Forbidden", "ForbiddenByRbac"), ("Microsoft.KeyVault/vaults/secrets/getSecret/action", URL, "role"))),
    "kv-403-rbac-set": (WRITE, Failed("cloud_error", 403, ("Forbidden", "ForbiddenByRbac"), ("Microsoft.KeyVault/vaults/secrets/setSecret/action", URL, "role"))),
    "kv-403-secret-disabled": (READ, Gives(Disabled())),
    "kv-404-2018-text": (READ, Gives(Absent())),
    "kv-409-being-deleted": (WRITE, Failed("cloud_error", 409, ("Conflict", "ObjectIsBeingDeleted"), ("still being deleted", "next run"))),
    "kv-409-deleted-recoverable": (READ, Gives(Absent())),
    "kv-429-long-retry-after": (READ, Failed("throttled", 429, ("Throttled",), ("rate",), ("120 s",))),
    "kv-429-throttled": (READ, Stored("0123")),
    "kv-500": (READ, Stored("0123")),
    "kv-challenge-2026": (READ, Stored("0123")),
    "kv-challenge-authorization-uri": (READ, Stored("0123")),
    "kv-challenge-cae-after-200": (READ, Stored("0123")),
    "kv-challenge-china": (READ, Stored("0123")),
    "kv-challenge-foreign-resource": (READ, Failed("challenge", None, (), ("another domain", "verify_challenge_resource"))),
    "kv-challenge-lowercase-bearer": (READ, Stored("0123")),
    "kv-challenge-usgov": (READ, Stored("0123")),
    "kv-empty-contenttype": (READ, Stored(PLAIN, (("content_type", ""), ("tags", {"c7n": "true"})))),
    "kv-extra-fields-previousVersion": (READ, Stored(NEWER)),
    "kv-future-nbf": (READ, Stored(PLAIN, (("expires", datetime(2050, 1, 1, 1, 1, 1, tzinfo=UTC)),))),
    "kv-managed-secret": (READ, Stored(PLAIN, (("managed", True),))),
    "kv-no-attributes": (READ, Stored(NEWER, (("created", None), ("managed", False)))),
    "kv-rec-404": (READ, Gives(Absent())),
    "kv-rec-challenge-2018": (WRITE, Gives("0123")),
    "kv-rec-delete": ("delete crudSecret", Gives(None)),
    "kv-rec-delete-disabled": ("delete disabledsecret", Gives(None)),
    "kv-rec-get": ("read crudSecret", Stored(CRUD, (("created", datetime(2018, 6, 25, 20, 7, tzinfo=UTC)),))),
    "kv-rec-get-disabled-403": (READ, Gives(Disabled())),
    "kv-rec-get-version": ("read crudSecret", Stored(CRUD)),
    "kv-rec-patch": ("patch crudSecret", Gives(None)),
    "kv-rec-patch-nbf": ("patch crudSecret", Gives(None)),
    "kv-rec-set": ("write crudSecret", Gives(CRUD)),
    "kv-rec-set-disabled": ("write disabledsecret", Gives("35ae81e2550e44bc85ae7114c3259401")),
    "kv-recoverylevel-purgeable-no-days": (READ, Stored(PLAIN)),
    "kv-tags-null-contenttype-null": (READ, Stored(NEWER, (("tags", {}), ("content_type", None)))),
    # Managed identity
    "msi-appservice-200": ("token", Token()),
    "msi-appservice-500-then": ("token", Token()),
    "msi-containerapps-200-datestring": ("token", Failed("invalid_response", None, (), UNREADABLE)),
    "msi-imds-200": ("token", Token()),
    "msi-imds-400-not-found": ("token", Failed("credential_unavailable", None, (), ("`client_id`", "assign it"))),
    "msi-imds-403-proxy": ("token", Failed("credential_unavailable", None, (), ("no managed-identity endpoint", "`type`"))),
    "msi-imds-410-then-200": ("token", Token()),
    "msi-imds-500-once": ("token", Token()),
}  # fmt: skip


def test_every_recorded_reply_has_an_expectation() -> None:
    """Each file has an expectation, and each expectation has a file."""
    assert set(cases()) == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
async def test_a_real_reply_gives_the_expected_result_or_hint(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the real SDKs: the result, or the failure's kind with a hint that names cause, place and fix."""
    operation, expected = EXPECTED[name]
    replies = cases()[name]
    async with side_of(replies, operation, _credential(name), tmp_path, monkeypatch) as side:
        outcome = await _outcome(side)
        if isinstance(outcome, CallFailed) and all(reply.spent for reply in replies):
            outcome = await _outcome(side)  # a failure that ends by itself has no effect on the next run
        expected.check(outcome)
        assert all(reply.given for reply in replies)
        if "-challenge-" in name and not isinstance(expected, Failed):
            assert _scopes_asked(side) == {f"https://{side.vault_host.partition('.')[2]}/.default"}


@dataclass(frozen=True)
class Further:
    """A reply written like a recorded one: its service, status and error, and the expected result."""

    service: str
    status: int
    error: dict[str, Any]
    operation: str
    expected: Failed
    credential: str = "environment"


def entra(code: str, message: str, word: str = "invalid_client") -> dict[str, Any]:
    """The body of a refusal by Entra."""
    return {"error": word, "error_description": f"AADSTS{code}: {message} Trace ID: 7d8f", "error_codes": [int(code)]}


def refused(code: str, *hint: str, status: int = 401) -> Failed:
    """The failure for such a refusal, whose summary has its code once."""
    return Failed("authentication", status, (f"AADSTS{code}",), hint, (f"AADSTS{code}",))


def azure(code: str, message: str, **more: Any) -> dict[str, Any]:
    """The body of an error of Resource Manager or Key Vault."""
    return {"error": {"code": code, "message": message, **more}}


SKEW: Final = entra("700024", "Client assertion is not within its valid time range. Current time: 2026-11-28T11:08:01.5Z, assertion valid from 2026-11-28T13:00:00Z.")  # fmt: skip
NO_POLICY: Final = "The user, group or application 'appid=00000000-0000-0000-0000-0000000000cc;oid=00000000-0000-0000-0000-0000000000dd;iss=x' does not have secrets {} permission on key vault 'kv-replay;location=japaneast'."  # fmt: skip
ASSIGNMENT: Final = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Authorization/policyAssignments/no-keys"
POLICY: Final = azure("RequestDisallowedByPolicy", f"Resource 'sampleacct' was disallowed by policy. Policy identifiers: '[{{\"policyAssignment\":{{\"name\":\"no keys\",\"id\":\"{ASSIGNMENT}\"}}}}]'.")  # fmt: skip

FURTHER: Final[dict[str, Further]] = {
    "application disabled": Further("aad", 400, entra("7000112", f"Application '{CLIENT}'(keysync) is disabled."), "token", refused("7000112", "disabled", f"az ad sp update --id {CLIENT}", status=400)),
    "conditional access": Further("aad", 400, entra("53003", "Access has been blocked by Conditional Access policies."), "token", refused("53003", "Conditional Access", "AZURE_CLIENT_ID", status=400)),
    "second factor": Further("aad", 400, entra("50079", "Due to a configuration change made by your administrator, you must enroll in multi-factor authentication.", "invalid_grant"), "token", refused("50079", "second factor", "`type`", status=400)),
    "subject of the federation": Further("aad", 401, entra("700213", "No matching federated identity record found for presented assertion subject 'system:serviceaccount:a:b'."), "token", refused("700213", "subject 'system:serviceaccount:a:b'", "AZURE_FEDERATED_TOKEN_FILE=/"), "workload_identity"),
    "clock and certificate": Further("aad", 401, SKEW, "token", refused("700024", "clock of this machine", "NTP"), "client_certificate"),
    "certificate unknown": Further("aad", 401, entra("700027", f"The certificate with identifier used to sign the client assertion is not registered on application. Please use application '{CLIENT}'."), "token", refused("700027", "certificate_file: /", f"--id {CLIENT}"), "client_certificate"),
    "secret of a file": Further("aad", 401, entra("7000215", "Invalid client secret provided."), "token", refused("7000215", "client_secret_file: /"), "client_secret"),
    "malformed tenant": Further("aad", 400, entra("900023", "Specified tenant identifier 'x y' is neither a valid DNS name, nor a valid external domain."), "token", refused("900023", "AZURE_TENANT_ID", status=400)),
    "policy of Azure": Further("arm", 403, POLICY, "keys", Failed("cloud_error", 403, ("RequestDisallowedByPolicy",), (ASSIGNMENT, "exempted"))),
    "malformed subscription": Further("arm", 400, azure("InvalidSubscriptionId", "The provided subscription identifier 'x' is malformed or invalid."), "keys", Failed("cloud_error", 400, ("InvalidSubscriptionId",), ("subscription_id", ACCOUNT))),
    "audience of Resource Manager": Further("arm", 401, azure("InvalidAuthenticationTokenAudience", "The access token has been obtained for wrong audience or resource 'x'."), "keys", Failed("authentication", 401, ("InvalidAuthenticationTokenAudience",), ("`cloud`",))),
    "details alone": Further("arm", 400, azure("BadRequest", "", details=[{"code": "QuotaReached", "message": "the quota is 3"}]), "keys", Failed("cloud_error", 400, ("BadRequest", "QuotaReached"), None, ("BadRequest; QuotaReached: the quota is 3",))),
    "audience of a vault": Further("kv", 401, azure("Unauthorized", "AKV10022: Invalid audience. Expected https://vault.azure.cn, found: https://vault.azure.net."), READ, Failed("authentication", 401, ("Unauthorized",), ("`cloud`", "`url`", URL))),
    "expired for a vault": Further("kv", 401, azure("Unauthorized", "Error validating token: IDX10223: Lifetime validation failed."), READ, Failed("authentication", 401, ("Unauthorized",), ("clock", "NTP", URL))),
    "vault that is read-only": Further("kv", 503, azure("ServiceUnavailable", "The service is currently in a read-only state."), f"patch {NAME}", Failed("cloud_error", 503, ("ServiceUnavailable",), ("read-only", "next run"))),
    "set by access policy": Further("kv", 403, azure("Forbidden", NO_POLICY.format("set"), innererror={"code": "ForbiddenByPolicy"}), WRITE, Failed("cloud_error", 403, ("Forbidden", "ForbiddenByPolicy"), (*DENIED_GET, "permission set"))),
    "delete by access policy": Further("kv", 403, azure("Forbidden", NO_POLICY.format("delete"), innererror={"code": "AccessDenied"}), f"delete {NAME}", Failed("cloud_error", 403, ("Forbidden", "AccessDenied"), ("access policies", "get list set delete"))),
    "Azure Policy of a vault": Further("kv", 403, azure("Forbidden", "Operation was denied by the Azure Policy assigned to this key vault.", innererror={"code": "ForbiddenByPolicy"}), WRITE, Failed("cloud_error", 403, ("Forbidden", "ForbiddenByPolicy"), ("`content_type`", "`expires_after`"))),
    "no identity at all": Further("msi", 400, {"error": "invalid_request", "error_description": "Identity not found"}, "token", Failed("credential_unavailable", None, (), ("`client_id`", "system-assigned")), "managed_identity"),
}  # fmt: skip


@pytest.mark.parametrize("name", FURTHER)
async def test_a_further_failure_names_cause_location_and_fix(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More replies that operators get, in the form of the recorded ones."""
    case = FURTHER[name]
    method = {"keys": "POST", "write": "PUT", "read": "GET", "delete": "DELETE", "patch": "PATCH"}.get(
        case.operation.partition(" ")[0]
    )
    response = {"status": case.status, "headers": {"Content-Type": "application/json"}, "body": case.error}
    prefix = f"{case.service}-imds" if case.service == "msi" else case.service
    reply = Recorded(f"{prefix}-further", "", "", {"method": method, "path": ""}, response)
    credential = _made(case.credential, tmp_path)
    async with side_of([reply], case.operation, credential, tmp_path, monkeypatch) as side:
        case.expected.check(await _outcome(side))
        hint = case.expected.hint
        assert "federated" not in str(hint) or case.credential == "workload_identity"


def _made(kind: str, folder: Path) -> credentials.Credential:
    """A credential with its files in `folder`."""
    file = folder / "proof"
    match kind:
        case "client_secret":
            file.write_text("cl13nt.S3cret~of-the_test")
            return credentials.ClientSecretCredential(tenant_id=TENANT, client_id=CLIENT, client_secret_file=file)
        case "client_certificate":
            file.write_bytes(certificate_pem(datetime(2040, 1, 1, tzinfo=UTC)))
            return credentials.ClientCertificateCredential(tenant_id=TENANT, client_id=CLIENT, certificate_file=file)
        case "workload_identity":
            return credentials.WorkloadIdentityCredential(tenant_id=None, client_id=None, token_file=None)
        case "managed_identity":
            return credentials.ManagedIdentityCredential(client_id=None)
        case _:
            return credentials.EnvironmentCredential()


async def test_the_certificate_is_not_called_a_federated_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One code of Entra is for both; the type of the credential distinguishes them."""
    response = {"status": 401, "headers": {"Content-Type": "application/json"}, "body": SKEW}
    reply = Recorded("aad-further", "", "", {"method": "POST", "path": ""}, response)
    async with side_of([reply], "token", _made("client_certificate", tmp_path), tmp_path, monkeypatch) as side:
        outcome = await _outcome(side)
    assert "federated" not in outcome.record.hint


async def test_a_default_credential_without_any_source_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK's long text becomes a list of the tried credentials, without links; the hint says how to configure
    one."""
    async with side_of(
        [Recorded("aad-none", "", "", {}, {})], "token", credentials.DefaultCredential(), tmp_path, monkeypatch
    ) as side:
        for name in ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE", "IDENTITY_ENDPOINT", "IDENTITY_HEADER"):  # fmt: skip
            monkeypatch.delenv(name)
        monkeypatch.setenv("PATH", str(tmp_path))  # no az, azd or pwsh
        monkeypatch.setenv(
            "AZURE_TOKEN_CREDENTIALS", "dev"
        )  # the credentials for developers only: the others use the network
        async with AsyncExitStack() as stack:
            transport = await open_transport(stack, ca_bundle=None, connect_seconds=5, redactor=Redactor())
            opened = await Credentials(stack, endpoints_of("public"), transport, Redactor(), timeout=20).open(
                credentials.DefaultCredential()
            )
            outcome = await _outcome(replace(side, credential=opened))
    record = outcome.record
    assert (record.kind, record.http_status, record.ambiguous) == ("credential_unavailable", None, False)
    assert record.summary.startswith("no credential got a token (")
    assert "AzureCliCredential: Azure CLI not found on path" in record.summary
    assert "authentication unavailable" not in record.summary
    assert "http" not in record.summary
    assert len(record.summary) < 600
    for part in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "managed identity", "`type`"):
        assert part in record.hint


async def _outcome(side: Side) -> Any:
    try:
        return await side.do()
    except CallFailed as failure:
        return failure


def _scopes_asked(side: Side) -> set[str]:
    forms = [parse_qs(asked.body) for asked in side.replay.asked if _service(asked.host) == "aad"]
    return {scope for form in forms for scope in form["scope"][0].split() if scope.startswith("https://")}


def _credential(name: str) -> credentials.Credential:
    if name.startswith("msi"):
        return credentials.ManagedIdentityCredential(client_id=CLIENT)
    if "federated" in name:
        return credentials.WorkloadIdentityCredential(tenant_id=None, client_id=None, token_file=None)
    return credentials.EnvironmentCredential()
