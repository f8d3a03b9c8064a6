"""The control address: its endpoints, its errors, and the requests of web pages, which it refuses."""

from dataclasses import dataclass

import aiohttp
import pytest

from keysync.emulator.faults import OPERATIONS

from .test_faults import KEYS

FAULT = {"operation": "listKeys", "status": 418}


@dataclass
class Control:
    """Sends requests to the control address."""

    session: aiohttp.ClientSession
    base: str

    async def ask(self, method, path, body=None, **more):
        async with self.session.request(method, f"{self.base}{path}", json=body, **more) as reply:
            return reply.status, await reply.json() if reply.status != 204 else None

    async def error(self, method, path, body=None, **more):
        status, reply = await self.ask(method, path, body, **more)
        return status, reply["error"]["message"]


@pytest.fixture
def control(client, azure):
    assert azure.endpoints.control.startswith("http://127.0.0.1:")
    return Control(client.session, azure.endpoints.control)


async def test_the_list_has_each_endpoint(control):
    """GET / names method and path; each of them is served."""
    _, listed = await control.ask("GET", "/")
    assert {"GET /", "POST /faults", "DELETE /tokens", "GET /operations"} <= set(listed)
    for endpoint in listed:
        method, path = endpoint.split()
        _, reply = await control.ask(method, path)
        assert not isinstance(reply, dict) or "There is no endpoint" not in str(reply.get("error"))
    assert (await control.ask("GET", "/operations"))[1] == list(OPERATIONS)


async def test_faults_are_added_listed_and_removed(control, client, azure):
    """Faults, counts and statuses."""
    assert (await control.ask("POST", "/faults", FAULT))[0] == 204
    assert FAULT in (await control.ask("GET", "/faults"))[1]
    assert (await client.arm(KEYS, "POST"))[0] == 418
    assert (await control.ask("GET", "/counts"))[1]["listKeys"] == 1
    assert (await control.ask("GET", "/statuses"))[1]["418"] == 1
    assert (await control.ask("DELETE", "/faults"))[0] == (await control.ask("DELETE", "/counts"))[0] == 204
    assert not azure.requests
    assert (await client.arm(KEYS, "POST"))[0] == 200


async def test_a_key_is_regenerated(control, azure):
    """Of a known account, and with a known name."""
    regenerate = "/accounts/acct1/regenerate"
    assert (await control.ask("POST", regenerate, {"keyName": "Secondary"}))[0] == 204
    assert azure.state.keys("acct1")[1] != "s1"
    assert (await control.ask("POST", "/accounts/nobody/regenerate", {"keyName": "Primary"}))[0] == 404
    assert (await control.ask("POST", regenerate, {}))[0] == 400
    status, message = await control.error("POST", regenerate, {"keyname": "Primary"})
    assert (status, "there is no field 'keyname' (did you mean 'keyName'?)" in message) == (400, True)
    assert azure.state.keys("acct1")[0] == "p1"


async def test_names_of_secrets_are_listed(control):
    """Without values."""
    _, listed = await control.ask("GET", "/vaults/kv-a/secrets")
    assert {"name": "many00", "versions": 1, "tags": {}} in listed
    assert (await control.ask("GET", "/vaults/kv-none/secrets"))[0] == 404


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"operation": "listKeyz"}, "operation: there is no operation 'listKeyz' (did you mean 'listKeys'?)"),
        ({"operation": "zzz*"}, "operation: there is no operation 'zzz*' (there are token, "),
        ({"oparation": "listKeys"}, "there is no field 'oparation' (did you mean 'operation'?)"),
        ({"zzz": 1}, "there is no field 'zzz' (there are operation, target, "),
        ({"kind": "resett"}, "kind: Input should be 'status', 'reset', "),
        ({"times": 0}, "times: Input should be greater than or equal to 1"),
        ({"status": 99}, "status: Input should be greater than or equal to 200"),
        ({"status": 1000}, "status: Input should be less than or equal to 599"),
        ({"delay": float("inf"), "after": True}, "delay: Input should be a finite number"),
        ({"headers": {"a\r\nb": "c"}}, "headers.a\r\nb.[key]: String should match pattern"),
        ({"headers": {"a": "b\r\nc: d"}}, "headers.a: String should match pattern"),
        ({"retry_after": "1\r\nc: d"}, "retry_after: String should match pattern"),
        ({"kind": "misrouted"}, "a misrouted reply needs `other`"),
        ({"delay": 1}, "`delay` has no effect here: it needs `after: true`"),
        ({"kind": "reset", "body": "x"}, "`body` has no effect here: it is for the kind html or body"),
        (
            {"operation": "setSecret", "kind": "ignored", "reads": 2},
            "`reads` has no effect here: it is for the kind stale",
        ),
        ({"operation": "listSecrets", "kind": "ignored"}, "the kind ignored is for the operations setSecret, "),
        (
            {"operation": "peekMessages", "kind": "null_keys"},
            "the kind null_keys is for the operations token, listKeys, ",
        ),
    ],
)
async def test_an_invalid_fault_is_refused(control, azure, fault, message):
    """With what is wrong and the nearest known name. It is not added."""
    before = azure.faults.active()
    status, text = await control.error("POST", "/faults", fault)
    assert status == 400
    assert text.startswith(f"Invalid fault: {message}")
    assert azure.faults.active() == before


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"clock_offset": 1e300}, "clock_offset"),
        ({"clock_offset": float("nan")}, "clock_offset"),
        ({"challenge": {"authority": "https://a\r\nb: c"}}, "challenge.authority"),
    ],
)
async def test_settings_that_no_reply_can_show_are_refused(control, settings, field):
    """A date after the year 9999, and a header in a header."""
    status, message = await control.error("PATCH", "/vaults/kv-a", settings)
    assert (status, message.startswith(f"Invalid settings: {field}: ")) == (400, True)


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"text": "\\ud800"}', b"\xff", b"{", b"[]"])
async def test_a_body_that_is_no_json_object_is_refused(control, body):
    """Also one that is nested too deep, and one with half of a surrogate pair, which no file or reply can hold."""
    headers = {"Content-Type": "application/json"}
    async with control.session.post(f"{control.base}/faults", data=body, headers=headers) as reply:
        assert reply.status == 400
        assert (await reply.json())["error"]["message"] == "The request body is not a valid JSON object."


async def test_an_unknown_endpoint_names_the_nearest(control):
    """For a wrong path and a wrong method."""
    assert await control.error("GET", "/fault") == (
        404,
        "There is no endpoint 'GET /fault' (did you mean 'GET /faults'?).",
    )
    status, message = await control.error("PUT", "/faults", FAULT)
    assert (status, "did you mean 'POST /faults'?" in message) == (404, True)


@pytest.mark.parametrize("host", ["attacker.example", "attacker.example:80", "10.0.0.1", "localhost.attacker.example"])
async def test_another_host_is_refused(control, azure, host):
    """As a page sends it after DNS rebinding, also to read."""
    assert (await control.ask("GET", "/vaults/kv-a/secrets", headers={"Host": host}))[0] == 403
    before = azure.faults.active()
    assert (await control.ask("DELETE", "/faults", headers={"Host": host}))[0] == 403
    assert azure.faults.active() == before


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
async def test_names_of_this_machine_are_accepted(control, host):
    """With any port, as behind a forwarded port."""
    assert (await control.ask("GET", "/counts", headers={"Host": f"{host}:1234"}))[0] == 200


@pytest.mark.parametrize("origin", ["https://attacker.example", "http://localhost:1", "null"])
async def test_another_origin_is_refused(control, azure, origin):
    """A page of another site, of another port and of a file."""
    assert (await control.ask("POST", "/faults", FAULT, headers={"Origin": origin}))[0] == 403
    assert FAULT not in [fault.model_dump(exclude_unset=True) for fault in azure.faults.active()]
    assert (await control.ask("GET", "/", headers={"Origin": control.base}))[0] == 200


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain", ""])
async def test_the_content_type_of_a_form_is_refused(control, azure, content_type):
    """So is none at all, which a script can send without a preflight."""
    body = b'{"operation": "listKeys"}'
    headers = {"Content-Type": content_type}
    async with control.session.post(f"{control.base}/faults", data=body, headers=headers) as reply:
        assert reply.status == 415
        assert "Content-Type: application/json" in await reply.text()
    assert {"operation": "listKeys"} not in [fault.model_dump(exclude_unset=True) for fault in azure.faults.active()]


async def test_a_managed_identity_gets_no_token_for_another_host(control, azure):
    """Although it sends the right header."""
    headers = {"X-IDENTITY-HEADER": azure.endpoints.identity_header}
    path = "/msi/token?api-version=2019-08-01&resource=https://vault.azure.net"
    assert (await control.ask("GET", path, headers=headers))[0] == 200
    assert (await control.ask("GET", path, headers={**headers, "Host": "attacker.example"}))[0] == 403
