"""The nodes of ruamel.yaml, typed: the library leaves the types of their attributes open."""

from __future__ import annotations

from typing import Any, Final, Protocol, cast

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

_TAG_PREFIX: Final = "tag:yaml.org,2002:"
_PLAIN_KINDS: Final = frozenset({"str", "int", "float", "bool", "null", "timestamp", "map", "seq", "value", "merge"})


class Mark(Protocol):
    """A position; both numbers count from 0."""

    line: int
    column: int


class Node(Protocol):
    """A node: `id` is ``scalar``, ``sequence`` or ``mapping``. `style` exists only on scalars."""

    id: str
    tag: str | None
    value: Any
    style: str | None
    start_mark: Mark


class SyntaxProblem(Protocol):
    """The attributes of ruamel's MarkedYAMLError."""

    context: str | None
    context_mark: Mark | None
    problem: str | None
    problem_mark: Mark | None


def compose(text: str) -> Node | None:
    """The top node of a YAML text, None for an empty one. Raises ruamel's YAMLError."""
    parser: Any = YAML(typ="safe", pure=True)
    return cast("Node | None", parser.compose(text))


def syntax_problem(error: MarkedYAMLError) -> SyntaxProblem:
    """`error` with typed attributes."""
    return cast("SyntaxProblem", error)


def kind_of(node: Node) -> str | None:
    """The kind of a plain value, such as ``str`` or ``map``; None for a tag that plain YAML does not have."""
    prefix, kind = str(node.tag)[: len(_TAG_PREFIX)], str(node.tag)[len(_TAG_PREFIX) :]
    return kind if prefix == _TAG_PREFIX and kind in _PLAIN_KINDS else None


def position(node: Node) -> tuple[int, int]:
    """Line and column of the start of `node`, from 1."""
    return node.start_mark.line + 1, node.start_mark.column + 1


def scalar(node: Node) -> str | None:
    """The text of a scalar, None for another node."""
    return str(node.value) if node.id == "scalar" else None


def items(node: Node) -> list[Node] | None:
    """The items of a sequence, None for another node."""
    return cast("list[Node]", node.value) if node.id == "sequence" else None


def pairs(node: Node) -> list[tuple[Node, Node]] | None:
    """The keys and values of a mapping, None for another node."""
    return cast("list[tuple[Node, Node]]", node.value) if node.id == "mapping" else None


def is_merge_key(node: Node) -> bool:
    """Whether a key is the merge key ``<<``."""
    return node.id == "scalar" and node.value == "<<" and not node.style
