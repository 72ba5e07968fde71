"""How long to wait for Waldur, and how often to ask again."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_DICE = random.SystemRandom()


def full_jitter(ceiling: float) -> float:
    """A random wait between nothing and ``ceiling`` seconds: agents of many sites spread out."""
    return _DICE.uniform(0, ceiling)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds for the phases of one attempt."""

    connect: float = 10.0
    read: float = 60.0
    """Between two pieces of the answer; Waldur computes long lists before it sends the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a request that may be repeated is sent, and the waits in between in seconds."""

    attempts: int = 4
    """All of them, the first included."""
    first_wait: float = 0.5
    longest_wait: float = 20.0
    longest_retry_after: float = 60.0
    """The most that a server's ``Retry-After`` is honoured; then the next cycle is soon enough."""
    jitter: Callable[[float], float] = full_jitter

    def wait_before(self, attempt: int, retry_after: float | None) -> float:
        """Seconds to wait before the attempt of this number (2 is the first repetition)."""
        if retry_after is not None:
            return min(retry_after, self.longest_retry_after)
        doublings = min(attempt - 2, 30)
        return self.jitter(min(self.first_wait * 2.0**doublings, self.longest_wait))


def read_retry_after(header: str | None, now: Callable[[], float] = time.time) -> float | None:
    """Seconds that a ``Retry-After`` header asks for: a number or an HTTP date, else ``None``."""
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, moment.timestamp() - now())
    except (ValueError, OverflowError):
        return None
