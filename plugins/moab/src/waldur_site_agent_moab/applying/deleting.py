"""Deleting accounts with their funds, and the project's account when nothing is left below it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from waldur_site_agent.backends import PermanentError
from waldur_site_agent_moab import commands
from waldur_site_agent_moab.names import ROOT, account_name

if TYPE_CHECKING:
    from waldur_site_agent.backends import DeleteResource
    from waldur_site_agent_moab.applying.work import Work
    from waldur_site_agent_moab.holdings import Account, Mam

_log = logging.getLogger(__name__)


def delete(work: Work, action: DeleteResource) -> None:
    """Delete a resource's account, and the empty account of its project."""
    account = work.mam.accounts.get(account_name(action.resource, "account"))
    if account is not None:
        refuse_to_delete(account, work.settings.default_account, work.mam)
        _remove(work, account)
    if action.project_container is not None:
        name = account_name(action.project_container, "project account")
        container = work.mam.accounts.get(name)
        if container and is_empty_container(container, work.settings.default_account, work.mam):
            _remove(work, container)


def refuse_to_delete(account: Account, default_account: str, mam: Mam) -> None:
    """Raise when an account must not be deleted. Pure.

    Raises:
        PermanentError: others belong to it, or its money is not its own alone.
    """
    name = account.key
    if name in (default_account, ROOT):
        raise PermanentError(
            f"{name}: not deleted: it is the default_account of backend_settings; whoever asked "
            "for this meant another account"
        )
    if children := mam.children(name):
        raise PermanentError(
            f"{name}: not deleted: it is the organization of the accounts {', '.join(children)}; "
            "delete them first"
        )
    if mam.funds_of(name):
        mam.fund_of(name)


def is_empty_container(account: Account, default_account: str, mam: Mam) -> bool:
    """Whether an account is a project's account of ours with nothing left in it. Pure.

    Those have no fund, no user, and an organization that is an account.
    """
    return (
        account.key not in (default_account, ROOT)
        and account.organization in mam.accounts
        and not account.users
        and not mam.children(account.key)
        and not mam.funds_of(account.key)
    )


def _remove(work: Work, account: Account) -> None:
    """Delete the fund before the account: the other way round it would be nobody's."""
    for fund in work.mam.funds_of(account.key):
        left = work.mam.books_of(fund).left
        work.write(commands.delete_fund(fund.id))
        _log.info("deleted fund %s of %s with %s left in it", fund.id, account.key, f"{left:f}")
    work.write(commands.delete_account(account.name))
    work.mam = work.mam.without_account(account.key)
    _log.info("deleted the account %s", account.key)
