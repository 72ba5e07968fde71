"""Faults on demand: what goes wrong, for which requests and how often."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from random import Random
from typing import Literal, get_args

Kind = Literal["latency", "status", "html", "cut", "lost_answer", "short_page", "stale"]
"""
latency      the answer comes ``seconds`` later
status       ``status`` instead of the answer, nothing happens; ``retry_after`` as a header
html         an HTML page with ``status`` (200 if not given) instead of the answer, nothing happens
cut          the connection breaks before anything happened
lost_answer  it happens, and the connection breaks before the answer
short_page   the last ``rows`` rows of a page are missing, the count in the header is not
stale        a read shows the world as it was ``changes_ago`` changes ago; ``*_list`` means every
             list with its count, and leaves each object that is read by itself as it is
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One kind of fault. ``operation`` may contain ``*`` and ``?``."""

    operation: str
    kind: Kind
    times: int | None = 1
    """How often it happens; ``None``: until it is removed."""
    skip: int = 0
    """How many calls succeed first."""
    seconds: float = 0.0
    status: int | None = None
    retry_after: int | str | None = None
    rows: int = 1
    changes_ago: int = 1
    up_to: bool = False
    """Each stale read is 0 to ``changes_ago`` changes old, chosen at random."""


class Faults:
    """The faults in force. Safe to use from several threads."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self.random = Random(0)  # noqa: S311  # nothing secret is drawn
        """Chooses the size of random faults."""
        self._lock = threading.Lock()

    def add(
        self,
        operation: str,
        kind: Kind,
        *,
        times: int | None = 1,
        skip: int = 0,
        seconds: float = 0.0,
        status: int | None = None,
        retry_after: int | str | None = None,
        rows: int = 1,
        changes_ago: int = 1,
        up_to: bool = False,
    ) -> None:
        """Add a fault; see ``Fault``.

        Raises:
            ValueError: There is no such kind.
        """
        if kind not in get_args(Kind):
            raise ValueError(f"{kind!r} is not a fault; use one of {', '.join(get_args(Kind))}")
        fault = Fault(
            operation=operation,
            kind=kind,
            times=times,
            skip=skip,
            seconds=seconds,
            status=status,
            retry_after=retry_after,
            rows=rows,
            changes_ago=changes_ago,
            up_to=up_to,
        )
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._faults.clear()

    @property
    def pending(self) -> list[Fault]:
        """Faults that have not yet happened ``times`` times."""
        with self._lock:
            return list(self._faults)

    def strike(self, operation: str) -> dict[str, Fault]:
        """Return the faults for this call by kind, and count them as happened."""
        met: dict[str, Fault] = {}
        left: list[Fault] = []
        with self._lock:
            for fault in self._faults:
                if not fnmatchcase(operation, fault.operation):
                    left.append(fault)
                elif fault.skip:
                    left.append(replace(fault, skip=fault.skip - 1))
                else:
                    met[fault.kind] = self._sized(fault)
                    if fault.times is None:
                        left.append(fault)
                    elif fault.times > 1:
                        left.append(replace(fault, times=fault.times - 1))
            self._faults = left
        return met

    def _sized(self, fault: Fault) -> Fault:
        if not fault.up_to:
            return fault
        return replace(fault, changes_ago=self.random.randint(0, fault.changes_ago))
