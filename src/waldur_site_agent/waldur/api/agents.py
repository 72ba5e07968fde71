"""What the agent tells about itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from waldur_site_agent.model.events import (
    AgentDependency,
    AgentIdentity,
    AgentProcessor,
    AgentService,
    EventSubscription,
    QueueRegistration,
    SubscriptionQueue,
)
from waldur_site_agent.model.marketplace import User
from waldur_site_agent.waldur.codec import decode, read_json, uuid_text
from waldur_site_agent.waldur.errors import AbsentOperationError
from waldur_site_agent.waldur.http import Call
from waldur_site_agent.waldur.listing import ApiClient, Listing
from waldur_site_agent.waldur.operation import changing, listing_pages, making, reading

_IDENTITIES = "marketplace-site-agent-identities/"
_SERVICES = "marketplace-site-agent-services/"
# Without ``config_file_content``: the configuration may hold secrets, and stays at the site.
_IDENTITY_KEYS = (
    "offering",
    "name",
    "version",
    "dependencies",
    "config_file_path",
    "last_restarted",
)

IDENTITIES = listing_pages(
    "marketplace_site_agent_identities_list",
    "list the agents of offering {uuid}",
    _IDENTITIES,
    AgentIdentity,
    filters=("offering_uuid", "name"),
    ordered_by=None,
    chooses_fields=False,
)
CREATE_IDENTITY = making(
    "marketplace_site_agent_identities_create",
    "introduce the agent of offering {uuid}",
    _IDENTITIES,
    AgentIdentity,
    body=_IDENTITY_KEYS,
    safe_to_repeat=False,
)
UPDATE_IDENTITY = changing(
    "marketplace_site_agent_identities_update",
    "update agent {uuid}",
    f"{_IDENTITIES}{{uuid}}/",
    AgentIdentity,
    body=_IDENTITY_KEYS,
    method="PUT",
)
REGISTER_SERVICE = making(
    "marketplace_site_agent_identities_register_service",
    "register a service of agent {uuid}",
    f"{_IDENTITIES}{{uuid}}/register_service/",
    AgentService,
    body=("name", "mode"),
    safe_to_repeat=True,
)
REGISTER_PROCESSOR = making(
    "marketplace_site_agent_services_register_processor",
    "register a processor of service {uuid}",
    f"{_SERVICES}{{uuid}}/register_processor/",
    AgentProcessor,
    body=("name", "backend_type", "backend_version"),
    safe_to_repeat=True,
)
SET_STATISTICS = making(
    "marketplace_site_agent_services_set_statistics",
    "set the statistics of service {uuid}",
    f"{_SERVICES}{{uuid}}/set_statistics/",
    AgentService,
    body=("statistics",),
    safe_to_repeat=True,
)
REGISTER_QUEUE = making(
    "marketplace_site_agent_identities_register_queue",
    "register the event queue of agent {uuid}",
    f"{_IDENTITIES}{{uuid}}/register_queue/",
    QueueRegistration,
    body=("object_types",),
    safe_to_repeat=True,
)
REGISTER_EVENT_SUBSCRIPTION = making(
    "marketplace_site_agent_identities_register_event_subscription",
    "register an event subscription of agent {uuid}",
    f"{_IDENTITIES}{{uuid}}/register_event_subscription/",
    EventSubscription,
    body=("observable_object_type", "description"),
    safe_to_repeat=True,
)


class AgentIdentitiesApi(ApiClient):
    """Agent identities, their services and processors, and the queue that events come from.

    All of it came with server 7.8.5; before, ``AbsentOperationError`` says so. What is registered
    under a name that is there already is that one again.
    """

    def identities(self, offering_uuid: UUID | str, name: str) -> Listing[AgentIdentity]:
        """The agents of this very name at an offering: one, or none."""
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
        dependencies: Sequence[AgentDependency] = (),
        config_file_path: str = "",
        last_restarted: datetime | None = None,
    ) -> AgentIdentity:
        """Introduce an agent.

        Args:
            offering_uuid: The offering that it works for.
            name: What it is called; unique at the offering by agreement, not by force.
            version: The agent's version.
            dependencies: What it works with, and the versions.
            config_file_path: Where its configuration is; the content is never sent.
            last_restarted: When the process began, aware; Waldur takes the present for it.
        """
        body = _identity_body(
            offering_uuid, name, version, dependencies, config_file_path, last_restarted
        )
        return self._change(CREATE_IDENTITY, offering_uuid, body)

    def update_identity(
        self,
        uuid: UUID | str,
        offering_uuid: UUID | str,
        name: str,
        version: str,
        *,
        dependencies: Sequence[AgentDependency] = (),
        config_file_path: str = "",
        last_restarted: datetime | None = None,
    ) -> AgentIdentity:
        """Tell all of an agent anew, as :meth:`create_identity` does; the offering stays."""
        body = _identity_body(
            offering_uuid, name, version, dependencies, config_file_path, last_restarted
        )
        return self._change(UPDATE_IDENTITY, uuid, body)

    def register_service(self, identity_uuid: UUID | str, name: str, mode: str) -> AgentService:
        """Register a job of an agent and set it active."""
        return self._change(REGISTER_SERVICE, identity_uuid, {"name": name, "mode": mode})

    def register_processor(
        self, service_uuid: UUID | str, name: str, backend_type: str, backend_version: str = ""
    ) -> AgentProcessor:
        """Register a part of a service, and say that it ran just now: the sign of life.

        Waldur shows a service as idle ten minutes after the last one.
        """
        body = {"name": name, "backend_type": backend_type}
        if backend_version:
            body["backend_version"] = backend_version
        return self._change(REGISTER_PROCESSOR, service_uuid, body)

    def set_statistics(self, service_uuid: UUID | str, statistics: Mapping[str, Any]) -> None:
        """Replace the figures that the portal shows of a service."""
        self._change(SET_STATISTICS, service_uuid, {"statistics": dict(statistics)})

    def register_queue(
        self, identity_uuid: UUID | str, object_types: Sequence[str]
    ) -> QueueRegistration:
        """Have one queue made for all events of an agent; absent before server 8.1.

        Repeating it sets the broker's password to the token in use now, and may bring another
        login: it is to be called at every start and after a refused login. No types at all would
        mean every type.

        Raises:
            ConflictError: The queue belongs to another Waldur user.
        """
        body = {"object_types": list(object_types)}
        return self._change(REGISTER_QUEUE, identity_uuid, body)

    def register_event_subscription(
        self, identity_uuid: UUID | str, object_type: str, description: str = ""
    ) -> EventSubscription:
        """Have the user's subscription for a type of object made or found.

        All agents and offerings of the user share it. If its login at the broker is gone it is
        made anew, under another UUID.
        """
        body = {"observable_object_type": object_type}
        if description:
            body["description"] = description
        return self._change(REGISTER_EVENT_SUBSCRIPTION, identity_uuid, body)


def _identity_body(
    offering_uuid: UUID | str,
    name: str,
    version: str,
    dependencies: Sequence[AgentDependency],
    config_file_path: str,
    last_restarted: datetime | None,
) -> dict[str, object]:
    body: dict[str, object] = {
        "offering": uuid_text(offering_uuid),
        "name": name,
        "version": version,
    }
    if dependencies:
        body["dependencies"] = [asdict(dependency) for dependency in dependencies]
    if config_file_path:
        body["config_file_path"] = config_file_path
    if last_restarted is not None:
        body["last_restarted"] = last_restarted.astimezone(UTC).isoformat()
    return body


_PATH = "event-subscriptions/"

EVENT_SUBSCRIPTIONS = listing_pages(
    "event_subscriptions_list",
    "list the event subscriptions",
    _PATH,
    EventSubscription,
    filters=("user_uuid",),
    chooses_fields=False,
)
CREATE_EVENT_SUBSCRIPTION = making(
    "event_subscriptions_create",
    "create an event subscription",
    _PATH,
    EventSubscription,
    body=("description", "observable_objects"),
    safe_to_repeat=False,
)
EVENT_QUEUES = listing_pages(
    "event_subscription_queues_list",
    "count the queues of event subscriptions",
    "event-subscription-queues/",
    SubscriptionQueue,
    filters=(),
    ordered_by=None,
    chooses_fields=False,
)
CREATE_QUEUE = making(
    "event_subscriptions_create_queue",
    "create a queue of event subscription {uuid}",
    f"{_PATH}{{uuid}}/create_queue/",
    SubscriptionQueue,
    body=("offering_uuid", "object_type"),
    safe_to_repeat=True,
)


class EventsApi(ApiClient):
    """Subscriptions of the token's user, and their queues.

    There is no way to delete one: Waldur would remove the user's virtual host with the last of
    them, and every queue and event in it.
    """

    def event_subscriptions(
        self, user_uuid: UUID | str | None = None
    ) -> Listing[EventSubscription]:
        """The subscriptions that the token's user sees; of everybody, or of one user."""
        user = {} if user_uuid is None else {"user_uuid": uuid_text(user_uuid)}
        return self._list(EVENT_SUBSCRIPTIONS, **user)

    def create_event_subscription(
        self, description: str, object_types: Sequence[str]
    ) -> EventSubscription:
        """Subscribe the token's user; a second call makes a second subscription."""
        body = {
            "description": description,
            "observable_objects": [{"object_type": name} for name in object_types],
        }
        call = Call.of(CREATE_EVENT_SUBSCRIPTION, body=body)
        response = self._connection.send(call)
        return decode(CREATE_EVENT_SUBSCRIPTION, read_json(response), response)

    def makes_event_queues(self) -> bool:
        """Whether the server makes queues for events itself, as those from 7.9.9 on do."""
        try:
            self._count(EVENT_QUEUES)
        except AbsentOperationError:
            return False
        return True

    def create_queue(
        self, subscription_uuid: UUID | str, offering_uuid: UUID | str, object_type: str
    ) -> SubscriptionQueue:
        """Have the queue made, or found, that one offering's events of a type go to.

        Absent before server 7.9.9, where the first SUBSCRIBE makes the queue.
        """
        body = {"offering_uuid": uuid_text(offering_uuid), "object_type": object_type}
        return self._change(CREATE_QUEUE, subscription_uuid, body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """The server's answer about itself."""

    version: str


ME = reading(
    "users_me_retrieve",
    "read whose token this is",
    "users/me/",
    User,
    query=("field",),  # also keeps the token itself out of the answer
)
VERSION = reading("version_retrieve", "read the server's version", "version/", Version)
