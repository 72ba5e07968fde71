"""What the agent asks about the people and the accounts of projects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.model.people import has_ended
from waldur_site_agent.waldur.bodies import uuid_text
from waldur_site_agent.waldur.conversation import Conversation
from waldur_site_agent.waldur.operations import people as ops

if TYPE_CHECKING:
    from uuid import UUID

    from waldur_site_agent.model.people import ProjectAccount, ProjectRole
    from waldur_site_agent.waldur.listing import Listing


class PeopleCalls(Conversation):
    """Roles in projects, service accounts and course accounts.

    The lists of accounts hold closed ones too. Those of a provider need a right on the
    organization, those of an offering (server 7.8.8) a role on the offering alone.
    """

    def project_roles(self, service_provider_uuid: UUID | str) -> Listing[ProjectRole]:
        """The active roles in all projects that have a resource of this provider.

        A project that is missing may have resources of unshared offerings only: ask for the team
        of a resource before concluding that nobody is in it. Roles past their end are left out.
        """
        listing = self._list(ops.PROJECT_ROLES, uuid_text(service_provider_uuid), is_active=True)
        now = self._connection.now()
        return listing.with_items(r for r in listing.items if not has_ended(r.expiration_time, now))

    def service_accounts(
        self, service_provider_uuid: UUID | str, project: UUID | None = None
    ) -> Listing[ProjectAccount]:
        """The service accounts of all projects that buy from a provider; absent before 7.7.6.

        With ``project``, only those of one.
        """
        filters = {} if project is None else {"project_uuid": uuid_text(project)}
        return self._list(ops.SERVICE_ACCOUNTS, uuid_text(service_provider_uuid), **filters)

    def course_accounts(
        self, service_provider_uuid: UUID | str, project: UUID | None = None
    ) -> Listing[ProjectAccount]:
        """The course accounts of all projects that buy from a provider; absent before 7.7.8.

        With ``project``, only those of one.
        """
        filters = {} if project is None else {"project_uuid": uuid_text(project)}
        return self._list(ops.COURSE_ACCOUNTS, uuid_text(service_provider_uuid), **filters)

    def offering_service_accounts(self, offering_uuid: UUID | str) -> Listing[ProjectAccount]:
        """The service accounts of all projects that use an offering; absent before 7.8.8."""
        return self._list(ops.OFFERING_SERVICE_ACCOUNTS, uuid_text(offering_uuid))

    def offering_course_accounts(self, offering_uuid: UUID | str) -> Listing[ProjectAccount]:
        """The course accounts of all projects that use an offering; absent before 7.8.8."""
        return self._list(ops.OFFERING_COURSE_ACCOUNTS, uuid_text(offering_uuid))
