"""Tells Waldur again and again that the agent is there, however long a pass takes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from waldur_site_agent.model.errors import SiteAgentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger


class Presence:
    """A sign of life at a steady pace, from a thread of its own."""

    def __init__(
        self, ping: Callable[[], None], every_seconds: float, log: FilteringBoundLogger
    ) -> None:
        self._ping = ping
        self._every_seconds = every_seconds
        self._log = log
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin; the first sign comes after one period, registering was one."""
        threading.Thread(target=self._keep_pinging, name="events presence", daemon=True).start()

    def stop(self) -> None:
        """Give no more signs."""
        self._stop.set()

    def _keep_pinging(self) -> None:
        log = self._log
        while not self._stop.wait(self._every_seconds):
            try:
                self._ping()
            except SiteAgentError as error:
                log.warning("Waldur did not take the sign of life", reason=str(error))
            except Exception:  # the next sign may get through
                if self._stop.is_set():  # what it works with may be closed already
                    return
                log.exception("the sign of life failed because of a defect")
