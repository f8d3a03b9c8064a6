"""`check` finds what would make a run fail, suggests a fix for each finding, and writes nothing."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.azure import SUBSCRIPTION
from tests.support.certificates import certificate_pem
from tests.system.conftest import Ran, World

MakeWorld = Callable[..., World]

Finding = dict[str, Any]


def findings(ran: Ran) -> list[Finding]:
    """The findings of `check --output json`."""
    assert "Traceback" not in ran.err
    results: list[Finding] = json.loads(ran.out)["findings"]
    assert all(set(finding) == {"level", "subject", "message", "hint", "affected"} for finding in results)
    return results


def about(results: list[Finding], subject: str, *, level: str | None = None) -> Finding:
    """The one finding about a subject."""
    (finding,) = [
        finding for finding in results if subject in finding["affected"] and level in {None, finding["level"]}
    ]
    return finding


def contents(world: World) -> dict[str, Any]:
    """The contents of every vault, by vault and secret."""

    def read_contents(azure: Any) -> dict[str, Any]:
        return {
            f"{vault.name}/{name}": [
                (version.version, version.value, dict(version.tags), version.updated) for version in versions
            ]
            for vault in azure.state.vaults
            for name, versions in vault.secrets.items()
        }

    return world.running.do(read_contents)


def rewrite(world: World, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the existing configuration."""
    document = json.loads(world.path.read_text())
    change(document)
    world.path.write_text(json.dumps(document))


def test_a_correct_setup_passes_and_stays_unchanged(make_world: MakeWorld) -> None:
    """Exit code 0, a mark on each line, and no new version, tag or secret."""
    world = make_world("alpha", "beta")
    world.configure(["alpha", "beta"])
    assert world.sync("--account", "alpha").code == 0
    before = contents(world)
    assert len(before) == 2
    ran = world.run("check", "--output", "json")
    assert ran.code == 0, ran.out
    results = findings(ran)
    assert {finding["level"] for finding in results} == {"ok"}
    assert about(results, "secret main/alpha-primary-key")["message"] == "is in sync"
    assert about(results, "secret main/beta-primary-key")["message"] == "would be created"
    assert {finding["subject"] for finding in results} >= {
        "configuration",
        "account alpha",
        "account beta",
        "vault main",
    }
    text = world.run("check")
    assert text.code == 0
    assert f"{len(results)} ok, 0 warnings, 0 problems" in text.out
    assert text.err == ""
    assert contents(world) == before


def test_every_finding_comes_with_its_fix(make_world: MakeWorld) -> None:
    """One run finds every problem, reports its subject and suggests a fix."""
    taken = [
        {"name": "unmanaged-primary-key", "value": "by hand", "tags": {"managed-by": "terraform"}},
        {"name": "disabled-primary-key", "value": "off", "enabled": False},
    ]
    world = make_world(
        {"name": "norole", "fault": "role_missing"},
        {"name": "entraonly", "allowed_authentication_modes": ["AAD"]},
        {"name": "locked", "fault": "locked"},
        "unmanaged",
        "deleted",
        "disabled",
        "closed",
        vaults=(
            {"name": "main", "secrets": taken, "deleted": [{"name": "deleted-primary-key", "value": "gone"}]},
            {"name": "readonly", "denied": ["setSecret"]},
        ),
    )
    names = ["norole", "entraonly", "locked", "unmanaged", "deleted", "disabled", "nowhere"]
    world.configure([*names, {"name": "closed", "vaults": ["readonly"]}])
    before = contents(world)
    ran = world.run("check", "--output", "json")
    assert ran.code == 1
    assert contents(world) == before
    results = findings(ran)
    assert all(finding["hint"] for finding in results if finding["level"] != "ok"), [
        finding for finding in results if finding["level"] != "ok"
    ]
    expected = {
        "account norole": ("problem", "Microsoft.Batch/batchAccounts/listKeys/action"),
        "account entraonly": ("problem", "allow SharedKey"),
        "account locked": ("problem", "lock"),
        "account nowhere": ("problem", "no such Batch account"),
        "secret main/unmanaged-primary-key": ("problem", "managed by 'terraform'"),
        "secret main/deleted-primary-key": ("problem", "recover"),
        "secret main/disabled-primary-key": ("warning", "--enabled true"),
    }
    for subject, (level, part) in expected.items():
        finding = about(results, subject)
        assert finding["level"] == level, finding
        assert part in finding["hint"], finding
    closed = about(results, "vault readonly", level="problem")
    assert "Microsoft.KeyVault/vaults/secrets/setSecret/action" in closed["hint"]
    assert about(results, "secret main/unmanaged-secondary-key")["level"] == "ok"
    text = world.run("check")
    assert text.code == 1
    for item in (finding for finding in results if finding["level"] != "ok"):
        assert item["subject"] in text.out
        assert (item["hint"] or "") in text.out
    assert text.out.index("! ") < text.out.index("✗ ")  # problems come last


def test_a_failure_of_an_account_is_reported_once(make_world: MakeWorld) -> None:
    """It is not repeated for each secret. The vault's own findings and other failures are still reported."""
    world = make_world(
        "alpha",
        {"name": "norole", "fault": "role_missing"},
        {"name": "hollow", "fault": {"operation": "listKeys", "kind": "null_keys"}},
        vaults=("main", {"name": "closed", "denied": ["getSecret", "setSecret"]}),
    )
    world.configure([{"name": name, "vaults": ["main", "closed"]} for name in ("alpha", "norole", "hollow")])
    ran = world.run("check", "--output", "json")
    assert ran.code == 1
    results = findings(ran)
    about(results, "account norole", level="problem")
    assert "returned no key" in about(results, "account hollow", level="problem")["message"]
    assert {name for finding in results for name in finding["affected"] if name.startswith("secret ")} == {
        f"secret {vault}/alpha-{key}-key" for vault in ("main", "closed") for key in ("primary", "secondary")
    }
    # Being unable to write to the vault and being unable to read it are two findings.
    assert "setSecret" in about(results, "vault closed", level="problem")["hint"]
    assert "getSecret" in about(results, "secret closed/alpha-primary-key", level="problem")["hint"]
    assert ran.out.count("listKeys/action") == 2  # the message and its fix


def test_one_account_can_be_checked_alone(make_world: MakeWorld) -> None:
    """`--account` ignores the other accounts and their problems."""
    world = make_world("alpha", {"name": "norole", "fault": "role_missing"})
    world.configure(["alpha", "norole"])
    ran = world.run("check", "--account", "alpha", "--output", "json")
    assert ran.code == 0, ran.out
    assert not any("norole" in finding["subject"] for finding in findings(ran))


@pytest.mark.slow  # it waits in real time
def test_a_vault_whose_name_does_not_resolve_leaves_the_others_served(make_world: MakeWorld) -> None:
    """`check` and `sync` report a DNS failure with the host name, and the other vault gets its secrets."""
    world = make_world("alpha")
    world.configure([{"name": "alpha", "vaults": ["main", "lost"]}])
    url = "https://keysync-no-such-host.invalid"
    rewrite(world, lambda document: document["vaults"].update(lost={"url": url, "verify_challenge_resource": False}))
    ran = world.run("check", "--output", "json")
    assert ran.code == 1
    results = findings(ran)
    lost = [finding for finding in results if finding["subject"] == "vault lost"]
    assert lost
    for finding in lost:
        assert finding["level"] == "problem"
        assert "does not resolve" in finding["message"]
        assert f"{url} does not resolve" in finding["hint"]
    assert {finding["level"] for finding in results if finding["subject"] == "vault main"} == {"ok"}
    ran = world.sync()
    assert ran.code == 1
    assert "Traceback" not in ran.err
    outcomes = ran.outcomes()
    assert outcomes["main/alpha-primary-key"] == outcomes["main/alpha-secondary-key"] == "created"
    errors = [item["error"] for item in ran.report["items"] if item["vault"] == "lost"]
    assert [error["kind"] for error in errors] == ["dns", "dns"]
    assert all("does not resolve" in error["hint"] for error in errors)


def test_an_untrusted_certificate_is_reported_as_such(make_world: MakeWorld) -> None:
    """Without the CA bundle no request succeeds, and the hint names the settings that trust a CA."""
    world = make_world("alpha")
    world.configure(["alpha"])
    rewrite(world, lambda document: document["cloud"].pop("ca_bundle"))
    ran = world.run("check", "--output", "json", env={"SSL_CERT_FILE": ""})
    assert ran.code == 1
    problems = [finding for finding in findings(ran) if finding["level"] == "problem"]
    assert problems
    assert all("cloud.ca_bundle" in finding["hint"] for finding in problems), problems
    ran = world.sync(env={"SSL_CERT_FILE": ""})
    assert ran.code == 1
    assert "Traceback" not in ran.err
    assert {item["error"]["kind"] for item in ran.report["items"]} == {"tls"}
    assert world.running.do(lambda azure: dict(azure.counts)) == {}


def test_a_refused_sign_in_does_not_prove_write_access(make_world: MakeWorld) -> None:
    """A refusal by Entra also has status 400, but proves nothing about the vault."""
    world = make_world("alpha")
    world.configure(["alpha"])
    results = findings(
        world.run("check", "--output", "json", env={**world.running.environ, "AZURE_CLIENT_ID": "nobody"})
    )
    assert "AADSTS" in json.dumps(results)
    (only,) = [finding for finding in results if finding["level"] != "ok"]
    assert only["subject"] == "credential environment"
    assert set(only["affected"]) == {"credential environment", "account alpha", "vault main"}
    assert [finding["subject"] for finding in results if finding["level"] == "ok"] == ["configuration"]


def sign_in_by_certificate(world: World, end: datetime) -> None:
    """Configures sign-in with a certificate that expires at the given time."""
    (world.folder / "sp.pem").write_bytes(certificate_pem(end))
    environ = world.running.environ
    credential = {
        "type": "client_certificate",
        "tenant_id": environ["AZURE_TENANT_ID"],
        "client_id": environ["AZURE_CLIENT_ID"],
        "certificate_file": "sp.pem",
    }
    rewrite(world, lambda document: document.update(credential=credential))


@pytest.mark.parametrize(
    ("days", "level", "code", "verb"),
    [
        (-400, "problem", 1, "expired on"),
        (-0.01, "problem", 1, "expired on"),
        (29, "warning", 0, "expires on"),
        (40, None, 0, ""),
    ],
)
def test_a_certificate_is_reported_before_it_expires(
    make_world: MakeWorld, days: float, level: str | None, code: int, verb: str
) -> None:
    """An expired certificate is a problem; one that expires within thirty days is a warning.

    Each names the file and the date, and says how to renew the certificate.
    """
    world = make_world("alpha")
    world.configure(["alpha"])
    end = datetime.now(UTC) + timedelta(days=days)
    sign_in_by_certificate(world, end)
    ran = world.run("check", "--output", "json")
    assert ran.code == code, ran.out
    results = [finding for finding in findings(ran) if "certificate" in finding["message"]]
    assert [finding["level"] for finding in results] == ([level] if level else [])
    for finding in results:
        assert finding["subject"] == "credential client_certificate"
        assert f"{verb} {end:%Y-%m-%d}" in finding["message"]
        assert str(world.folder / "sp.pem") in finding["message"]
        assert "az ad app credential reset --id CLIENT_ID --append --cert" in finding["hint"]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"])
def test_a_port_that_another_program_has_is_a_problem(make_world: MakeWorld, answer: bytes) -> None:
    """`run` could not start; the finding names the key and the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        threading.Thread(target=answering, args=(taken, answer), daemon=True).start()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        world = make_world("alpha")
        world.configure(["alpha"], listen=address)
        ran = world.run("check", "--output", "json")
        taken.shutdown(socket.SHUT_RDWR)
    assert ran.code == 1
    finding = about(findings(ran), f"listen {address}")
    assert finding["level"] == "problem"
    assert "Address already in use" in finding["message"]
    assert "`listen`" in finding["hint"]


def test_the_port_of_the_daemon_itself_is_no_finding(make_world: MakeWorld) -> None:
    """`check` can run beside the daemon, as in the daemon's container."""
    live = b'{"live": true}'
    with socket.create_server(("127.0.0.1", 0)) as daemon:
        reply = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(live), live)
        threading.Thread(target=answering, args=(daemon, reply), daemon=True).start()
        world = make_world("alpha")
        world.configure(["alpha"], listen=f"127.0.0.1:{daemon.getsockname()[1]}")
        ran = world.run("check", "--output", "json")
        daemon.shutdown(socket.SHUT_RDWR)
    assert ran.code == 0, ran.out
    assert not any(finding["subject"].startswith("listen") for finding in findings(ran))


def answering(server: socket.socket, reply: bytes) -> None:
    """Answers each connection with `reply` until the server ends."""
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.recv(4096)
            connection.sendall(reply)


def test_a_configuration_that_covers_no_account_is_a_problem(make_world: MakeWorld) -> None:
    """The finding names the filters as the cause. If another account is configured, an entry without a match is only a
    warning.
    """
    world = make_world("alpha")
    nothing = [{"subscription_id": SUBSCRIPTION, "name": "render*", "vaults": ["main"]}]
    world.configure(["alpha"], discover=nothing)
    assert world.run("check").code == 0
    rewrite(world, lambda document: document.pop("accounts"))
    ran = world.run("check", "--output", "json")
    assert ran.code == 1
    finding = about(findings(ran), "configuration")
    assert finding["level"] == "problem"
    assert "no entry of `discover` matches an account" in finding["message"]
    assert "keysync accounts" in finding["hint"]


def test_a_wrong_tenant_names_its_variable_and_no_vault_is_ok(make_world: MakeWorld) -> None:
    """The vault's challenge names the correct tenant, so the vault answers. It is still not shown as in order."""
    world = make_world("alpha")
    world.configure(["alpha"])
    wrong = {**world.running.environ, "AZURE_TENANT_ID": "99999999-0000-4000-8000-000000000000"}
    ran = world.run("check", "--output", "json", env=wrong)
    assert ran.code == 1
    results = findings(ran)
    credential = about(results, "credential environment")
    assert (credential["level"], "AZURE_TENANT_ID" in credential["hint"]) == ("problem", True)
    vaults = [finding for finding in results if finding["subject"] == "vault main"]
    assert {finding["level"] for finding in vaults} == {"warning"}
    assert all("AZURE_TENANT_ID" in finding["hint"] and "no token" in finding["message"] for finding in vaults)


def test_a_wrong_client_secret_names_its_source(make_world: MakeWorld) -> None:
    """The hint names the variable, or the key and the file."""
    world = make_world("alpha")
    world.configure(["alpha"])
    ran = world.run("check", "--output", "json", env={**world.running.environ, "AZURE_CLIENT_SECRET": "wrong"})
    assert "AZURE_CLIENT_SECRET" in about(findings(ran), "credential environment")["hint"]
    (world.folder / "word").write_text("wrong")
    environ = world.running.environ
    credential = {
        "type": "client_secret",
        "tenant_id": environ["AZURE_TENANT_ID"],
        "client_id": environ["AZURE_CLIENT_ID"],
    }
    rewrite(world, lambda document: document.update(credential={**credential, "client_secret_file": "word"}))
    ran = world.run("check", "--output", "json")
    assert ran.code == 1
    assert f"client_secret_file: {world.folder / 'word'}" in about(findings(ran), "credential client_secret")["hint"]


def test_a_missing_permission_of_an_access_policy_names_the_permission(make_world: MakeWorld) -> None:
    """Neither a role nor a content type would help there."""
    world = make_world(
        "alpha", vaults=({"name": "main", "access_policies": True, "denied": ["getSecret", "setSecret"]},)
    )
    world.configure(["alpha"])
    ran = world.run("check", "--output", "json")
    assert ran.code == 1
    write = about(findings(ran), "vault main", level="problem")
    read = about(findings(ran), "secret main/alpha-primary-key")
    for item, permission in ((write, "set"), (read, "get")):
        assert f"the permission {permission}" in item["hint"]
        assert "az keyvault set-policy --name " in item["hint"]
        assert "role" not in item["hint"]
        assert "content_type" not in item["hint"]


def test_an_unknown_api_version_names_the_key_and_the_available_version(make_world: MakeWorld) -> None:
    """As in a sovereign cloud with older versions: the hint says what to write under `api_versions`."""
    world = make_world("alpha", vaults=({"name": "main", "api_versions": ["7.3", "7.4"]},))
    world.configure(["alpha"])
    ran = world.run("check", "--output", "json")
    assert ran.code == 1
    assert 'api_versions: {secrets: "7.4"}' in about(findings(ran), "vault main", level="problem")["hint"]
    rewrite(world, lambda document: document.update(api_versions={"secrets": "7.4"}))
    assert world.run("check").code == 0


def test_many_accounts_with_one_wrong_client_secret_are_one_problem(make_world: MakeWorld) -> None:
    """The cause is shown once, with a count, three names in natural order, and the source of the secret."""
    names = [f"farm{number}" for number in range(1, 13)]
    world = make_world(*names)
    world.configure(names)
    wrong = {**world.running.environ, "AZURE_CLIENT_SECRET": "not-the-right-one"}
    ran = world.run("check", env=wrong)
    assert ran.code == 1
    assert "12 accounts: farm1, farm2, farm3 and 9 more" in ran.out
    assert "It comes from AZURE_CLIENT_SECRET" in ran.out
    assert ran.out.splitlines()[-1] == "1 ok, 0 warnings, 1 problem"
    ran = world.run("sync", env=wrong)
    assert ran.out.count("12 accounts: farm1, farm2, farm3 and 9 more") == 1
    assert [line["event"] for line in ran.log if line["level"] == "error"] == ["secret.failed"]


def test_secrets_of_a_vault_that_refuses_writes_are_not_ok(make_world: MakeWorld) -> None:
    """`check` does not mark the secrets that a run would create there as ok."""
    world = make_world("alpha", vaults=({"name": "main", "denied": ["setSecret"]},))
    world.configure(["alpha"])
    results = findings(world.run("check", "--output", "json"))
    assert not [finding for finding in results if finding["level"] == "ok" and finding["subject"].startswith("secret ")]
    assert about(results, "secret main/alpha-primary-key")["level"] == "problem"
    assert not [finding for finding in results if finding["level"] == "ok" and finding["subject"] == "vault main"]
