"""What agents say of themselves, and where they are told of changes, as Waldur stores it."""

from dataclasses import dataclass, field
from datetime import datetime

from pydantic import JsonValue

from waldur_site_agent.sandbox.records import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentIdentity:
    """An agent at one offering."""

    uuid: str
    created: datetime
    modified: datetime
    offering: str
    name: str
    created_by: str
    """The user who made it."""
    version: str | None = None
    dependencies: tuple[JsonValue, ...] = ()
    config_file_path: str | None = None
    config_file_content: str | None = field(default=None, repr=False)
    last_restarted: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentService:
    """One job of an agent."""

    uuid: str
    created: datetime
    modified: datetime
    identity: str
    name: str
    registered: datetime
    """When it was registered last."""
    mode: str | None = None
    state: str = "Active"
    """As it was stored last: whether it has turned Idle since depends on the time."""
    statistics: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentProcessor:
    """What does a job; its last run is the agent's heartbeat."""

    uuid: str
    created: datetime
    modified: datetime
    service: str
    name: str
    backend_type: str
    backend_version: str | None = None
    last_run: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSubscription:
    """A user's wish to be told of changes. Its UUID is the login at the broker."""

    uuid: str
    created: datetime
    modified: datetime
    user: str
    observable_objects: tuple[JsonValue, ...] = ()
    description: str = ""
    source_ip: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionQueue:
    """A queue that the server made for one kind of change at one offering."""

    uuid: str
    created: datetime
    subscription: str
    offering: str
    object_type: str

    @property
    def name(self) -> str:
        """What the queue is called at the broker."""
        return subscription_queue_name(self.subscription, self.offering, self.object_type)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventConsumer:
    """An agent's one queue for changes of every kind."""

    uuid: str
    created: datetime
    modified: datetime
    identity: str
    user: str
    login: str
    """At the broker."""
    object_types: tuple[str, ...] = ()
    """None at all means all of them."""

    @property
    def queue(self) -> str:
        """What the queue is called at the broker."""
        return f"consumer_{self.uuid}"


def subscription_queue_name(subscription: str, offering: str, object_type: str) -> str:
    """Name the queue of a subscription for one kind of change at one offering."""
    return f"subscription_{subscription}_offering_{offering}_{object_type}"
