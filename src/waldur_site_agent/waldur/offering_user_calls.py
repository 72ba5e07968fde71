"""What the agent asks about the accounts that people have at an offering."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.waldur.bodies import uuid_text
from waldur_site_agent.waldur.conversation import Conversation
from waldur_site_agent.waldur.operations import offering_users as ops

if TYPE_CHECKING:
    from uuid import UUID

    from waldur_site_agent.model.people import OfferingUser
    from waldur_site_agent.waldur.listing import Listing


class OfferingUserCalls(Conversation):
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
            ops.OFFERING_USERS,
            uuid_text(offering_uuid),
            offering_uuid=uuid_text(offering_uuid),
            **person,
        )

    def offering_user(self, uuid: UUID | str) -> OfferingUser:
        """One offering user as it is now."""
        return self._read(ops.OFFERING_USER, uuid)

    def set_username(self, offering_user_uuid: UUID | str, username: str) -> OfferingUser:
        """Give an offering user its name.

        Returns:
            The offering user as it is afterwards: on newer servers a new name makes it OK.
        """
        return self._change(ops.SET_USERNAME, offering_user_uuid, {"username": username})

    def begin_creating(self, uuid: UUID | str) -> None:
        """Requested or Error creating -> Creating."""
        self._write(ops.BEGIN_CREATING, uuid)

    def set_ok(self, uuid: UUID | str) -> None:
        """Requested, Creating, a pending or an error state -> OK."""
        self._write(ops.SET_OK, uuid)

    def set_pending_account_linking(
        self, uuid: UUID | str, comment: str = "", url: str = ""
    ) -> None:
        """Creating, Error creating or Pending additional validation -> Pending account linking.

        The person sees the comment, and the link next to it.
        """
        self._write(ops.SET_PENDING_ACCOUNT_LINKING, uuid, _comment(comment, url))

    def set_pending_additional_validation(
        self, uuid: UUID | str, comment: str = "", url: str = ""
    ) -> None:
        """Creating, Error creating or Pending account linking -> Pending additional validation.

        The person sees the comment, and the link next to it.
        """
        self._write(ops.SET_PENDING_ADDITIONAL_VALIDATION, uuid, _comment(comment, url))

    def set_validation_complete(self, uuid: UUID | str) -> None:
        """A pending state -> OK; the comment and its link are cleared."""
        self._write(ops.SET_VALIDATION_COMPLETE, uuid)

    def set_error_creating(self, uuid: UUID | str) -> None:
        """Requested, Creating or a pending state -> Error creating."""
        self._write(ops.SET_ERROR_CREATING, uuid)

    def set_deleting(self, uuid: UUID | str) -> None:
        """Requested deletion or Error deleting -> Deleting."""
        self._write(ops.SET_DELETING, uuid)

    def set_deleted(self, uuid: UUID | str) -> None:
        """Deleting -> Deleted: the person has no access any more."""
        self._write(ops.SET_DELETED, uuid)

    def set_error_deleting(self, uuid: UUID | str) -> None:
        """Requested deletion or Deleting -> Error deleting."""
        self._write(ops.SET_ERROR_DELETING, uuid)


def _comment(comment: str, url: str) -> dict[str, object]:
    """Both where they say something: an empty link is no link to Waldur, but a mistake."""
    given = {"comment": comment, "comment_url": url}
    return {key: value for key, value in given.items() if value}
