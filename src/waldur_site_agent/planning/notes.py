"""What has to be noted in Waldur before an account is changed, so that it can be undone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.backends import Access, SetAccess, SetMemberLimits
from waldur_site_agent.planning.remembering import (
    is_restricted,
    metadata_before_limiting,
    metadata_before_restricting,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from waldur_site_agent.backends import BackendResource
    from waldur_site_agent.planning.membership import AccountPlan
    from waldur_site_agent.planning.remembering import Metadata


def needs_notes(account: AccountPlan, found: BackendResource) -> bool:
    """Whether the plan does something for the first time that has to be noted before."""
    return is_first_restriction(account, found) or bool(newly_limited(account))


def notes_for(
    metadata: Mapping[str, object], account: AccountPlan, found: BackendResource
) -> Metadata:
    """A resource's backend metadata with what undoing the plan will need."""
    limited = account.wanted.limited | newly_limited(account)
    noted = metadata_before_limiting(metadata, limited)
    if is_first_restriction(account, found):
        noted = metadata_before_restricting(noted, found)
    return noted


def is_first_restriction(account: AccountPlan, found: BackendResource) -> bool:
    """Whether an account that is open is to be paused or downscaled."""
    restricts = any(
        isinstance(step.action, SetAccess) and step.action.access is not Access.NORMAL
        for step in account.steps
    )
    return restricts and not is_restricted(found)


def newly_limited(account: AccountPlan) -> frozenset[str]:
    """The members whose limits the agent is about to set for the first time."""
    actions = [step.action for step in account.steps]
    return (
        frozenset(action.member for action in actions if isinstance(action, SetMemberLimits))
        - account.wanted.limited
    )
