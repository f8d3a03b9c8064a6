"""Whether Azure's own command line takes these calls: `PYTHON_OF_AZ tests/az_cli/parse.py FILE`; it sends nothing.

FILE holds the words of the calls, each ended by a zero byte, a call by one more. Ends with 1 where a command or an option does not
exist, or one is missing, after showing what `az` says about it.
"""

# ruff: noqa: T201  # a program that prints

import sys
from pathlib import Path

from azure.cli.core import get_default_cli
from knack.events import EVENT_INVOKER_POST_PARSE_ARGS


class Parsed(BaseException):  # no error, and `az` is not to take it for one
    """The call was understood; nothing of it is to be done."""


def stop(cli, **_):
    """Ends a call once it is parsed."""
    raise Parsed


def takes(cli, call):
    """Whether `az` takes a call."""
    try:
        cli.invoke(call)
    except Parsed:
        return True
    except SystemExit:
        return False
    return False


def main(path):
    """Parse each call once."""
    calls = [part.split("\0") for part in Path(path).read_text(encoding="utf-8").split("\0\0")]
    cli = get_default_cli()
    cli.register_event(EVENT_INVOKER_POST_PARSE_ARGS, stop)
    seen = {tuple(call): None for call in calls if any(call)}
    wrong = [call for call in seen if not takes(cli, list(call))]
    for call in wrong:
        print(f"az does not take: az {' '.join(call)[:300]}", file=sys.stderr)
    print(f"az takes {len(seen) - len(wrong)} of {len(seen)} calls")
    return bool(wrong) or not seen


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
