"""How the events of one offering stand, for health and metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from waldur_site_agent.events.listening import ConnectionStatus

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class EventStatus:
    """One moment; numbers count from the start of the worker."""

    connection: ConnectionStatus = field(default_factory=ConnectionStatus)
    scopes_waiting: int = 0
    """How many parts of the offering should be looked at, or looked at again after a failure."""
    oldest_waiting_seconds: float = 0.0
    counts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Messages by type of object and what was made of them (:attr:`Agenda.counts`)."""
    hangs: bool = False
    """Whether the pass in hand does not move."""

    def describe(self) -> dict[str, object]:
        """All of it as values that JSON knows."""
        connection = self.connection
        since, heard = connection.connected_since, connection.heard_seconds_ago
        return {
            "connected": since is not None,
            "connected_since": since.isoformat(timespec="seconds") if since else None,
            "heard_seconds_ago": None if heard is None else round(heard, 1),
            "connections": connection.connections,
            "trouble": connection.trouble,
            "waiting": self.scopes_waiting,
            "oldest_waiting_seconds": round(self.oldest_waiting_seconds, 1),
            "messages": {" ".join(key): count for key, count in sorted(self.counts.items())},
            "hangs": self.hangs,
        }
