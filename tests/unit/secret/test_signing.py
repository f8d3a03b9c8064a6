"""The content of a signature; its secret stays hidden."""

from __future__ import annotations

import copy
import hashlib
import hmac
import pickle
from pathlib import Path

import pytest

from keysync.config.credentials import EnvironmentVariable
from keysync.errors import UsageError
from keysync.files import read_secret
from keysync.secret.signing import Signer
from keysync.secret.value import SecretValue

SECRET = "correct-horse-battery-staple"


def test_a_signature_is_the_mac_of_time_and_body() -> None:
    """Computed independently by the documented scheme; fractions of a second are truncated."""
    mac = hmac.new(SECRET.encode(), b'1800000000.{"a":1}', hashlib.sha256).hexdigest()
    assert Signer(SecretValue(SECRET)).sign(b'{"a":1}', 1_800_000_000.9) == f"t=1800000000,v1={mac}"


def test_time_body_and_secret_change_the_signature() -> None:
    """Each of them."""
    signer = Signer(SecretValue(SECRET))
    signatures = {
        signer.sign(b"a", 1.0),
        signer.sign(b"b", 1.0),
        signer.sign(b"a", 2.0).replace("t=2", "t=1"),
        Signer(SecretValue(SECRET + "x")).sign(b"a", 1.0),
    }
    assert len(signatures) == 4


def test_no_printed_form_shows_the_secret() -> None:
    """Neither in a log nor in an error or a dump."""
    signer = Signer(SecretValue(SECRET))
    for shown in (repr(signer), str(signer), f"{[signer]}", repr(copy.copy(signer))):
        assert SECRET not in shown
    with pytest.raises(TypeError):
        pickle.dumps(signer)


@pytest.mark.parametrize("written", [f"{SECRET}\n", f"{SECRET}\r\n", f"\ufeff{SECRET}\n"])
def test_line_ends_and_byte_order_marks_are_not_part_of_the_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    """Editors add them, to a file and to a variable."""
    file = tmp_path / "secret"
    file.write_bytes(written.encode())
    monkeypatch.setenv("SIGNING", written)
    assert read_secret(file, "notify.secret_file") == EnvironmentVariable("SIGNING").read() == SECRET


@pytest.mark.parametrize("content", [None, b"", b" \n", b"hunter2\xff"])
def test_the_error_of_an_unusable_file_hides_its_content(tmp_path: Path, content: bytes | None) -> None:
    """A missing, empty or binary file raises UsageError with the key and the file's name."""
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=r"notify\.secret_file: .*secret") as caught:
        read_secret(file, "notify.secret_file")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
