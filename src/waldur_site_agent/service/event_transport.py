"""The way to the message broker that an offering's settings describe."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from waldur_site_agent.events.transport import Address

if TYPE_CHECKING:
    from waldur_site_agent.config import Offering
    from waldur_site_agent.events.transport import Transport


MESSAGES_IN_HAND = 500
"""How many messages the broker gives out before the first of them is acknowledged.

One for each scope that waits: a pass can cover only what was delivered when it began.
"""


def broker_address(offering: Offering) -> Address:
    """Where the WebSocket of the offering's broker listens; by default beside the API."""
    if offering.mqtt_enabled:
        host, port, path = offering.mqtt_ws_host, offering.mqtt_ws_port, offering.mqtt_ws_path
    else:
        host, port, path = offering.stomp_ws_host, offering.stomp_ws_port, offering.stomp_ws_path
    return Address(
        host=host or urlsplit(offering.waldur_api_url).hostname or "",
        port=port,
        path=path,
        tls=offering.websocket_use_tls,
        verify=offering.verify_ssl,
        ca_file=offering.ca_file,
    )


def open_transport(offering: Offering) -> Transport:
    """The transport for the offering's broker; nothing is connected yet."""
    address = broker_address(offering)
    # imported here: an offering needs one of the two, and most need none
    if offering.mqtt_enabled:
        from waldur_site_agent.events.mqtt import MqttTransport  # noqa: PLC0415

        return MqttTransport(address)
    from waldur_site_agent.events.stomp import StompTransport  # noqa: PLC0415

    return StompTransport(address, prefetch=MESSAGES_IN_HAND)
