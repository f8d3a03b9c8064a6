"""What the image holds, and that a second build holds the same."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from stat import S_ISLNK, S_ISVTX
from typing import Any

import pytest

import keysync
from tests.image.build import ROOT, Stamp, build, import_base, pip_settings, stamp
from tests.image.store import BASE, Store

pytestmark = pytest.mark.image

MOST_MEGABYTES = 110  # unpacked, beyond the base
USER = 65532
BUILD_TOOLS = ("pip", "pip[0-9-]*", "setuptools", "setuptools-*", "ensurepip", "wheel", "wheel-*", "hatchling")
NAME = f"keysync:{keysync.__version__}"


@pytest.fixture(scope="module")
def stamped() -> Stamp:
    """The labels that the build is given."""
    return stamp(keysync.__version__)


@pytest.fixture(scope="module", autouse=True)
def _built(store: Store, stamped: Stamp) -> None:
    """The image, on its base."""
    import_base(store, Path(os.environ["BASE_TAR"]))
    build(store, stamped.version, stamped)


@pytest.fixture(scope="module")
def root(store: Store) -> Iterator[Path]:
    """The image's files."""
    container = store.buildah("from", "--pull-never", f"localhost/{NAME}")
    yield Path(store.buildah("mount", container))
    store.buildah("unmount", container)
    store.buildah("rm", container)


@pytest.fixture(scope="module")
def settings(store: Store) -> dict[str, Any]:
    """The image's user, labels and the like."""
    found: dict[str, Any] = store.image(NAME)["OCIv1"]["config"]
    return found


def below(*folders: Path) -> Iterator[Path]:
    """Everything in `folders`, symbolic links not followed."""
    for folder in folders:
        assert folder.is_dir(), folder
        for parent, names, files in os.walk(folder):
            yield from (Path(parent, name) for name in (*names, *files))


def test_it_is_small(store: Store, record_property: Callable[[str, object], None]) -> None:
    """What its layers hold on top of the base's, unpacked; hard links and block sizes do not count."""
    size, base = (
        int(store.podman("image", "inspect", "--format", "{{.Size}}", f"localhost/{name}")) for name in (NAME, BASE)
    )
    megabytes = (size - base) // 1_000_000
    record_property("megabytes", megabytes)
    assert 0 < megabytes < MOST_MEGABYTES


def test_it_has_no_tool_that_builds(root: Path) -> None:
    """Neither pip and its relatives, the base's own included, nor a compiler."""
    found = [
        path
        for path in below(root)
        if "/share/doc/" not in str(path)
        and (
            any(fnmatchcase(path.name, pattern) for pattern in BUILD_TOOLS)
            or ("/bin/" in str(path) and ("gcc" in path.name or path.name == "make"))
        )
    ]
    assert found == []


def test_it_has_nothing_that_never_runs(root: Path) -> None:
    """No tests of packages, and no bytecode that Python would not find."""
    found = [
        path
        for path in below(root / "opt/keysync")
        if path.name in {"test", "tests"}
        or path.name.endswith("_test.py")
        or (path.suffix == ".pyc" and path.parent.name != "__pycache__")
    ]
    assert found == []


def test_its_user_can_change_nothing(root: Path) -> None:
    """No file is that user's, and none is writable for group or others but in a folder such as /tmp."""
    found = []
    for path in below(*(root / name for name in ("opt", "etc", "run", "tmp"))):
        status = path.lstat()
        writable = status.st_mode & 0o022 and not S_ISLNK(status.st_mode) and not status.st_mode & S_ISVTX
        if status.st_uid == USER or writable:
            found.append(path)
    assert found == []


def test_everything_is_compiled(root: Path) -> None:
    """The user cannot write bytecode, so each module brings its own."""
    sources = [path for path in below(root / "opt/keysync/lib") if path.suffix == ".py"]
    assert len(sources) > 1000
    assert [path for path in sources if not list((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"))] == []


def test_bytecode_does_not_depend_on_the_time_of_the_build(root: Path) -> None:
    """PEP 552: bit 0 of the flags says that it is valid by hash; bit 1, which has the source read at each start, is not set."""
    compiled = [path for path in below(root / "opt/keysync/lib") if path.suffix == ".pyc"]
    assert len(compiled) > 1000
    assert [path for path in compiled if int.from_bytes(path.read_bytes()[4:8], "little") != 1] == []


def test_it_has_no_secret_of_the_build(root: Path) -> None:
    """The settings of this machine's pip stay outside."""
    found = [
        name for name in ("run/secrets/pip.conf", "run/secrets/pip-cert", "etc/pip.conf") if (root / name).exists()
    ]
    assert found == []


def test_it_does_not_name_the_index_of_this_machine(store: Store) -> None:
    """No address of pip's settings is in the history or the settings of the image."""
    output = (store.buildah("inspect", "--type", "image", f"localhost/{NAME}")).replace("\\u0026", "&")
    assert [name for name, value in pip_settings().items() if "://" in value and value in output] == []


def test_its_user_is_nobody_known(settings: dict[str, Any]) -> None:
    """By number, so that Kubernetes sees that it is not root."""
    assert settings["User"] == f"{USER}:{USER}"


def test_its_labels_say_what_it_is(settings: dict[str, Any], stamped: Stamp) -> None:
    """Each label of OCI that the Dockerfile sets from the build's arguments."""
    expected = {
        "title": "keysync",
        "version": stamped.version,
        "revision": stamped.revision,
        "licenses": "Apache-2.0",
        "created": stamped.created,
        "base.name": BASE,
    }
    assert {name: settings["Labels"].get(f"org.opencontainers.image.{name}") for name in expected} == expected


def test_the_version_of_the_dockerfile_is_keysyncs() -> None:
    """The default for a build without arguments."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r'^ARG VERSION="(.*)"$', text, re.MULTILINE) == [keysync.__version__]


def test_a_second_build_has_the_same_layers(store: Store, stamped: Stamp) -> None:
    """A second build of a release has the signed content."""
    build(store, "again", stamped)
    first, second = (store.image(name)["OCIv1"]["rootfs"]["diff_ids"] for name in (NAME, "keysync:again"))
    store.podman("rmi", "localhost/keysync:again")
    assert first
    assert first == second
