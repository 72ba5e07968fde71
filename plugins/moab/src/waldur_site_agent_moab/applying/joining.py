"""Adding and removing members, one command each, so that nobody stands in another's way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.backends import PermanentError, TemporaryError
from waldur_site_agent_moab import commands
from waldur_site_agent_moab.errors import MamUnavailableError
from waldur_site_agent_moab.names import account_name, listed_user_name, user_name

if TYPE_CHECKING:
    from waldur_site_agent.backends import AddMembers, RemoveMembers, SiteAgentError
    from waldur_site_agent_moab.applying.work import Work


def add_members(work: Work, action: AddMembers) -> None:
    """Let people charge an account; whoever cannot be served is left out."""
    account = work.account(action.resource)
    for member in dict.fromkeys(action.members):
        try:
            user = user_name(member)
            if user not in account.users:
                work.write(commands.add_user(account.name, user))
        except MamUnavailableError:
            raise
        except (TemporaryError, PermanentError) as error:
            work.progress.leave_out(member, error)


def remove_members(work: Work, action: RemoveMembers) -> None:
    """Let people no longer charge an account. All are tried before a failure is told.

    Raises:
        TemporaryError: somebody could not be removed.
        PermanentError: a command would misread the name of somebody who is in the account.
    """
    account = work.mam.accounts.get(account_name(action.resource, "account"))
    if account is None:
        return
    failed: SiteAgentError | None = None
    listed = {account.listed_as(member) for member in action.members} - {None}
    for user in sorted(name for name in listed if name is not None):
        try:
            work.write(commands.remove_user(account.name, listed_user_name(user)))
        except MamUnavailableError:
            raise
        except (TemporaryError, PermanentError) as error:
            failed = error
    if failed is not None:
        raise failed
