"""People: roles in projects, service and course accounts, and offering users."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from waldur_site_agent.model.marketplace import (
    OfferingUser,
    OfferingUserState,
    ProjectAccount,
    ProjectRole,
    has_ended,
)
from waldur_site_agent.waldur.listing import ApiClient, Listing
from waldur_site_agent.waldur.operation import Operation, Row, uuid_text

PROJECT_ROLES = Operation(
    id="marketplace_service_providers_project_permissions_list",
    purpose="list the project roles of service provider {uuid}",
    path="marketplace-service-providers/{uuid}/project_permissions/",
    answer=ProjectRole,
    filters=("is_active",),
    paged=True,
    orders=("created",),
    chooses_fields=True,
)
SERVICE_ACCOUNTS = Operation(
    id="marketplace_service_providers_project_service_accounts_list",
    purpose="list the service accounts of service provider {uuid}",
    path="marketplace-service-providers/{uuid}/project_service_accounts/",
    answer=ProjectAccount,
    filters=("project_uuid",),
    paged=True,
)
COURSE_ACCOUNTS = Operation(
    id="marketplace_service_providers_course_accounts_list",
    purpose="list the course accounts of service provider {uuid}",
    path="marketplace-service-providers/{uuid}/course_accounts/",
    answer=ProjectAccount,
    filters=("project_uuid",),
    paged=True,
    orders=("created",),
)
OFFERING_SERVICE_ACCOUNTS = Operation(
    id="marketplace_provider_offerings_list_project_service_accounts_list",
    purpose="list the service accounts of offering {uuid}",
    path="marketplace-provider-offerings/{uuid}/list_project_service_accounts/",
    answer=ProjectAccount,
    paged=True,
)
OFFERING_COURSE_ACCOUNTS = Operation(
    id="marketplace_provider_offerings_list_course_accounts_list",
    purpose="list the course accounts of offering {uuid}",
    path="marketplace-provider-offerings/{uuid}/list_course_accounts/",
    answer=ProjectAccount,
    paged=True,
)


def _as_it_is(uuid: UUID) -> UUID:
    return uuid


class PeopleApi(ApiClient):
    """Roles in projects, service accounts and course accounts.

    The lists of accounts include closed ones. A provider's lists need a role on the organization,
    those of an offering (server 7.8.8) only a role on the offering.
    """

    def project_roles(
        self, service_provider_uuid: UUID | str, shared: Callable[[UUID], UUID] = _as_it_is
    ) -> Listing[ProjectRole]:
        """The active roles in all projects that have a resource of this provider.

        A missing project may have resources of unshared offerings only: read the team of a
        resource before concluding that it has no members. Ended roles are left out.

        ``shared`` returns an equal UUID that is in memory already: a million roles would hold
        two million.
        """
        now = self._connection.now()

        def kept(role: ProjectRole) -> ProjectRole | None:
            if has_ended(role.expiration_time, now):
                return None
            return ProjectRole(
                project_uuid=shared(role.project_uuid),
                user_uuid=shared(role.user_uuid),
                role_name=role.role_name,
                expiration_time=role.expiration_time,
            )

        return self._list(
            PROJECT_ROLES, uuid_text(service_provider_uuid), None, kept, is_active=True
        )

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


_OFFERING_USERS = "marketplace-offering-users/"
_COMMENT = ("comment", "comment_url")


OFFERING_USERS = Operation(
    id="marketplace_offering_users_list",
    purpose="list the users of offering {uuid}",
    path=_OFFERING_USERS,
    answer=OfferingUser,
    filters=("offering_uuid", "user_uuid"),
    paged=True,
    orders=("created",),
    chooses_fields=True,
    extra_fields=("offering_uuid",),
)
OFFERING_USER = Operation(
    id="marketplace_offering_users_retrieve",
    purpose="read offering user {uuid}",
    path=f"{_OFFERING_USERS}{{uuid}}/",
    answer=OfferingUser,
    chooses_fields=True,
)
SET_USERNAME = Operation(
    id="marketplace_offering_users_partial_update",
    purpose="set the username of offering user {uuid}",
    method="PATCH",
    path=f"{_OFFERING_USERS}{{uuid}}/",
    answer=OfferingUser,
    body=("username",),
    idempotent=True,
)


def _transition(name: str, verb: str, *, body: tuple[str, ...] | None = None) -> Operation[None]:
    return Operation(
        id=f"marketplace_offering_users_{name}",
        purpose=f"{verb} offering user {{uuid}}",
        method="POST",
        path=f"{_OFFERING_USERS}{{uuid}}/{name}/",
        body=body,
    )


BEGIN_CREATING = _transition("begin_creating", "begin to create the account of")
SET_OK = _transition("set_ok", "mark as OK")
SET_PENDING_ACCOUNT_LINKING = _transition(
    "set_pending_account_linking", "request account linking for", body=_COMMENT
)
SET_PENDING_ADDITIONAL_VALIDATION = _transition(
    "set_pending_additional_validation", "request validation of", body=_COMMENT
)
SET_VALIDATION_COMPLETE = _transition("set_validation_complete", "complete the validation of")
SET_ERROR_CREATING = _transition("set_error_creating", "report the failed creation of")
SET_DELETING = _transition("set_deleting", "begin to delete")
SET_DELETED = _transition("set_deleted", "mark as deleted")


class OfferingUsersApi(ApiClient):
    """Offering users and their states.

    The methods that change the state raise ``TransitionRefusedError`` if the current state does
    not allow it, for instance because the user is in that state already. They need server 7.7.5;
    older servers have no states and raise ``AbsentOperationError``.
    """

    def offering_users(
        self,
        offering_uuid: UUID | str,
        user_uuid: UUID | str | None = None,
        *,
        whole: bool = True,
    ) -> Listing[OfferingUser]:
        """The usernames of an offering, in every state; of all users or of one.

        Unless ``whole``, without the names, addresses and times of users whose account is settled:
        of hundreds of thousands, they would take a third of the memory.
        """
        person = {} if user_uuid is None else {"user_uuid": uuid_text(user_uuid)}
        return self._list(
            OFFERING_USERS,
            uuid_text(offering_uuid),
            None if whole else _what_settled_users_need,
            offering_uuid=uuid_text(offering_uuid),
            **person,
        )

    def offering_user(self, uuid: UUID | str) -> OfferingUser:
        """One offering user as it is now."""
        return self._read(OFFERING_USER, uuid)

    def set_username(self, offering_user_uuid: UUID | str, username: str) -> OfferingUser:
        """Set the username of an offering user.

        Returns:
            The offering user afterwards: on newer servers, setting a name makes it OK.
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

        The user sees the comment and the link.
        """
        self._write(SET_PENDING_ACCOUNT_LINKING, uuid, _comment(comment, url))

    def set_pending_additional_validation(
        self, uuid: UUID | str, comment: str = "", url: str = ""
    ) -> None:
        """Creating, Error creating or Pending account linking -> Pending additional validation.

        The user sees the comment and the link.
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
        """Deleting -> Deleted: the user no longer has access."""
        self._write(SET_DELETED, uuid)


def _what_settled_users_need(row: Row) -> Row:
    """The row, of a user whose username is given and works without what only giving it needs."""
    if row.get("username") and row.get("state") == OfferingUserState.OK:
        return {name: value for name, value in row.items() if name not in _TO_GIVE_A_USERNAME}
    return row


_TO_GIVE_A_USERNAME = frozenset(
    {"user_full_name", "user_first_name", "user_last_name", "user_email", "created", "modified"}
)


def _comment(comment: str, url: str) -> dict[str, object]:
    """The values that are not empty: Waldur refuses an empty link as invalid."""
    given = {"comment": comment, "comment_url": url}
    return {key: value for key, value in given.items() if value}
