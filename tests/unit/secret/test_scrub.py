"""What is taken out of others' text, and what is left there."""

from __future__ import annotations

import base64
import gc
import sys
import threading
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysync.secret.scrub import Scrubber
from keysync.secret.value import MASK, SecretValue

SECRET = "p4ss/word+with=odd&signs"
KEY = base64.b64encode(bytes(range(64))).decode()
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "form", [SECRET, base64.b64encode(SECRET.encode()).decode(), quote(SECRET, safe="")], ids=["plain", "base64", "url"]
)
def test_a_remembered_value_is_masked_in_each_form(form: str):
    """A value that keysync was told of is masked as it stands, in base64 and URL-encoded, wherever it occurs."""
    scrubber = Scrubber()
    value = scrubber.remember(SecretValue(SECRET))
    assert scrubber.scrub(f"a {form} b '{form}'") == f"a {MASK} b '{MASK}'"
    del value


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f'{{"primary": "{KEY}"}}',
        f"AccountKey={KEY};",
        f"token {TOKEN}",
        TOKEN.split(".", maxsplit=1)[0],
        "Authorization: Bearer abcdefghijklmnop0123",
        "authorization: bearer abcdefghijklmnop0123",
    ],
)
def test_what_looks_secret_is_masked_unasked(text: str):
    """A key or a token that nobody announced is masked too."""
    scrubbed = Scrubber().scrub(text)
    assert MASK in scrubbed
    for secret in (KEY, TOKEN, "eyJhbGciOiJSUzI1NiJ9", "abcdefghijklmnop0123"):
        assert secret not in scrubbed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "11111111-2222-3333-4444-555555555555",
        "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/render-group/providers/Microsoft.Batch/batchAccounts/sampleacct",
        "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/renderfarmjapaneastproduction/providers/Microsoft.Batch/batchAccounts/sampleacct",
        "https://kv-render.vault.azure.net/secrets/sampleacct-primary-key/0123456789abcdef0123456789abcdef",
        "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/oauth2/v2.0/token",
        "Microsoft.KeyVault/vaults/secrets/getSecret/action",
        "AADSTS7000222: The provided client secret keys for app '11111111-2222-3333-4444-555555555555' are expired.",
        'Bearer authorization="https://login.microsoftonline.com/x", resource="https://vault.azure.net"',
    ],
)
def test_what_an_operator_needs_is_left_alone(text: str):
    """Ids, URLs, actions and messages come through untouched."""
    assert Scrubber().scrub(text) == text


def test_a_short_value_masks_nothing():
    """A secret of a few letters would turn words into masks."""
    scrubber = Scrubber()
    value = scrubber.remember(SecretValue("key"))
    assert scrubber.scrub("the key of the account") == "the key of the account"
    del value


def test_a_value_that_nobody_holds_is_forgotten():
    """The scrubber keeps no secret alive."""
    scrubber = Scrubber()
    scrubber.remember(SecretValue(SECRET))
    gc.collect()
    assert scrubber.scrub(SECRET) == SECRET


def test_a_value_within_another_leaves_nothing_of_the_longer_one():
    """Where one secret begins with another, no rest of the longer is left."""
    for index in range(50):
        scrubber = Scrubber()
        short, rest = f"begin-{index:04}", f"the-rest-{index}"
        kept = [scrubber.remember(SecretValue(text)) for text in (short, short + rest)]
        assert rest not in scrubber.scrub(f"{short}{rest}")
        del kept


def test_text_that_is_no_unicode_stops_nothing():
    """A remembered value with a lone surrogate, which JSON can carry, does not break the scrubbing of other text."""
    scrubber = Scrubber()
    value = scrubber.remember(SecretValue("hostile-\ud800-value"))
    assert scrubber.scrub("an error message") == "an error message"
    del value


PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="*"), min_size=8, max_size=40)


@given(st.lists(PLAIN, min_size=1, max_size=6), st.lists(st.text(max_size=5), min_size=7, max_size=7))
def test_wherever_values_stand_and_however_they_overlap_none_is_left(plains: list[str], words: list[str]):
    """Each form of each value, one behind the other: no whole one is in what comes out."""
    scrubber = Scrubber()
    kept = [scrubber.remember(SecretValue(plain)) for plain in plains]
    forms = [
        form for plain in plains for form in (plain, base64.b64encode(plain.encode()).decode(), quote(plain, safe=""))
    ]
    told = scrubber.scrub("".join(word + form for word, form in zip(words * 3, forms, strict=False)) + "".join(forms))
    assert not [form for form in forms if form in told]
    del kept


@given(st.lists(PLAIN, max_size=4), st.text(max_size=60))
def test_what_holds_no_value_is_left_alone(plains: list[str], text: str):
    """Remembered values take nothing else out."""
    scrubber = Scrubber()
    kept = [scrubber.remember(SecretValue(plain)) for plain in plains]
    forms = [
        form for plain in plains for form in (plain, base64.b64encode(plain.encode()).decode(), quote(plain, safe=""))
    ]
    if not any(form[:8] in text for form in forms):
        assert scrubber.scrub(text) == Scrubber().scrub(text)
    del kept


@pytest.mark.parametrize(
    "form", [KEY, base64.b64encode(KEY.encode()).decode(), quote(KEY, safe="")], ids=["plain", "base64", "url"]
)
def test_what_was_cut_off_is_masked_as_far_as_it_goes(form: str):
    """A service that cuts its message in the middle of a value leaves no half of it."""
    scrubber = Scrubber()
    value = scrubber.remember(SecretValue(KEY))
    assert scrubber.scrub(f"could not parse {form[:20]}") == f"could not parse {MASK}"
    assert scrubber.scrub(f"could not parse {form[:20]}… (cut)") == f"could not parse {MASK}… (cut)"
    del value


def test_a_value_remembered_twice_is_forgotten_once():
    """Nothing stays behind in what values are found by, also where others begin alike."""
    scrubber = Scrubber()
    first, second = SecretValue(SECRET + "1"), SecretValue(SECRET + "2")
    for value in (first, second, first):
        scrubber.remember(value)
    del value, first
    gc.collect()
    assert scrubber.scrub(f"{SECRET}2") == MASK
    del second
    gc.collect()
    assert scrubber._by_beginning == {}


SPELLINGS = {
    "as .NET has it in JSON": lambda key: key.replace("+", "\\u002b").replace("/", "\\u002f").replace("=", "\\u003d"),
    "URL in lower case": lambda key: (
        quote(key, safe="").replace("%2B", "%2b").replace("%2F", "%2f").replace("%3D", "%3d")
    ),
    "escaped slashes": lambda key: key.replace("/", "\\/"),
    "XML": lambda key: key.replace("+", "&#43;").replace("/", "&#47;").replace("=", "&#61;"),
    "wrapped": lambda key: key[:64] + "\n" + key[64:],
    "wrapped, in JSON": lambda key: key[:76] + "\\r\\n" + key[76:],
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@given(key=st.binary(min_size=64, max_size=64).map(lambda data: base64.b64encode(data).decode()))
def test_a_key_is_masked_whole_however_a_service_spells_it(spelling: Callable[[str], str], key: str):
    """A mask over the beginning that is known must not hide from the rest what it belongs to."""
    scrubber = Scrubber()
    value = scrubber.remember(SecretValue(key))
    spelt = spelling(key)
    told = scrubber.scrub(f"bad value {spelt} in the body")
    assert not [at for at in range(len(spelt) - 7) if spelt[at : at + 8] in told and not spelt[at : at + 8].isspace()]
    del value


def test_threads_that_remember_and_forget_lose_nothing():
    """A value that begins as one that is forgotten in another thread stays known."""
    scrubber = Scrubber()
    kept = [scrubber.remember(SecretValue(SECRET)) for _ in range(3)]

    def churn() -> None:
        for _ in range(500):
            scrubber.remember(SecretValue(SECRET))

    threads = [threading.Thread(target=churn) for _ in range(3)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        mine = [scrubber.remember(SecretValue(SECRET)) for _ in range(500)]
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    known = {id(held()) for held in scrubber._by_beginning[SECRET[:8]]}
    assert {id(value) for value in (*kept, *mine)} <= known
