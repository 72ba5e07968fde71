"""The agent's log in a simulation: silent, but a defect ends the simulation."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from structlog.typing import EventDict, WrappedLogger


class DefectFoundError(BaseException):
    """The agent logged a defect; no part of it may catch this."""


def _look(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    trouble = event.get("exc_info")
    text = str(event.get("event"))
    if trouble or "defect" in text:
        lines = traceback.format_exception(trouble) if isinstance(trouble, BaseException) else []
        lines = lines or [traceback.format_exc()]
        raise DefectFoundError(f"{text}: {event}\n{''.join(lines)[-3000:]}")
    raise structlog.DropEvent


@contextmanager
def defects_in_log(*, verbose: bool = False) -> Iterator[None]:
    """Configure the log while the body runs."""
    processors = [_look] if not verbose else [structlog.dev.ConsoleRenderer()]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.INFO if verbose else logging.ERROR
        ),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.reset_defaults()
