"""Structured logs, as text or JSON, with secrets masked."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Iterable
from itertools import chain
from typing import TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

from waldur_site_agent.model.errors import DefectError, SiteAgentError
from waldur_site_agent.model.text import printable

_SHORTEST_SECRET = 6
_MASK = "********"
_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")


class _Concealer:
    """Masks known secrets in rendered log lines."""

    def __init__(self) -> None:
        self.secrets: tuple[str, ...] = ()
        self.latest: dict[str, tuple[str, ...]] = {}

    def __call__(self, _logger: WrappedLogger, _method: str, line: str) -> str:
        for secret in (*self.secrets, *chain.from_iterable(tuple(self.latest.values()))):
            line = line.replace(secret, _MASK)
        return line


_conceal = _Concealer()


def redact(secrets: Iterable[str]) -> None:
    """Register texts that must not appear in the log; very short ones are ignored."""
    longer = {secret for secret in secrets if len(secret) >= _SHORTEST_SECRET}
    spelt = {quoted(secret)[1:-1] for secret in longer for quoted in (json.dumps, repr)}
    _conceal.secrets = tuple(sorted({*_conceal.secrets, *longer, *spelt}, key=len, reverse=True))


def redact_latest(name: str, secret: str) -> None:
    """Register a secret that is replaced from time to time: the last two of a name are masked."""
    if len(secret) >= _SHORTEST_SECRET:
        _conceal.latest[name] = (*_conceal.latest.get(name, ()), secret)[-2:]


def concealed(text: str) -> str:
    """The text with every known secret masked."""
    return _conceal(None, "", text)


class _Defects:
    """Passes on exceptions that belong to neither of the two expected error families."""

    def __init__(self) -> None:
        self.listeners: tuple[Callable[[BaseException, EventDict], None], ...] = ()

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        error = _exception_of(event.get("exc_info"))
        expected = isinstance(error, SiteAgentError) and not isinstance(error, DefectError)
        if error is not None and not expected:
            for listener in self.listeners:
                listener(error, event)
        return event


def _exception_of(exc_info: object) -> BaseException | None:
    """The exception of a log line: given as such, as a tuple, or the current one."""
    if isinstance(exc_info, BaseException):
        return exc_info
    found = exc_info if isinstance(exc_info, tuple) else sys.exc_info() if exc_info else ()
    return next((part for part in found if isinstance(part, BaseException)), None)


def _escape_values(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape what is not printable, line breaks included, so that no value can forge a line."""
    return {
        name: printable(value) if isinstance(value, str) else value for name, value in event.items()
    }


def _escape_line(_logger: WrappedLogger, _method: str, line: str) -> str:
    """Escape what came in by other ways, such as tracebacks; only the renderer's colours stay."""
    parts = _COLOUR.split(line)
    parts[::2] = [printable(part, keep="\n\t") for part in parts[::2]]
    return "".join(parts)


class _Shipping:
    """Hands log lines on, before they are rendered, to whoever sends them elsewhere."""

    def __init__(self) -> None:
        self.take: Callable[[EventDict], None] | None = None

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        if self.take is not None:
            self.take(event)
        return event


_defects = _Defects()
_shipping = _Shipping()


def ship_to(take: Callable[[EventDict], None] | None) -> None:
    """Call this for each log line from now on, or nothing; it must not raise or wait."""
    _shipping.take = take


def watch_defects(*listeners: Callable[[BaseException, EventDict], None]) -> None:
    """Call these for each bug that is logged from now on, instead of earlier listeners."""
    _defects.listeners = listeners


def configure_logs(level: str, style: str, stream: TextIO | None = None) -> None:
    """Set up the logs of the whole process.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        style: ``console`` or ``json``.
        stream: where to write; standard error when not given, so that plans on standard output
            can be piped.
    """
    stream = stream or sys.stderr
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _defects,
            structlog.processors.add_log_level,
            _shipping,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *_renderers(style, colors=stream.isatty()),
            _conceal,  # type: ignore[list-item]  # gets the rendered line
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level_number(level)),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Forwarder()], level=logging.WARNING, force=True)


def _renderers(style: str, *, colors: bool) -> list[structlog.typing.Processor]:
    if style == "json":
        return [
            # no local variables: any of them may hold a token or an e-mail address
            structlog.processors.ExceptionRenderer(
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
            ),
            structlog.processors.JSONRenderer(sort_keys=True, default=str),
        ]
    return [
        _escape_values,
        structlog.dev.ConsoleRenderer(
            colors=colors,
            pad_event_to=0,
            exception_formatter=structlog.dev.plain_traceback,
        ),
        _escape_line,  # type: ignore[list-item]  # gets the rendered line
    ]


def level_number(level: str) -> int:
    """The number of a level by its name, in any case."""
    return logging.getLevelNamesMapping()[level.upper()]


class _Forwarder(logging.Handler):
    """Send the log records of libraries to the same stream."""

    def emit(self, record: logging.LogRecord) -> None:
        event: EventDict = {"library": record.name}
        if record.exc_info:
            event["exc_info"] = record.exc_info
        structlog.get_logger().log(record.levelno, record.getMessage(), **event)
