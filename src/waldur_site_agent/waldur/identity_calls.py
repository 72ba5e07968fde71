"""What the agent tells about itself."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC
from typing import TYPE_CHECKING, Any
from uuid import UUID

from waldur_site_agent.waldur.bodies import uuid_text
from waldur_site_agent.waldur.conversation import Conversation
from waldur_site_agent.waldur.operations import identities as ops

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from waldur_site_agent.model.events import (
        AgentDependency,
        AgentIdentity,
        AgentProcessor,
        AgentService,
        EventSubscription,
        QueueRegistration,
    )
    from waldur_site_agent.waldur.listing import Listing


class IdentityCalls(Conversation):
    """Agent identities, their services and processors, and the queue that events come from.

    All of it came with server 7.8.5; before, ``AbsentOperationError`` says so. What is registered
    under a name that is there already is that one again.
    """

    def identities(self, offering_uuid: UUID | str, name: str) -> Listing[AgentIdentity]:
        """The agents of this very name at an offering: one, or none."""
        offering = UUID(uuid_text(offering_uuid))
        listing = self._list(ops.IDENTITIES, offering.hex, offering_uuid=offering.hex, name=name)
        read = [row.read() for row in listing.items]
        return listing.with_items(r for r in read if r.offering_uuid in (None, offering))

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
        return self._change(ops.CREATE_IDENTITY, offering_uuid, body).read()

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
        return self._change(ops.UPDATE_IDENTITY, uuid, body).read()

    def register_service(self, identity_uuid: UUID | str, name: str, mode: str) -> AgentService:
        """Register a job of an agent and set it active."""
        return self._change(ops.REGISTER_SERVICE, identity_uuid, {"name": name, "mode": mode})

    def register_processor(
        self, service_uuid: UUID | str, name: str, backend_type: str, backend_version: str = ""
    ) -> AgentProcessor:
        """Register a part of a service, and say that it ran just now: the sign of life.

        Waldur shows a service as idle ten minutes after the last one.
        """
        body = {"name": name, "backend_type": backend_type}
        if backend_version:
            body["backend_version"] = backend_version
        return self._change(ops.REGISTER_PROCESSOR, service_uuid, body)

    def set_statistics(self, service_uuid: UUID | str, statistics: Mapping[str, Any]) -> None:
        """Replace the figures that the portal shows of a service."""
        self._change(ops.SET_STATISTICS, service_uuid, {"statistics": dict(statistics)})

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
        return self._change(ops.REGISTER_QUEUE, identity_uuid, body)

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
        return self._change(ops.REGISTER_EVENT_SUBSCRIPTION, identity_uuid, body).read()


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
