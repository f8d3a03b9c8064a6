"""The documents are correct: links resolve, commands and options exist, configurations load, tables match the code.

A block that cannot be checked needs a line ``<!-- not checked: REASON -->`` before it.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import signal
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import click
import jsonschema
import pytest
from ruamel.yaml import YAML

from keysync.cli.main import app
from keysync.config.load import load_config
from keysync.config.model import Config
from keysync.emulator import load_data
from keysync.errors import KeysyncError
from tests.support import reference
from tests.support.certificates import certificate_pem
from tests.support.markdown import ROOT, Block, Page, pages, slug

PAGES: Final = pages()
BLOCKS: Final = [block for page in PAGES for block in page.blocks]
COMMANDS: Final = app

CHART: Final = ROOT / "deploy" / "helm" / "keysync" / "values.schema.json"
SHELL: Final = frozenset({"sh", "bash", "shell", "console"})
DATA: Final = frozenset({"yaml", "json"})
# Checked by other tests (python), by their own tools, or only by the reader.
OTHER: Final = frozenset({"python", "promql", "mermaid", "text", "toml", "dockerfile", "ini", "diff", "csharp"})
PREFIXES: Final = ("keysync", ".venv/bin/keysync")

# Options in a sentence that belong to another program, or to a rejected alternative.
OTHER_OPTIONS: Final = {
    "--allow-removals": "a rejected alternative, docs/decisions/0005",
    "--over-budget": "a rejected alternative, docs/decisions/0005",
    "--build-arg": "docker",
    "--publish": "docker",
    "--format docker": "podman and buildah",
    "--network=host": "docker",
    "--init": "docker",
    "--stop-timeout 30": "docker",
    "--no-healthcheck": "docker",
    "--require-hashes": "pip",
    "--wait": "helm",
    "--output none": "az",
}


def with_ids(items: list[Any]) -> list[Any]:
    return [pytest.param(item, id=str(item)) for item in items]


def checked(*languages: str) -> list[Any]:
    return with_ids([block for block in BLOCKS if block.language in languages and block.reason is None])


# Links


@pytest.mark.parametrize("page", with_ids(PAGES))
def test_every_relative_link_leads_to_a_file_and_an_anchor(page: Page) -> None:
    """Links to other servers are not checked."""
    known = {page.path: page for page in PAGES}
    wrong = []
    for line, target in page.links():
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, anchor = unquote(target).partition("#")
        file = (page.path.parent / name).resolve() if name else page.path
        if not file.exists() or not file.is_relative_to(ROOT):
            wrong.append(f"{page}:{line}: {target}: there is no such file")
        elif anchor and file in known and anchor not in known[file].anchors():
            wrong.append(f"{page}:{line}: {target}: that page has no such heading")
    assert wrong == []


# Blocks


def test_every_block_has_a_known_language() -> None:
    """A misspelt language would skip the checks and the highlighting."""
    unknown = [f"{block}: {block.info!r}" for block in BLOCKS if block.language not in SHELL | DATA | OTHER | {""}]
    assert unknown == []


@pytest.mark.parametrize("block", checked("json"))
def test_every_block_of_json_is_json(block: Block) -> None:
    """JSON with values, without comments."""
    json.loads(block.text)


@pytest.mark.parametrize("block", checked("yaml"))
def test_every_block_of_yaml_loads_as_its_kind(block: Block, tmp_path: Path) -> None:
    """A configuration or a part of one, data of the emulator, values of the chart, or Kubernetes manifests."""
    documents = list(YAML(typ="safe", pure=True).load_all(block.text))
    for document in documents:
        assert isinstance(document, dict), "a document that is not a mapping"
        if "apiVersion" in document and "kind" in document:
            continue  # the chart session checks manifests, with the schemas of Kubernetes
        assert len(documents) == 1, "several documents, and one is not a manifest"
        if isinstance(document.get("vaults"), list):
            load_data(_file(tmp_path, block.text), {})
        elif document.keys() <= {field.name for field in fields(Config) if field.init}:
            _check_configuration(document, block.text, tmp_path)
        else:
            _check_values(document, tmp_path)


def _check_values(document: dict[str, Any], folder: Path) -> None:
    """Checks values of the chart; their `config` may be incomplete."""
    assert CHART.exists(), f"{sorted(document)} is not a configuration of keysync, and there is no chart"
    chart = json.loads(CHART.read_text(encoding="utf-8"))
    schema = {key: value for key, value in chart.items() if key != "required"}
    schema["properties"] = {**chart["properties"], "config": {"type": "object"}}
    jsonschema.validators.validator_for(chart)(schema).validate(document)
    if "config" in document:
        _check_configuration(document["config"], _dumped(document["config"]), folder)


def _check_configuration(document: dict[str, Any], text: str, folder: Path) -> None:
    """Loads a configuration after adding its missing keys, variables and files."""
    accounts = [entry for key in ("accounts", "discover") for entry in document.get(key) or ()]
    added: dict[str, Any] = {}
    if "vaults" not in document:
        names = sorted({name for entry in accounts for name in entry.get("vaults", ())}) or ["main"]
        added["vaults"] = {name: {"url": f"https://kv-{number}.vault.azure.net"} for number, name in enumerate(names)}
    if not accounts:
        account = {"subscription_id": "00000000-0000-0000-0000-000000000000", "resource_group": "g", "name": "sample"}
        added["accounts"] = [{**account, "vaults": list(document.get("vaults") or added["vaults"])[:1]}]
    if document.get("orphans", "keep") != "keep" and "owner" not in document:
        added["owner"] = "docs"
    relative = re.sub(r"((?:\w+_file|ca_bundle): *[\"']?)/", r"\1", text)
    for name in re.findall(r"(?:\w+_file|ca_bundle): *[\"']?([^\s,}\"']+)", relative):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(certificate_pem(datetime(2040, 1, 1, tzinfo=UTC)))
    variables = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "https://example.com")
    load_config(_file(folder, relative + _dumped(added)), variables)


def _file(folder: Path, text: str) -> Path:
    file = folder / "keysync.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def _dumped(value: dict[str, Any]) -> str:
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(value, stream)
    return stream.getvalue() if value else ""


def test_an_unchecked_block_has_a_reason() -> None:
    """Three words at least."""
    assert [str(block) for block in BLOCKS if block.reason is not None and len(block.reason.split()) < 3] == []


# Commands


def invocations(text: str) -> Iterator[list[str]]:
    """The arguments of each call of keysync in a script, without redirections."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for shown in joined.splitlines():
        line = re.sub(r"^\$ ", "", shown.strip())
        # Text inside quotes or a substitution belongs to another program.
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:
            continue  # a quotation that continues on the next line
        yield from _calls(words)


def _calls(words: list[str]) -> Iterator[list[str]]:
    call: list[str] = []
    for word in [*words, ";"]:
        if set(word) <= set("();|&"):
            if call and call[0] in PREFIXES:
                yield call[1:]
            call = []
        elif set(word) <= set("<>&") or call or not re.fullmatch(r"\w+=.*", word):
            call.append(word)


def complaint(words: list[str]) -> str | None:
    """The error in a command line, or None. Nothing is executed."""
    if ">" in words or "<" in words:
        words = words[: min(words.index(sign) for sign in ("<", ">") if sign in words)]
    try:
        _check(words)
    except click.ClickException as error:
        return error.format_message()
    except ValueError as error:
        return str(error)
    return None


def _check(words: list[str]) -> None:
    context = click.Context(COMMANDS, info_name="keysync")
    _, rest, _ = COMMANDS.make_parser(context).parse_args(list(words))
    if not rest:
        return
    command = COMMANDS.get_command(context, rest[0])
    if command is None:
        raise ValueError(f"there is no command {rest[0]}")
    inner = click.Context(command, info_name=rest[0], parent=context)
    values, left, _ = command.make_parser(inner).parse_args(rest[1:])
    if left:
        raise ValueError(f"{rest[0]} takes no {left[0]}")
    for parameter in command.params:
        if parameter.name in values and not parameter.is_eager:
            parameter.process_value(inner, values[parameter.name])


@pytest.mark.parametrize("block", checked(*SHELL))
def test_every_call_of_keysync_in_a_script_is_valid(block: Block) -> None:
    """Its command, each option, and the values of options."""
    wrong = [f"{block}: keysync {shlex.join(words)}: {complaint(words)}" for words in invocations(block.text)]
    assert [line for line in wrong if not line.endswith(": None")] == []


def filled_in(code: str) -> str:
    """A call in a sentence, with valid values instead of its placeholders."""
    text = re.sub(r"--port N\b|--shards N\b", lambda found: found[0].replace(" N", " 3"), code)
    return text.replace("…", "x").replace("I/N", "0/3")


@pytest.mark.parametrize("page", with_ids(PAGES))
def test_every_call_of_keysync_in_a_sentence_is_valid(page: Page) -> None:
    """`keysync sync --account NAME` or only the command."""
    wrong = [
        f"{page}:{line}: `{code}`: {problem}"
        for line, code in page.code()
        # Code in a sentence may also be a name, such as that of a tag.
        if re.match(r"(\.venv/bin/)?keysync -{0,2}[a-z]", code)
        for problem in map(complaint, invocations(filled_in(code)))
        # A sentence may name an option without its value.
        if problem and not (problem.endswith("requires an argument.") and code.split()[-1].startswith("-"))
    ]
    assert wrong == []


def options() -> set[str]:
    """Every option of every command."""
    commands = [COMMANDS, *COMMANDS.commands.values()]
    return {"--help", *(name for command in commands for parameter in command.params for name in parameter.opts)}


@pytest.mark.parametrize("page", with_ids(PAGES))
def test_every_option_in_a_sentence_exists_or_is_listed_above(page: Page) -> None:
    """A renamed option does not remain in the documents."""
    known = options()
    wrong = [
        f"{page}:{line}: `{code}`"
        for line, code in page.code()
        if code.startswith("--") and not {code, re.split(r"[ =]", code)[0]} & (known | OTHER_OPTIONS.keys())
    ]
    assert wrong == []


# Tables and names


def test_the_documented_exit_codes_exist() -> None:
    """README has all of them, other pages no others."""

    def below(error: type[KeysyncError]) -> Iterator[int]:
        yield error.exit_code
        for subclass in error.__subclasses__():
            yield from below(subclass)

    # 3 and 4 are in keysync.cli.sync, which raises nothing for them.
    own = {0, 3, 4, *below(KeysyncError), *(128 + number for number in (signal.SIGINT, signal.SIGTERM))}
    for page in PAGES:
        for header, *rows in page.tables():
            if header[0] in {"code", "exit code"}:
                found = {int(code) for row in rows for code in re.findall(r"\d+", row[0])}
                assert found <= own, f"{page}: {found - own} is not an exit code"
                assert found == own or page.path != ROOT / "README.md", f"{page}: {own - found} is missing"


@pytest.mark.parametrize("page", with_ids(PAGES))
def test_every_generated_table_has_content(page: Page) -> None:
    """Between its markers."""
    text = page.path.read_text(encoding="utf-8")
    tables = re.findall(r"^<!-- table: (\S+) -->\n(.*?)^<!-- /table -->", text, re.DOTALL | re.MULTILINE)
    assert [name for name, table in tables if "| --- |" not in table] == []
    assert len(tables) == text.count("<!-- table: ")


def test_every_named_metric_exists() -> None:
    """observability.md lists the metrics, and another test compares it with the code."""
    listed = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    known = set(re.findall(r"^\| `(keysync_\w+)` \|", listed, re.MULTILINE))
    suffixes = re.compile(r"_(bucket|sum|count|created)$")
    wrong = [
        f"{page}: {name}"
        for page in PAGES
        for text in (page.prose, *(block.text for block in page.blocks))
        for name in re.findall(r"\bkeysync_[a-z_]+\b", text)
        if suffixes.sub("", name) not in known
    ]
    assert wrong == []


def test_the_documented_environment_variables_are_those_of_the_code() -> None:
    """All KEYSYNC_ variables, and no others."""
    page = next(page for page in PAGES if page.path == reference.PAGE)
    table = next(rows for rows in page.tables() if rows[0][0] == "variable")
    documented = {name for row in table for name in re.findall(r"`(KEYSYNC_\w+)`", row[0])}
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "keysync").rglob("*.py")]
    assert documented == {name for text in sources for name in re.findall(r"\bKEYSYNC_[A-Z_]+\b", text)}


def test_the_reference_of_the_configuration_matches_the_models() -> None:
    """`python -m tests.support.reference` updates it."""
    text = reference.PAGE.read_text(encoding="utf-8")
    assert reference.written(text) == text


def test_the_readme_stays_short() -> None:
    """Details belong in a guide."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


# The checks themselves find errors


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("keysync snc", "snc"),
        ("keysync sync --acount x", "--acount"),
        ("keysync sync --output xml", "xml"),
        ("keysync plan x", "takes no x"),
        ("keysync --lgo-level info plan", "--lgo-level"),
        ("A=b keysync emulator --port none && true", "--port"),
        ("true | .venv/bin/keysync sync --shard", "--shard"),
    ],
)
def test_an_invalid_call_is_found(line: str, part: str) -> None:
    """Anywhere in a line."""
    (words,) = invocations(line)
    assert part in (complaint(words) or "")


@pytest.mark.parametrize(
    "line",
    [
        "keysync sync -c keysync.yaml   # one run",
        "keysync role > role.sh" if "role" in getattr(COMMANDS, "commands", {}) else "keysync schema > x.json",
        "keysync emulator --ready-file azure.json &",
        "$ keysync --log-level info sync --account a --account b \\\n  --output json",
    ],
)
def test_a_valid_call_is_accepted(line: str) -> None:
    """Without its comments, redirections, prompts and line continuations."""
    (words,) = invocations(line)
    assert complaint(words) is None


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("`/api/status`", "apistatus"),
        ("The data file", "the-data-file"),
        ("`credential: {type: environment}`", "credential-type-environment"),
        ("Which *secrets* it writes, [here](x.md)", "which-secrets-it-writes-here"),
    ],
)
def test_anchors_are_those_of_github(heading: str, anchor: str) -> None:
    """Letters, digits, dashes and underscores stay."""
    assert slug(heading) == anchor


@pytest.mark.parametrize(
    ("page", "quote"),
    [
        ("rotation.md", "is not tagged as keysync's"),
        ("faq.md", "has no shared keys"),
        ("deployment.md", "leader_election: no way to Kubernetes"),
    ],
)
def test_quoted_messages_are_those_of_the_code(page: str, quote: str) -> None:
    """A reader searches for the text that keysync printed."""
    assert quote in (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert any(quote in path.read_text(encoding="utf-8") for path in (ROOT / "keysync").rglob("*.py"))
