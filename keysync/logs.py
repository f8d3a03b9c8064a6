"""Configures the log: structlog writes JSON or console lines to stderr. Records of libraries are redacted in the same way."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, cast

import structlog
from structlog import stdlib
from structlog.contextvars import merge_contextvars

from keysync import log_stream
from keysync.report.console import strip_control_codes

LogFormat = Literal["json", "console"]
Redact = Callable[[str], str]

# Verbose below WARNING; shown only at level DEBUG.
_LIBRARIES: Final = ("azure", "msal", "aiohttp", "asyncio", "apscheduler", "urllib3", "opentelemetry")
_CONSOLE: Final = structlog.dev.ConsoleRenderer(colors=False)


def configure(level: str, log_format: LogFormat, redact: Redact) -> None:
    """Configures the log of the process. `level` is a level name of `logging`; `redact` is applied to every string."""
    structlog.configure(
        processors=[merge_contextvars, stdlib.filter_by_level, stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=stdlib.LoggerFactory(),
        wrapper_class=stdlib.BoundLogger,
    )
    formatter = stdlib.ProcessorFormatter(
        foreign_pre_chain=[merge_contextvars, _library_record],
        processors=[
            stdlib.ProcessorFormatter.remove_processors_meta,
            _without_traceback,
            lambda _logger, _name, event: {key: _redacted(value, redact) for key, value in event.items()},
            stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # JSON escapes control codes itself. Those in a service's text must not reach the terminal.
            structlog.processors.JSONRenderer()
            if log_format == "json"
            else lambda logger, name, event: strip_control_codes(_CONSOLE(logger, name, event)),
        ],
    )
    handler = logging.StreamHandler(_stream())
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # A logger's own level overrides the root's, so it must not be below `level`.
    debug = root.level == logging.DEBUG
    for name in _LIBRARIES:
        # keysync logs the failure itself; azure would log a warning for each attempt as well.
        least = logging.ERROR if name == "azure" else logging.WARNING
        logging.getLogger(name).setLevel(logging.DEBUG if debug else max(root.level, least))


def _stream() -> Any:  # noqa: ANN401  # a handler calls only its `write`
    """A stream to stderr that never blocks; `sys.stderr` itself if it has no file descriptor."""

    def report(lines: int) -> None:
        structlog.get_logger("keysync").warning("log.dropped", lines=lines)

    try:
        stream = log_stream.LogStream(sys.stderr.fileno(), report)
    except (AttributeError, OSError, ValueError):
        stream = None
    log_stream.set_current(stream)
    return stream or sys.stderr


def _library_record(_logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A library's record: its text becomes the field `message`, so that `event` is a stable name."""
    record: logging.LogRecord = event["_record"]
    return {**event, "message": str(event["event"]), "event": f"library.{record.name}"}


def _without_traceback(_logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Replaces a traceback, which could show values, by the type of the exception."""
    error: object = event.pop("exc_info", None)
    event.pop("stack_info", None)
    if isinstance(error, tuple):
        error = cast("tuple[object, ...]", error)[1]  # (type, exception, traceback)
    return {**event, "exception": type(error).__name__} if isinstance(error, BaseException) else event


def _redacted(value: object, redact: Redact) -> object:
    if isinstance(value, str):
        return redact(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    # `dict` first: `isinstance(…, Mapping)` is slow for other types, as it asks every class of the SDKs.
    if isinstance(value, dict) or isinstance(value, Mapping):  # noqa: SIM101  # for that order
        mapping = cast("Mapping[object, object]", value)
        return {key: _redacted(item, redact) for key, item in mapping.items()}
    if isinstance(value, list | tuple):
        return [_redacted(item, redact) for item in cast("Iterable[object]", value)]
    return redact(repr(value))
