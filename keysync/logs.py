"""The log: structlog to stderr, JSON or console; what the SDKs log goes through the same pipeline and the same redaction."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import structlog

from keysync import log_stream
from keysync.report.console import strip_control_codes

LogFormat = Literal["json", "console"]
Redact = Callable[[str], str]

# Chatty below WARNING, and of no use to an operator unless asked for.
_LIBRARIES: Final = ("azure", "msal", "aiohttp", "asyncio", "apscheduler", "urllib3", "opentelemetry")


def configure(level: str, log_format: LogFormat, redact: Redact) -> None:
    """Sets the log up for the process: `level` as logging names it, every string passed through `redact`."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_traceback,
        lambda _logger, _name, event: {key: _redacted(value, redact) for key, value in event.items()},
    ]
    # JSON escapes control characters itself.
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer() if log_format == "json" else _console
    structlog.configure(
        processors=[
            *shared[:1],
            structlog.stdlib.filter_by_level,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.contextvars.merge_contextvars, _library_record],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *shared[1:], renderer],
    )
    _install(formatter, level.upper())


_CONSOLE: Final = structlog.dev.ConsoleRenderer(colors=False)


def _console(logger: Any, name: str, event: structlog.typing.EventDict) -> str:  # noqa: ANN401  # structlog's own type
    """A line for a person; a request id or a message of a service commands no terminal."""
    return strip_control_codes(_CONSOLE(logger, name, event))


def _install(formatter: logging.Formatter, level: str) -> None:
    handler = logging.StreamHandler(_stream())
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # A logger's own level wins over the root's, so it must not fall below what was asked for.
    quiet = logging.DEBUG if level == "DEBUG" else max(root.level, logging.WARNING)
    for name in _LIBRARIES:
        # What the SDKs warn of is in the failure's own record, and would be told again with each attempt.
        told_already = name == "azure" and level != "DEBUG"
        logging.getLogger(name).setLevel(max(quiet, logging.ERROR) if told_already else quiet)


def _stream() -> Any:  # noqa: ANN401  # all that a handler asks for is `write`
    """A stream to stderr that never blocks; `sys.stderr` itself where it has no file descriptor."""
    try:
        stream = log_stream.LogStream(sys.stderr.fileno(), _log_dropped)
    except (AttributeError, OSError, ValueError):
        log_stream.use(None)
        return sys.stderr
    log_stream.use(stream)
    return stream


def _log_dropped(lines: int) -> None:
    structlog.get_logger("keysync").warning("log.dropped", lines=lines)


def _library_record(_logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A library's record: its sentence becomes a field, so that `event` stays a stable name."""
    record: logging.LogRecord = event["_record"]
    return {**event, "message": str(event["event"]), "event": f"library.{record.name}"}


def _without_traceback(_logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A traceback could show source lines and values; the exception's type is enough to know where to look."""
    error = event.pop("exc_info", None)
    event.pop("stack_info", None)
    kind = error[0] if isinstance(error, tuple) else type(error) if isinstance(error, BaseException) else None
    return event if kind is None else {**event, "exception": kind.__name__}


def _redacted(value: Any, redact: Redact) -> Any:  # noqa: ANN401  # a field may be of any shape
    if isinstance(value, str):
        return redact(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    # A dict first: whether something else is a Mapping is asked of every class of the SDKs that could make it one.
    if isinstance(value, dict) or isinstance(value, Mapping):  # noqa: SIM101
        return {key: _redacted(item, redact) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(item, redact) for item in value]
    return redact(repr(value))
