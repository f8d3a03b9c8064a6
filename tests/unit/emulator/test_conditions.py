"""Conditions of role assignments."""

import pytest

from keysync.emulator.conditions import parse, secret_attributes

GET, LIST, SET = (
    f"Microsoft.KeyVault/vaults/secrets/{end}"
    for end in ("getSecret/action", "readMetadata/action", "setSecret/action")
)
NAME = "@Resource[Microsoft.KeyVault/vaults/secrets:name]"
DOCUMENTED = f"((!(ActionMatches{{'{GET}'}})) OR ({NAME} StringStartsWith 'app-'))"
"""The example of learn.microsoft.com/azure/key-vault/general/rbac-abac."""


@pytest.mark.parametrize(
    ("condition", "action", "name", "allowed"),
    [
        (DOCUMENTED, GET, "app-key", True),
        (DOCUMENTED, GET, "other", False),
        (DOCUMENTED, GET, "App-key", False),
        (DOCUMENTED, GET, "", False),
        (DOCUMENTED, SET, "other", True),
        (f"(!(ActionMatches{{'{GET}'}}) AND !(ActionMatches{{'{LIST}'}})) OR {NAME} StringEquals 'a'", LIST, "", False),
        (f"{NAME} StringEqualsIgnoreCase 'A'", GET, "a", True),
        (f"{NAME} StringNotEquals 'a'", GET, "a", False),
        (f"{NAME} StringNotEquals 'a'", GET, "", False),
        (f"{NAME} StringLike 'farm?-*'", GET, "farm1-key", True),
        (f"{NAME} StringLike 'farm?-*'", GET, "farm12-key", False),
        (f"{NAME} ForAnyOfAnyValues:StringEquals {{'a', 'b'}}", GET, "b", True),
        (f"{NAME} ForAnyOfAnyValues:StringEquals {{'a', 'b'}}", GET, "c", False),
        (f"Exists {NAME}", LIST, "", False),
        (f"NotExists {NAME} && ActionMatches{{'*/readMetadata/*'}}", LIST, "", True),
        (f"not (exists {NAME}) || {NAME} StringStartsWith 'it\\'s'", GET, "it's", True),
    ],
)
def test_a_condition_decides_by_action_and_name(condition, action, name, allowed):
    """A call without a name, such as a listing, meets no comparison of names."""
    assert parse(condition)(action, secret_attributes(name)) is allowed


def test_brackets_can_be_nested():
    """As deep as a condition may have them."""
    nested = "!(" * 25 + f"{NAME} StringEquals 'a'" + ")" * 25
    assert parse(nested)(GET, secret_attributes("b")) is True
    assert parse(nested)(GET, secret_attributes("a")) is False


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the end at position 1"),
        ("(ActionMatches{'a'}", "the end at position 20, expected )"),
        (f"{NAME} Equals 'a'", "Equals at position 51, expected an operator such as StringEquals"),
        (f"{NAME} StringEquals a", "a at position 64, expected a text in quotes"),
        ("ActionMatches{'a'} ActionMatches{'b'}", "ActionMatches at position 20, expected the end"),
        ("ActionMatches{'a'} ;", "an unknown character at position 19"),
        ("(" * 51 + "ActionMatches{'a'}" + ")" * 51, "more than 50 brackets and negations"),
        ("!" * 50_000 + "ActionMatches{'a'}", "more than 50 brackets and negations"),
    ],
)
def test_an_error_names_the_position(text, message):
    """In the data file, and in the reply to a role assignment."""
    with pytest.raises(ValueError, match="the condition has") as failed:
        parse(text)
    assert message in str(failed.value)
