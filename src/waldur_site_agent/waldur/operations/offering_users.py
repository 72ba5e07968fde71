"""Accounts of people at an offering. A transition that is sent twice is refused the second time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.model.people import OfferingUser
from waldur_site_agent.waldur.operation import changing, listing_pages, reading, writing

if TYPE_CHECKING:
    from waldur_site_agent.waldur.operation import Operation

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
