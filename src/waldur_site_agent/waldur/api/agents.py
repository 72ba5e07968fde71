"""The agent in Waldur: its user, identities, services and processors, and its event queues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from uuid import UUID

from waldur_site_agent.model.events import (
    AgentIdentity,
    AgentProcessor,
    AgentService,
    EventSubscription,
    LogEntry,
    QueueRegistration,
    SubscriptionQueue,
)
from waldur_site_agent.model.marketplace import User
from waldur_site_agent.waldur.errors import AbsentOperationError, AccessDeniedError
from waldur_site_agent.waldur.http import Call
from waldur_site_agent.waldur.listing import ApiClient, Listing
from waldur_site_agent.waldur.operation import Operation, decode, read_json, uuid_text

_IDENTITIES = "marketplace-site-agent-identities/"
_SERVICES = "marketplace-site-agent-services/"
_SUBSCRIPTIONS = "event-subscriptions/"
# Without ``config_file_content``: the configuration may hold secrets and never leaves the site.
_IDENTITY_KEYS = (
    "offering",
    "name",
    "version",
    "config_file_path",
    "last_restarted",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """The server's version."""

    version: str


ME = Operation(
    id="users_me_retrieve",
    purpose="read whose token this is",
    path="users/me/",
    answer=User,
    chooses_fields=True,  # also keeps the token itself out of the answer
)
VERSION = Operation(
    id="version_retrieve", purpose="read the server's version", path="version/", answer=Version
)


class ServerApi(ApiClient):
    """The token's user and the server's version."""

    def whoami(self) -> User:
        """The user that the token belongs to, with its roles."""
        return self._read(ME)

    def server_version(self) -> str:
        """The server's version, as the server writes it; empty unless the user is staff or support.

        For display only. Whether a server supports an operation is found out by calling it.
        """
        try:
            return self._read(VERSION).version
        except AccessDeniedError:
            return ""


IDENTITIES = Operation(
    id="marketplace_site_agent_identities_list",
    purpose="list the agents of offering {uuid}",
    path=_IDENTITIES,
    answer=AgentIdentity,
    filters=("offering_uuid", "name"),
    paged=True,
)
CREATE_IDENTITY = Operation(
    id="marketplace_site_agent_identities_create",
    purpose="create the identity of the agent of offering {uuid}",
    method="POST",
    path=_IDENTITIES,
    answer=AgentIdentity,
    body=_IDENTITY_KEYS,
)
UPDATE_IDENTITY = Operation(
    id="marketplace_site_agent_identities_update",
    purpose="update agent {uuid}",
    method="PUT",
    path=f"{_IDENTITIES}{{uuid}}/",
    answer=AgentIdentity,
    body=_IDENTITY_KEYS,
    idempotent=True,
)
REGISTER_SERVICE = Operation(
    id="marketplace_site_agent_identities_register_service",
    purpose="register a service of agent {uuid}",
    method="POST",
    path=f"{_IDENTITIES}{{uuid}}/register_service/",
    answer=AgentService,
    body=("name", "mode"),
    idempotent=True,
)
REGISTER_PROCESSOR = Operation(
    id="marketplace_site_agent_services_register_processor",
    purpose="register a processor of service {uuid}",
    method="POST",
    path=f"{_SERVICES}{{uuid}}/register_processor/",
    answer=AgentProcessor,
    body=("name", "backend_type", "backend_version"),
    idempotent=True,
)
REGISTER_QUEUE = Operation(
    id="marketplace_site_agent_identities_register_queue",
    purpose="register the event queue of agent {uuid}",
    method="POST",
    path=f"{_IDENTITIES}{{uuid}}/register_queue/",
    answer=QueueRegistration,
    body=("object_types",),
    idempotent=True,
)
REGISTER_EVENT_SUBSCRIPTION = Operation(
    id="marketplace_site_agent_identities_register_event_subscription",
    purpose="register an event subscription of agent {uuid}",
    method="POST",
    path=f"{_IDENTITIES}{{uuid}}/register_event_subscription/",
    answer=EventSubscription,
    body=("observable_object_type", "description"),
    idempotent=True,
)


SEND_LOG: Operation[None] = Operation(
    id="marketplace_site_agent_logs_create",
    purpose="send log entries of agent {uuid}",
    method="POST",
    path="marketplace-site-agent-logs/",
    body=("agent_identity_uuid", "timestamp", "level", "message", "module"),
)


class AgentIdentitiesApi(ApiClient):
    """Agent identities, their services and processors, and their event queues.

    They need server 7.8.5; older servers raise ``AbsentOperationError``. Registering under an
    existing name returns the existing object.
    """

    def identities(self, offering_uuid: UUID | str, name: str) -> Listing[AgentIdentity]:
        """The agents with exactly this name at an offering: one or none."""
        offering = UUID(uuid_text(offering_uuid))
        listing = self._list(IDENTITIES, offering.hex, offering_uuid=offering.hex, name=name)
        return listing.with_items(
            row for row in listing.items if row.offering_uuid in (None, offering)
        )

    def create_identity(
        self,
        offering_uuid: UUID | str,
        name: str,
        version: str,
        *,
        config_file_path: str = "",
        last_restarted: datetime | None = None,
    ) -> AgentIdentity:
        """Create an agent's identity.

        Args:
            offering_uuid: The offering that it serves.
            name: Its name; unique at the offering by convention, Waldur does not enforce it.
            version: The agent's version.
            config_file_path: The path of its configuration; the content is never sent.
            last_restarted: When the process started, aware; the current time if left out.
        """
        body = _identity_body(offering_uuid, name, version, config_file_path, last_restarted)
        return self._change(CREATE_IDENTITY, offering_uuid, body)

    def update_identity(
        self,
        uuid: UUID | str,
        offering_uuid: UUID | str,
        name: str,
        version: str,
        *,
        config_file_path: str = "",
        last_restarted: datetime | None = None,
    ) -> AgentIdentity:
        """Replace an agent's identity, with the arguments of :meth:`create_identity`."""
        body = _identity_body(offering_uuid, name, version, config_file_path, last_restarted)
        return self._change(UPDATE_IDENTITY, uuid, body)

    def register_service(self, identity_uuid: UUID | str, name: str, mode: str) -> AgentService:
        """Register a service (a job) of an agent and set it active."""
        return self._change(REGISTER_SERVICE, identity_uuid, {"name": name, "mode": mode})

    def register_processor(
        self, service_uuid: UUID | str, name: str, backend_type: str, backend_version: str = ""
    ) -> AgentProcessor:
        """Register a processor of a service and report that it ran just now: the heartbeat.

        Waldur shows a service as idle ten minutes after the last heartbeat.
        """
        body = {"name": name, "backend_type": backend_type}
        if backend_version:
            body["backend_version"] = backend_version
        return self._change(REGISTER_PROCESSOR, service_uuid, body)

    def register_queue(
        self, identity_uuid: UUID | str, object_types: Sequence[str]
    ) -> QueueRegistration:
        """Create one queue for all events of an agent; absent before server 8.1.

        Repeating it sets the broker's password to the current token and may return another login:
        call it at every start and after a refused login. An empty list means every type.

        Raises:
            ConflictError: The queue belongs to another Waldur user.
        """
        body = {"object_types": list(object_types)}
        return self._change(REGISTER_QUEUE, identity_uuid, body)

    def send_log(self, identity_uuid: UUID | str, entries: Sequence[LogEntry]) -> None:
        """Send lines of the agent's log; repeated ones are there twice. Absent before 8.0.9."""
        uuid = str(UUID(uuid_text(identity_uuid)))
        rows = [{"agent_identity_uuid": uuid, **asdict(entry)} for entry in entries]
        call = Call.of(SEND_LOG, uuid=uuid_text(identity_uuid), body=rows)
        self._connection.send(call)

    def register_event_subscription(
        self, identity_uuid: UUID | str, object_type: str, description: str = ""
    ) -> EventSubscription:
        """Create or find the user's subscription for an object type.

        All agents and offerings of the user share it. If its login at the broker is gone, Waldur
        creates another, with another UUID.
        """
        body = {"observable_object_type": object_type}
        if description:
            body["description"] = description
        return self._change(REGISTER_EVENT_SUBSCRIPTION, identity_uuid, body)


EVENT_SUBSCRIPTIONS = Operation(
    id="event_subscriptions_list",
    purpose="list the event subscriptions",
    path=_SUBSCRIPTIONS,
    answer=EventSubscription,
    filters=("user_uuid",),
    paged=True,
    orders=("created",),
)
CREATE_EVENT_SUBSCRIPTION = Operation(
    id="event_subscriptions_create",
    purpose="create an event subscription",
    method="POST",
    path=_SUBSCRIPTIONS,
    answer=EventSubscription,
    body=("description", "observable_objects"),
)
EVENT_QUEUES = Operation(
    id="event_subscription_queues_list",
    purpose="count the queues of event subscriptions",
    path="event-subscription-queues/",
    answer=SubscriptionQueue,
    paged=True,
)
CREATE_QUEUE = Operation(
    id="event_subscriptions_create_queue",
    purpose="create a queue of event subscription {uuid}",
    method="POST",
    path=f"{_SUBSCRIPTIONS}{{uuid}}/create_queue/",
    answer=SubscriptionQueue,
    body=("offering_uuid", "object_type"),
    idempotent=True,
)


class EventsApi(ApiClient):
    """Event subscriptions of the token's user, and their queues.

    There is no method to delete one: with the last subscription, Waldur would remove the user's
    virtual host with every queue and event in it.
    """

    def event_subscriptions(
        self, user_uuid: UUID | str | None = None
    ) -> Listing[EventSubscription]:
        """The subscriptions that the token's user sees; of all users or of one."""
        user = {} if user_uuid is None else {"user_uuid": uuid_text(user_uuid)}
        return self._list(EVENT_SUBSCRIPTIONS, **user)

    def create_event_subscription(
        self, description: str, object_types: Sequence[str]
    ) -> EventSubscription:
        """Subscribe the token's user; a second call creates a second subscription."""
        body = {
            "description": description,
            "observable_objects": [{"object_type": name} for name in object_types],
        }
        call = Call.of(CREATE_EVENT_SUBSCRIPTION, body=body)
        response = self._connection.send(call)
        return decode(CREATE_EVENT_SUBSCRIPTION, read_json(response), response)

    def makes_event_queues(self) -> bool:
        """Whether the server creates event queues itself, as servers since 7.9.9 do."""
        try:
            self._count(EVENT_QUEUES)
        except AbsentOperationError:
            return False
        return True

    def create_queue(
        self, subscription_uuid: UUID | str, offering_uuid: UUID | str, object_type: str
    ) -> SubscriptionQueue:
        """Create or find the queue for one offering's events of a type.

        Absent before server 7.9.9, where the first SUBSCRIBE creates the queue.
        """
        body = {"offering_uuid": uuid_text(offering_uuid), "object_type": object_type}
        return self._change(CREATE_QUEUE, subscription_uuid, body)


def _identity_body(
    offering_uuid: UUID | str,
    name: str,
    version: str,
    config_file_path: str,
    last_restarted: datetime | None,
) -> dict[str, object]:
    body: dict[str, object] = {
        "offering": uuid_text(offering_uuid),
        "name": name,
        "version": version,
    }
    if config_file_path:
        body["config_file_path"] = config_file_path
    if last_restarted is not None:
        body["last_restarted"] = last_restarted.astimezone(UTC).isoformat()
    return body
