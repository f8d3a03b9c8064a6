"""A YAML file becomes a pydantic model, or a list of all that is wrong in it, each with its line.

Nothing here knows a particular file: `load_document` takes the model. A validator of that model says only what it
expects (`expected`, `problem`, `faults`); what was found, where it stands and whether it may be shown at all is
added here, so that no validator can let a secret slip into a message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, Tag, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from keysync.config.files import unreadable_hint
from keysync.config.formats import nearest
from keysync.errors import ConfigError, Finding
from keysync.files import secret_text
from keysync.secret.redact import Redactor

M = TypeVar("M", bound=BaseModel)

Location = tuple[str | int, ...]
"""Where a value stands: keys of mappings and indexes of lists, from the top."""

ALTERNATIVE = "="
"""A `Tag` of a union that starts with this is a name of an alternative, never a key of the file."""

SECRET_KEYS = frozenset({"client_secret", "password", "certificate_password"})
"""What stands under such a key is never shown, whatever the model says."""

SHOWN_KEYS = frozenset(
    [
        "account",
        "accounts",
        "adopt",
        "authority",
        "batch",
        "changes_per_day",
        "cloud",
        "collect",
        "concurrency",
        "creates",
        "cron",
        "disabled",
        "discover",
        "every",
        "events",
        "exclude",
        "expires_after",
        "jitter",
        "lease",
        "lease_duration",
        "listen",
        "name",
        "namespace",
        "orphans",
        "owner",
        "primary",
        "read_only",
        "recover",
        "removal_percent",
        "renew_deadline",
        "request",
        "resource_group",
        "resource_groups",
        "resource_manager",
        "retry_period",
        "secondary",
        "shutdown",
        "subscription_id",
        "subscriptions",
        "timeout",
        "timezone",
        "type",
        "update_percent",
        "url",
        "vaults",
        "verify_challenge_resource",
        "verify_every",
        "via",
    ]
)
"""The keys whose values are known to be harmless. A message shows no other value: any could be a secret that slipped there."""

_SHOWN_KEY = re.compile(r"[a-z_]{1,40}")
_SHOWN_NAME = re.compile(r"[A-Za-z0-9._-]{1,127}")
_SHOWN_QUOTES = re.compile(r"<[a-z ]+>|[^\w\s]|\\\\t")
_MOST_VALUES = 1_000_000  # aliases can make a small file into an endless one
_SHOWN = 60  # characters of a value in a message
_SHORT = 4  # a hidden value of fewer characters is only masked where it stands alone
_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_YAML = "tag:yaml.org,2002:"
_PLAIN_TAGS = frozenset(
    _YAML + kind for kind in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq", "value", "merge")
)


class FromEnvironment(str):
    """Text that holds the value of an environment variable. Where it holds nothing else, `variable` is its name."""

    __slots__ = ("variable",)

    def __new__(cls, text: str, *, variable: str | None) -> Self:
        made = super().__new__(cls, text)
        made.variable = variable
        return made

    variable: str | None


def expected(what: str, hint: str | None = None) -> PydanticCustomError:
    """What a validator raises for a value of another form; the message becomes "found …, expected `what`"."""
    return PydanticCustomError("expected", _literal(what), {"hint": hint or ""})


def problem(message: str, hint: str | None = None) -> PydanticCustomError:
    """What a validator raises where "found …" would say nothing: `message` stands alone."""
    return PydanticCustomError("problem", _literal(message), {"hint": hint or ""})


def faults(found: Iterable[tuple[Location, PydanticCustomError]]) -> ValidationError:
    """What a validator raises for several things at once, each at its place below the validated value."""
    details = [InitErrorDetails(type=error, loc=where, input=None) for where, error in found]
    return ValidationError.from_exception_data("several", details, hide_input=True)


def known_faults(error: ValidationError) -> list[tuple[Location, PydanticCustomError]]:
    """The parts of an error of pydantic, so that `faults` can raise them together with others."""
    return [
        (part["loc"], PydanticCustomError(part["type"], _literal(part["msg"]), part.get("ctx")))
        for part in error.errors(include_url=False, include_input=False)
    ]


def dotted(where: Location) -> str:
    """A location as it is shown: ``accounts[0].name``."""
    text = ""
    for part in (_shown_part(where, index) for index in range(len(where))):
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def load_document(path: Path, model: type[M], *, environ: Mapping[str, str]) -> M:
    """Reads `path` as YAML, puts the environment's values in place of ``${NAME}``, and validates it with `model`.

    Raises ConfigError with every finding of the file, in the order of their lines.
    """
    return read_document(path, environ=environ).validate(model)


def read_document(path: Path, *, environ: Mapping[str, str]) -> Document:
    """Reads `path` without validating it; the document keeps what is wrong so far until `Document.validate`.

    Raises ConfigError where there is nothing to go on with: no file, no text, no YAML, no mapping.
    """
    file = str(path)
    node = _compose(file, _read_text(path, file))
    document = Document(file)
    builder = _Builder(document, environ)
    try:
        value = builder.build((), None, node)
    except RecursionError:
        raise _fatal(file, "the values are nested too deeply") from None
    except _TooLargeError:
        raise _fatal(file, f"with its aliases the file has more than {_MOST_VALUES} values") from None
    if not isinstance(value, dict):
        raise ConfigError([document.finding((), f"found {_describe(value)}, expected a mapping of keys to values")])
    document.value = value
    return document


@dataclass(slots=True)
class _Spot:
    """Where a value and its key stand, and what it looked like."""

    line: int
    column: int
    value: Any = None
    key_line: int | None = None
    key_column: int | None = None
    text: str | None = None
    variables: tuple[str, ...] = ()


@dataclass(slots=True)
class Document:
    """A YAML file as plain values, with the place of each and the findings so far."""

    file: str
    value: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    spots: dict[Location, _Spot] = field(default_factory=dict)
    broken: set[Location] = field(default_factory=set)
    secret: set[Location] = field(default_factory=set)

    def report(self, where: Location, message: str, hint: str | None = None) -> None:
        """Notes a finding at `where`; what validation says of the same value later is left out."""
        self.broken.add(where)
        self.findings.append(self.finding(where, message, hint))

    def finding(self, where: Location, message: str, hint: str | None = None, *, at_key: bool = False) -> Finding:
        """A finding at `where`, or at the nearest thing above it that stands in the file."""
        present = where
        while present and present not in self.spots:
            present = present[:-1]
        line, column = self._place(present, at_key=at_key)
        return Finding(self.file, line, column, dotted(where), self._masked(message), hint and self._masked(hint))

    def validate(self, model: type[M]) -> M:
        """The document as a `model`. Raises ConfigError with all findings, those noted before included."""
        try:
            made = model.model_validate(self.value)
        except ValidationError as error:
            self.secret = {where for where in self.spots if _is_secret(model, where)}
            self.findings += _Translator(self, model).findings(error)
        except RecursionError:
            raise _fatal(self.file, "the values are nested too deeply") from None
        else:
            if not self.findings:
                return made
        raise ConfigError(sorted(self.findings, key=lambda one: (one.line or 0, one.column or 0)))

    def found(self, where: Location) -> str:
        """What stands at `where`, in words that may be shown."""
        spot = self.spots.get(where)
        if spot is None:
            return "nothing"
        if spot.variables:
            return "the value of " + " and ".join(f"${{{name}}}" for name in spot.variables)
        hidden = where in self.secret or not _may_be_shown(where, spot.value)
        if hidden and spot.value is not None and not isinstance(spot.value, (dict, list, bool)):
            return "a value that is not shown"
        return _describe(spot.value)

    def _place(self, where: Location, *, at_key: bool) -> tuple[int | None, int | None]:
        spot = self.spots.get(where)
        if spot is None:
            return None, None
        # A block below a key starts on the next line, and an empty value nowhere: the key is what one looks for.
        wants_key = at_key or spot.value is None or isinstance(spot.value, (dict, list))
        if wants_key and spot.key_line is not None:
            return spot.key_line, spot.key_column
        return spot.line, spot.column

    def _masked(self, text: str) -> str:
        """`text` without any value that may not be shown, should a validator have put one into it."""
        for where, spot in self._hidden():
            mask = f"${{{spot.variables[0]}}}" if spot.variables else "…"
            value = str(spot.value)
            pattern = re.escape(value)
            if len(value) < _SHORT:
                pattern = rf"(?<![0-9A-Za-z]){pattern}(?![0-9A-Za-z])"
            if where and value and value.casefold() in text.casefold():
                text = re.sub(pattern, lambda _, mask=mask: mask, text, flags=re.IGNORECASE)  # type: ignore[misc]
        return text

    def _hidden(self) -> Iterator[tuple[Location, _Spot]]:
        for where, spot in self.spots.items():
            if isinstance(spot.value, str) and (spot.variables or where in self.secret):
                yield where, spot


def _read_text(path: Path, file: str) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise _fatal(file, "there is no such file") from None
    except IsADirectoryError:
        raise _fatal(file, "found a folder, expected a YAML file") from None
    except UnicodeDecodeError as error:
        raise _fatal(file, f"the file is not UTF-8: byte {error.start} cannot be decoded") from None
    except PermissionError:
        raise _fatal(file, "the file cannot be read: Permission denied", unreadable_hint()) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the path cannot be used"
        raise _fatal(file, f"the file cannot be read: {reason}") from None


def _compose(file: str, text: str) -> Node:
    reader = YAML(typ="safe", pure=True)
    try:
        node = reader.compose(text)
    except MarkedYAMLError as error:
        raise ConfigError([_syntax_finding(file, text, error)]) from None
    except RecursionError:
        raise _fatal(file, "the values are nested too deeply") from None
    except YAMLError as error:
        character = getattr(error, "character", None)
        what = f"the character {character!r} is not allowed" if character is not None else "it cannot be parsed"
        raise _fatal(file, f"this is not YAML: {what}") from None
    except Exception as error:  # noqa: BLE001 - the parser has bugs on odd input, and a user's file must not crash us
        raise _fatal(file, f"this is not YAML: the parser failed with {type(error).__name__}") from None
    if node is None:
        raise _fatal(file, "the file is empty, expected a mapping of keys to values")
    return node  # type: ignore[no-any-return]


def _syntax_finding(file: str, text: str, error: MarkedYAMLError) -> Finding:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (None, None)
    said = error.problem or error.context or "it cannot be parsed"
    # An alias or a tag is quoted from the file, and may be a password that somebody forgot to quote.
    what = re.sub(r"(alias|anchor|tag|handle|directive).*", r"\1", said.splitlines()[0])
    hint = "a tab may not indent" if "\\t" in what else None
    # What else is quoted is a character or a word of the file, or a token of YAML.
    what = re.sub(r"'([^']*)'", lambda one: one.group() if _SHOWN_QUOTES.fullmatch(one.group(1)) else "'…'", what)
    if mark is not None and any("${" in line for line in text.split("\n")[mark.line : mark.line + 1]):
        hint = 'inside of { } or [ ], put it in quotes: "${NAME}"'
    return Finding(file, line, column, "", f"this is not YAML: {what}", hint)


def _fatal(file: str, message: str, hint: str | None = None) -> ConfigError:
    return ConfigError([Finding(file, None, None, "", message, hint)])


def _literal(text: str) -> str:
    # The templates of pydantic fill in `{hint}` from the context; nothing of ours is meant that way.
    return text.replace("{hint}", "(hint)")


class _TooLargeError(Exception):
    """The file has more values than anyone writes."""


class _Builder:
    """Makes plain values of the parser's nodes, and notes the place of each."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ
        self._open: set[int] = set()

    def build(self, where: Location, key: Node | None, node: Node) -> object:
        """The value of `node`, which stands at `where` under `key`."""
        if len(self._document.spots) >= _MOST_VALUES:
            raise _TooLargeError
        spot = _Spot(node.start_mark.line + 1, node.start_mark.column + 1)
        spot.value = str(node.value) or None if isinstance(node, ScalarNode) else None
        if key is not None:
            spot.key_line, spot.key_column = key.start_mark.line + 1, key.start_mark.column + 1
        self._document.spots[where] = spot
        if id(node) in self._open:
            self._document.report(where, "found an alias of something that holds this very place")
            return None
        if str(node.tag) not in _PLAIN_TAGS:
            self._document.report(where, "found a YAML tag, expected a plain value", "remove the part after the '!'")
            return None
        self._open.add(id(node))
        spot.value = self._value(where, spot, node)
        self._open.discard(id(node))
        return spot.value

    def _value(self, where: Location, spot: _Spot, node: Node) -> object:
        if isinstance(node, MappingNode):
            return self._mapping(where, node)
        if isinstance(node, SequenceNode):
            return [self.build((*where, index), None, item) for index, item in enumerate(node.value)]
        spot.text = str(node.value)
        plain = _scalar(str(node.tag).removeprefix(_YAML), spot.text)
        return self._expand(where, spot, plain) if isinstance(plain, str) else plain

    def _mapping(self, where: Location, node: MappingNode) -> dict[str, Any]:
        pairs: dict[str, tuple[Node, Node]] = {}
        merged: list[Node] = []
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self._report_key(where, key, "found a list or a mapping as a key, expected text")
            elif _is_merge(key):
                merged += value.value if isinstance(value, SequenceNode) else [value]
            elif key.value in pairs:
                first = pairs[key.value][0].start_mark.line + 1
                here = (*where, str(key.value))
                self._report_key(here, key, f"the key stands here again, and first in line {first}", "keep one of them")
            else:
                pairs[str(key.value)] = (key, value)
        self._merge(where, merged, pairs)
        return {name: self.build((*where, name), key, value) for name, (key, value) in pairs.items()}

    def _merge(self, where: Location, merged: Sequence[Node], pairs: dict[str, tuple[Node, Node]]) -> None:
        for source in merged:
            if not isinstance(source, MappingNode) or id(source) in self._open:
                self._document.report(where, "found '<<' with something that is no other mapping")
                continue
            for key, value in source.value:
                if isinstance(key, ScalarNode) and not _is_merge(key):
                    pairs.setdefault(str(key.value), (key, value))
                elif isinstance(key, ScalarNode):
                    self._document.report(where, "found '<<' inside a mapping that is merged by '<<'")

    def _report_key(self, where: Location, key: Node, message: str, hint: str | None = None) -> None:
        line, column = key.start_mark.line + 1, key.start_mark.column + 1
        self._document.findings.append(Finding(self._document.file, line, column, dotted(where), message, hint))

    def _expand(self, where: Location, spot: _Spot, text: str) -> str:
        if "${" not in text:
            return text
        names: list[str] = []

        def replace(match: re.Match[str]) -> str:
            if match.group(0) == "$${":
                return "${"
            return self._variable(where, names, match.group(1), closed=bool(match.group(2)))

        made = _REFERENCE.sub(replace, text)
        spot.variables = tuple(names)
        if not names:
            return made
        return FromEnvironment(made, variable=names[0] if text == f"${{{names[0]}}}" else None)

    def _variable(self, where: Location, names: list[str], name: str, *, closed: bool) -> str:
        cure = "write $${ where the text itself is meant"
        if not closed:
            self._document.report(where, "found '${' without its '}'", cure)
        elif not _VARIABLE.fullmatch(name):
            self._document.report(where, "found '${…}' around something that is no name of a variable", cure)
        else:
            names.append(name)
            if name in self._environ:
                return secret_text(self._environ[name])
            shown = name if re.fullmatch(r"[A-Z0-9_]+|[a-z_]+", name) else "…"
            self._document.report(where, f"the environment variable {shown} is not set", f"set {shown}, or {cure}")
        return ""


def _is_merge(key: ScalarNode) -> bool:
    return bool(key.value == "<<" and not key.style)


def _scalar(kind: str, text: str) -> str | int | float | bool | None:
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() in {"true", "yes", "on", "y"}
    try:
        if kind == "int":
            return int(text.replace("_", ""), 10 if text.lstrip("+-").isdecimal() else 0)
        if kind == "float":
            return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        return text  # a number that Python does not know, or one of thousands of digits
    return text


def _may_be_shown(where: Location, value: object) -> bool:
    """Whether a message may show the value: its key is harmless, it is no address with user info or a query, and no key."""
    if any(part in SECRET_KEYS or part == "notify" for part in where):
        return False
    key = next((part for part in reversed(where) if isinstance(part, str)), "")
    known = key in SHOWN_KEYS or where[0] == "api_versions"
    if not known or (key == "url" and where[0] != "vaults"):
        return False
    text = str(value)
    address = "//" in text and any(sign in text for sign in "?#")
    return not address and "@" not in text[1:] and Redactor().redact(text) == text


def _shown_part(where: Location, index: int) -> str | int:
    """A part of a location as a message shows it; a key that the configuration cannot have may be a secret in the wrong place."""
    part = where[index]
    named = (
        index > 0 and where[index - 1] in {"vaults", "tags"} and isinstance(part, str) and _SHOWN_NAME.fullmatch(part)
    )
    if isinstance(part, int) or _SHOWN_KEY.fullmatch(part) or (named and Redactor().redact(part) == part):
        return part
    return "…"


def _describe(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "…")
    return f"the number {str(value)[:_SHOWN]}"


def _alternatives(annotation: object, tag: str | None = None) -> Iterator[tuple[Any, str | None]]:
    """What an annotation may stand for, without its unions and metadata; each with the tag of its alternative."""
    origin = get_origin(annotation)
    if origin is Annotated:
        base, *metadata = get_args(annotation)
        tag = next((item.tag for item in metadata if isinstance(item, Tag)), tag)
        yield from _alternatives(base, tag)
    elif origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from _alternatives(member, tag)
    else:
        yield annotation, tag


def _below(annotation: object, part: str | int) -> Iterator[Any]:
    """What may stand under `part` of a value of this type."""
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, info in annotation.model_fields.items():
            if part in (name, info.alias):
                yield from (info.annotation, *(item for item in info.metadata if isinstance(item, type)))
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        yield from arguments[1:]
    elif isinstance(part, int):
        yield from (item for item in arguments if item is not Ellipsis)


def _types_at(model: type[BaseModel], where: Location) -> list[Any]:
    """The types that `model` allows at a location of pydantic, which also names alternatives."""
    current: list[tuple[Any, str | None]] = [(model, None)]
    for part in where:
        if isinstance(part, str) and part.startswith(ALTERNATIVE):
            current = [(kind, tag) for kind, tag in current if tag == part]
        else:
            current = [found for kind, _ in current for below in _below(kind, part) for found in _alternatives(below)]
    return [kind for kind, _ in current]


def _is_secret(model: type[BaseModel], where: Location) -> bool:
    if any(part in SECRET_KEYS for part in where):
        return True
    return any(SecretStr in _types_at(model, where[:end]) for end in range(1, len(where) + 1))


def _known_keys(model: type[BaseModel], where: Location) -> list[str]:
    return [
        info.alias or name
        for kind in _types_at(model, where)
        if isinstance(kind, type) and issubclass(kind, BaseModel)
        for name, info in kind.model_fields.items()
    ]


class _Translator:
    """Makes findings of what pydantic says."""

    def __init__(self, document: Document, model: type[BaseModel]) -> None:
        self._document = document
        self._model = model

    def findings(self, error: ValidationError) -> list[Finding]:
        """A finding for each part of `error`, without those that only follow from another finding."""
        parts = error.errors(include_url=False)
        guessed = {self._guess(part) for part in parts if part["type"] == "extra_forbidden"}
        made = []
        for part in parts:
            where = self._where(part["loc"])
            missing = (*where, part["loc"][-1]) if part["type"] == "missing" else None
            if where in self._document.broken or (missing and missing in guessed):
                continue
            made.append(self._finding(part, where, missing))
        return list(dict.fromkeys(made))

    def _finding(self, part: ErrorDetails, where: Location, missing: Location | None) -> Finding:
        if missing:
            return self._document.finding(missing, "the key is required and missing")
        if part["type"] == "extra_forbidden":
            return self._unknown_key(part, where)
        if part["loc"] and part["loc"][-1] == "[key]":
            return self._document.finding(
                where,
                f"found a key that is not shown, expected {part['msg']}",
                _hint(part),
                at_key=True,
            )
        if part["type"] == "problem":
            return self._document.finding(where, part["msg"], _hint(part))
        if part["type"] == "value_error" and where in self._document.secret:
            return self._document.finding(where, "the value is not valid")
        wanted, hint = self._wanted(part, where)
        return self._document.finding(where, f"found {self._document.found(where)}, expected {wanted}", hint)

    def _wanted(self, part: ErrorDetails, where: Location) -> tuple[str, str | None]:
        kind = str(part["type"])
        context = part.get("ctx") or {}
        if kind == "expected":
            return part["msg"], _hint(part)
        if kind in _TEXT_ERRORS:
            return "text", self._quoting(where)
        if kind in _WANTED:
            return _WANTED[kind](context), None
        message = str(part["msg"]).removeprefix("Value error, ")
        return f"something else: {message[:1].lower()}{message[1:]}", None

    def _quoting(self, where: Location) -> str | None:
        spot = self._document.spots.get(where)
        if spot is None or spot.text is None or spot.value is None or not _may_be_shown(where, spot.text):
            return None
        return f'put it in quotes: "{spot.text[:_SHOWN]}"'

    def _unknown_key(self, part: ErrorDetails, where: Location) -> Finding:
        known = _known_keys(self._model, part["loc"][:-1])
        meant = self._guess(part)
        hint = f"did you mean '{meant[-1]}'?" if meant else f"known here: {', '.join(known)}" if known else None
        return self._document.finding(where, "unknown key", hint, at_key=True)

    def _guess(self, part: ErrorDetails) -> Location | None:
        where = self._where(part["loc"])
        parent = self._document.spots.get(where[:-1])
        taken = parent.value if parent is not None and isinstance(parent.value, dict) else {}
        known = [key for key in _known_keys(self._model, part["loc"][:-1]) if key not in taken]
        meant = nearest(str(part["loc"][-1]), known)
        return (*where[:-1], meant) if meant else None

    def _where(self, location: Location) -> Location:
        """A location of pydantic as one of the file: what is no key and no index of it falls out."""
        where: Location = ()
        for part in location:
            alternative = isinstance(part, str) and part.startswith(ALTERNATIVE)
            if not alternative and (*where, part) in self._document.spots:
                where = (*where, part)
        return where


def _hint(part: ErrorDetails) -> str | None:
    return (part.get("ctx") or {}).get("hint") or None


_TEXT_ERRORS = frozenset({"string_type", "path_type", "string_sub_type"})

_WANTED: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "model_type": lambda _: "a mapping",
    "model_attributes_type": lambda _: "a mapping",
    "dict_type": lambda _: "a mapping",
    "list_type": lambda _: "a list",
    "tuple_type": lambda _: "a list",
    "set_type": lambda _: "a list",
    "bool_type": lambda _: "true or false",
    "bool_parsing": lambda _: "true or false",
    "int_type": lambda _: "a whole number",
    "int_parsing": lambda _: "a whole number",
    "int_parsing_size": lambda _: "a smaller whole number",
    "int_from_float": lambda _: "a whole number",
    "float_type": lambda _: "a number",
    "float_parsing": lambda _: "a number",
    "finite_number": lambda _: "a finite number",
    "greater_than_equal": lambda context: f"{context.get('ge')} or more",
    "greater_than": lambda context: f"more than {context.get('gt')}",
    "less_than_equal": lambda context: f"{context.get('le')} or less",
    "less_than": lambda context: f"less than {context.get('lt')}",
    "literal_error": lambda context: str(context.get("expected")),
    "enum": lambda context: str(context.get("expected")),
    "too_short": lambda context: f"at least {context.get('min_length')} in it",
    "too_long": lambda context: f"at most {context.get('max_length')} in it",
    "string_too_short": lambda context: f"text of at least {context.get('min_length')} characters",
    "string_too_long": lambda context: f"text of at most {context.get('max_length')} characters",
    "string_pattern_mismatch": lambda context: f"text that matches {context.get('pattern')}",
}
