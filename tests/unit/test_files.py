"""Reading small files without blocking, and resolving the files to replace."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from keysync.errors import UsageError
from keysync.files import check_replaceable, read_small, replaceable_path


def irregular(folder: Path, kind: str) -> Path:
    """Creates a file that is not a regular file."""
    path = folder / kind
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a device":
        path.symlink_to("/dev/null")
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.relpath(path))
    return path


KINDS = ["a FIFO", "a folder", "a device", "a socket"]


@pytest.mark.parametrize("kind", KINDS)
def test_only_regular_files_are_read_and_replaced(tmp_path: Path, kind: str) -> None:
    """The error names the kind of file; nothing is opened, and nothing blocks."""
    path, link = irregular(tmp_path, kind), tmp_path / "link"
    link.symlink_to(path)
    for file in (path, link):
        with pytest.raises(OSError, match=f"it is {kind}, expected a regular file"):
            read_small(file)
        with pytest.raises(UsageError, match=rf"--option {file}: it is {kind}, expected a regular file"):
            check_replaceable(file, "--option")


def test_symbolic_links_are_followed(tmp_path: Path) -> None:
    """Also a chain of links, and a link whose target does not exist yet."""
    (tmp_path / "first").symlink_to("second")
    (tmp_path / "second").symlink_to(tmp_path / "target")
    assert replaceable_path(tmp_path / "first") == tmp_path / "target"
    (tmp_path / "target").write_bytes(b"content")
    assert replaceable_path(tmp_path / "first") == tmp_path / "target"
    assert read_small(tmp_path / "first") == b"content"


def test_a_link_to_itself_is_an_error(tmp_path: Path) -> None:
    """It has no target."""
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match=r"--option .*loop: "):
        check_replaceable(tmp_path / "loop", "--option")


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    """The target's folder is checked, not the link's."""
    (tmp_path / "link").symlink_to(tmp_path / "missing" / "target")
    for path in (tmp_path / "missing" / "file", tmp_path / "link"):
        with pytest.raises(UsageError, match="its folder does not exist"):
            check_replaceable(path, "--option")


def test_a_file_above_1_mib_is_refused(tmp_path: Path) -> None:
    """It is not read into memory."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * (1 << 20))
    assert len(read_small(path)) == 1 << 20
    path.write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(OSError, match="more than 1 MiB"):
        read_small(path)
