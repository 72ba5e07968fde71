"""Stopping the process, and its notifications to systemd."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress

from waldur_site_agent.model.errors import TemporaryError


class Stop:
    """A stop request, set once by a signal; threads check it and wait on it instead of sleeping."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def request(self) -> None:
        """Ask all threads to finish their current object and start nothing new."""
        self._event.set()

    def requested(self) -> bool:
        """Whether a stop was requested."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait, at most until a stop is requested; return whether it is."""
        return self._event.wait(seconds)

    def pause(self, seconds: float) -> None:
        """Sleep in the middle of some work.

        Raises:
            TemporaryError: a stop was requested; the next start takes the work up again.
        """
        if self.wait(seconds):
            raise TemporaryError("the agent is stopping; the next start will retry")


_MICROSECONDS = 1_000_000
_SEND_WITHIN_SECONDS = 1.0


class Notifier:
    """Sends notifications to systemd; it never raises."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """Read the socket's address and the watchdog interval from the environment."""
        environ = os.environ if environ is None else environ
        name = environ.get("NOTIFY_SOCKET", "")
        # a name that starts with @ is in the abstract socket namespace of Linux
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        self._last_status = ""
        self.watchdog_seconds = _watchdog_seconds(environ) if name else 0.0
        """The watchdog timeout; 0 if systemd does not watch the service."""

    @property
    def listened_to(self) -> bool:
        """Whether systemd listens."""
        return bool(self._address)

    def ready(self) -> None:
        """Report that the start is complete, so that dependent units can start."""
        self._send("READY=1")

    def stopping(self) -> None:
        """Report that shutdown has begun."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Send a keep-alive to the watchdog."""
        if self.watchdog_seconds:
            self._send("WATCHDOG=1")

    def still_starting(self, seconds: float) -> None:
        """Extend the start timeout."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * _MICROSECONDS)}")

    def status(self, text: str) -> None:
        """Set the line that ``systemctl status`` shows; sent only when it changes."""
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
    """The watchdog timeout, or 0 if it is meant for another process."""
    try:
        meant_for = int(environ.get("WATCHDOG_PID", "") or os.getpid())
        seconds = int(environ.get("WATCHDOG_USEC", "0")) / _MICROSECONDS
    except ValueError:
        return 0.0
    return seconds if meant_for == os.getpid() else 0.0
