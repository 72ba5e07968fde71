"""The wish to stop, shared by everything that may have to wait."""

from __future__ import annotations

import threading

from waldur_site_agent.model.errors import TemporaryError


class Stop:
    """Set once, by a signal; threads look at it, and wait on it instead of sleeping."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def request(self) -> None:
        """Ask everybody who shares this to finish what is in hand and begin nothing new."""
        self._event.set()

    def requested(self) -> bool:
        """Whether it was asked for."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until the stop is asked for; return whether it is."""
        return self._event.wait(seconds)

    def pause(self, seconds: float) -> None:
        """Sleep in the middle of some work.

        Raises:
            TemporaryError: the stop was asked for; what the work waited for is left to the next
                start.
        """
        if self.wait(seconds):
            raise TemporaryError("the agent is stopping; the next start tries again")
