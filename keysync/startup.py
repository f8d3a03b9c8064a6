"""How a command begins and ends quickly, and in little memory."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, NoReturn

_READ_BYTES: Final = 16 * 1024


@contextmanager
def fast_imports() -> Iterator[None]:
    """Imports what a command needs, in about two thirds of the time.

    Importing makes hundreds of thousands of objects of which hardly one is garbage, and the collector would look through all
    of them time and again; afterwards it never needs to look at them any more. structlog would bring all of rich for
    tracebacks that show local variables, which the log must never have.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        with _without("rich"):
            import structlog  # noqa: F401, PLC0415
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Has `import` find no such module, unless it is there already."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # as the language has it: "not to be found"
    try:
        yield
    finally:
        del sys.modules[module]


def shrink_tls_buffers() -> None:
    """Has each TLS connection of this process keep 16 KiB for what it reads: what the largest record holds, but for its frame.

    (RFC 8446, 5.2; such a one is read in two pieces.) asyncio takes 256 KiB for each, all of it resident, whether or not anything
    is ever read: more than all else that a fleet's accounts need. This attribute of the class is the only way to say so; a
    version without it takes what it takes.
    """
    from asyncio import sslproto  # noqa: PLC0415  # not there for commands that open no connection

    if hasattr(sslproto.SSLProtocol, "max_size"):
        sslproto.SSLProtocol.max_size = _READ_BYTES


def exit_now(code: int) -> NoReturn:
    """Ends the process at once with `code`. What was printed has been flushed by then, but for stderr.

    Taking a thousand modules apart takes as long as a run over one account, and the system takes the memory back anyway.
    Whatever has to be closed has been closed by then; a thread that hangs, such as one that resolves a name, holds nobody up.
    """
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(code)
