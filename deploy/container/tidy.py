# ruff: noqa: INP001 - a script, part of no package
"""Removes unused files from an image and compiles the rest. The Dockerfile runs it.

``tidy.py packages FOLDER`` is for the virtual environment in FOLDER, ``tidy.py base`` for the Python that runs this.
"""

import compileall
import re
import shutil
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from py_compile import PycInvalidationMode

_INSTALLERS = ("pip", "setuptools", "wheel", "pkg_resources", "_distutils_hack", "easy_install", "distutils-precedence")
_INSTALLER_FILES = re.compile(rf"({'|'.join(_INSTALLERS)})([-.].*)?")
_INSTALLER_SCRIPTS = re.compile(r"(pip|wheel|easy_install)([-\d.]*)")
_KEPT_SCRIPTS = re.compile(r"keysync|python[\d.]*")
# Parts of the standard library that nothing imports; they are a large part of it.
_NOT_IN_BASE = re.compile(r"/(test|tests|idlelib|lib2to3|turtledemo|site-packages|dist-packages)/")
_UNUSED = ("**/tests", "**/test", "**/*_test.py", "**/test_*.py", "**/__pycache__")


def tidy_packages(folder: Path) -> None:
    """Keeps only the packages and the scripts that start keysync."""
    _remove(path for path in (folder / "bin").iterdir() if not _KEPT_SCRIPTS.fullmatch(path.name))
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}, scheme="venv"))
    for pattern in _UNUSED:
        _remove(packages.glob(pattern))
    _compile(packages, None)


def tidy_base() -> None:
    """Removes the installers, and compiles the standard library, which slim images ship without bytecode."""
    _remove(_installers())
    _compile(Path(sysconfig.get_path("stdlib")), _NOT_IN_BASE)


def _installers() -> Iterator[Path]:
    # Debian has its packages in a separate folder, and the wheel of pip for venv in another.
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
    for folder in (Path(name) for name in (*folders, "/usr/lib/python3/dist-packages")):
        yield from (path for path in _children(folder) if _INSTALLER_FILES.fullmatch(path.name))
    for folder in (Path(sysconfig.get_path("scripts")), Path("/usr/bin")):
        yield from (path for path in _children(folder) if _INSTALLER_SCRIPTS.fullmatch(path.name))
    yield Path(sysconfig.get_path("stdlib"), "ensurepip")
    yield Path("/usr/share/python-wheels")


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _remove(paths: Iterable[Path]) -> None:
    for path in list(paths):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _compile(folder: Path, excluded: re.Pattern[str] | None) -> None:
    # Unchecked: files of an image do not change, and modification times would make each build different.
    mode = PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(folder, maxlevels=99, quiet=2, rx=excluded, invalidation_mode=mode):
        sys.exit(f"some files in {folder} could not be compiled")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["packages", folder]:
            tidy_packages(Path(folder))
        case ["base"]:
            tidy_base()
        case _:
            sys.exit(__doc__)
