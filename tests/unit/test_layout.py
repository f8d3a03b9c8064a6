"""The package stays small enough to read: lines, modules, functions and parameters have limits."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import keysync

PACKAGE = Path(keysync.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "emulator" not in path.relative_to(PACKAGE).parts)
LINES = 16_740  # lower it with each simplification: 15,000 is the goal for what there was before `rotation`
MODULE_LINES, FUNCTION_LINES, MEDIAN_LINES, PARAMETERS = 400, 50, 8, 7

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[Function]:
    yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, Function))


def length(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def parameters(function: Function) -> list[str]:
    names = [each.arg for each in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    return [name for name in names if name not in {"self", "cls"}]


def lines_of(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_the_package_without_the_embedded_azure_is_small():
    """A newcomer has to read it."""
    assert sum(lines_of(path) for path in MODULES if "rotation" not in path.parts) <= LINES


def test_modules_are_short():
    """A module is one subject, so it fits on a few pages."""
    assert [path.name for path in MODULES if lines_of(path) > MODULE_LINES] == []


def test_functions_are_short():
    """A long function is read twice."""
    every = [(path.name, function) for path in MODULES for function in functions(path)]
    assert [(name, each.name) for name, each in every if length(each) > FUNCTION_LINES] == []
    assert median(length(each) for _, each in every) <= MEDIAN_LINES


def test_calls_have_few_parameters():
    """What belongs together is one object. The commands are exempt: click passes each option as a parameter."""
    wide = [
        (path.name, each.name)
        for path in MODULES
        for each in functions(path)
        if len(parameters(each)) > PARAMETERS and not each.decorator_list
    ]
    assert wide == []
