"""The customer's side: asking what a backend has, and whether its agent is alive."""

from waldur_site_agent.sandbox import agents
from waldur_site_agent.sandbox.portal import Portal, offering_meant
from waldur_site_agent.sandbox.records import Offering
from waldur_site_agent.sandbox.records_imports import BackendResource, BackendResourceRequest


class ImportSide(Portal):
    """What staff do to bring into Waldur what is in a backend."""

    def request_import(self, offering: Offering | str | None = None) -> BackendResourceRequest:
        """Ask what an offering's backend has that no resource claims."""
        with self._store.change() as tx:
            request = BackendResourceRequest(
                uuid=tx.new_uuid(),
                created=tx.now,
                modified=tx.now,
                offering=offering_meant(tx, offering).uuid,
            )
            tx.world.put(request)
        return request

    def importable(self, offering: Offering | str | None = None) -> list[BackendResource]:
        """Give what agents found at an offering."""
        tx = self._store.read()
        place = offering_meant(tx, offering)
        return [row for row in tx.world.backend_resources.values() if row.offering == place.uuid]

    def forget_importable(self, offering: Offering | str | None = None) -> None:
        """Remove what agents found at an offering, as an import by staff does."""
        with self._store.change() as tx:
            place = offering_meant(tx, offering)
            for row in list(tx.world.backend_resources.values()):
                if row.offering == place.uuid:
                    tx.world.remove(row)

    def agent_states(self, offering: Offering | str | None = None) -> dict[str, str]:
        """Give the states of the services of an offering's agents, by name, as the portal shows."""
        tx = self._store.read()
        place = offering_meant(tx, offering)
        identities = {
            row.uuid for row in tx.world.agent_identities.values() if row.offering == place.uuid
        }
        return {
            row.name: agents.state_of(tx, row)
            for row in tx.world.agent_services.values()
            if row.identity in identities
        }
