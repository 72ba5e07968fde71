"""What the agent asks about the people and the accounts of projects."""

from __future__ import annotations

from uuid import UUID

from waldur_site_agent.model.marketplace import OfferingUser, ProjectAccount, ProjectRole, has_ended
from waldur_site_agent.waldur.codec import uuid_text
from waldur_site_agent.waldur.listing import ApiClient, Listing
from waldur_site_agent.waldur.operation import Operation, changing, listing_pages, reading, writing

PROJECT_ROLES = listing_pages(
    "marketplace_service_providers_project_permissions_list",
    "list the project roles of service provider {uuid}",
    "marketplace-service-providers/{uuid}/project_permissions/",
    ProjectRole,
    filters=("is_active",),
)
SERVICE_ACCOUNTS = listing_pages(
    "marketplace_service_providers_project_service_accounts_list",
    "list the service accounts of service provider {uuid}",
    "marketplace-service-providers/{uuid}/project_service_accounts/",
    ProjectAccount,
    filters=("project_uuid",),
    ordered_by=None,
    chooses_fields=False,
)
COURSE_ACCOUNTS = listing_pages(
    "marketplace_service_providers_course_accounts_list",
    "list the course accounts of service provider {uuid}",
    "marketplace-service-providers/{uuid}/course_accounts/",
    ProjectAccount,
    filters=("project_uuid",),
    chooses_fields=False,
)
OFFERING_SERVICE_ACCOUNTS = listing_pages(
    "marketplace_provider_offerings_list_project_service_accounts_list",
    "list the service accounts of offering {uuid}",
    "marketplace-provider-offerings/{uuid}/list_project_service_accounts/",
    ProjectAccount,
    filters=(),
    ordered_by=None,
    chooses_fields=False,
)
OFFERING_COURSE_ACCOUNTS = listing_pages(
    "marketplace_provider_offerings_list_course_accounts_list",
    "list the course accounts of offering {uuid}",
    "marketplace-provider-offerings/{uuid}/list_course_accounts/",
    ProjectAccount,
    filters=(),
    ordered_by=None,
    chooses_fields=False,
)


class PeopleApi(ApiClient):
    """Roles in projects, service accounts and course accounts.

    The lists of accounts hold closed ones too. Those of a provider need a right on the
    organization, those of an offering (server 7.8.8) a role on the offering alone.
    """

    def project_roles(self, service_provider_uuid: UUID | str) -> Listing[ProjectRole]:
        """The active roles in all projects that have a resource of this provider.

        A project that is missing may have resources of unshared offerings only: ask for the team
        of a resource before concluding that nobody is in it. Roles past their end are left out.
        """
        listing = self._list(PROJECT_ROLES, uuid_text(service_provider_uuid), is_active=True)
        now = self._connection.now()
        return listing.with_items(r for r in listing.items if not has_ended(r.expiration_time, now))

    def service_accounts(
        self, service_provider_uuid: UUID | str, project: UUID | None = None
    ) -> Listing[ProjectAccount]:
        """The service accounts of all projects that buy from a provider; absent before 7.7.6.

        With ``project``, only those of one.
        """
        filters = {} if project is None else {"project_uuid": uuid_text(project)}
        return self._list(SERVICE_ACCOUNTS, uuid_text(service_provider_uuid), **filters)

    def course_accounts(
        self, service_provider_uuid: UUID | str, project: UUID | None = None
    ) -> Listing[ProjectAccount]:
        """The course accounts of all projects that buy from a provider; absent before 7.7.8.

        With ``project``, only those of one.
        """
        filters = {} if project is None else {"project_uuid": uuid_text(project)}
        return self._list(COURSE_ACCOUNTS, uuid_text(service_provider_uuid), **filters)

    def offering_service_accounts(self, offering_uuid: UUID | str) -> Listing[ProjectAccount]:
        """The service accounts of all projects that use an offering; absent before 7.8.8."""
        return self._list(OFFERING_SERVICE_ACCOUNTS, uuid_text(offering_uuid))

    def offering_course_accounts(self, offering_uuid: UUID | str) -> Listing[ProjectAccount]:
        """The course accounts of all projects that use an offering; absent before 7.8.8."""
        return self._list(OFFERING_COURSE_ACCOUNTS, uuid_text(offering_uuid))


_PATH = "marketplace-offering-users/"
_COMMENT = ("comment", "comment_url")


OFFERING_USERS = listing_pages(
    "marketplace_offering_users_list",
    "list the users of offering {uuid}",
    _PATH,
    OfferingUser,
    filters=("offering_uuid", "user_uuid"),
    extra_fields=("offering_uuid",),
)
OFFERING_USER = reading(
    "marketplace_offering_users_retrieve",
    "read offering user {uuid}",
    f"{_PATH}{{uuid}}/",
    OfferingUser,
    query=("field",),
)
SET_USERNAME = changing(
    "marketplace_offering_users_partial_update",
    "set the username of offering user {uuid}",
    f"{_PATH}{{uuid}}/",
    OfferingUser,
    body=("username",),
)


def _transition(name: str, wish: str, *, body: tuple[str, ...] | None = None) -> Operation[None]:
    return writing(
        f"marketplace_offering_users_{name}",
        f"{wish} offering user {{uuid}}",
        f"{_PATH}{{uuid}}/{name}/",
        body=body,
        safe_to_repeat=False,
    )


BEGIN_CREATING = _transition("begin_creating", "begin to create the account of")
SET_OK = _transition("set_ok", "mark as OK")
SET_PENDING_ACCOUNT_LINKING = _transition(
    "set_pending_account_linking", "ask to link the account of", body=_COMMENT
)
SET_PENDING_ADDITIONAL_VALIDATION = _transition(
    "set_pending_additional_validation", "ask for more about", body=_COMMENT
)
SET_VALIDATION_COMPLETE = _transition("set_validation_complete", "end the validation of")
SET_ERROR_CREATING = _transition("set_error_creating", "report the failed creation of")
SET_DELETING = _transition("set_deleting", "begin to delete")
SET_DELETED = _transition("set_deleted", "mark as deleted")
SET_ERROR_DELETING = _transition("set_error_deleting", "report the failed deletion of")


class OfferingUsersApi(ApiClient):
    """Offering users and their life.

    The calls that move one to another state raise ``TransitionRefusedError`` where its state does
    not allow it, for instance because it is in that other state already. They came with server
    7.7.5; before, ``AbsentOperationError`` says that there are no states.
    """

    def offering_users(
        self, offering_uuid: UUID | str, user_uuid: UUID | str | None = None
    ) -> Listing[OfferingUser]:
        """The usernames of an offering, in every state; of all people, or of one."""
        person = {} if user_uuid is None else {"user_uuid": uuid_text(user_uuid)}
        return self._list(
            OFFERING_USERS,
            uuid_text(offering_uuid),
            offering_uuid=uuid_text(offering_uuid),
            **person,
        )

    def offering_user(self, uuid: UUID | str) -> OfferingUser:
        """One offering user as it is now."""
        return self._read(OFFERING_USER, uuid)

    def set_username(self, offering_user_uuid: UUID | str, username: str) -> OfferingUser:
        """Give an offering user its name.

        Returns:
            The offering user as it is afterwards: on newer servers a new name makes it OK.
        """
        return self._change(SET_USERNAME, offering_user_uuid, {"username": username})

    def begin_creating(self, uuid: UUID | str) -> None:
        """Requested or Error creating -> Creating."""
        self._write(BEGIN_CREATING, uuid)

    def set_ok(self, uuid: UUID | str) -> None:
        """Requested, Creating, a pending or an error state -> OK."""
        self._write(SET_OK, uuid)

    def set_pending_account_linking(
        self, uuid: UUID | str, comment: str = "", url: str = ""
    ) -> None:
        """Creating, Error creating or Pending additional validation -> Pending account linking.

        The person sees the comment, and the link next to it.
        """
        self._write(SET_PENDING_ACCOUNT_LINKING, uuid, _comment(comment, url))

    def set_pending_additional_validation(
        self, uuid: UUID | str, comment: str = "", url: str = ""
    ) -> None:
        """Creating, Error creating or Pending account linking -> Pending additional validation.

        The person sees the comment, and the link next to it.
        """
        self._write(SET_PENDING_ADDITIONAL_VALIDATION, uuid, _comment(comment, url))

    def set_validation_complete(self, uuid: UUID | str) -> None:
        """A pending state -> OK; the comment and its link are cleared."""
        self._write(SET_VALIDATION_COMPLETE, uuid)

    def set_error_creating(self, uuid: UUID | str) -> None:
        """Requested, Creating or a pending state -> Error creating."""
        self._write(SET_ERROR_CREATING, uuid)

    def set_deleting(self, uuid: UUID | str) -> None:
        """Requested deletion or Error deleting -> Deleting."""
        self._write(SET_DELETING, uuid)

    def set_deleted(self, uuid: UUID | str) -> None:
        """Deleting -> Deleted: the person has no access any more."""
        self._write(SET_DELETED, uuid)

    def set_error_deleting(self, uuid: UUID | str) -> None:
        """Requested deletion or Deleting -> Error deleting."""
        self._write(SET_ERROR_DELETING, uuid)


def _comment(comment: str, url: str) -> dict[str, object]:
    """Both where they say something: an empty link is no link to Waldur, but a mistake."""
    given = {"comment": comment, "comment_url": url}
    return {key: value for key, value in given.items() if value}
