"""Every call of `az` that the deployment files and `keysync role` make, and that the documents show: `python tests/az_cli/snippets.py FILE`.

Scripts are run, with an `az` that only notes its words; what is shown in a page or a comment is taken as it stands there. FILE is
what tests/az_cli/parse.py reads.
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

from tests.support.az import run_with_az  # noqa: E402  # found only now

AZURE = ROOT / "deploy" / "azure"
WHO = "99999999-0000-0000-0000-000000000000"
SET = {
    "PRINCIPAL_ID": WHO, "PRINCIPAL_ID_2": WHO, "PRINCIPAL_ID_3": WHO, "PRINCIPAL_ID_4": WHO,
    "KEYSYNC_AUDITED_SECRET": "x", "KEYSYNC_NOTIFY_SECRET": "x",
}  # fmt: skip


def calls_of(script, **environ):
    """What a script asks of `az`; it has to end well."""
    with tempfile.TemporaryDirectory() as folder:
        ran = run_with_az(script, Path(folder), program="bash", **SET, **environ)
    if ran.code != 0:
        sys.exit(f"a script ended with {ran.code}: {ran.err}")
    return ran.calls


def role_script(config):
    """What `keysync role` prints."""
    command = [sys.executable, "-m", "keysync", "role", "-c", str(config)]
    return subprocess.run(
        command, env={**os.environ, **SET, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    ).stdout


def shown_in(text):
    """The calls in blocks of code, and in the comments of a script, with what the shell would fill in left as it is."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in re.findall(r"^(?:#\s+)?(?:\w+=\$\()?(az [^#\n]+?)\)?(?: sh \S+)?$", joined, re.MULTILINE):
        yield shlex.split(line)[1:]


def documented(text):
    """The calls in a page's blocks of shell, those within others included, and those in its sentences that have an option."""
    text = re.sub(r"\\\n\s*", " ", text)
    sentences = re.findall(r"`(az [^`]* -{1,2}[^`]*)`", text)
    for piece in (*re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE), *sentences):
        rest = piece.replace("\n", " ") if piece in sentences else piece
        while within := re.search(r'"?\$\(([^()]*)\)"?', rest):
            yield from calls_in(within[1])
            rest = rest[: within.start()] + "X" + rest[within.end() :]
        yield from calls_in(rest)


def calls_in(piece):
    """The calls of a piece of shell in which nothing is nested; a file that a value would be read from is not there."""
    for call in re.findall(r"(?:^|[\s=|&;])(az [a-z][^\n|;&#<>]*)", piece, re.MULTILINE):
        yield [re.sub(r"^@.*", "X", word) for word in shlex.split(call)[1:]]


def main(file):
    """Write every call once."""
    keysync = Path(sys.executable).with_name("keysync")
    calls = []
    for name in ("minimal", "full", "sovereign"):
        script = role_script(ROOT / "config" / f"{name}.yaml")
        calls += calls_of(script)
        calls += shown_in(script)
    place = {"CONFIG": str(ROOT / "config" / "minimal.yaml"), "PATH": f"{keysync.parent}:{os.environ['PATH']}"}
    identity = {"RESOURCE_GROUP": "g", "CLUSTER": "c", "LOCATION": "japaneast"}
    os.environ.update(place)
    script = (AZURE / "workload-identity.sh").read_text(encoding="utf-8")
    calls += calls_of(script, **identity, CONFIG=place["CONFIG"])
    calls += shown_in((AZURE / "container-instance.yaml").read_text(encoding="utf-8"))
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "deploy").rglob("*.md"))):
        calls += documented(page.read_text(encoding="utf-8"))
    Path(file).write_text("\0\0".join("\0".join(call) for call in calls), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
