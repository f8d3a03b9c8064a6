"""docs/observability.md matches the code, in both directions."""

from __future__ import annotations

import ast
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import structlog
from prometheus_client import CollectorRegistry

import keysync
from keysync.report.log import RunLog
from keysync.report.metrics import OVERDUE, StatusCollector
from keysync.report.status import AccountState, SyncState, render
from keysync.sync.model import Outcome, Result, RunResult
from keysync.tracing import ACCOUNT, RUN, SECRET
from keysync.web.app import make_web_app
from keysync.web.query import SORTS, Query
from tests.support.alerts import REPORT, exposed, families
from tests.support.runs import ref
from tests.support.snapshots import DENIED, varied

TEXT = (Path(__file__).parents[2] / "docs" / "observability.md").read_text(encoding="utf-8")
CODE = Path(keysync.__file__).parent
LEVELS = ("debug", "info", "warning", "error", "critical")
DOTTED = re.compile(r"[a-z_]+(\.[a-z_]+)+")


def rows(first: str) -> list[dict[str, str]]:
    """The rows of every table whose first column is `first`, keyed by column name."""
    results: list[dict[str, str]] = []
    columns: list[str] = []
    for line in TEXT.splitlines():
        cells = [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]
        if not line.startswith("|"):
            columns = []
        elif not columns:
            columns = cells
        elif columns[0] == first and set(line) - set("|- "):
            results.append(dict(zip(columns, cells, strict=True)))
    assert results, f"no table of {first}"
    return results


def code_in(cell: str) -> list[str]:
    """The texts in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def name(cell: str) -> str:
    (only,) = code_in(cell)
    return only


@dataclass
class Logged:
    """The levels and fields of one event. `open_ended`: some fields are known only at run time."""

    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)
    open_ended: bool = False


def calls(method: str) -> Iterator[tuple[ast.Call, ast.AST]]:
    """Every call of a method or function of this name in the code, with the enclosing function."""
    for path in sorted(CODE.rglob("*.py")):
        yield from calls_in(path, method)


def calls_in(path: Path, method: str) -> Iterator[tuple[ast.Call, ast.AST]]:
    """As `calls`, in one file."""
    if method in path.read_text(encoding="utf-8"):
        for around in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(around, ast.FunctionDef | ast.AsyncFunctionDef):
                for node in ast.walk(around):
                    if isinstance(node, ast.Call) and method == getattr(
                        node.func, "attr", getattr(node.func, "id", None)
                    ):
                        yield node, around


def literals(node: ast.AST, around: ast.AST) -> set[str]:
    """The possible texts of an expression: constants, f-strings with a star for each gap, and variables by their assignments."""
    if isinstance(node, ast.Constant):
        return {node.value} if isinstance(node.value, str) else set()
    if isinstance(node, ast.JoinedStr):
        return {"".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values)}
    if isinstance(node, ast.IfExp):
        return literals(node.body, around) | literals(node.orelse, around)
    if isinstance(node, ast.Name):
        assigns = [part for part in ast.walk(around) if isinstance(part, ast.Assign)]
        values = [part.value for part in assigns if any(getattr(to, "id", None) == node.id for to in part.targets)]
        return {text for value in values for text in literals(value, around)}
    return set()


@cache
def logged_in_code() -> dict[str, Logged]:
    """Events whose level is fixed in the code."""
    results: defaultdict[str, Logged] = defaultdict(Logged)
    for path in CODE.rglob("*.py"):
        # Fields that the file's logger has for all of its events.
        bound = {keyword.arg for call, _ in calls_in(path, "get_logger") for keyword in call.keywords if keyword.arg}
        for level in LEVELS:
            for call, around in calls_in(path, level):
                for event in literals(call.args[0], around) if call.args else ():
                    if DOTTED.fullmatch(event):
                        logged = results[event]
                        logged.levels.add(level)
                        logged.fields |= bound | {keyword.arg for keyword in call.keywords if keyword.arg}
                        logged.open_ended |= any(keyword.arg is None for keyword in call.keywords)
    return dict(results)


def patterns_in_code() -> set[str]:
    """Events of `log(level, event)`, whose level is known only at run time."""
    results = (literals(call.args[1], around) for call, around in calls("log") if len(call.args) == 2)
    return {event for events in results for event in events}


@cache
def logged_by_runs() -> dict[str, Logged]:
    """The events that runs really log, for every outcome."""
    good, bad = Result(ref("alpha"), "unchanged"), Result(ref("alpha"), "failed", error=DENIED)
    results: defaultdict[str, Logged] = defaultdict(Logged)
    with structlog.testing.capture_logs() as lines:
        for outcome in get_args(Outcome):
            log = RunLog()
            error = DENIED if outcome in {"failed", "unknown"} else None
            result = Result(ref("alpha"), outcome, version="1", reason="because", error=error, verdict="stale")
            for item in (bad, good, replace(result, verdict="both_changed")):
                log.result("run-1", item)
        for report in (REPORT, replace(REPORT, results=(bad,))):
            for more in ({}, {"interrupted": True}, {"stopped": "too much"}, {"busy": 1}, {"warnings": ("one",)}):
                RunLog().finished(replace(report, **more))
    for line in lines:
        logged = results[str(line["event"])]
        logged.levels.add(line["log_level"])
        logged.fields |= set(line) - {"event", "log_level"}
    return dict(results)


def documented_fields(row: dict[str, str]) -> set[str]:
    """The fields of an event, with the groups of fields that the document names."""
    words = {
        "the item": r"^The item: (.*?)\.\sThe\sfailure",
        "the failure": r"The\sfailure: (.*?)\.\sThe\scounts",
        "the counts": r"The\scounts: (.*?),?\sand\srarer",
    }
    results = set(code_in(row["fields"]))
    cell = "the counts, `run_id`, `dry_run`, `duration_seconds`" if row["fields"] == "as above" else row["fields"]
    results |= set(code_in(cell))
    for word, pattern in words.items():
        if word in cell:
            definition = re.search(pattern, TEXT, re.MULTILINE | re.DOTALL)
            assert definition, word
            results |= set(code_in(definition[1]))
    return results


EVENTS = {name(row["event"]): row for row in rows("event")}


def test_the_document_has_exactly_the_events_of_the_code() -> None:
    """No undocumented event, and no documented event that does not exist."""
    direct, patterns, by_runs = logged_in_code(), patterns_in_code(), logged_by_runs()
    assert {"secret.*", "secret.in_sync", "run.finished", "run.interrupted"} <= patterns
    by_level_at_run_time = {event for event in by_runs if any(fnmatchcase(event, pattern) for pattern in patterns)}
    for pattern in patterns:
        assert any(fnmatchcase(event, pattern) for event in by_runs), pattern
    # The only event name that contains the name of a library.
    (library,) = (call for call in re.findall(r'f"(library\.)\{', (CODE / "logs.py").read_text()))
    assert set(EVENTS) == set(direct) | by_level_at_run_time | {f"{library}*"}


def test_each_event_has_its_levels() -> None:
    """Operators filter by level."""
    direct, by_runs = logged_in_code(), logged_by_runs()
    code = {
        event: direct.get(event, Logged()).levels | by_runs.get(event, Logged()).levels for event in {*direct, *by_runs}
    }
    documented = {event: set(row["level"].split(", ")) for event, row in EVENTS.items() if event != "library.*"}
    assert documented == code


@pytest.mark.parametrize("event", sorted(set(EVENTS) - {"library.*"}))
def test_each_event_has_its_fields(event: str) -> None:
    """A line has exactly the documented fields."""
    documented = documented_fields(EVENTS[event])
    direct, by_runs = logged_in_code().get(event, Logged()), logged_by_runs().get(event, Logged())
    assert direct.fields | by_runs.fields <= documented
    if not direct.open_ended and event not in logged_by_runs():
        assert documented == direct.fields


def test_the_document_has_exactly_the_metrics_of_the_code() -> None:
    """Name, type and labels, and whether a one-off run also has it."""
    # The daemon takes this metric from its status, a one-off run from its registry.
    of_status = {family.name for family in StatusCollector(varied()).collect()} - {OVERDUE}
    code = {
        exposed(family): (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
            "`run`" if family.name in of_status else "everywhere",
        )
        for family in families()
    }
    documented = {
        name(row["metric"]): (row["type"], set(code_in(row["labels"])), row["where"]) for row in rows("metric")
    }
    assert documented == code


def test_every_metric_of_the_code_has_help_and_a_series() -> None:
    """Without a series, the labels of a family would not be compared."""
    for family in families():
        assert family.documentation
        assert family.samples, family.name


def paths(value: Any, at: str = "") -> Iterator[str]:
    """The path of every field. Errors and summaries are free-form: only their own path."""
    if isinstance(value, dict) and not at.endswith((".error", ".summary")):
        for key, inner in value.items():
            path = f"{at}.{key}" if at else key
            yield path
            yield from paths(inner, path)
    elif isinstance(value, list):
        for inner in value:
            yield from paths(inner, f"{at}[]")


def test_the_document_has_exactly_the_fields_of_the_status() -> None:
    """`/api/status`, field by field."""
    documented = [name(row["field"]) for row in rows("field")]
    assert len(documented) == len(set(documented))
    assert set(documented) == set(paths(json.loads(render(varied()))))


@pytest.mark.parametrize(
    ("table", "of", "kind"),
    [
        ("field", "accounts[].state", AccountState),
        ("field", "last_run.result", RunResult),
        ("metric", "keysync_accounts_by_state", AccountState),
        ("metric", "keysync_runs_total", RunResult),
        ("metric", "keysync_secrets", SyncState),
    ],
)
def test_the_values_are_those_of_the_code(table: str, of: str, kind: Any) -> None:
    """The document lists all values."""
    (row,) = (row for row in rows(table) if name(row[table]) == of)
    assert set(code_in(row["meaning"])) == set(get_args(kind))


def test_the_document_has_exactly_the_paths_that_are_served() -> None:
    """No path is missing, and none is invented."""

    served = {
        route.resource.canonical
        for route in make_web_app(varied, CollectorRegistry()).router.routes()
        if route.resource
    }
    assert {name(row["path"]) for row in rows("path") if "serves" in row} == served


def test_the_document_has_exactly_the_parameters_of_the_page() -> None:
    """A link that is written by hand works."""
    query = Query.parse({"q": "a", "state": "stale", "vault": "b", "sort": "name", "page": "2", "refresh": "off"})
    documented = {name(row["parameter"]): row["selects"] for row in rows("parameter")}
    assert set(documented) == set(re.findall(r"[?&](\w+)=", query.href()))
    assert set(code_in(documented["sort"])) - {"-"} == set(SORTS)


def test_the_document_has_exactly_the_spans_of_the_code() -> None:
    """Names and attributes of spans."""
    constants = {"RUN": RUN, "ACCOUNT": ACCOUNT, "SECRET": SECRET}
    code: dict[str, set[str]] = {}
    for call, _ in calls("span"):
        if not isinstance(call.func, ast.Name):
            continue  # the span of a regular expression match, or of a decoded text
        span, attributes = call.args
        if isinstance(span, ast.Name):
            assert span.id in constants
            keys = attributes.keys if isinstance(attributes, ast.Dict) else []
            code[constants[span.id]] = {str(key.value) for key in keys if isinstance(key, ast.Constant)}
    assert {name(row["span"]): set(code_in(row["attributes"])) for row in rows("span")} == code
