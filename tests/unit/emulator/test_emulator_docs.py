"""docs/emulator.md names every key of the data file, every field of a fault, and every option."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from keysync.cli.emulator import emulator
from keysync.emulator import EmulatorData
from keysync.emulator.faults import FaultKind

TEXT = (Path(__file__).parents[3] / "docs" / "emulator.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```\w+\n(.*?)```", re.DOTALL)
CODE = " ".join([*BLOCK.findall(TEXT), *re.findall(r"`([^`]+)`", BLOCK.sub("", TEXT))])
WORDS = set(re.findall(r"[\w-]+", CODE))


def models(kind: object) -> Iterator[type[BaseModel]]:
    """The models of the data file: `kind`, and the models that its fields mention."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
        for field in kind.model_fields.values():
            yield from models(field.annotation)
    for argument in get_args(kind):
        yield from models(argument)


@pytest.mark.parametrize("model", sorted(set(models(EmulatorData)), key=str), ids=lambda model: model.__name__)
def test_every_key_is_documented(model):
    """In a code span or in an example."""
    assert sorted(set(model.model_fields) - WORDS) == []


def test_every_kind_of_a_fault_is_documented():
    """In the table of faults."""
    assert set(get_args(FaultKind)) <= WORDS


def test_every_option_is_documented():
    """But the global ones."""
    options = {option.name for option in emulator.params} - {"log_level", "log_format", "version"}
    assert sorted(option for option in options if f"--{option.replace('_', '-')}" not in TEXT) == []
