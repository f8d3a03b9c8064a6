"""Each configuration error of the contract, with its position."""

from __future__ import annotations

import base64

import pytest

from tests.unit.config.conftest import RIGHT

SECOND = """\
  - subscription_id: 00000000-0000-0000-0000-000000000000
    resource_group: other
    name: SampleAcct
    vaults: [main]
"""

GUID = "00000000-0000-0000-0000-000000000000"

ONE_PIECE = [
    # old text, new text, line, column, key, a part of the message, a part of the hint
    ("name: sampleacct", "nam: sampleacct", 6, 5, "accounts[0].nam", "unknown key", "did you mean 'name'?"),
    (GUID, "not-a-guid", 4, 22, "accounts[0].subscription_id", "found 'not-a-guid', expected a GUID", ""),
    ("sampleacct", "sample-acct", 6, 11, "accounts[0].name", "found 'sample-acct', expected the name of a B", ""),
    ("sampleacct", "ab", 6, 11, "accounts[0].name", "3 to 24 letters and digits", ""),
    ("sampleacct", "12345", 6, 11, "accounts[0].name", "found the number 12345, expected text", '"12345"'),
    ("default-azurebatch-japaneast", "a/b", 5, 21, "accounts[0].resource_group", "found 'a/b', expected", ""),
    ("https://", "http://", 2, 15, "vaults.main.url", "expected an https URL", "only https"),
    ("azure.net", "azure.net/secrets", 2, 15, "vaults.main.url", "without a path", ""),
    ("azure.net", "azure.net:99999", 2, 15, "vaults.main.url", "expected an https URL", ""),
    ("[main]", "[mian]", 7, 14, "accounts[0].vaults[0]", "found 'mian', expected the name of a vault: main", "'main'"),
    ("[main]", "[]", 7, 5, "accounts[0].vaults", "expected at least 1 in it", ""),
    ("[main]", "main", 7, 13, "accounts[0].vaults", "found 'main', expected a list", "[value]"),
    ("    vaults: [main]\n", "", 4, 5, "accounts[0].vaults", "the key is required and missing", ""),
]

ADDED = [
    # line 8, column, key, a part of the message, a part of the hint
    ("recuver: owned", 1, "recuver", "unknown key", "did you mean 'recover'?"),
    ("zzzzz: 1", 1, "zzzzz", "unknown key", "known here: cloud, credential"),
    ("recover: always", 10, "recover", "found 'always', expected 'report' or 'owned'", ""),
    ("cloud: moon", 8, "cloud", "found 'moon', expected 'public', 'usgovernment' or 'china'", ""),
    ("cloud: {authority: 'https://a'}", 1, "cloud.resource_manager", "required and missing", ""),
    ("schedule: {every: fast}", 19, "schedule.every", "found 'fast', expected a duration such as 500ms", ""),
    ("schedule: {every: 30}", 19, "schedule.every", "found the number 30", "write a unit: 30s"),
    ("schedule: {every: 0s}", 19, "schedule.every", "above 0s", ""),
    ("schedule: {every: 10ms}", 19, "schedule.every", "1s or more", ""),
    ("schedule: {cron: '61 * * * *'}", 18, "schedule.cron", "expected 0-59 in the field minute", ""),
    (
        "schedule: {cron: '* * *'}",
        18,
        "schedule.cron",
        "expected a cron expression of five fields",
        "minute, hour, day, month",
    ),
    ("schedule: {cron: '0 0 * * * *'}", 18, "schedule.cron", "expected a cron expression of five fields", ""),
    ("schedule: {cron: '@daily'}", 18, "schedule.cron", "expected a cron expression of five fields", ""),
    ("schedule: {cron: '0 9 * * 8'}", 18, "schedule.cron", "expected 0-7 (0 and 7 are Sunday) or sun-sat", ""),
    ("schedule: {cron: '0 9 * * fri-sun'}", 18, "schedule.cron", "in the field weekday", ""),
    ("schedule: {cron: '0 9 */0 * *'}", 18, "schedule.cron", "in the field day", ""),
    ("schedule: {cron: '0 9 * 13 *'}", 18, "schedule.cron", "expected 1-12 or jan-dec in the field month", ""),
    ("schedule: {cron: '0 24 * * *'}", 18, "schedule.cron", "expected 0-23 in the field hour", ""),
    ("schedule: {cron: '0 0 30 2 *'}", 18, "schedule.cron", "'0 0 30 2 *' never fires", "its day and its month"),
    ("schedule: {cron: '*/5 * 31 4,6 *'}", 18, "schedule.cron", "'*/5 * 31 4,6 *' never fires", "its day and"),
    ("schedule: {cron: '0 0 30 2 */2'}", 18, "schedule.cron", "'0 0 30 2 */2' never fires", "its day and"),
    ("schedule: {every: 5m, cron: '* * * * *'}", 29, "schedule.cron", "both every and cron", "remove one"),
    ("schedule: {cron: '* * * * *', timezone: Mars/X}", 41, "schedule.timezone", "expected a time zone", ""),
    ("schedule: {every: 5m, timezone: UTC}", 33, "schedule.timezone", "with cron only", ""),
    ("timeouts: {request: 9999d}", 21, "timeouts.request", "366d or less", ""),
    ("limits: {creates: -1}", 19, "limits.creates", "found the number -1, expected 0 or more", ""),
    ("limits: {removal_percent: 101}", 27, "limits.removal_percent", "expected 0 to 100", ""),
    ("concurrency: true", 14, "concurrency", "found true, expected a whole number", ""),
    ("concurrency: many", 14, "concurrency", "found 'many', expected a whole number", ""),
    ("read_only: perhaps", 12, "read_only", "found 'perhaps', expected true or false", ""),
    ("listen: localhost", 9, "listen", "expected an address and a port", ""),
    ("listen: 127.0.0.1:99999", 9, "listen", "expected an address and a port", ""),
    ("api_versions: {secrets: 7.4}", 25, "api_versions.secrets", "found the number 7.4, expected text", '"7.4"'),
    ("credential: default", 13, "credential", "found a value that is not shown, expected a mapping", ""),
    ("credential: {}", 1, "credential.type", "required and missing", ""),
    ("credential: {type: azurecli}", 20, "credential.type", "found 'azurecli', expected one of", "'azure_cli'"),
    ("credential: {type: default, client_id: x}", 29, "credential.client_id", "unknown key", "known here: type"),
    ("limits: [1]", 1, "limits", "found a list, expected a mapping", ""),
    ("owner: !!binary aGk=", 8, "owner", "found a YAML tag", ""),
    ("vaults: {}", 1, "vaults", "duplicate key, first in line 1", ""),
]

NESTED = [
    # an entry in place of the vault, then the key, a part of the message and a part of the hint
    ("credential: {type: azure_cli, tenant: x}", "credential.tenant", "unknown key", "did you mean 'tenant_id'?"),
    ("credential: {type: azure_cli, zzz: x}", "credential.zzz", "unknown key", "known here: type, tenant_id"),
    ("credential: {type: azurecli}", "credential.type", "expected one of default, environment", "'azure_cli'"),
    ("credential: {type: '${NOPE}'}", "credential.type", "the environment variable NOPE is not set", "set NOPE"),
    ("limits: {create: 5}", "limits.create", "unknown key", "did you mean 'creates'?"),
    ("tags: {a: 5}", "tags.a", "found a value that is not shown, expected text", ""),
]


@pytest.mark.parametrize(("entry", "key", "message", "hint"), NESTED)
def test_wrong_value_in_an_optional_mapping_is_one_finding(findings, entry, key, message, hint):
    """It has the same hints as at the top."""
    (finding,) = findings(RIGHT.replace("azure.net}", f"azure.net, {entry}}}"))
    assert (finding.line, finding.key) == (2, f"vaults.main.{key}")
    assert message in finding.message
    assert hint in (finding.hint or "")


DISCOVER = "discover: [{subscription_id: " + GUID + ", vaults: [main], "


@pytest.mark.parametrize(("old", "new", "line", "column", "key", "message", "hint"), ONE_PIECE)
def test_wrong_value_is_reported_at_its_position(findings, old, new, line, column, key, message, hint):
    """File, line, column and key are exact. The message has the found and the expected value."""
    (finding,) = findings(RIGHT.replace(old, new, 1))
    assert (finding.line, finding.column, finding.key) == (line, column, key)
    assert finding.file.endswith("keysync.yaml")
    assert message in finding.message
    assert hint in (finding.hint or "")


PASTED = "S3cr3t~pasted.1n/the+wrong=place"
SLIPS = [
    f"notify: {{url: 'http://hooks.example.com/{PASTED}', secret: '${{HELD}}'}}",
    f"notify: {{url: 'https://bot:{PASTED}@hooks.example.com', secret: '${{HELD}}'}}",
    f"notify: {{url: 'https://hooks.example.com/#{PASTED}', secret: '${{HELD}}'}}",
    f"notify: {{url: 'https://hooks.example.com', secret_file: '{PASTED}'}}",
    f"notify: '{PASTED}'",
    f"credential: {{type: client_secret, tenant_id: t, client_id: c, client_secret_file: '{PASTED}'}}",
    f"credential: {{type: client_secret, tenant_id: t, client_id: '{PASTED}', client_secret: '${{HELD}}'}}",
    f"credential: {{type: client_certificate, tenant_id: t, client_id: c, certificate_file: '{PASTED}'}}",
    f"credential: {{type: client_certificate, tenant_id: t, client_id: c, certificate_file: x, password_file: '{PASTED}'}}",
    f"credential: '{PASTED}'",
    f"credential: {{'{PASTED}': x, type: default}}",
    f"'{PASTED}': x",
    f"'{PASTED}': x\n'{PASTED}': y",
    f"'{PASTED}': '${{UNSET}}'",
    f"owner: *{PASTED}",
    f"owner: !{PASTED} x",
    f"owner: [a, {PASTED}: x",
    f"owner: '{PASTED}",
    f"owner: ['{PASTED}'",
    f"cloud: {{authority: 'https://bot:{PASTED}@login.example.com', resource_manager: 'https://x'}}",
    f"api_versions: {{batch: '{PASTED}@'}}",
    "listen: '${HELD}'",
    f"owner: '${{{PASTED}}}'",
    "owner: '${S3cr3tPasted}'",
]


@pytest.mark.parametrize("slip", SLIPS)
def test_misplaced_secret_is_not_quoted(findings, slip):
    """An error names the line and the problem. It shows values only under harmless keys."""
    found = findings(f"{RIGHT}{slip}\n", {"HELD": f"{PASTED}\n"})
    assert found
    assert any(finding.line for finding in found)
    for message in map(str, found):
        assert not [at for at in range(len(PASTED) - 5) if PASTED[at : at + 6] in message], message
        assert "S3cr3tPasted" not in message


def test_account_key_in_place_of_a_name_is_not_quoted(findings):
    """No message shows text that looks like a key, even under a harmless key."""
    key = base64.b64encode(bytes(range(64))).decode()
    (finding,) = findings(RIGHT + f"    secrets: {{primary: '{key}'}}\n")
    assert key[:8] not in str(finding)


def test_value_of_a_variable_is_not_quoted(findings):
    """An error about KEYSYNC_LISTEN names only the variable."""
    (finding,) = findings(RIGHT, {"KEYSYNC_LISTEN": PASTED})
    assert (finding.key, finding.message) == ("KEYSYNC_LISTEN", "expected an address and a port such as 0.0.0.0:8080")


@pytest.mark.parametrize(
    "cron", ["0 0 29 2 *", "0 0 29 2 */7", "0 0 31 4,6 mon", "0 0 31 * *", "0 0 L 2 *", "0 9 * * 7"]
)
def test_rare_fire_time_is_accepted(load, cron):
    """Even a leap day that must be a certain weekday."""
    assert load(RIGHT + f"schedule: {{cron: '{cron}'}}\n").schedule.cron == cron


@pytest.mark.parametrize("name", ["kv render", "https://kv-render.vault.azure.net", "k" * 128, ""])
def test_wrong_vault_name_is_reported_at_its_key(findings, name):
    """The hint says where the address belongs."""
    found = findings(RIGHT.replace("main:", f"{name!r}:").replace("[main]", f"[{name!r}]"))
    assert [(finding.line, finding.column) for finding in found] == [(2, 3)]
    message = "found a key that is not shown, expected the name of a vault: 1 to 127 letters, digits and any of . _ -"
    assert message in str(found[0])
    assert "belongs under `url`" in str(found[0])


@pytest.mark.parametrize(("added", "column", "key", "message", "hint"), ADDED)
def test_wrong_setting_is_reported_at_its_position(findings, added, column, key, message, hint):
    """The finding has the line, the column and the key of the setting."""
    (finding,) = findings(RIGHT + added + "\n")
    assert (finding.line, finding.column, finding.key) == (8, column, key)
    assert message in finding.message
    assert hint in (finding.hint or "")


@pytest.mark.parametrize(
    ("secrets", "message"),
    [
        ("{primary: 'a_b'}", "letters, digits and dashes"),
        ("{primary: '{acount}'}", "placeholders are among {account}"),
        ("{primary: '{resource_group}-{account}'}", "the name becomes 'rg_1-sampleacct'"),
        ("{primary: null, secondary: null}", "both null"),
        ("{primary: same, secondary: SAME}", "the primary key of sampleacct (accounts[0]) and the secondary key"),
    ],
)
def test_invalid_secret_name_is_an_error(findings, secrets, message):
    """The final name of a secret is checked before the first request."""
    text = RIGHT.replace("default-azurebatch-japaneast", "rg_1") + f"    secrets: {secrets}\n"
    (finding,) = findings(text)
    assert finding.line == 8
    assert message in finding.message


def test_conflict_names_both_accounts(findings):
    """A conflict names both accounts, the secret and the vault. Names are compared without regard to case."""
    first, second = findings(RIGHT + SECOND)
    assert first.line == 8
    for part in ("sampleacct (accounts[0])", "SampleAcct (accounts[1])", "SampleAcct-primary-key", "kv-render"):
        assert part in first.message
    assert "secondary" in second.message


def test_two_names_of_one_vault_conflict_only_for_the_same_secret(load, findings):
    """Two vault entries may have one URL unless two accounts write the same secret."""
    twins = RIGHT.replace("accounts:", "  twin: {url: https://KV-render.vault.azure.net/}\naccounts:")
    other = SECOND.replace("[main]", "[twin]")
    assert len(load(twins + other.replace("SampleAcct", "another")).accounts) == 2
    assert "would both write" in findings(twins + other)[0].message


def test_vault_listed_twice_is_an_error(findings):
    """Each secret would be written twice."""
    assert "would both write" in findings(RIGHT.replace("[main]", "[main, main]"))[0].message


def test_duplicate_account_is_one_finding(findings):
    """A duplicate account is reported once, not as a conflict of each secret."""
    again = SECOND.replace("other", "Default-AzureBatch-JapanEast")
    (finding,) = findings(RIGHT + again)
    assert (finding.line, finding.key) == (10, "accounts[1].name")
    assert "also accounts[0]" in finding.message


def test_configuration_without_accounts_is_an_error(findings):
    """A file needs accounts or discover."""
    (finding,) = findings("vaults:\n  main: {url: https://a.vault.azure.net}\n")
    assert "accounts and discover are both empty" in finding.message


DISCOVERED = [
    # the entry, then the key and a part of the message of each finding
    ("{subscription_id: GUID}", [("discover[0].vaults", "the key is required and missing")]),
    ("{vaults: [main]}", [("discover[0].subscription_id", "the key is required and missing")]),
    ("{subscriptions: [], vaults: [main]}", [("discover[0].subscription_id", "the key is required and missing")]),
    ("{subscription_id: GUID, subscriptions: [GUID], vaults: [main]}", [("discover[0].subscriptions", "found both")]),
    ("{subscriptions: [GUID, GUID], vaults: [main]}", [("discover[0].subscriptions[1]", "is listed twice")]),
    ("{subscriptions: [GUID, x], vaults: [main]}", [("discover[0].subscriptions[1]", "expected a GUID")]),
    ("{subscription_id: GUID, vaults: []}", [("discover[0].vaults", "expected at least 1 in it")]),
    ("{subscription_id: GUID, vaults: [mian]}", [("discover[0].vaults[0]", "the name of a vault: main")]),
    ("{subscription_id: GUID, vaults: [main, main]}", [("discover[0].vaults[1]", "is the same vault as 'main'")]),
    ("{subscription_id: GUID, vaults_by_tag: ''}", [("discover[0].vaults_by_tag", "")]),
    ("{subscription_id: GUID, vaults: [main], every: 500ms}", [("discover[0].every", "1s or more")]),
    ("{subscription_id: GUID, vaults: [main], every: often}", [("discover[0].every", "a duration such as")]),
    ("{subscription_id: GUID, vaults: [main], via: graph}", [("discover[0].via", "list")]),
    ("{subscription_id: GUID, vaults: [main], schedule: {every: 1s, cron: '* * * * *'}}", [("discover[0].schedule.cron", "both")]),
    ("{subscription_id: GUID, vaults: [main], credential: {type: clii}}", [("discover[0].credential.type", "one of")]),
    ("{subscription_id: GUID, vaults: [main], secrets: {secondary: '{account}-PRIMARY-key'}}",
     [("discover[0].secrets.secondary", "both keys of each discovered account")]),
    ("{subscription_id: GUID, vaults: [main], tag: {a: b}}", [("discover[0].tag", "unknown key")]),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "expected"), DISCOVERED)
def test_wrong_discover_entry_is_reported_at_its_position(findings, entry, expected):
    """Every key of an entry is checked before the first request. Findings have line and column."""
    found = findings(RIGHT + f"discover: [{entry.replace('GUID', GUID)}]\n")
    assert [finding.key for finding in found] == [key for key, _ in expected]
    for finding, (_, message) in zip(found, expected, strict=True):
        assert message in finding.message
        assert finding.line == 8
        assert finding.column is not None


def test_discover_entry_may_use_only_vaults_by_tag(load):
    """One subscription or several, a tag or vaults. Other keys have their defaults."""
    text = (
        RIGHT
        + f"discover: [{{subscriptions: [{GUID}], vaults_by_tag: kv}}, {{subscription_id: {GUID}, vaults: [main]}}]\n"
    )
    first, second = load(text).discover
    assert first.scopes == second.scopes == (GUID,)
    assert (first.vaults, first.vaults_by_tag, first.every, first.via) == ((), "kv", None, "list")
    assert (second.credential, second.schedule, second.read_only, second.adopt) == (None, None, False, None)


def test_credential_file_of_discover_must_exist(findings):
    """Its path starts at the folder of the configuration, like all others."""
    entry = f"{{subscription_id: {GUID}, vaults: [main], credential: {{type: workload_identity, token_file: nope}}}}"
    (finding,) = findings(RIGHT + f"discover: [{entry}]\n")
    assert finding.key == "discover[0].credential.token_file"
    assert "a file that exists" in finding.message


def test_discover_pattern_without_account_is_an_error(findings):
    """Otherwise all discovered accounts would write one secret."""
    (finding,) = findings(RIGHT + DISCOVER + "secrets: {primary: fixed}}]\n")
    assert finding.key == "discover[0].secrets.primary"
    assert "{account}" in finding.message


def test_reserved_tags_are_errors(findings):
    """Tags of keysync cannot be set, and there may be at most eleven others."""
    text = RIGHT.replace("{url", "{tags: {keysync-owner: a, Managed-By: b}, url")
    assert [finding.key for finding in findings(text)] == [
        "vaults.main.tags.keysync-owner",
        "vaults.main.tags.Managed-By",
    ]
    many = ", ".join(f"t{number}: x" for number in range(12))
    assert "found 12 tags" in findings(RIGHT.replace("{url", f"{{tags: {{{many}}}, url"))[0].message


def test_all_findings_are_reported_in_order_of_lines(findings):
    """One run shows every finding, including unknown vaults."""
    text = RIGHT.replace("https", "http").replace(GUID, "x").replace("[main]", "[nope]") + "owner: ${NOPE}\nx: 1\n"
    found = findings(text)
    assert [finding.line for finding in found] == [2, 4, 7, 8, 9]
    assert [finding.key for finding in found][-3:] == ["accounts[0].vaults[0]", "owner", "x"]
