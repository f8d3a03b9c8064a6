"""The embedded Azure's vault beside the recorded replies of Key Vault, field by field.

docs/emulator.md lists the differences that remain.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from keysync.emulator import Emulator, EmulatorData, Fault
from keysync.emulator.throttle import VAULT_CREATES
from tests.support.replay import Recorded

FOLDER: Final = Path(__file__).parents[1] / "data" / "real_replies"
DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "emulator.md"
NAME: Final = "sampleacct-primary-key"
TENANT: Final = "00000000-0000-0000-0000-0000000000aa"
OTHER_TENANT: Final = "00000000-0000-0000-0000-0000000000bb"
PUBLIC: Final = {"cloud": "public"}
WEEK: Final = {"retention_days": 7}

NOT_SERVED: Final = {
    "kv-no-attributes": "a shape without a recording",
    "kv-tags-null-contenttype-null": "a shape without a recording",
}
"""Cases without a counterpart. A fault of kind `body` sends them."""

OTHER_HEADERS: Final = {
    "x-ms-request-id": "an id of the request",
    "x-ms-keyvault-region": "the recorded region is not the location in the recorded messages",
    "x-ms-keyvault-service-version": "the version of the service at that time",
    "x-ms-keyvault-network-info": "replies of 2018 lack the type of connection",
    "server": "of 2018 only",
    "x-aspnet-version": "of 2018 only",
    "x-powered-by": "of 2018 only",
}
"""Headers that are not compared, and why."""


@dataclass
class Side:
    """The running emulator, a clock, and a way to call the vault."""

    azure: Emulator
    session: aiohttp.ClientSession
    clock: list[float]
    token: str = ""

    @property
    def vault(self) -> Any:
        """The vault of the recorded replies."""
        return self.azure.state.vault("kv-replay")

    async def sign_in(self) -> str:
        """A token for the vault."""
        ends = self.azure.endpoints
        form = {
            "grant_type": "client_credentials",
            "client_id": ends.client_id,
            "client_secret": ends.client_secret,
            "scope": "https://vault.azure.net/.default",
        }
        async with self.session.post(f"{ends.authority}/{TENANT}/oauth2/v2.0/token", data=form) as reply:
            token: str = (await reply.json())["access_token"]
        self.token = token
        return token

    async def call(
        self, method: str, path: str, *, version: str = "7.0", token: bool = True, body: object = None
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers in lower case, and body with the recorded host and address."""
        url = self.azure.endpoints.vaults["kv-replay"]
        headers = {"Authorization": f"Bearer {self.token or await self.sign_in()}"} if token else {}
        async with self.session.request(
            method, f"{url}/{path.lstrip('/')}", params={"api-version": version}, headers=headers, json=body
        ) as reply:
            text = (await reply.text()).replace(url, "https://kv-replay.vault.azure.net")
            text = re.sub(r"(?<=Client address: )[0-9.:]+", "192.0.2.10", text)
            received = {name.lower(): value for name, value in reply.headers.items()}
            return reply.status, received, json.loads(text) if text else ""


Step = Callable[[Side], Awaitable[object]]


@dataclass(frozen=True)
class Case:
    """How the emulator gets into the recorded situation: settings of the vault, a secret, and what happens before."""

    vault: dict[str, Any] = field(default_factory=dict[str, Any])
    secret: dict[str, Any] = field(default_factory=dict[str, Any])
    steps: tuple[Step, ...] = ()
    method: str | None = None
    path: str | None = None
    version: str | None = None
    body: object = None
    token: bool = True
    at: float = 1795852094
    limits: bool = False


def at(time: float, method: str, path: str, body: object = None) -> Step:
    """A call at this time."""

    async def step(side: Side) -> None:
        side.clock[0] = time
        status, _, _ = await side.call(method, path, body=body)
        assert status == 200

    return step


async def deleting(side: Side) -> None:
    """A deletion in progress."""
    status, _, _ = await side.call("DELETE", f"/secrets/{NAME}")
    assert status == 200


async def throttled(side: Side) -> None:
    """So many writes that the next one is refused."""
    for _ in range(int(VAULT_CREATES.burst)):
        status, _, _ = await side.call("PUT", f"/secrets/{NAME}", body={"value": "x"})
        assert status == 200


async def asks_for_patience(side: Side) -> None:
    """A longer wait than the limits cause."""
    side.azure.faults.add(Fault(operation="getSecret", status=429, retry_after="120"))


async def broken(side: Side) -> None:
    """An error of the service."""
    side.azure.faults.add(Fault(operation="getSecret", status=500))


async def other_claims(side: Side) -> None:
    """A token that worked, and is not good enough any more."""
    side.clock[0] = 1726258122
    status, _, _ = await side.call("GET", f"/secrets/{NAME}")
    assert status == 200
    side.vault.refuse_known_tokens()


KEY: Final = base64.b64encode(b"A" * 64).decode()
CRUD: Final = "/secrets/crudSecret"
HTML: Final = {"contentType": "application/html", "attributes": {"exp": 2527362423}, "tags": {"foo": "baz"}}
REX: Final = {"attributes": {"nbf": 949439225}, "tags": {"rex": "woof"}}
CREATED: Final = at(1529957220, "PUT", CRUD, {"value": "value"})
PATCHED: Final = at(1529957225, "PATCH", CRUD, HTML)
AGAIN: Final = at(1529957226, "PATCH", CRUD, REX)
DISABLED: Final = {"value": "value", "attributes": {"enabled": False}}
MADE_DISABLED: Final = at(1529957243, "PUT", "/secrets/disabledsecret", DISABLED)
ABSENT: Final = {"name": "another"}
LATER: Final = {"created": 1795853094}

CASES: Final = {
    "kv-403-ForbiddenByPolicy-obo": Case({"access_policies": [{"identity": "keysync", "secrets": ["get"], "on_behalf_of": True}]}),
    "kv-400-api-version": Case({"api_versions": ["7.3", "7.4"]}),
    "kv-401-akv10032-issuer": Case({"tenant_id": OTHER_TENANT, "challenge": {**PUBLIC, "authority": "https://login.windows.net"}}),
    "kv-403-access-policy-ForbiddenByPolicy-get": Case({"access_policies": []}),
    "kv-403-connection": Case({"network": "private"}),
    "kv-403-firewall": Case({"network": "firewall"}),
    "kv-403-rbac-get": Case({"denied": ["getSecret"]}),
    "kv-403-rbac-set": Case({"denied": ["setSecret"]}, body={"value": "x"}),
    "kv-403-secret-disabled": Case(secret={"enabled": False}),
    "kv-404-2018-text": Case(path=CRUD, version="7.0"),
    "kv-409-being-deleted": Case({"delete_delay": 10}, steps=(deleting,), body={"value": "x"}, at=0),
    "kv-409-deleted-recoverable": Case({"access_policies": []}, path=f"/deletedsecrets/{NAME}"),
    "kv-429-long-retry-after": Case(steps=(asks_for_patience,)),
    "kv-429-throttled": Case(steps=(throttled,), method="PUT", body={"value": "x"}, at=0, limits=True),
    "kv-500": Case(steps=(broken,)),
    "kv-challenge-2026": Case({"challenge": PUBLIC}, token=False),
    "kv-challenge-authorization-uri": Case({"challenge": {**PUBLIC, "parameter": "authorization_uri"}}, token=False),
    "kv-challenge-cae-after-200": Case({"challenge": PUBLIC}, steps=(other_claims,), at=0),
    "kv-challenge-china": Case({"challenge": {"cloud": "china"}}, token=False),
    "kv-challenge-foreign-resource": Case({"challenge": {**PUBLIC, "resource": "https://managedhsm.azure.net"}}, token=False),
    "kv-challenge-lowercase-bearer": Case({"challenge": {**PUBLIC, "scheme": "bearer"}}, token=False),
    "kv-challenge-usgov": Case({"challenge": {"cloud": "usgov"}}, token=False),
    "kv-empty-contenttype": Case(WEEK, {"content_type": "", "tags": {"c7n": "true"}}),
    "kv-extra-fields-previousVersion": Case({**WEEK, "protected_subscription": True}, {**LATER, "previous_version": "9e8d2aac71cb4586a0b9e2d2772adfc8"}),
    "kv-future-nbf": Case(WEEK, {"not_before": 2208992461, "expires": 2524611661}),
    "kv-managed-secret": Case(WEEK, {"value": "MIIK...", "content_type": "application/x-pkcs12", "managed": True}),
    "kv-rec-404": Case(),
    "kv-rec-challenge-2018": Case({"tenant_id": "00000000-0000-0000-0000-000000000001", "challenge": {**PUBLIC, "authority": "https://login.windows.net", "body": False}}, body={"value": "x"}, token=False),
    "kv-rec-delete": Case(steps=(CREATED, PATCHED, AGAIN), at=1529957228),
    "kv-rec-delete-disabled": Case(steps=(MADE_DISABLED,), at=1529957247),
    "kv-rec-get": Case(steps=(CREATED,)),
    "kv-rec-get-disabled-403": Case(steps=(MADE_DISABLED,)),
    "kv-rec-get-version": Case(steps=(CREATED,)),
    "kv-rec-patch": Case(steps=(CREATED,), body=HTML, at=1529957225),
    "kv-rec-patch-nbf": Case(steps=(CREATED, PATCHED), body=REX, at=1529957226),
    "kv-rec-purge-204": Case({"delete_delay": 0}, steps=(CREATED, at(1529957228, "DELETE", CRUD)), at=0),
    "kv-rec-set": Case(body={"value": "value"}, at=1529957220),
    "kv-rec-set-disabled": Case(body=DISABLED, at=1529957243),
    "kv-recoverylevel-purgeable-no-days": Case({"soft_delete": False}),
}  # fmt: skip


def recorded() -> dict[str, Recorded]:
    """The recorded replies of Key Vault, including the ones for the emulator only."""
    paths = [*FOLDER.glob("kv-*.json"), *FOLDER.glob("emulator/kv-*.json")]
    return {path.stem: Recorded.read(path) for path in sorted(paths)}


@asynccontextmanager
async def running(case: Case) -> AsyncIterator[Side]:
    """The emulator in the state of a case."""
    secret = {"name": NAME, "value": KEY, "created": 1795852094, **case.secret}
    identity = {
        "name": "keysync",
        "client_id": "00000000-0000-0000-0000-0000000000cc",
        "object_id": "00000000-0000-0000-0000-0000000000dd",
        "unrestricted": True,
    }
    place = {
        "subscription_id": "00000000-0000-0000-0000-000000000001",
        "resource_group": "rg1",
        "location": "japaneast",
    }
    vault = {"name": "kv-replay", **place, "secrets": [secret], **case.vault}
    clock = [1529957000.0]
    content = {"tenant_id": TENANT, "token_lifetime": 1_000_000_000, "identities": [identity], "vaults": [vault]}
    async with Emulator(EmulatorData.model_validate(content), clock=lambda: clock[0], limits=case.limits) as azure:
        context = ssl.create_default_context(cafile=azure.endpoints.ca_bundle)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            yield Side(azure, session, clock)


def leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Each field of a body by its path. Versions of secrets, which are random, are replaced."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from leaves(part, f"{path}.{name}")
    elif isinstance(value, str):
        yield path, re.sub(r"(?<=/)[0-9a-f]{32}$", "VERSION", value)
    else:
        yield path, value


def test_every_recorded_reply_of_key_vault_has_a_counterpart() -> None:
    """Or is listed in docs/emulator.md, with the headers that are not compared."""
    assert set(recorded()) == set(CASES) | set(NOT_SERVED)
    text = DOCUMENT.read_text(encoding="utf-8")
    for name in (*NOT_SERVED, *OTHER_HEADERS):
        assert f"`{name}`" in text


@pytest.mark.parametrize("name", CASES)
async def test_the_emulator_replies_as_recorded(name: str) -> None:
    """Status, headers and each field of the body."""
    case, reply = CASES[name], recorded()[name]
    async with running(case) as side:
        for step in case.steps:
            await step(side)
        side.clock[0] = max(case.at, side.clock[0])
        path = case.path or reply.request["path"]
        if re.search(r"/[0-9a-f]{32}$", path):
            secret, _, _ = path.rpartition("/")
            path = f"{secret}/{side.vault.find(secret.rpartition('/')[2]).latest.version}"
        version = case.version or reply.request["api_version"]
        method = case.method or reply.request["method"]
        status, headers, body = await side.call(method, path, version=version, token=case.token, body=case.body)
    assert status == int(reply.response["status"])
    assert dict(leaves(body)) == dict(leaves(reply.response["body"]))
    expected = {name.lower(): value for name, value in reply.response["headers"].items()}
    for header, value in expected.items():
        if header not in OTHER_HEADERS:
            assert _comparable(headers.get(header, "")) == _comparable(value)
        elif header.startswith("x-ms-"):
            assert header in headers


def _comparable(header: str) -> object:
    """The text of a header; the claims of a challenge, which are JSON in base64, are decoded."""
    claims = re.search(r'claims="([^"]+)"', header)
    return header if claims is None else (header.replace(claims[1], ""), json.loads(base64.b64decode(claims[1])))
