"""Each thing that the contract calls an error, and where it is shown."""

from __future__ import annotations

import base64

import pytest

RIGHT = """\
vaults:
  main: {url: https://kv-render.vault.azure.net}
accounts:
  - subscription_id: 00000000-0000-0000-0000-000000000000
    resource_group: default-azurebatch-japaneast
    name: sampleacct
    vaults: [main]
"""

SECOND = """\
  - subscription_id: 00000000-0000-0000-0000-000000000000
    resource_group: other
    name: SampleAcct
    vaults: [main]
"""

GUID = "00000000-0000-0000-0000-000000000000"

ONE_PIECE = [
    # what is replaced, by what, line, column, key, a part of the message, a part of the hint
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
    # a line 8, column, key, a part of the message, a part of the hint
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
    ("schedule: {cron: '* * *'}", 18, "schedule.cron", "expected five fields of a crontab", "minute, hour, day, month"),
    ("schedule: {cron: '0 0 * * * *'}", 18, "schedule.cron", "expected five fields of a crontab", ""),
    ("schedule: {cron: '@daily'}", 18, "schedule.cron", "expected five fields of a crontab", ""),
    ("schedule: {cron: '0 9 * * 8'}", 18, "schedule.cron", "expected 0-7 (0 and 7 are Sunday) or sun-sat", ""),
    ("schedule: {cron: '0 9 * * fri-sun'}", 18, "schedule.cron", "in the field weekday", ""),
    ("schedule: {cron: '0 9 */0 * *'}", 18, "schedule.cron", "in the field day", ""),
    ("schedule: {cron: '0 9 * 13 *'}", 18, "schedule.cron", "expected 1-12 or jan-dec in the field month", ""),
    ("schedule: {cron: '0 24 * * *'}", 18, "schedule.cron", "expected 0-23 in the field hour", ""),
    ("schedule: {cron: '0 0 30 2 *'}", 18, "schedule.cron", "'0 0 30 2 *' never comes", "its day and its month"),
    ("schedule: {cron: '*/5 * 31 4,6 *'}", 18, "schedule.cron", "'*/5 * 31 4,6 *' never comes", "its day and"),
    ("schedule: {cron: '0 0 30 2 */2'}", 18, "schedule.cron", "'0 0 30 2 */2' never comes", "its day and"),
    ("schedule: {every: 5m, cron: '* * * * *'}", 29, "schedule.cron", "both every and cron", "remove one"),
    ("schedule: {cron: '* * * * *', timezone: Mars/X}", 41, "schedule.timezone", "expected a time zone", ""),
    ("schedule: {every: 5m, timezone: UTC}", 33, "schedule.timezone", "with cron only", ""),
    ("timeouts: {request: 9999d}", 21, "timeouts.request", "366d or less", ""),
    ("limits: {creates: -1}", 19, "limits.creates", "found the number -1, expected 0 or more", ""),
    ("limits: {removal_percent: 101}", 27, "limits.removal_percent", "expected 100 or less", ""),
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

DISCOVER = "discover: [{subscription_id: " + GUID + ", vaults: [main], "


@pytest.mark.parametrize(("old", "new", "line", "column", "key", "message", "hint"), ONE_PIECE)
def test_each_wrong_piece_is_named_at_its_place(findings, old, new, line, column, key, message, hint):
    """File, line, column and key are exact; the message says what was found and what is meant."""
    (one,) = findings(RIGHT.replace(old, new, 1))
    assert (one.line, one.column, one.key) == (line, column, key)
    assert one.file.endswith("keysync.yaml")
    assert message in one.message
    assert hint in (one.hint or "")


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
def test_a_secret_in_the_wrong_place_is_not_quoted(findings, slip):
    """An error names line and problem; only values of keys that are known to be harmless are shown."""
    found = findings(f"{RIGHT}{slip}\n", {"HELD": f"{PASTED}\n"})
    assert found
    assert any(one.line for one in found)
    for told in map(str, found):
        assert not [at for at in range(len(PASTED) - 5) if PASTED[at : at + 6] in told], told
        assert "S3cr3tPasted" not in told


def test_a_key_of_an_account_in_place_of_a_name_is_not_quoted(findings):
    """What looks like a key is shown by no setting, also where a name belongs."""
    key = base64.b64encode(bytes(range(64))).decode()
    (one,) = findings(RIGHT + f"    secrets: {{primary: '{key}'}}\n")
    assert key[:8] not in str(one)


def test_a_value_of_the_environment_is_not_quoted(findings):
    """A wrong KEYSYNC_LISTEN is named by its variable alone."""
    (one,) = findings(RIGHT, {"KEYSYNC_LISTEN": PASTED})
    assert (one.key, one.message) == ("KEYSYNC_LISTEN", "expected an address and a port such as 0.0.0.0:8080")


@pytest.mark.parametrize(
    "cron", ["0 0 29 2 *", "0 0 29 2 */7", "0 0 31 4,6 mon", "0 0 31 * *", "0 0 L 2 *", "0 9 * * 7"]
)
def test_what_comes_seldom_is_taken(load, cron):
    """A leap day too, be it on one day of the week only."""
    assert load(RIGHT + f"schedule: {{cron: '{cron}'}}\n").schedule.cron == cron


@pytest.mark.parametrize("name", ["kv render", "https://kv-render.vault.azure.net", "k" * 128, ""])
def test_a_name_of_a_vault_is_told_at_its_key(findings, name):
    """In words, with where its address belongs."""
    found = findings(RIGHT.replace("main:", f"{name!r}:").replace("[main]", f"[{name!r}]"))
    assert [(one.line, one.column) for one in found] == [(2, 3)]
    told = "found a key that is not shown, expected the name of a vault: 1 to 127 letters, digits and any of . _ -"
    assert told in str(found[0])
    assert "goes under `url`" in str(found[0])


@pytest.mark.parametrize(("added", "column", "key", "message", "hint"), ADDED)
def test_each_wrong_setting_is_named_at_its_place(findings, added, column, key, message, hint):
    """A wrong setting is told with the line that it stands in."""
    (one,) = findings(RIGHT + added + "\n")
    assert (one.line, one.column, one.key) == (8, column, key)
    assert message in one.message
    assert hint in (one.hint or "")


@pytest.mark.parametrize(
    ("secrets", "message"),
    [
        ("{primary: 'a_b'}", "letters, digits and dashes"),
        ("{primary: '{acount}'}", "placeholders are among {account}"),
        ("{primary: '{resource_group}-{account}'}", "it gives the name 'rg_1-sampleacct'"),
        ("{primary: null, secondary: null}", "both null"),
        ("{primary: same, secondary: SAME}", "the primary key of sampleacct (accounts[0]) and the secondary key"),
    ],
)
def test_a_name_that_no_vault_takes_is_an_error(findings, secrets, message):
    """A secret's name is checked as it will be sent, before the first request."""
    text = RIGHT.replace("default-azurebatch-japaneast", "rg_1") + f"    secrets: {secrets}\n"
    (one,) = findings(text)
    assert one.line == 8
    assert message in one.message


def test_two_accounts_that_write_one_secret_are_both_named(findings):
    """A collision names both accounts, the secret and the vault, and does not depend on case."""
    first, second = findings(RIGHT + SECOND)
    assert first.line == 8
    for part in ("sampleacct (accounts[0])", "SampleAcct (accounts[1])", "SampleAcct-primary-key", "kv-render"):
        assert part in first.message
    assert "secondary" in second.message


def test_two_names_of_one_vault_collide_only_where_one_secret_is_written(load, findings):
    """Two vault entries with one URL are fine until two accounts write one secret there."""
    twins = RIGHT.replace("accounts:", "  twin: {url: https://KV-render.vault.azure.net/}\naccounts:")
    other = SECOND.replace("[main]", "[twin]")
    assert len(load(twins + other.replace("SampleAcct", "another")).accounts) == 2
    assert "would both write" in findings(twins + other)[0].message


def test_a_vault_that_an_account_names_twice_is_an_error(findings):
    """One secret has one place in the list."""
    assert "would both write" in findings(RIGHT.replace("[main]", "[main, main]"))[0].message


def test_an_account_that_stands_there_twice_is_one_finding(findings):
    """The same account again is told once, not as a collision of each of its secrets."""
    again = SECOND.replace("other", "Default-AzureBatch-JapanEast")
    (one,) = findings(RIGHT + again)
    assert (one.line, one.key) == (10, "accounts[1].name")
    assert "accounts[0] again" in one.message


def test_without_accounts_there_is_nothing_to_do(findings):
    """A file with neither accounts nor discover is refused."""
    (one,) = findings("vaults:\n  main: {url: https://a.vault.azure.net}\n")
    assert "accounts and discover are both empty" in one.message


DISCOVERED = [
    # what stands in the entry, the key and a part of the message of each finding
    ("{subscription_id: GUID}", [("discover[0].vaults", "the key is required and missing")]),
    ("{vaults: [main]}", [("discover[0].subscription_id", "the key is required and missing")]),
    ("{subscriptions: [], vaults: [main]}", [("discover[0].subscription_id", "the key is required and missing")]),
    ("{subscription_id: GUID, subscriptions: [GUID], vaults: [main]}", [("discover[0].subscriptions", "found both")]),
    ("{subscriptions: [GUID, GUID], vaults: [main]}", [("discover[0].subscriptions[1]", "stands here twice")]),
    ("{subscriptions: [GUID, x], vaults: [main]}", [("discover[0].subscriptions[1]", "expected a GUID")]),
    ("{subscription_id: GUID, vaults: []}", [("discover[0].vaults", "found no vault")]),
    ("{subscription_id: GUID, vaults: [mian]}", [("discover[0].vaults[0]", "the name of a vault: main")]),
    ("{subscription_id: GUID, vaults: [main, main]}", [("discover[0].vaults[1]", "is the vault 'main' again")]),
    ("{subscription_id: GUID, vaults_by_tag: ''}", [("discover[0].vaults_by_tag", "")]),
    ("{subscription_id: GUID, vaults: [main], every: 500ms}", [("discover[0].every", "1s or more")]),
    ("{subscription_id: GUID, vaults: [main], every: often}", [("discover[0].every", "a duration such as")]),
    ("{subscription_id: GUID, vaults: [main], via: graph}", [("discover[0].via", "list")]),
    ("{subscription_id: GUID, vaults: [main], schedule: {every: 1s, cron: '* * * * *'}}", [("discover[0].schedule.cron", "both")]),
    ("{subscription_id: GUID, vaults: [main], credential: {type: clii}}", [("discover[0].credential.type", "one of")]),
    ("{subscription_id: GUID, vaults: [main], secrets: {secondary: '{account}-PRIMARY-key'}}",
     [("discover[0].secrets.secondary", "both keys of each account")]),
    ("{subscription_id: GUID, vaults: [main], tag: {a: b}}", [("discover[0].tag", "unknown key")]),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "expected"), DISCOVERED)
def test_each_wrong_entry_of_discover_is_named_at_its_place(findings, entry, expected):
    """Every key of an entry is checked before the first request, with its line and column."""
    found = findings(RIGHT + f"discover: [{entry.replace('GUID', GUID)}]\n")
    assert [one.key for one in found] == [key for key, _ in expected]
    for one, (_, message) in zip(found, expected, strict=True):
        assert message in one.message
        assert one.line == 8
        assert one.column is not None


def test_an_entry_of_discover_may_name_vaults_by_tag_alone(load):
    """One subscription or several; a tag or vaults; whatever is not set has its default."""
    text = (
        RIGHT
        + f"discover: [{{subscriptions: [{GUID}], vaults_by_tag: kv}}, {{subscription_id: {GUID}, vaults: [main]}}]\n"
    )
    first, second = load(text).discover
    assert first.scopes == second.scopes == (GUID,)
    assert (first.vaults, first.vaults_by_tag, first.every, first.via) == ((), "kv", None, "list")
    assert (second.credential, second.schedule, second.read_only, second.adopt) == (None, None, False, None)


def test_a_file_that_a_credential_of_discover_names_has_to_be_there(findings):
    """Paths of an entry's credential start at the configuration's folder, as all others do."""
    entry = f"{{subscription_id: {GUID}, vaults: [main], credential: {{type: workload_identity, token_file: nope}}}}"
    (one,) = findings(RIGHT + f"discover: [{entry}]\n")
    assert one.key == "discover[0].credential.token_file"
    assert "a file that exists" in one.message


def test_a_discovery_that_gives_all_accounts_one_secret_is_an_error(findings):
    """What is found needs a name each."""
    (one,) = findings(RIGHT + DISCOVER + "secrets: {primary: fixed}}]\n")
    assert one.key == "discover[0].secrets.primary"
    assert "{account}" in one.message


def test_tags_of_keysync_are_refused(findings):
    """A tag that keysync writes itself cannot be set, and there is room for eleven others."""
    text = RIGHT.replace("{url", "{tags: {keysync-owner: a, Managed-By: b}, url")
    assert [one.key for one in findings(text)] == ["vaults.main.tags.keysync-owner", "vaults.main.tags.Managed-By"]
    many = ", ".join(f"t{number}: x" for number in range(12))
    assert "found 12 tags" in findings(RIGHT.replace("{url", f"{{tags: {{{many}}}, url"))[0].message


def test_all_that_is_wrong_is_told_at_once_in_order_of_lines(findings):
    """One look at the file is enough to repair all of it, unknown vaults included."""
    text = RIGHT.replace("https", "http").replace(GUID, "x").replace("[main]", "[nope]") + "owner: ${NOPE}\nx: 1\n"
    found = findings(text)
    assert [one.line for one in found] == [2, 4, 7, 8, 9]
    assert [one.key for one in found][-3:] == ["accounts[0].vaults[0]", "owner", "x"]
