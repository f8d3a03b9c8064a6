"""Collects the `az` calls of the deployment files, of `keysync role` and of the documents: `python tests/az_cli/snippets.py FILE`.

Scripts are run with an `az` that records its arguments. Calls in documents and comments are read as text. FILE is the input of
tests/az_cli/parse.py.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.support.az import run_with_az  # noqa: E402  # needs the path above

AZURE = ROOT / "deploy" / "azure"
PRINCIPAL = "99999999-0000-0000-0000-000000000000"
ENVIRONMENT = {
    "PRINCIPAL_ID": PRINCIPAL, "PRINCIPAL_ID_2": PRINCIPAL, "PRINCIPAL_ID_3": PRINCIPAL, "PRINCIPAL_ID_4": PRINCIPAL,
    "KEYSYNC_AUDITED_SECRET": "x", "KEYSYNC_NOTIFY_SECRET": "x",
}  # fmt: skip


def calls_of(script, **environ):
    """The `az` calls of a script. Exits if the script fails."""
    with tempfile.TemporaryDirectory() as folder:
        result = run_with_az(script, Path(folder), program="bash", **ENVIRONMENT, **environ)
    if result.code != 0:
        sys.exit(f"a script ended with {result.code}: {result.err}")
    return result.calls


def role_script(config):
    """The output of `keysync role`."""
    command = [sys.executable, "-m", "keysync", "role", "-c", str(config)]
    return subprocess.run(
        command, env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    ).stdout


def calls_in_lines(text):
    """The calls in lines and comments of a script or a YAML file. Shell variables are not expanded."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in re.findall(r"^(?:#\s+)?(?:\w+=\$\()?(az [^#\n]+?)\)?(?: sh \S+)?$", joined, re.MULTILINE):
        yield shlex.split(line)[1:]


def calls_in_document(text):
    """The calls in the shell blocks of a document, also nested ones, and the calls with an option in its sentences."""
    text = re.sub(r"\\\n\s*", " ", text)
    sentences = re.findall(r"`(az [^`]* -{1,2}[^`]*)`", text)
    for snippet in (*re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE), *sentences):
        rest = snippet.replace("\n", " ") if snippet in sentences else snippet
        while nested := re.search(r'"?\$\(([^()]*)\)"?', rest):
            yield from calls_in_shell(nested[1])
            rest = rest[: nested.start()] + "X" + rest[nested.end() :]
        yield from calls_in_shell(rest)


def calls_in_shell(snippet):
    """The calls in shell code without nested commands. An argument `@FILE` is replaced, because the file does not exist."""
    for call in re.findall(r"(?:^|[\s=|&;])(az [a-z][^\n|;&#<>]*)", snippet, re.MULTILINE):
        yield [re.sub(r"^@.*", "X", word) for word in shlex.split(call)[1:]]


def main(file):
    """Write all calls to `file`."""
    keysync = Path(sys.executable).with_name("keysync")
    calls = []
    for name in ("minimal", "full", "sovereign"):
        script = role_script(ROOT / "config" / f"{name}.yaml")
        calls += calls_of(script)
        calls += calls_in_lines(script)
    settings = {"CONFIG": str(ROOT / "config" / "minimal.yaml"), "PATH": f"{keysync.parent}:{os.environ['PATH']}"}
    identity = {"RESOURCE_GROUP": "g", "CLUSTER": "c", "LOCATION": "japaneast"}
    os.environ.update(settings)
    script = (AZURE / "workload-identity.sh").read_text(encoding="utf-8")
    calls += calls_of(script, **identity, CONFIG=settings["CONFIG"])
    calls += calls_in_lines((AZURE / "container-instance.yaml").read_text(encoding="utf-8"))
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "deploy").rglob("*.md"))):
        calls += calls_in_document(page.read_text(encoding="utf-8"))
    Path(file).write_text("\0\0".join("\0".join(call) for call in calls), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
