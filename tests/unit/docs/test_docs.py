"""The documents say what is so: links lead somewhere, commands and options exist, configurations load, tables hold.

Nothing is let pass: a block that cannot be checked is preceded by a line ``<!-- not checked: REASON -->``.
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
from keysync.config.settings import Config
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
# Checked by other tests (python), by their tools alone, or by nothing but a reader's eyes.
OTHER: Final = frozenset({"python", "promql", "mermaid", "text", "toml", "dockerfile", "ini", "diff", "csharp"})
PREFIXES: Final = ("keysync", ".venv/bin/keysync")

# An option in a sentence that is not keysync's, and whose it is.
FOREIGN: Final = {
    "--allow-removals": "considered and left, docs/decisions/0005",
    "--over-budget": "considered and left, docs/decisions/0005",
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


def named(items: list[Any]) -> list[Any]:
    return [pytest.param(item, id=str(item)) for item in items]


def checked(*languages: str) -> list[Any]:
    return named([block for block in BLOCKS if block.language in languages and block.reason is None])


# Links


@pytest.mark.parametrize("page", named(PAGES))
def test_every_link_leads_to_a_file_and_to_an_anchor_in_it(page: Page) -> None:
    """Of relative links; what stands on other servers is not asked."""
    known = {one.path: one for one in PAGES}
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


def test_every_block_is_of_a_language_that_is_known() -> None:
    """One that is misspelt would be checked by nobody, and coloured by no one."""
    unknown = [f"{block}: {block.info!r}" for block in BLOCKS if block.language not in SHELL | DATA | OTHER | {""}]
    assert unknown == []


@pytest.mark.parametrize("block", checked("json"))
def test_every_block_of_json_is_json(block: Block) -> None:
    """With values in it, not comments."""
    json.loads(block.text)


@pytest.mark.parametrize("block", checked("yaml"))
def test_every_block_of_yaml_is_read_by_what_it_is_for(block: Block, tmp_path: Path) -> None:
    """A whole configuration, a part of one, data of the emulator, values of the chart, or manifests of Kubernetes."""
    documents = list(YAML(typ="safe", pure=True).load_all(block.text))
    for document in documents:
        assert isinstance(document, dict), "a document that is no mapping"
        if "apiVersion" in document and "kind" in document:
            continue  # their own check needs the schemas of Kubernetes
        assert len(documents) == 1, "several documents of which one is no manifest"
        if isinstance(document.get("vaults"), list):
            load_data(_file(tmp_path, block.text), {})
        elif document.keys() <= {one.name for one in fields(Config) if one.init}:
            _check_configuration(document, block.text, tmp_path)
        else:
            _check_values(document, tmp_path)


def _check_values(document: dict[str, Any], folder: Path) -> None:
    """Values of the chart; their `config` may be a part of one."""
    assert CHART.exists(), f"{sorted(document)} is no configuration of keysync, and there is no chart"
    whole = json.loads(CHART.read_text(encoding="utf-8"))
    schema = {key: value for key, value in whole.items() if key != "required"}
    schema["properties"] = {**whole["properties"], "config": {"type": "object"}}
    jsonschema.validators.validator_for(whole)(schema).validate(document)
    if "config" in document:
        _check_configuration(document["config"], _dumped(document["config"]), folder)


def _check_configuration(document: dict[str, Any], text: str, folder: Path) -> None:
    """A configuration with what it needs to be whole; variables are set and files are there."""
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
    here = re.sub(r"((?:\w+_file|ca_bundle): *[\"']?)/", r"\1", text)
    for name in re.findall(r"(?:\w+_file|ca_bundle): *[\"']?([^\s,}\"']+)", here):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(certificate_pem(datetime(2040, 1, 1, tzinfo=UTC)))
    variables = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "https://example.com")
    load_config(_file(folder, here + _dumped(added)), variables)


def _file(folder: Path, text: str) -> Path:
    file = folder / "keysync.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def _dumped(value: dict[str, Any]) -> str:
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(value, stream)
    return stream.getvalue() if value else ""


def test_the_head_of_an_unchecked_block_says_why() -> None:
    """And it is a reason."""
    assert [str(block) for block in BLOCKS if block.reason is not None and len(block.reason.split()) < 3] == []


# Commands


def invocations(text: str) -> Iterator[list[str]]:
    """The words of each call of keysync in a script, without redirections."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for shown in joined.splitlines():
        line = re.sub(r"^\$ ", "", shown.strip())
        # What is inside of quotes or a substitution belongs to another program.
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:
            continue  # a quotation that goes on in the next line
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
    """What is wrong with a command line, None if nothing is; nothing is run."""
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
def test_every_call_of_keysync_in_a_script_is_one_that_keysync_knows(block: Block) -> None:
    """Its command, each option, and what an option takes."""
    wrong = [f"{block}: keysync {shlex.join(words)}: {complaint(words)}" for words in invocations(block.text)]
    assert [one for one in wrong if not one.endswith(": None")] == []


def filled_in(code: str) -> str:
    """A call in a sentence, its placeholders replaced by something that fits."""
    text = re.sub(r"--port N\b|--shards N\b", lambda found: found[0].replace(" N", " 3"), code)
    return text.replace("…", "x").replace("I/N", "0/3")


@pytest.mark.parametrize("page", named(PAGES))
def test_every_call_of_keysync_in_a_sentence_is_one_that_keysync_knows(page: Page) -> None:
    """`keysync sync --account NAME` as well as the bare command."""
    wrong = [
        f"{page}:{line}: `{code}`: {told}"
        for line, code in page.code()
        # What is in code may be a name as well, such as of a tag.
        if re.match(r"(\.venv/bin/)?keysync -{0,2}[a-z]", code)
        for told in map(complaint, invocations(filled_in(code)))
        # A sentence may name an option without what it takes.
        if told and not (told.endswith("requires an argument.") and code.split()[-1].startswith("-"))
    ]
    assert wrong == []


def options() -> set[str]:
    """Every option of every command."""
    commands = [COMMANDS, *COMMANDS.commands.values()]
    return {"--help", *(name for one in commands for parameter in one.params for name in parameter.opts)}


@pytest.mark.parametrize("page", named(PAGES))
def test_every_option_in_a_sentence_is_one_of_keysyncs_own_or_said_to_be_anothers(page: Page) -> None:
    """An option that was renamed does not live on in the documents."""
    known = options()
    wrong = [
        f"{page}:{line}: `{code}`"
        for line, code in page.code()
        if code.startswith("--") and not {code, re.split(r"[ =]", code)[0]} & (known | FOREIGN.keys())
    ]
    assert wrong == []


# Tables and names


def test_the_exit_codes_are_those_of_the_code() -> None:
    """In README each of them, elsewhere no other."""

    def below(error: type[KeysyncError]) -> Iterator[int]:
        yield error.exit_code
        for one in error.__subclasses__():
            yield from below(one)

    # 3 and 4 are in keysync.cli.sync, which raises nothing for them.
    own = {0, 3, 4, *below(KeysyncError), *(128 + one for one in (signal.SIGINT, signal.SIGTERM))}
    for page in PAGES:
        for header, *rows in page.tables():
            if header[0] in {"code", "exit code"}:
                found = {int(code) for row in rows for code in re.findall(r"\d+", row[0])}
                assert found <= own, f"{page}: {found - own} is no exit code"
                assert found == own or page.path != ROOT / "README.md", f"{page}: {own - found} is missing"


@pytest.mark.parametrize("page", named(PAGES))
def test_every_table_that_a_command_writes_has_been_written(page: Page) -> None:
    """A sentence that ends with a colon and nothing behind it tells nobody anything."""
    text = page.path.read_text(encoding="utf-8")
    tables = re.findall(r"^<!-- table: (\S+) -->\n(.*?)^<!-- /table -->", text, re.DOTALL | re.MULTILINE)
    assert [name for name, table in tables if "| --- |" not in table] == []
    assert len(tables) == text.count("<!-- table: ")


def test_every_metric_that_is_named_is_one_that_there_is() -> None:
    """observability.md lists them, and is compared with the code."""
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


def test_the_variables_of_the_environment_are_those_of_the_code() -> None:
    """Each that keysync reads by its name, and no other."""
    page = next(page for page in PAGES if page.path == reference.PAGE)
    table = next(rows for rows in page.tables() if rows[0][0] == "variable")
    told = {name for row in table for name in re.findall(r"`(KEYSYNC_\w+)`", row[0])}
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "keysync").rglob("*.py")]
    assert told == {name for text in sources for name in re.findall(r"\bKEYSYNC_[A-Z_]+\b", text)}


def test_the_reference_of_the_configuration_is_as_the_models_are() -> None:
    """`python -m tests.support.reference` writes it anew."""
    text = reference.PAGE.read_text(encoding="utf-8")
    assert reference.written(text) == text


def test_the_readme_stays_short() -> None:
    """What is longer belongs into a guide."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


# That the checks themselves see what is wrong


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
def test_a_call_that_is_wrong_is_seen(line: str, part: str) -> None:
    """Wherever in a line it stands."""
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
def test_a_call_that_is_right_runs(line: str) -> None:
    """Comments, redirections, prompts and continued lines are no part of it."""
    (words,) = invocations(line)
    assert complaint(words) is None


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("`/api/status`", "apistatus"),
        ("The data file", "the-data-file"),
        ("`credential: {type: environment}`", "credential-type-environment"),
        ("What *it* does, [here](x.md)", "what-it-does-here"),
    ],
)
def test_an_anchor_is_made_as_github_makes_it(heading: str, anchor: str) -> None:
    """Letters, digits, dashes and underscores stay."""
    assert slug(heading) == anchor
