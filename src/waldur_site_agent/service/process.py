"""The wish to stop, shared by everything that may have to wait."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress

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


_MICROSECONDS = 1_000_000
_SEND_WITHIN_SECONDS = 1.0


class Notifier:
    """The service's line to systemd; it never raises, for it must not stop what it tells of."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """Read where to tell it, and how often systemd wants to hear from us."""
        environ = os.environ if environ is None else environ
        name = environ.get("NOTIFY_SOCKET", "")
        # a name that starts with @ is in Linux' abstract name space, which no file is part of
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        self._last_status = ""
        self.watchdog_seconds = _watchdog_seconds(environ) if name else 0.0
        """After how much silence systemd kills the service; 0: it does not watch."""

    @property
    def listened_to(self) -> bool:
        """Whether anybody wants to know."""
        return bool(self._address)

    def ready(self) -> None:
        """The start is over: units that wait for this one may go on."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Feed the watchdog."""
        if self.watchdog_seconds:
            self._send("WATCHDOG=1")

    def still_starting(self, seconds: float) -> None:
        """Ask for so much more time until :meth:`ready`."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * _MICROSECONDS)}")

    def status(self, text: str) -> None:
        """What ``systemctl status`` shows, in one line; told only when it changes."""
        line = " ".join(text.split())
        if line != self._last_status:
            self._last_status = line
            self._send(f"STATUS={line}")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line,
        ):
            line.settimeout(_SEND_WITHIN_SECONDS)
            line.sendto(message.encode(errors="replace"), self._address)


def _watchdog_seconds(environ: Mapping[str, str]) -> float:
    """The watchdog's time, unless it is meant for another process."""
    try:
        meant_for = int(environ.get("WATCHDOG_PID", "") or os.getpid())
        seconds = int(environ.get("WATCHDOG_USEC", "0")) / _MICROSECONDS
    except ValueError:
        return 0.0
    return seconds if meant_for == os.getpid() else 0.0
