"""Renders the Helm chart and the files that come from it: `nox -s chart -- --write` writes them again.

These are the chart's values.schema.json, the plain manifests in deploy/kubernetes, and the rules in tests/alerts/chart. The
variable HELM names the program.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "keysync"
MODES = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
PLAIN = ("daemon", "daemon-standby", "cronjob", "sharded")
"""The modes whose manifests are in deploy/kubernetes."""
RULES = {
    "daemon": ("daemon",),
    "sharded": ("sharded",),
    "cronjob": (
        "cronjob",
        "--set",
        "cronjob.pushGateway=http://pushgateway.monitoring:9091",
        "--set",
        "config.owner=tokyo",
    ),
    "renamed": ("everything",),
}
"""The rule files in tests/alerts/chart: the mode and the options that each is rendered with."""

_YOURS = re.compile(
    r"image: keysync:|client-id: \"0+-|subscription_id: 0+-|resource_group: |- name: sampleacct|url: https:"
)
_OF_HELM = re.compile(r"# Source:| *(?:helm\.sh/chart|app\.kubernetes\.io/managed-by):")
_MADE = "Made from deploy/helm/keysync by `nox -s chart -- --write`"


class RefusedError(Exception):
    """Helm ended with an error. The text is what it printed."""


def helm(*arguments: str) -> str:
    """What Helm prints on stdout, without the plugins and repositories of this machine's user. Raises RefusedError."""
    with tempfile.TemporaryDirectory() as home:
        own = {f"HELM_{name}_HOME": home for name in ("CACHE", "CONFIG", "DATA")}
        command = [os.environ["HELM"], *arguments]
        ended = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RefusedError(ended.stdout + ended.stderr)
    return ended.stdout


def values(mode: str) -> Path:
    """The values of a mode."""
    return CHART / "ci" / f"{mode}-values.yaml"


def render(mode: str, *options: str) -> str:
    """The manifests of a mode, as YAML. Raises RefusedError."""
    return helm("template", "keysync", str(CHART), "--namespace", "render", "--values", str(values(mode)), *options)


def plain_manifest(mode: str) -> str:
    """deploy/kubernetes/MODE.yaml, without Helm's labels, and with a comment at each value that a user must change."""
    about = values(mode).read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    lines = [
        f"# {about} {_MADE}.",
        f'# Set what is marked "yours", then: kubectl apply -n NAMESPACE -f deploy/kubernetes/{mode}.yaml',
    ]
    shown = (one for one in render(mode, "--skip-tests").removeprefix("---\n").splitlines() if not _OF_HELM.match(one))
    lines += [f"{line}  # yours" if _YOURS.search(line) else line for line in shown]
    return "\n".join(lines) + "\n"


def rules(name: str) -> str:
    """tests/alerts/chart/NAME.rules.yaml: the alerts whose expressions the chart makes itself, as a rule file of Prometheus."""
    mode, *options = RULES[name]
    shown = render(
        mode, *options, "--set", "metrics.prometheusRule.enabled=true", "--show-only", "templates/prometheusrule.yaml"
    )
    yaml = YAML()
    yaml.width = 4096
    groups = yaml.load(shown)["spec"]["groups"]
    own = [rule for group in groups for rule in group["rules"] if rule["alert"] in {"KeysyncAbsent", "KeysyncDown"}]
    text = io.StringIO()
    yaml.dump({"groups": [{"name": "keysync", "rules": own}]}, text)
    return f"# {_MADE}; the values are ci/{mode}-values.yaml.\n{text.getvalue()}"


def values_schema() -> str:
    """The chart's values.schema.json."""
    script = [sys.executable, str(ROOT / "deploy" / "helm" / "schema.py")]
    return subprocess.run(script, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    """Writes them all."""
    # First, since rendering checks the values against it.
    (CHART / "values.schema.json").write_text(values_schema(), encoding="utf-8")
    for mode in PLAIN:
        (ROOT / "deploy" / "kubernetes" / f"{mode}.yaml").write_text(plain_manifest(mode), encoding="utf-8")
    for name in RULES:
        (ROOT / "tests" / "alerts" / "chart" / f"{name}.rules.yaml").write_text(rules(name), encoding="utf-8")


if __name__ == "__main__":
    main()
