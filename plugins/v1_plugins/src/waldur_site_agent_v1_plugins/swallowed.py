"""Notices failures that plugins swallow: they log an error and go on as if nothing were there.

Version 1 read an absence and a failed read alike, so many of its plugins do the same. What they log
in between is the only difference that can be seen.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_heard: ContextVar[list[str] | None] = ContextVar("heard", default=None)
_ABSENCE = re.compile(r"\b404\b|not found|does not exist|no such", re.IGNORECASE)


def _take_down(text: str) -> None:
    heard = _heard.get()
    if heard is not None and not _ABSENCE.search(text):
        heard.append(text[:300])


class _Ear(logging.Handler):
    """Takes down the errors that are logged while somebody listens in the same thread."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError):  # arguments that do not fit the message
            text = str(record.msg)
        _take_down(text)


class OverheardLogger:
    """A logger of structlog, whose errors are taken down as those of ``logging`` are."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._logger, name)
        if name == "bind":
            return lambda **values: OverheardLogger(method(**values))
        if name not in {"error", "exception", "critical", "fatal"}:
            return method

        def said(event: object = "", *args: object, **values: object) -> object:
            text = str(event)
            with contextlib.suppress(TypeError, ValueError):  # arguments that do not fit
                text = text % args if args else text
            _take_down(text)
            return method(event, *args, **values)

        return said


@contextmanager
def swallowed_failures() -> Iterator[list[str]]:
    """The errors that are logged inside, but for those that only tell of an absence."""
    heard: list[str] = []
    ear = _Ear(logging.ERROR)
    token = _heard.set(heard)
    logging.getLogger().addHandler(ear)
    try:
        yield heard
    finally:
        logging.getLogger().removeHandler(ear)
        _heard.reset(token)
