"""MQTT 3.1.1 over WebSocket, for servers of 2025 that publish to topics."""

from waldur_site_agent.events.mqtt.transport import MqttTransport

__all__ = ["MqttTransport"]
