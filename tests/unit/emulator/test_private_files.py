"""Files that only their owner can read."""

import os
import stat

import pytest

from keysync.emulator.private_files import check_private, write_private
from keysync.errors import UsageError


def test_a_private_file_is_replaced_in_one_step(tmp_path):
    """Mode 0600 whatever it was, another hard link keeps the old content, and no partial file remains."""
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(b"old")
    path.chmod(0o644)
    other.hardlink_to(path)
    check_private(path, "--option")
    write_private(path, b"new")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o600)
    assert other.read_bytes() == b"old"
    assert {file.name for file in tmp_path.iterdir()} == {"file", "other"}


@pytest.mark.parametrize("target", ["there", "missing", "private"])
def test_a_private_file_does_not_follow_links(tmp_path, target):
    """To an existing file, to none, and to itself: the link and its target stay as they are."""
    (tmp_path / "there").write_bytes(b"content")
    path = tmp_path / "private"
    path.symlink_to(target)
    with pytest.raises(UsageError, match=r"--option .*private: it is a symbolic link"):
        check_private(path, "--option")
    with pytest.raises(OSError, match="it is a symbolic link"):
        write_private(path, b"new")
    assert path.is_symlink()
    assert (tmp_path / "there").read_bytes() == b"content"
    assert {file.name for file in tmp_path.iterdir()} == {"there", "private"}


def test_another_kind_of_file_is_refused(tmp_path):
    """A FIFO, a folder, and a file in no folder."""
    fifo, folder = tmp_path / "fifo", tmp_path / "folder"
    os.mkfifo(fifo)
    folder.mkdir()
    for path, reason in [
        (fifo, "it is a FIFO"),
        (folder, "it is a folder"),
        (folder / "no/file", "its folder does not"),
    ]:
        with pytest.raises(UsageError, match=f"--option {path}: {reason}"):
            check_private(path, "--option")
