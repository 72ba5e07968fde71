"""STOMP 1.2 over WebSocket, as RabbitMQ speaks it."""

from waldur_site_agent.events.stomp.transport import StompTransport

__all__ = ["StompTransport"]
