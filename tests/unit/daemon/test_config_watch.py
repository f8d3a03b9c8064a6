"""A changed configuration is noticed however it was put in place, and a bad one changes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from keysync.config.load import load_config
from keysync.config.model import Config
from keysync.daemon.config_watch import ConfigChange, ConfigWatch, named_files
from keysync.errors import ConfigError
from tests.support.certificates import certificate_pem

GOOD = """
vaults: {main: {url: https://kv-render.vault.azure.net}}
accounts:
  - {subscription_id: 00000000-0000-0000-0000-000000000000, resource_group: rg, name: %s, vaults: [main]}
"""
BAD = GOOD.replace("accounts:", "acounts:") % "one"


def good(name: str) -> str:
    return GOOD % name


def load(path: Path) -> Config:
    return load_config(path, {})


def checks(watch: ConfigWatch, count: int) -> list[ConfigChange | None]:
    return [watch.check() for _ in range(count)]


def name_of(change: ConfigChange | None) -> str:
    assert isinstance(change, Config)
    return change.accounts[0].name


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keysync.yaml"
    path.write_text(good("one"))
    return path


@pytest.fixture
def watch(file: Path) -> ConfigWatch:
    made = ConfigWatch(file, load)
    assert made.read().accounts[0].name == "one"
    return made


def overwritten(file: Path, text: str) -> None:
    file.write_text(text)


def renamed_over(file: Path, text: str) -> None:
    other = file.with_suffix(".new")
    other.write_text(text)
    other.replace(file)


def with_the_old_times(file: Path, text: str) -> None:
    before = file.stat()
    file.write_text(text)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [overwritten, renamed_over, with_the_old_times])
def test_a_change_is_handed_over_once_after_two_looks_that_agree(
    watch: ConfigWatch, file: Path, change: Callable[[Path, str], None]
):
    """Content is what counts: neither the way of writing nor the times of the file."""
    assert checks(watch, 3) == [None] * 3
    change(file, good("two"))
    first, second, *rest = checks(watch, 5)
    assert first is None
    assert name_of(second) == "two"
    assert rest == [None] * 3


def test_a_file_that_was_only_touched_is_no_change(watch: ConfigWatch, file: Path):
    """Neither newer times nor the same content in a new file is a change."""
    file.touch()
    renamed_over(file, good("one"))
    assert checks(watch, 4) == [None] * 4


def test_the_swap_of_a_config_map_is_noticed(tmp_path: Path):
    """Kubernetes changes no file: it points ..data to another folder."""
    for number, name in enumerate(("one", "two")):
        (tmp_path / f"..{number}").mkdir()
        (tmp_path / f"..{number}" / "keysync.yaml").write_text(good(name))
    (tmp_path / "..data").symlink_to("..0")
    (tmp_path / "keysync.yaml").symlink_to("..data/keysync.yaml")
    watch = ConfigWatch(tmp_path / "keysync.yaml", load)
    watch.read()
    (tmp_path / "..data_tmp").symlink_to("..1")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    assert [type(change) for change in checks(watch, 3)] == [type(None), Config, type(None)]


def test_a_file_that_is_still_being_written_is_not_read(watch: ConfigWatch, file: Path):
    """Half a file may be good YAML, so content must stand still first."""
    whole = good("two") + good("three").partition("accounts:\n")[2]
    for length in range(len(whole) // 2, len(whole), 40):
        file.write_text(whole[:length])
        assert watch.check() is None
    file.write_text(whole)
    assert watch.check() is None
    change = watch.check()
    assert isinstance(change, Config)
    assert [account.name for account in change.accounts] == ["two", "three"]


def test_a_file_that_changes_while_it_is_read_is_read_again(file: Path):
    """A configuration that was loaded between two contents is dropped, valid or not."""
    texts = [good("three"), BAD]

    def load_slowly(path: Path) -> Config:
        try:
            return load(path)
        finally:
            if armed and texts:
                path.write_text(texts.pop(0))

    armed = False
    watch = ConfigWatch(file, load_slowly)
    watch.read()
    armed = True
    file.write_text(good("two"))
    assert checks(watch, 4) == [None] * 4
    assert watch.check() is None
    assert texts == []
    change = watch.check()
    assert isinstance(change, ConfigError)


def test_an_invalid_file_is_reported_once_with_its_findings_and_changes_nothing(watch: ConfigWatch, file: Path):
    """The old configuration stays. The next invalid content is reported again, with its fix."""
    file.write_text(BAD)
    first, second, *rest = checks(watch, 20)
    assert first is None
    assert isinstance(second, ConfigError)
    assert "acounts" in second.findings[0].key
    assert rest == [None] * 18
    file.write_text(BAD + "\n")
    assert [type(change) for change in checks(watch, 3)] == [type(None), ConfigError, type(None)]
    file.write_text(good("two"))
    assert name_of(checks(watch, 2)[1]) == "two"


def test_a_bad_file_that_is_reverted_is_reported_once(watch: ConfigWatch, file: Path):
    """The configuration in force came back, so the error is over. The same mistake later is reported again."""
    for _ in range(2):
        file.write_text(BAD)
        assert isinstance(checks(watch, 2)[1], ConfigError)
        file.write_text(good("one"))
        assert checks(watch, 3) == ["restored", None, None]


def test_a_file_that_was_lost_and_is_back_is_reported_once(watch: ConfigWatch, file: Path):
    """The same for a file that was gone for longer than a moment."""
    file.unlink()
    assert isinstance(checks(watch, 2)[1], ConfigError)
    file.write_text(good("one"))
    assert checks(watch, 3) == ["restored", None, None]


def test_what_reading_at_once_refused_may_be_taken_back_too(watch: ConfigWatch, file: Path):
    """SIGHUP reported its error, so the next check reports that it is over."""
    file.write_text(BAD)
    with pytest.raises(ConfigError):
        watch.read()
    file.write_text(good("one"))
    assert checks(watch, 3) == ["restored", None, None]


def test_a_file_that_vanishes_for_a_moment_is_not_missed(watch: ConfigWatch, file: Path):
    """An editor's moment is no event."""
    file.unlink()
    assert watch.check() is None
    file.write_text(good("one"))
    assert checks(watch, 3) == [None] * 3


def test_a_missing_file_is_reported_once(watch: ConfigWatch, file: Path):
    """The old configuration stays; when another file comes, it counts."""
    file.unlink()
    first, second, *rest = checks(watch, 20)
    assert first is None
    assert str(second) == f"{file}: there is no such file"
    assert rest == [None] * 18
    file.write_text(good("two"))
    assert name_of(checks(watch, 2)[1]) == "two"
    file.unlink()
    file.mkdir()
    assert str(checks(watch, 3)[1]) == f"{file}: found a folder, expected a YAML file"


CREDENTIAL = "credential: {type: client_secret, tenant_id: t, client_id: c, client_secret_file: %s}\n"


def test_a_mounted_secret_that_changes_is_a_change(file: Path, tmp_path: Path):
    """A renewed client secret is taken over although the configuration is the same."""
    (tmp_path / "secret").write_text("first")
    file.write_text(good("one") + CREDENTIAL % "secret")
    watch = ConfigWatch(file, load)
    watch.read()
    assert checks(watch, 2) == [None, None]
    (tmp_path / "secret").write_text("other")
    assert [type(change) for change in checks(watch, 3)] == [type(None), Config, type(None)]
    assert "other" not in repr(vars(watch))


def test_a_new_configuration_brings_its_files(watch: ConfigWatch, file: Path, tmp_path: Path):
    """After a change the files of the new configuration are watched, and only those."""
    (tmp_path / "secret").write_text("first")
    file.write_text(good("one") + CREDENTIAL % "secret")
    assert isinstance(checks(watch, 2)[1], Config)
    (tmp_path / "secret").write_text("other")
    assert isinstance(checks(watch, 2)[1], Config)
    file.write_text(good("one"))
    assert isinstance(checks(watch, 2)[1], Config)
    (tmp_path / "secret").write_text("third")
    assert checks(watch, 3) == [None] * 3


def test_what_was_refused_for_a_missing_file_is_taken_when_the_file_comes(
    watch: ConfigWatch, file: Path, tmp_path: Path
):
    """The mount may come after the configuration, which does not change again."""
    file.write_text(good("one") + CREDENTIAL % "secret")
    assert isinstance(checks(watch, 2)[1], ConfigError)
    (tmp_path / "secret").write_text("there")
    changes = [change for change in checks(watch, 12) if change is not None]
    assert [type(change) for change in changes] == [Config]


def test_reading_at_once_needs_no_second_look(watch: ConfigWatch, file: Path):
    """SIGHUP: the current content is in force, and is not reported again."""
    file.write_text(good("two"))
    assert watch.read().accounts[0].name == "two"
    assert checks(watch, 3) == [None] * 3
    file.write_text(BAD)
    with pytest.raises(ConfigError):
        watch.read()
    assert isinstance(checks(watch, 2)[1], ConfigError)


def test_reading_at_once_of_a_file_in_change_takes_the_newer(file: Path):
    """A file that is replaced while it is read is read again."""
    replaced = False

    def load_slowly(path: Path) -> Config:
        nonlocal replaced
        found = load(path)
        if not replaced:
            replaced = True
            path.write_text(good("two"))
        return found

    watch = ConfigWatch(file, load_slowly)
    assert watch.read().accounts[0].name == "two"
    assert checks(watch, 3) == [None] * 3


def test_what_comes_after_reading_is_a_change_of_its_own(file: Path):
    """A file that changes right after it was read at once is not taken for what was read."""
    texts = [good("two"), good("three")]

    def load_slowly(path: Path) -> Config:
        found = load(path)
        if texts:
            path.write_text(texts.pop(0))
        return found

    watch = ConfigWatch(file, load_slowly)
    assert watch.read().accounts[0].name == "two"
    assert name_of(checks(watch, 2)[1]) == "three"


def test_the_files_that_a_configuration_names(tmp_path: Path):
    """At every key, except the token file, which is renewed regularly and read again each time."""
    for name in ("ca.pem", "secret", "cert", "password", "token"):
        (tmp_path / name).write_bytes(certificate_pem(datetime(2040, 1, 1, tzinfo=UTC)))
    path = tmp_path / "keysync.yaml"
    path.write_text(
        """
cloud: {authority: https://login.example, resource_manager: https://arm.example, ca_bundle: ca.pem}
credential: {type: client_secret, tenant_id: t, client_id: c, client_secret_file: secret}
vaults:
  main:
    url: https://kv.example
    credential: {type: client_certificate, tenant_id: t, client_id: c, certificate_file: cert, password_file: password}
accounts:
  - subscription_id: 00000000-0000-0000-0000-000000000000
    resource_group: rg
    name: one
    vaults: [main]
    credential: {type: workload_identity, token_file: token}
"""
    )
    assert sorted(file.name for file in named_files(load(path))) == ["ca.pem", "cert", "password", "secret"]
