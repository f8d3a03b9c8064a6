"""Small files are read without blocking, and replaced through symbolic links."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from keysync.errors import UsageError
from keysync.files import check_replaceable, read_small, replaceable


def irregular(folder: Path, kind: str) -> Path:
    """Makes something at a path that is no regular file."""
    path = folder / kind
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a device":
        path.symlink_to("/dev/null")
    else:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(os.path.relpath(path))
    return path


KINDS = ["a FIFO", "a folder", "a device", "a socket"]


@pytest.mark.parametrize("kind", KINDS)
def test_only_regular_files_are_read_and_replaced(tmp_path: Path, kind: str) -> None:
    """The error says what was found; nothing is opened, and nothing waits."""
    path, link = irregular(tmp_path, kind), tmp_path / "link"
    link.symlink_to(path)
    for one in (path, link):
        with pytest.raises(OSError, match=f"it is {kind}, expected a regular file"):
            read_small(one)
        with pytest.raises(UsageError, match=rf"--option {one}: it is {kind}, expected a regular file"):
            check_replaceable(one, "--option")


def test_links_are_followed(tmp_path: Path) -> None:
    """Also several of them, and one whose target is still to be made."""
    (tmp_path / "first").symlink_to("second")
    (tmp_path / "second").symlink_to(tmp_path / "target")
    assert replaceable(tmp_path / "first") == tmp_path / "target"
    (tmp_path / "target").write_bytes(b"content")
    assert replaceable(tmp_path / "first") == tmp_path / "target"
    assert read_small(tmp_path / "first") == b"content"


def test_a_link_to_itself_is_an_error(tmp_path: Path) -> None:
    """It leads nowhere."""
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match=r"--option .*loop: "):
        check_replaceable(tmp_path / "loop", "--option")


def test_a_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    """It is the folder of the target that counts, not of the link."""
    (tmp_path / "link").symlink_to(tmp_path / "missing" / "target")
    for path in (tmp_path / "missing" / "file", tmp_path / "link"):
        with pytest.raises(UsageError, match="its folder is not there"):
            check_replaceable(path, "--option")


def test_a_small_file_has_a_megabyte_at_most(tmp_path: Path) -> None:
    """One that is larger is a mistake, and is not read into memory."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * (1 << 20))
    assert len(read_small(path)) == 1 << 20
    path.write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(OSError, match="more than 1 MiB"):
        read_small(path)
