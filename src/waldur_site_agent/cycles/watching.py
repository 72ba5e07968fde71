"""What a cycle tells those who watch it: health, metrics, the journal's reader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from waldur_site_agent.backends import Outcome
    from waldur_site_agent.cycles.report import CycleReport


class Watch(Protocol):
    """Told of every step of the work on one offering in one mode; never raises."""

    def cycle_began(self) -> None:
        """A pass begins."""

    def cycle_ended(self, report: CycleReport, seconds: float) -> None:
        """A pass ended, well or not, after so many seconds."""

    def action(self, outcome: Outcome) -> None:
        """An action was carried out or has failed."""

    def request(self, operation: str, status: int | str, seconds: float) -> None:
        """Waldur answered; ``status`` is the HTTP status, or ``"error"`` without an answer."""

    def command(self, command: str, result: str, seconds: float) -> None:
        """A command of the backend ended; ``result`` is one word."""


class Unwatched:
    """Nobody watches: commands that run once, and tests."""

    def cycle_began(self) -> None:
        """See :class:`Watch`."""

    def cycle_ended(self, report: CycleReport, seconds: float) -> None:
        """See :class:`Watch`."""

    def action(self, outcome: Outcome) -> None:
        """See :class:`Watch`."""

    def request(self, operation: str, status: int | str, seconds: float) -> None:
        """See :class:`Watch`."""

    def command(self, command: str, result: str, seconds: float) -> None:
        """See :class:`Watch`."""
