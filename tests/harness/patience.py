"""How long tests wait: one limit for all, generous because only a failing test uses it up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

PATIENCE_SECONDS = 120.0 * float(os.environ.get("WSA_TEST_PATIENCE") or 1)
"""Longest wait on an idle machine; ``WSA_TEST_PATIENCE`` multiplies it for very slow ones.

Messages may rightly stay unacknowledged for 36 seconds (readings after 1, 5 and 30 seconds).
"""


def slowness() -> float:
    """How many times slower than on an idle machine a process may be at the moment."""
    return max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))


def patience() -> float:
    """Longest wait for a condition, a process or an answer, as busy as the machine is now."""
    return PATIENCE_SECONDS * slowness()


def eventually(condition: Callable[[], object], what: str, *, pause: float = 0.05) -> None:
    """Wait until the condition holds; fail when it takes longer than ``patience()``."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < patience(), f"never happened: {what}"
        time.sleep(pause)
