"""The customer's side: actions that change nothing and tell agents to look."""

from dataclasses import replace
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING

from waldur_site_agent.sandbox.answers import RefusedError
from waldur_site_agent.sandbox.events import Occurrence, resources
from waldur_site_agent.sandbox.finding import find
from waldur_site_agent.sandbox.portal import Portal, offering_meant
from waldur_site_agent.sandbox.records import Offering, Project, Resource, User

if TYPE_CHECKING:
    from waldur_site_agent.sandbox.records import JsonObject

_OLD_ENOUGH = timedelta(hours=1)


class NudgeSide(Portal):
    """What staff and tasks of the server do to have agents look again."""

    def sync_user_roles(
        self, project: Project | str, resource: Resource | str | None = None
    ) -> None:
        """Ask agents to compare everybody in a project, or in one of its resources."""
        tx = self._store.read()
        found = find(tx.world.projects, project, "projects")
        payload: JsonObject = {"project_uuid": found.uuid, "project_name": found.name}
        if resource is None:
            offerings = resources.offerings_of(tx, found.uuid)
        else:
            one = find(tx.world.resources, resource, "resources")
            payload["resource_uuid"] = one.uuid
            offerings = [one.offering]
        for offering in offerings:
            self._store.announce(
                Occurrence(object_type="user_role", offering=offering, payload=payload), tx
            )

    def pull(self, resource: Resource | str) -> None:
        """Ask agents to look at a resource."""
        tx = self._store.read()
        found = find(tx.world.resources, resource, "resources")
        self._store.announce(resources.resource(tx, found), tx)

    def sync_resources(self, user: User | str, offering: Offering | str | None = None) -> None:
        """Ask agents to look at all resources of an offering; without any agent that is refused."""
        tx = self._store.read()
        place = offering_meant(tx, offering)
        agents = {
            row.uuid for row in tx.world.agent_identities.values() if row.offering == place.uuid
        }
        if not any(row.identity in agents for row in tx.world.event_consumers.values()):
            raise RefusedError(HTTPStatus.CONFLICT, {"detail": "No agent is subscribed."})
        person = find(tx.world.users, user, "users")
        what = Occurrence(
            object_type="offering_resources_sync",
            offering=place.uuid,
            payload={"requested_by_user_uuid": person.uuid},
        )
        self._store.announce(what, tx)

    def remind_of_orders(self) -> int:
        """Tell again of orders that wait for the provider for more than an hour; gives how many."""
        tx = self._store.read()
        waiting = [
            order
            for order in tx.world.orders.values()
            if order.state == "pending-provider" and tx.now - order.created > _OLD_ENOUGH
        ]
        for number, order in enumerate(waiting, start=1):
            what = resources.order(tx, order)
            payload: JsonObject = {**what.payload, "sequence_number": number}
            self._store.announce(replace(what, payload=payload), tx)
        return len(waiting)
