"""Checks with the az CLI's own parser that calls are valid: `PYTHON_OF_AZ tests/az_cli/parse.py FILE`. It sends nothing.

FILE has the calls with a zero byte between arguments, and two between calls. Prints the errors of `az`, and exits with 1 if a
command or an option does not exist, or a required one is missing.
"""

# ruff: noqa: T201  # a program that prints

import sys
from pathlib import Path

from azure.cli.core import get_default_cli
from knack.events import EVENT_INVOKER_POST_PARSE_ARGS


class Parsed(BaseException):  # `az` handles every Exception as an error
    """The call is valid. It stops `az` before it runs the call."""


def stop(cli, **_):
    """Stop a call once it is parsed."""
    raise Parsed


def is_valid(cli, call):
    """Whether `az` can parse a call."""
    try:
        cli.invoke(call)
    except Parsed:
        return True
    except SystemExit:
        return False
    return False


def main(path):
    """Parse each distinct call."""
    calls = [part.split("\0") for part in Path(path).read_text(encoding="utf-8").split("\0\0")]
    cli = get_default_cli()
    cli.register_event(EVENT_INVOKER_POST_PARSE_ARGS, stop)
    distinct = {tuple(call): None for call in calls if any(call)}
    invalid = [call for call in distinct if not is_valid(cli, list(call))]
    for call in invalid:
        print(f"invalid call: az {' '.join(call)[:300]}", file=sys.stderr)
    print(f"{len(distinct) - len(invalid)} of {len(distinct)} calls are valid")
    return bool(invalid) or not distinct


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
