"""Sends warnings and errors of the log to Waldur, where the offering's provider can read them.

Log lines go into a bounded buffer in memory, one for each offering, and a thread of its own sends
them. Nothing waits for it: a full buffer drops its oldest lines and counts them, and what the
thread itself logs is not sent. Lines name no people, projects or accounts unless the site asks.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog

from waldur_site_agent import __version__
from waldur_site_agent.config import Offering
from waldur_site_agent.config.settings import LogShipping
from waldur_site_agent.events.registration import identity_name
from waldur_site_agent.model.errors import PermanentError, SiteAgentError, TemporaryError
from waldur_site_agent.model.events import LogEntry
from waldur_site_agent.model.text import printable
from waldur_site_agent.service.logs import concealed, level_number, ship_to
from waldur_site_agent.waldur import Waldur

_BATCH = 100
_LONGEST_MESSAGE = 2000
_OVERHEAD_BYTES = 200
"""What an entry takes besides its message, roughly."""
_CLOSE_WITHIN_SECONDS = 5.0
_NOT_SENT = ("httpx", "httpcore")
_HARMLESS = ("mode", "action", "call", "type", "result", "count", "setting", "signal", "order")
"""Fields that name no people, projects or accounts."""
_ALREADY_THERE = ("event", "timestamp", "level", "exc_info", "offering", "library", "mode")


class LogBuffer:
    """Entries that wait to be sent; the oldest go when it is full. Thread-safe."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._entries: deque[LogEntry] = deque()
        self._bytes = 0
        self._dropped = 0
        self._mutex = threading.Lock()

    def add(self, entry: LogEntry) -> None:
        """Add an entry; returns at once."""
        with self._mutex:
            self._entries.append(entry)
            self._bytes += _size(entry)
            self._shrink()

    def count_lost(self) -> None:
        """An entry could not be made."""
        with self._mutex:
            self._dropped += 1

    def take(self) -> tuple[list[LogEntry], int]:
        """The oldest entries, at most a batch, and how many were dropped before them."""
        with self._mutex:
            batch = [self._entries.popleft() for _ in range(min(_BATCH, len(self._entries)))]
            self._bytes -= sum(map(_size, batch))
            dropped, self._dropped = self._dropped, 0
            return batch, dropped

    def put_back(self, batch: Sequence[LogEntry], dropped: int) -> None:
        """Keep entries that could not be sent, before those that came meanwhile."""
        with self._mutex:
            self._entries.extendleft(reversed(batch))
            self._bytes += sum(map(_size, batch))
            self._dropped += dropped
            self._shrink()

    def _shrink(self) -> None:
        while self._bytes > self._most and self._entries:
            self._bytes -= _size(self._entries.popleft())
            self._dropped += 1


def _size(entry: LogEntry) -> int:
    return len(entry.message.encode(errors="replace")) + len(entry.module) + _OVERHEAD_BYTES


class Shipper:
    """What one offering's Waldur gets."""

    def __init__(
        self, offering: Offering, settings: LogShipping, connect: Callable[[Offering], Waldur]
    ) -> None:
        """Connect to nothing yet."""
        self.offering = offering
        self.buffer = LogBuffer(settings.buffer_size_mb * 1024 * 1024)
        self._connect = connect
        self._identity: UUID | None = None
        self._is_off = False
        self._complained = False

    def ship(self) -> None:
        """Send what waits; never raises.

        What Waldur cannot take now is kept for the next time, as far as the buffer holds it. A
        server that has no such logs, or refuses them to this token, is not asked again.
        """
        while not self._is_off:
            batch, dropped = self.buffer.take()
            entries = [*([_dropped(dropped)] if dropped else []), *batch]
            if not entries:
                return
            try:
                self._send(entries)
            except PermanentError as error:
                self._is_off = True
                self._complain("log shipping to this Waldur is off until a restart", error)
            except TemporaryError as error:
                self.buffer.put_back(batch, dropped)
                self._complain("log entries could not be sent; they are kept", error)
                return

    def _send(self, entries: Sequence[LogEntry]) -> None:
        with self._connect(self.offering) as waldur:
            if self._identity is None:
                self._identity = self._identify(waldur)
            try:
                waldur.send_log(self._identity, entries)
            except SiteAgentError:
                self._identity = None  # it may have been removed
                raise

    def _identify(self, waldur: Waldur) -> UUID:
        uuid, name = self.offering.waldur_offering_uuid, identity_name(self.offering)
        known = waldur.identities(uuid, name).items
        if known:
            return known[0].uuid
        if self.offering.by_events:
            raise TemporaryError("event_process has not registered the agent in Waldur yet")
        return waldur.create_identity(
            uuid, name, __version__, last_restarted=datetime.now(UTC)
        ).uuid

    def _complain(self, event: str, error: SiteAgentError) -> None:
        if not self._complained:
            self._complained = True
            structlog.get_logger().warning(
                event, offering=self.offering.name, reason=error.problem, remedy=error.remedy
            )


def _dropped(number: int) -> LogEntry:
    return LogEntry(
        timestamp=time.time(),
        level="WARNING",
        message=f"{number} earlier log entries were dropped because the buffer was full",
        module="log_shipping",
    )


class LogShipper:
    """Takes log lines, and sends them from a thread of its own."""

    def __init__(
        self,
        settings: LogShipping,
        offerings: Sequence[Offering],
        connect: Callable[[Offering], Waldur],
    ) -> None:
        self._settings = settings
        self._least = level_number(settings.log_level)
        self._shippers = {each.name: Shipper(each, settings, connect) for each in offerings}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log shipping", daemon=True)

    def start(self) -> None:
        """Take log lines from now on."""
        ship_to(self.take)
        self._thread.start()

    def take(self, event: Mapping[str, Any]) -> None:
        """Take one log line; it may be changed afterwards. Never raises and never waits."""
        if threading.current_thread() is self._thread:
            return
        try:
            self._take(event)
        except Exception:  # noqa: BLE001 - whatever a line has in it must not stop the work
            for shipper in self._shippers.values():
                shipper.buffer.count_lost()

    def _take(self, event: Mapping[str, Any]) -> None:
        library = str(event.get("library", ""))
        level = str(event.get("level", "info"))
        if library.startswith(_NOT_SENT) or level_number(level) < self._least:
            return
        entry = LogEntry(
            timestamp=time.time(),
            level=level.upper(),
            message=self._message(event),
            module=library or str(event.get("mode", "")) or "agent",
        )
        about = self._shippers.get(str(event.get("offering", "")))
        for shipper in (about,) if about else self._about_no_offering(event):
            shipper.buffer.add(entry)

    def _about_no_offering(self, event: Mapping[str, Any]) -> Sequence[Shipper]:
        """Lines about an offering that is not served here are nobody else's business."""
        return () if "offering" in event else tuple(self._shippers.values())

    def _message(self, event: Mapping[str, Any]) -> str:
        names = [
            name
            for name in event
            if name not in _ALREADY_THERE
            and not name.startswith("_")
            and (self._settings.send_names or name in _HARMLESS)
        ]
        parts = [str(event.get("event", "")), *(f"{name}={event[name]}" for name in names)]
        error = event.get("exc_info")
        if isinstance(error, BaseException):
            parts.append(f"exception={type(error).__name__}")
        text = parts[0] if self._is_ours(event) else "a message of a library"
        # servers refuse a whole batch for one NUL or half of a surrogate pair
        return printable(concealed("; ".join([text, *parts[1:]])))[:_LONGEST_MESSAGE]

    def _is_ours(self, event: Mapping[str, Any]) -> bool:
        """Events of the agent are constant texts; those of libraries may name anything."""
        return "library" not in event or self._settings.send_names

    def close(self) -> None:
        """Send what waits, for some seconds at most, and take nothing more."""
        ship_to(None)
        self._stop.set()
        with suppress(RuntimeError):  # it was never started
            self._thread.join(_CLOSE_WITHIN_SECONDS)

    def _run(self) -> None:
        while True:
            ends = self._stop.wait(self._settings.ship_interval_seconds)
            for shipper in self._shippers.values():
                try:
                    shipper.ship()
                except Exception:  # noqa: BLE001 - must not end the thread
                    structlog.get_logger().exception("log shipping failed because of a bug")
            if ends:
                return
