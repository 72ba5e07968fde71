"""What the agent asks about the import of resources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from waldur_site_agent.waldur.bodies import uuid_text
from waldur_site_agent.waldur.conversation import Conversation
from waldur_site_agent.waldur.operations import imports as ops

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from waldur_site_agent.model.imports import BackendResource, BackendResourceRequest, Project
    from waldur_site_agent.waldur.listing import Listing


class ImportCalls(Conversation):
    """Requests for what can be imported, what is offered in answer, and projects to put it in.

    A request goes from Sent to Processing to Done, or to Erred from anywhere; another order is a
    ``ConflictError``.
    """

    def backend_resource_requests(
        self, offering_uuid: UUID | str, states: Iterable[str]
    ) -> Listing[BackendResourceRequest]:
        """The requests about an offering in these states, oldest first."""
        offering = UUID(uuid_text(offering_uuid))
        listing = self._list(
            ops.BACKEND_RESOURCE_REQUESTS,
            offering.hex,
            offering_uuid=offering.hex,
            state=[*states],
        )
        read = [row.read() for row in listing.items]
        return listing.with_items(r for r in read if r.offering_uuid in (None, offering))

    def backend_resource_request(self, uuid: UUID | str) -> BackendResourceRequest:
        """One request as it is now."""
        return self._read(ops.BACKEND_RESOURCE_REQUEST, uuid).read()

    def start_import(self, uuid: UUID | str) -> None:
        """Sent -> Processing."""
        self._write(ops.START_IMPORT, uuid)

    def import_done(self, uuid: UUID | str) -> None:
        """Processing -> Done."""
        self._write(ops.IMPORT_DONE, uuid)

    def import_erred(self, uuid: UUID | str, message: str) -> None:
        """Any state -> Erred, with the reason for the one who asked."""
        # Servers index both keys: leaving one out is answered with HTTP 500.
        self._write(ops.IMPORT_ERRED, uuid, {"error_message": message, "error_traceback": ""})

    def backend_resources(self, offering_uuid: UUID | str) -> Listing[BackendResource]:
        """What was offered for import already, and was not imported yet."""
        offering = UUID(uuid_text(offering_uuid))
        listing = self._list(ops.BACKEND_RESOURCES, offering.hex, offering_uuid=offering.hex)
        read = [row.read() for row in listing.items]
        return listing.with_items(r for r in read if r.offering_uuid in (None, offering))

    def create_backend_resource(
        self,
        name: str,
        project_uuid: UUID | str,
        offering_uuid: UUID | str,
        backend_id: str,
        backend_metadata: Mapping[str, Any],
    ) -> BackendResource:
        """Offer something for import; it cannot be changed later, and twice makes two.

        Raises:
            LostAnswerError: It may have been made: read :meth:`backend_resources` first.
        """
        body = {
            "name": name,
            "project": uuid_text(project_uuid),
            "offering": uuid_text(offering_uuid),
            "backend_id": backend_id,
            "backend_metadata": dict(backend_metadata),
        }
        return self._change(ops.CREATE_BACKEND_RESOURCE, offering_uuid, body).read()

    def provider_projects(self, provider_uuid: UUID | str) -> Listing[Project]:
        """The projects that have a resource of a service provider."""
        return self._list(ops.PROVIDER_PROJECTS, uuid_text(provider_uuid))

    def projects(self) -> Listing[Project]:
        """The projects that the token's user sees: often none of those that buy from it."""
        return self._list(ops.PROJECTS)
