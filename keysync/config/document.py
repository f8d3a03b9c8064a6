"""A YAML file as plain values, with the position of each value and the findings so far."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from keysync.config.printable import Location, describe, dotted, may_be_shown
from keysync.errors import ConfigError, Finding

_SHORT: Final = 4  # a hidden value with fewer characters is masked only as a whole word


@dataclass(slots=True)
class Spot:
    """The position of a value and of its key, counted from 1, and the value.

    `text` is the text of a scalar before it was parsed. `variables` are the environment variables that the value contains.
    """

    line: int
    column: int
    value: Any = None
    key_line: int | None = None
    key_column: int | None = None
    text: str | None = None
    variables: tuple[str, ...] = ()


@dataclass(slots=True)
class Document:
    """A YAML file as plain values (`value`), with a `Spot` for each location and the findings so far.

    `reported` holds the locations that already have a finding; `secret` holds those whose values are secret by their model.
    """

    file: str
    value: dict[str, Any] = field(default_factory=dict[str, Any])
    findings: list[Finding] = field(default_factory=list[Finding])
    spots: dict[Location, Spot] = field(default_factory=dict[Location, Spot])
    reported: set[Location] = field(default_factory=set[Location])
    secret: set[Location] = field(default_factory=set[Location])

    def report(self, location: Location, message: str, hint: str | None = None) -> None:
        """Adds a finding at `location`. Validation then reports nothing else there."""
        self.reported.add(location)
        self.findings.append(self.finding(location, message, hint))

    def finding(self, location: Location, message: str, hint: str | None = None, *, at_key: bool = False) -> Finding:
        """A finding at `location`, or at the nearest parent that is in the file. Hidden values are masked."""
        present = location
        while present and present not in self.spots:
            present = present[:-1]
        line, column = self._position(present, at_key=at_key)
        return Finding(self.file, line, column, dotted(location), self._masked(message), hint and self._masked(hint))

    def found(self, location: Location) -> str:
        """The value at `location` for "found …", without anything that must not be shown."""
        spot = self.spots.get(location)
        if spot is None:
            return "nothing"
        if spot.variables:
            return "the value of " + " and ".join(f"${{{name}}}" for name in spot.variables)
        hidden = location in self.secret or not may_be_shown(location, spot.value)
        return "a value that is not shown" if hidden and _may_be_secret(spot.value) else describe(spot.value)

    def _position(self, location: Location, *, at_key: bool) -> tuple[int | None, int | None]:
        spot = self.spots.get(location)
        if spot is None:
            return None, None
        # A block starts on the line after its key, and an empty value has no position: readers look for the key.
        wants_key = at_key or spot.value is None or isinstance(spot.value, (dict, list))
        if wants_key and spot.key_line is not None:
            return spot.key_line, spot.key_column
        return spot.line, spot.column

    def _masked(self, text: str) -> str:
        """Masks hidden values in `text`: a validator may have put one there."""
        for spot in self._hidden():
            mask = f"${{{spot.variables[0]}}}" if spot.variables else "…"
            value = str(spot.value)
            pattern = re.escape(value)
            if len(value) < _SHORT:
                pattern = rf"(?<![0-9A-Za-z]){pattern}(?![0-9A-Za-z])"
            if value and value.casefold() in text.casefold():
                text = re.sub(pattern, mask, text, flags=re.IGNORECASE)
        return text

    def _hidden(self) -> Iterator[Spot]:
        for location, spot in self.spots.items():
            if location and isinstance(spot.value, str) and (spot.variables or location in self.secret):
                yield spot


def _may_be_secret(value: object) -> bool:
    return value is not None and not isinstance(value, (dict, list, bool))


def file_error(file: str, message: str, hint: str | None = None) -> ConfigError:
    """A ConfigError about the file as a whole."""
    return ConfigError([Finding(file, None, None, "", message, hint)])
