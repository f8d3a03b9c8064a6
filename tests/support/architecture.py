"""docs/architecture.md: the layer diagram and the table of import rules, made from pyproject.toml's import contracts.

`python -m tests.support.architecture` writes both between their markers; a test compares them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "architecture.md"

PURPOSES: Final = {
    "cli": "one module per command; opens everything",
    "daemon": "when runs start, and who leads",
    "web": "status page, probes, metrics",
    "access": "roles that a configuration needs",
    "report": "text, JSON, log, metrics, webhook",
    "rotation": "what to regenerate next, and the proof",
    "sync": "one run",
    "sources": "keys of Batch accounts; discovery",
    "targets": "secrets of Key Vault",
    "azure": "SDK clients, credentials, retries",
    "http": "proxies, TLS, sockets",
    "config": "the configuration file",
    "secret": "values: hold, compare, mask, reveal",
    "calls": "kinds of calls, circuit breaker state",
    "tracing": "spans",
    "failures": "failures as records",
    "json_values": "typed access to parsed JSON",
    "names": "how Azure compares names",
    "errors": "the error tree",
}
"""A few words for each layer."""

STAGES: Final = ("inventory", "collect", "plan", "limits", "apply")
"""The modules of keysync.sync in the order in which a run calls them."""

DATA_FLOW: Final = (
    ("batch[(Azure Batch)]", "sources", "keys"),
    ("vault[(Key Vault)]", "targets", "stored secrets"),
    ("targets", "vault", "new versions"),
)
"""The data that crosses the process boundary: from, to, data."""


def contracts() -> list[dict[str, Any]]:
    """The import contracts of pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    contract_list: list[dict[str, Any]] = tomllib.loads(text)["tool"]["importlinter"]["contracts"]
    return contract_list


def layers(contract: Mapping[str, Any]) -> list[list[str]]:
    """The rows of a layers contract, highest first; modules of one row are siblings. Names have no package prefix."""
    return [[_short(name) for name in re.split(r"[|:]", row)] for row in contract["layers"]]


def picture(rows: Sequence[Sequence[str]]) -> str:
    """A Mermaid flowchart of the rows. Solid arrows mean "may import", dotted arrows carry data."""
    return "".join(f"{line}\n" for line in ("```mermaid", "flowchart TB", *_nodes(rows), *_edges(rows), "```"))


def _nodes(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for name in (name for row in rows for name in row):
        if name == "sync":
            # The title of a subgraph must fit on one line.
            yield f'    subgraph sync ["<b>sync</b>: {_purpose("sync")}"]'
            yield "        direction LR"
            yield f"        {' --> '.join(STAGES)}"
            yield "    end"
        else:
            yield f'    {name}["{_label(name)}"]'


def _edges(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for upper, lower in pairwise(rows):
        yield f"    {' & '.join(upper)} --> {' & '.join(lower)}"
    for start, end, data in DATA_FLOW:
        yield f"    {start} -. {data} .-> {end}"


def _label(name: str) -> str:
    return f"<b>{name}</b><br>{_purpose(name)}"


def _purpose(name: str) -> str:
    """The description of a layer. Raises ValueError for a layer without one."""
    if name not in PURPOSES:
        raise ValueError(f"{name} is a new layer: describe it in PURPOSES of tests/support/architecture.py")
    return PURPOSES[name]


def rules(contract_list: Sequence[Mapping[str, Any]]) -> str:
    """A table of the contracts, without the layers."""
    rows = ["| rule | modules | must not import | except |", "|---|---|---|---|"]
    rows += [_rule(contract) for contract in contract_list if contract["type"] != "layers"]
    return "".join(f"{row}\n" for row in rows)


def _rule(contract: Mapping[str, Any]) -> str:
    if contract["type"] == "protected":
        cells = ("all others", _listed(contract["protected_modules"]), _listed(contract["allowed_importers"]))
    else:
        exceptions = _listed(contract.get("ignore_imports", ()))
        cells = (_listed(contract["source_modules"]), _listed(contract["forbidden_modules"]), exceptions)
    return f"| {contract['name']} | {' | '.join(cells)} |"


def _listed(names: Sequence[str]) -> str:
    """A package outside keysync, such as `azure`, is an SDK."""
    shown = (name.replace("keysync.", "") if name.startswith("keysync.") else f"{name} (the SDKs)" for name in names)
    return ", ".join(f"`{name}`".replace(" (the SDKs)`", "` (the SDKs)") for name in shown)


def _short(name: str) -> str:
    return name.strip().removeprefix("keysync.")


def written(text: str) -> str:
    """The text of the page with both parts generated from the current pyproject.toml."""
    contract_list = contracts()
    (contract,) = (item for item in contract_list if item["type"] == "layers")
    for name, part in (("picture", picture(layers(contract))), ("rules", rules(contract_list))):
        begin, end = f"<!-- {name}: python -m tests.support.architecture -->\n", f"<!-- /{name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}{part}{end}{rest.split(end, 1)[1]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
