"""Ctrl+C in a command that is not a service: it ends, cleans up, and prints no traceback."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

INTERRUPTED = 130
"""The exit code after SIGINT, as shells have it."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the body at once; what it cleans up is not disturbed again."""
    numbers = (signal.SIGINT, signal.SIGTERM)

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for each in numbers:
        signal.signal(each, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        sys.stdout.flush()
        sys.stderr.write("\nstopped\n")
        sys.exit(INTERRUPTED)
