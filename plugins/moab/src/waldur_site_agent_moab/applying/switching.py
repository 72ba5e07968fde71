"""Pausing by switching accounts off, where the site asked for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.backends import Access, PermanentError
from waldur_site_agent_moab import commands

if TYPE_CHECKING:
    from waldur_site_agent.backends import SetAccess
    from waldur_site_agent_moab.applying.work import Work


def set_access(work: Work, action: SetAccess) -> None:
    """Switch an account off or on again.

    Raises:
        PermanentError: it is to be downscaled, which an account cannot be.
    """
    account = work.account(action.resource)
    if action.access is Access.DOWNSCALED:
        raise PermanentError(
            f"{account.key}: cannot be downscaled: an account of the accounting manager is "
            "active or it is not; pause the resource in Waldur, or lower its deposit"
        )
    active = action.access is Access.NORMAL
    if account.is_active != active:
        work.write(commands.set_active(account.name, active=active))
