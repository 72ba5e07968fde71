"""How long tests wait: one limit for all, generous because only a failing test uses it up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

PATIENCE_SECONDS = 120.0 * float(os.environ.get("WSA_TEST_PATIENCE") or 1)
"""Longest wait for a condition, a process or an answer.

Messages may rightly stay unacknowledged for 36 seconds (readings after 1, 5 and 30 seconds).
``WSA_TEST_PATIENCE`` multiplies it for very slow machines.
"""


def eventually(condition: Callable[[], object], what: str, *, pause: float = 0.05) -> None:
    """Wait until the condition holds; fail when it takes longer than ``PATIENCE_SECONDS``."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(pause)
