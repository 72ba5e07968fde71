"""Something that agents are told of, and where it is sent."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256

from waldur_site_agent_sandbox.records import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurrence:
    """One thing that happened, as far as one offering is concerned."""

    object_type: str
    offering: str
    payload: JsonObject
    """What every server says of it, without the offering."""
    more: JsonObject = field(default_factory=dict)
    """What only unified queues say of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """One message for one queue."""

    vhost: str
    queue: str
    made_by_server: bool
    """Whether the server made the queue; else sending makes it, unless a subscriber has."""
    topic: str | None
    """Where it is sent over MQTT too."""
    payload: JsonObject

    @property
    def body(self) -> bytes:
        """The text that is sent."""
        return json.dumps(self.payload).encode()

    @property
    def message_id(self) -> str:
        """A hash of the content: the same thing told twice has it twice."""
        content = f"{self.vhost}:{self.topic or self.queue}:".encode() + self.body
        return sha256(content).hexdigest()[:32]
