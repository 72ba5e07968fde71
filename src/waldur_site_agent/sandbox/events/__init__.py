"""What changed in the sandbox, told to agents over a message broker as Waldur tells it."""

from waldur_site_agent.sandbox.events.bus import Event, EventBus
from waldur_site_agent.sandbox.events.occurrences import Destination, Occurrence

__all__ = ["Destination", "Event", "EventBus", "Occurrence"]
