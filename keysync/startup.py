"""Makes commands start and exit fast, with little memory."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final, NoReturn

_READ_BUFFER_BYTES: Final = 16 * 1024


@contextmanager
def fast_imports() -> Generator[None]:
    """Runs the imports in its block with the garbage collector off, which saves about a third of their time.

    Imports create hundreds of thousands of objects and hardly any garbage. Afterwards the collector ignores these objects.
    rich is hidden while structlog is imported (0.1 s): structlog needs it only for tracebacks with local variables, which the
    log must never show.
    """
    hidden = "rich" not in sys.modules
    gc.disable()
    try:
        if hidden:
            sys.modules["rich"] = None  # type: ignore[assignment]  # documented: None makes the import fail
        importlib.import_module("structlog")
        if hidden:
            del sys.modules["rich"]
        yield
    finally:
        gc.freeze()
        # The garbage of calls has few cycles: collections after 700 objects take 300 ms of a run that writes 400 secrets.
        gc.set_threshold(5_000)
        gc.enable()


def shrink_tls_buffers() -> None:
    """Shrinks asyncio's read buffer of each TLS connection from 256 KiB to 16 KiB.

    16 KiB is the largest TLS record without its header (RFC 8446, 5.2); a record of that size is read in two parts. asyncio's
    buffers are resident even if nothing is read, and would need more memory than all accounts of a fleet. The class attribute
    is the only way to set the size; in a Python without the attribute nothing changes.
    """
    from asyncio import sslproto  # noqa: PLC0415  # commands without connections do not load it

    if hasattr(sslproto.SSLProtocol, "max_size"):
        sslproto.SSLProtocol.max_size = _READ_BUFFER_BYTES


def exit_now(code: int) -> NoReturn:
    """Exits the process at once with `code`, without Python's clean-up. Flushes stderr only; the caller has flushed stdout.

    The clean-up of a thousand modules takes as long as a run over one account, and the system frees the memory anyway. A
    hanging thread, such as one that resolves a name, does not delay the exit. The caller has closed what must be closed.
    """
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(code)
