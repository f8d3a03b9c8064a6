"""What is taken out of others' text, and what is left there."""

from __future__ import annotations

import base64
import gc
import sys
import threading
from collections.abc import Callable
from random import Random
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keysync.secret.redact import Redactor
from keysync.secret.value import MASK, SecretValue

Encoding = Callable[[str], str]
SECRET = "p4ss/word+with=odd&signs"
KEY = base64.b64encode(bytes(range(64))).decode()
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "form", [SECRET, base64.b64encode(SECRET.encode()).decode(), quote(SECRET, safe="")], ids=["plain", "base64", "url"]
)
def test_a_remembered_value_is_masked_in_each_form(form: str):
    """A value that keysync was told of is masked as it stands, in base64 and URL-encoded, wherever it occurs."""
    redactor = Redactor()
    value = redactor.remember(SecretValue(SECRET))
    assert redactor.redact(f"a {form} b '{form}'") == f"a {MASK} b '{MASK}'"
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
    scrubbed = Redactor().redact(text)
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
    assert Redactor().redact(text) == text


def test_a_short_value_masks_nothing():
    """A secret of a few letters would turn words into masks."""
    redactor = Redactor()
    value = redactor.remember(SecretValue("key"))
    assert redactor.redact("the key of the account") == "the key of the account"
    del value


def test_a_value_that_nobody_holds_is_forgotten():
    """The scrubber keeps no secret alive."""
    redactor = Redactor()
    redactor.remember(SecretValue(SECRET))
    gc.collect()
    assert redactor.redact(SECRET) == SECRET


def test_a_value_within_another_leaves_nothing_of_the_longer_one():
    """Where one secret begins with another, no rest of the longer is left."""
    for index in range(50):
        redactor = Redactor()
        short, rest = f"begin-{index:04}", f"the-rest-{index}"
        kept = [redactor.remember(SecretValue(text)) for text in (short, short + rest)]
        assert rest not in redactor.redact(f"{short}{rest}")
        del kept


def test_text_that_is_no_unicode_stops_nothing():
    """A remembered value with a lone surrogate, which JSON can carry, does not break the scrubbing of other text."""
    redactor = Redactor()
    value = redactor.remember(SecretValue("hostile-\ud800-value"))
    assert redactor.redact("an error message") == "an error message"
    del value


PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="*"), min_size=8, max_size=40).filter(
    lambda plain: sum(not (char.isascii() and char.isspace()) for char in plain) >= 8
)


@example(["0000000\xa00"], [""] * 7)
@given(st.lists(PLAIN, min_size=1, max_size=6), st.lists(st.text(max_size=5), min_size=7, max_size=7))
def test_wherever_values_stand_and_however_they_overlap_none_is_left(plains: list[str], words: list[str]):
    """Each form of each value, one behind the other: no whole one is in what comes out."""
    redactor = Redactor()
    kept = [redactor.remember(SecretValue(plain)) for plain in plains]
    forms = [
        form for plain in plains for form in (plain, base64.b64encode(plain.encode()).decode(), quote(plain, safe=""))
    ]
    told = redactor.redact("".join(word + form for word, form in zip(words * 3, forms, strict=False)) + "".join(forms))
    assert not [form for form in forms if form in told]
    del kept


@given(
    st.lists(st.text("abcdefgh+%&", min_size=8, max_size=40), max_size=4), st.text("ijklmnop xyz%&;:0123", max_size=60)
)
def test_what_holds_no_value_is_left_alone(plains: list[str], text: str):
    """Remembered values take nothing else out."""
    redactor = Redactor()
    kept = [redactor.remember(SecretValue(plain)) for plain in plains]
    assert redactor.redact(text) == Redactor().redact(text)
    del kept


@pytest.mark.parametrize(
    "form", [KEY, base64.b64encode(KEY.encode()).decode(), quote(KEY, safe="")], ids=["plain", "base64", "url"]
)
def test_what_was_cut_off_is_masked_as_far_as_it_goes(form: str):
    """A service that cuts its message in the middle of a value leaves no half of it."""
    redactor = Redactor()
    value = redactor.remember(SecretValue(KEY))
    assert redactor.redact(f"could not parse {form[:20]}") == f"could not parse {MASK}"
    assert redactor.redact(f"could not parse {form[:20]}… (cut)") == f"could not parse {MASK}… (cut)"
    del value


def test_a_value_remembered_twice_is_forgotten_once():
    """Nothing stays behind in what values are found by, also where others begin alike."""
    redactor = Redactor()
    first, second = SecretValue(SECRET + "1"), SecretValue(SECRET + "2")
    for value in (first, second, first):
        redactor.remember(value)
    del value, first
    gc.collect()
    assert redactor.redact(f"{SECRET}2") == MASK
    del second
    gc.collect()
    assert redactor._by_anchor == {}


def wrapped(text: str, width: int, between: str) -> str:
    """`text` in lines of `width` characters."""
    return between.join(text[at : at + width] for at in range(0, len(text), width))


def escaped(form: Callable[[int], str], only: Callable[[str], bool] = lambda char: not char.isalnum()) -> Encoding:
    """Characters that are no letters and digits, or others, in an escaped form each."""
    return lambda text: "".join(form(ord(char)) if only(char) else char for char in text)


def packed(text: str) -> str:
    """Base64 of `text`."""
    return base64.b64encode(text.encode()).decode()


ENCODINGS: dict[str, Encoding] = {
    "plain": str,
    "base64": packed,
    "base64 with something before it": lambda text: packed(f"x{text}"),
    "base64url": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "the alphabet of base64url": lambda text: text.replace("+", "-").replace("/", "_"),
    "URL": lambda text: quote(text, safe=""),
    "URL twice": lambda text: quote(quote(text, safe=""), safe=""),
    "URL in lower case": escaped("%{:02x}".format),
    "all of it in URL form": escaped("%{:02X}".format, lambda _: True),
    ".NET": escaped("\\u{:04x}".format),
    ".NET, in JSON again": escaped("\\\\u{:04X}".format),
    "JavaScript": escaped("\\x{:02x}".format),
    "escaped slashes": lambda text: text.replace("/", "\\/"),
    "HTML, decimal": escaped("&#{};".format),
    "HTML, hex": escaped("&#x{:04X};".format),
    "HTML, named": lambda text: (
        text.replace("&", "&amp;").replace("+", "&plus;").replace("/", "&sol;").replace("=", "&equals;")
    ),
    "HTML of a URL": lambda text: escaped("&#{};".format)(quote(text, safe="")),
    "wrapped": lambda text: wrapped(text, 64, "\n"),
    "wrapped and indented": lambda text: wrapped(text, 5, "\r\n      \t"),
    "wrapped within escapes": lambda text: wrapped(quote(text, safe=""), 2, "\n  "),
    "wrapped, in JSON": lambda text: wrapped(text, 76, "\\r\\n  "),
    "base64, wrapped": lambda text: wrapped(packed(text), 3, "\n  "),
    "hex": lambda text: text.encode().hex(),
    "hex with colons": lambda text: text.encode().hex(":").upper(),
    "hex with dashes": lambda text: text.encode().hex("-"),
    "hex with spaces": lambda text: text.encode().hex(" "),
    "hex with 0x": lambda text: "0x" + text.encode().hex(),
    "hex with 0x at each byte": lambda text: ", ".join(f"0x{byte:02X}" for byte in text.encode()),
    "a list of bytes": lambda text: str(list(text.encode())),
}
KEYS = st.binary(min_size=64, max_size=64).map(lambda data: base64.b64encode(data).decode())
CLIENT_SECRETS = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="*&%\\"), min_size=16, max_size=44
)


def left(encode: Encoding, secret: str, told: str) -> list[str]:
    """The parts of 8 characters of `secret` that are in `told`, in this encoding, by a reading of its own."""
    parts = {encode(secret[at : at + 8]) for at in range(len(secret) - 7)}
    return [part for part in parts if part in told]


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
@settings(deadline=None)
@given(
    secret=KEYS | CLIENT_SECRETS,
    before=st.sampled_from(["", "bad value ", "k=", "/batchAccounts/", "a"]),
    cut=st.data(),
)
def test_a_value_its_head_and_its_tail_are_masked_in_each_encoding(
    encode: Encoding, secret: str, before: str, cut: st.DataObject
):
    """Nothing of 8 characters is left, of the whole value, of a head or of a tail of it."""
    redactor = Redactor()
    value = redactor.remember(SecretValue(secret))
    size = cut.draw(st.integers(8, len(secret)))
    for shown in (secret, secret[:size], secret[-size:]):
        spelt = encode(shown)
        told = redactor.redact(f"{before}{spelt} in the body")
        assert MASK in told
        assert not left(encode, shown, told), told
        assert not [at for at in range(len(spelt) - 15) if spelt[at : at + 16] in told], told
    del value


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
@settings(deadline=None)
@given(
    secret=st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="*"), min_size=16, max_size=44)
)
def test_a_value_that_holds_escapes_is_masked_in_each_encoding(encode: Encoding, secret: str):
    """What looks like an escape within a value hides nothing of it."""
    redactor = Redactor()
    value = redactor.remember(SecretValue(secret))
    spelt = encode(secret)
    assert spelt not in redactor.redact(f"bad value {spelt} in the body")
    del value


@pytest.mark.parametrize(
    "encode", [one for name, one in ENCODINGS.items() if name not in {"escaped slashes", "base64, wrapped"}]
)
def test_a_key_that_was_never_remembered_is_masked_in_each_encoding(encode: Encoding):
    """What looks like a key is masked, also behind a segment of an ARM id.

    Fifty keys that are the same each time: looks are a matter of chance, and about one key in a thousand that is encoded a
    second time does not look random. Remembered keys do not depend on it.
    """
    for seed in range(50):
        spelt = encode(base64.b64encode(Random(seed).randbytes(64)).decode())  # noqa: S311
        for before in ("bad value ", "/subscriptions/11111111-2222-3333-4444-555555555555/batchAccounts/"):
            told = Redactor().redact(f"{before}{spelt} in the body")
            assert MASK in told
            assert not [at for at in range(len(spelt) - 31) if spelt[at : at + 32] in told], told


def test_a_head_of_a_url_masks_no_other_url():
    """What all addresses begin with is left in messages."""
    redactor = Redactor()
    value = redactor.remember(SecretValue("https://hooks.example.com/services/T000/B000"))
    assert redactor.redact("see https://kv-render.vault.azure.net") == "see https://kv-render.vault.azure.net"
    assert redactor.redact("to https://hooks.example.com/services/T000/B000") == f"to https://{MASK}"
    del value


@pytest.mark.parametrize(
    "text", ["%25" * 20_000, "A1b" * 30_000, "&#0" * 20_000, "\\u00" * 20_000, "0x" * 30_000, "1," * 30_000]
)
def test_a_hostile_text_takes_a_number_of_steps_that_grows_with_its_length(text: str):
    """Twice the text is about twice the work."""
    redactor = Redactor()
    value = redactor.remember(SecretValue(SECRET))
    steps = [0, 0]

    def count(index: int) -> Callable[..., object]:
        def trace(*_: object) -> object:
            steps[index] += 1
            return trace

        return trace

    for index, part in enumerate((text[: len(text) // 2], text)):
        sys.settrace(count(index))
        try:
            redactor.redact(part)
        finally:
            sys.settrace(None)
    assert steps[1] < 3 * steps[0] + 1000
    del value


def test_threads_that_remember_and_forget_lose_nothing():
    """A value that begins as one that is forgotten in another thread stays known."""
    redactor = Redactor()
    kept = [redactor.remember(SecretValue(SECRET)) for _ in range(3)]

    def churn() -> None:
        for _ in range(500):
            redactor.remember(SecretValue(SECRET))

    threads = [threading.Thread(target=churn) for _ in range(3)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        mine = [redactor.remember(SecretValue(SECRET)) for _ in range(500)]
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    known = {id(held()) for held in redactor._by_anchor[SECRET[:8]]}
    assert {id(value) for value in (*kept, *mine)} <= known


@pytest.mark.parametrize("scheme", ["http", "https", "socks5", "amqp+tls"])
def test_user_and_password_of_a_url_are_masked(scheme: str):
    """In every text, remembered or not; the host stays, and so does an address without them."""
    text = f"no way to {scheme}://bot:p%40ss-w0rd@proxy.example:3128/x, see https://kv.vault.azure.net/secrets/a@b"
    assert Redactor().redact(text) == (
        f"no way to {scheme}://{MASK}@proxy.example:3128/x, see https://kv.vault.azure.net/secrets/a@b"
    )
    assert Redactor().redact(f"{scheme}://token@host") == f"{scheme}://{MASK}@host"
