"""What the agent asks about resources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from waldur_site_agent.model.orders import ResourceState
from waldur_site_agent.model.people import has_ended
from waldur_site_agent.waldur.bodies import number, uuid_text
from waldur_site_agent.waldur.connection import Call
from waldur_site_agent.waldur.conversation import Conversation
from waldur_site_agent.waldur.decoding import bad_answer, decode, read_rows
from waldur_site_agent.waldur.operations import resources as ops

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from decimal import Decimal
    from uuid import UUID

    from waldur_site_agent.model.offerings import UserLimit
    from waldur_site_agent.model.orders import Resource
    from waldur_site_agent.model.people import TeamMember
    from waldur_site_agent.waldur.listing import Listing


class ResourceCalls(Conversation):
    """Resources: what they are to be, who is in them, and what the agent tells of them."""

    def resources(
        self,
        offering_uuid: UUID | str,
        states: Iterable[str] = ResourceState.ALIVE,
        *,
        with_order_in_progress: bool = False,
    ) -> Listing[Resource]:
        """The resources of an offering in these states, oldest first.

        ``with_order_in_progress`` asks for the order under way too, which makes the answer large.
        """
        return self._list(
            ops.RESOURCES,
            uuid_text(offering_uuid),
            without=() if with_order_in_progress else ("order_in_progress",),
            offering_uuid=uuid_text(offering_uuid),
            state=[*states],
        )

    def resources_named(
        self, backend_id: str, states: Iterable[str] = ResourceState.ALIVE
    ) -> Listing[Resource]:
        """The resources of this very backend id in all offerings that the token's user sees."""
        return self._list(
            ops.RESOURCES_NAMED,
            without=("order_in_progress",),
            backend_id=backend_id,
            state=[*states],
        )

    def resource(self, uuid: UUID | str) -> Resource:
        """One resource as it is now, with the order under way."""
        return self._read(ops.RESOURCE, uuid)

    def team(self, resource_uuid: UUID | str) -> tuple[TeamMember, ...]:
        """The people with a role in the resource's project; ended roles are left out.

        Raises:
            TemporaryError: Also when the server says that there are more than it sent.
        """
        call = Call.of(ops.TEAM, uuid=uuid_text(resource_uuid))
        response = self._connection.send(call)
        rows = read_rows(response)
        total = response.headers.get("x-result-count", "")
        if total.isdigit() and int(total) != len(rows):
            raise bad_answer(response, f"{len(rows)} of {total} members arrived")
        members = [decode(ops.TEAM, row, response, f"row {n}") for n, row in enumerate(rows, 1)]
        now = self._connection.now()
        return tuple(m for m in members if not has_ended(m.expiration_time, now))

    def set_backend_id(self, resource_uuid: UUID | str, backend_id: str) -> None:
        """Tell Waldur the resource's name in the backend."""
        self._write(ops.SET_BACKEND_ID, resource_uuid, {"backend_id": backend_id})

    def set_limits(self, resource_uuid: UUID | str, limits: Mapping[str, Decimal]) -> None:
        """Replace all limits of a resource, in Waldur's measured units.

        Only keys of limit components may be there: others break later orders of the resource.
        """
        numbers = {component: number(limit) for component, limit in limits.items()}
        self._write(ops.SET_LIMITS, resource_uuid, {"limits": numbers})

    def set_backend_metadata(self, resource_uuid: UUID | str, metadata: Mapping[str, Any]) -> None:
        """Replace the backend metadata of a resource, whole."""
        self._write(ops.SET_BACKEND_METADATA, resource_uuid, {"backend_metadata": dict(metadata)})

    def refresh_last_sync(self, resource_uuid: UUID | str) -> None:
        """Note on the resource that it was compared with the backend just now."""
        self._write(ops.REFRESH_LAST_SYNC, resource_uuid)

    def set_as_ok(self, resource_uuid: UUID | str) -> None:
        """Mark a resource as OK, whatever it was before; a terminated one is refused."""
        self._write(ops.SET_AS_OK, resource_uuid)

    def set_as_erred(self, resource_uuid: UUID | str, message: str) -> None:
        """Mark a resource as erred, for its owner too."""
        body = {"error_message": message, "error_traceback": ""}
        self._write(ops.SET_AS_ERRED, resource_uuid, body)

    def user_limits(self, offering_uuid: UUID | str) -> Listing[UserLimit]:
        """The limits that customers set for single people, of all resources of an offering."""
        listing = self._list(
            ops.USER_LIMITS, uuid_text(offering_uuid), offering_uuid=uuid_text(offering_uuid)
        )
        return listing.with_items(row.read() for row in listing.items)
