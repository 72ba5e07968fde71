"""Making accounts: containers first, then the resource's own with its fund and its deposit."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from functools import cache

from waldur_site_agent.backends import (
    Access,
    AddMembers,
    CreateResource,
    DeleteResource,
    PermanentError,
    RemoveMembers,
    SetAccess,
    SetLimits,
    SiteAgentError,
    TemporaryError,
)
from waldur_site_agent.backends.account_tree import Shape, refuse_kept
from waldur_site_agent.backends.command_line import AnyTask, Task
from waldur_site_agent.model.backend import Container, Placement
from waldur_site_agent_moab import commands
from waldur_site_agent_moab.client import MamUnavailableError, Work
from waldur_site_agent_moab.facts import Account, Books, Mam, change_to
from waldur_site_agent_moab.names import ROOT, TREE, account_name, listed_user_name, user_name


def delete(work: Work, task: Task[DeleteResource]) -> None:
    """Delete a resource's account, and the empty account of its project."""
    action = task.action
    account = work.now.accounts.get(account_name(action.resource, "account"))
    if account is not None:
        refuse_to_delete(account, work.settings.default_account, work.now)
        _remove(work, task, account)
    if action.project_container is not None:
        name = account_name(action.project_container, "project account")
        container = work.now.accounts.get(name)
        if container and is_empty_container(container, work.settings.default_account, work.now):
            _remove(work, task, container)


def refuse_to_delete(account: Account, default_account: str, mam: Mam) -> None:
    """Raise when an account must not be deleted. Pure.

    Raises:
        PermanentError: others belong to it, or its money is not its own alone.
    """
    name = account.key
    refuse_kept(name, {ROOT: "default_account", default_account: "default_account"})
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


def _remove(work: Work, task: AnyTask, account: Account) -> None:
    """Delete the fund before the account: the other way round it would be nobody's."""
    for fund in work.now.funds_of(account.key):
        left = work.now.books_of(fund).left
        work.write(task, commands.delete_fund(fund.id))
        _log.info("deleted fund %s of %s with %s left in it", fund.id, account.key, f"{left:f}")
    work.write(task, commands.delete_account(account.name))
    work.now = work.now.without_account(account.key)
    _log.info("deleted the account %s", account.key)


def add_members(work: Work, task: Task[AddMembers]) -> None:
    """Let people charge an account; whoever cannot be served is left out."""
    account = work.account(task.action.resource)
    for member in dict.fromkeys(task.action.members):
        try:
            user = user_name(member)
            if user not in account.users:
                work.write(task, commands.add_user(account.name, user))
        except MamUnavailableError:
            raise
        except (TemporaryError, PermanentError) as error:
            work.ledger.leave_out(task, member, error)


def remove_members(work: Work, task: Task[RemoveMembers]) -> None:
    """Let people no longer charge an account. All are tried before a failure is told.

    Raises:
        TemporaryError: somebody could not be removed.
        PermanentError: a command would misread the name of somebody who is in the account.
    """
    account = work.now.accounts.get(account_name(task.action.resource, "account"))
    if account is None:
        return
    failed: SiteAgentError | None = None
    listed = {work.listed_as(member, account.users) for member in task.action.members} - {None}
    for user in sorted(name for name in listed if name is not None):
        try:
            work.write(task, commands.remove_user(account.name, listed_user_name(user)))
        except MamUnavailableError:
            raise
        except (TemporaryError, PermanentError) as error:
            failed = error
    if failed is not None:
        raise failed


def set_access(work: Work, task: Task[SetAccess]) -> None:
    """Switch an account off or on again.

    Raises:
        PermanentError: it is to be downscaled, which an account cannot be.
    """
    action = task.action
    account = work.account(action.resource)
    if action.access is Access.DOWNSCALED:
        raise PermanentError(
            f"{account.key}: cannot be downscaled: an account of the accounting manager is "
            "active or it is not; pause the resource in Waldur, or lower its deposit"
        )
    active = action.access is Access.NORMAL
    if account.is_active != active:
        work.write(task, commands.set_active(account.name, active=active))


DEPOSIT = "deposit"
"""The only component: the money, or whatever the site counts in, that a resource may spend."""


def set_limits(work: Work, task: Task[SetLimits]) -> None:
    """Deposit or withdraw until what was bought is the wanted limit."""
    name = work.account(task.action.resource).key
    wanted = checked_deposit(name, task.action.limits)
    if DEPOSIT in task.action.limits:
        set_deposit(work, task, name, wanted)


def checked_deposit(name: str, limits: Mapping[str, Decimal | None]) -> Decimal | None:
    """Return the limit of ``deposit``; other components are named once and ignored.

    Raises:
        PermanentError: it is negative or not a number.
    """
    for component in limits.keys() - {DEPOSIT}:
        ignore(component)
    wanted = limits.get(DEPOSIT)
    if wanted is not None and not (wanted.is_finite() and wanted >= 0):
        raise PermanentError(
            f"{name}: a deposit of {wanted} is impossible; it must be zero or more: correct the "
            "limit in Waldur and order again"
        )
    return wanted


def set_deposit(work: Work, task: AnyTask, name: str, wanted: Decimal | None) -> None:
    """Carry out the difference between what was bought and what is wanted.

    Raises:
        PermanentError: the account's money is not understood, or the limit too low.
    """
    fund = work.now.fund_of(name)
    if not _change(name, wanted, work.now.books_of(fund)):
        return
    before = work.client.books(fund.id)
    change = _change(name, wanted, before)
    if change > 0:
        work.write(task, commands.deposit(fund.id, work.account(name).name, change))
        _log.info("deposited %s in fund %s of %s", f"{change:f}", fund.id, name)
    if change < 0:
        work.write(task, commands.withdraw(fund.id, -change))
        _log.info("withdrew %s from fund %s of %s", f"{-change:f}", fund.id, name)
        _check_the_setting(work, name, fund.id, before)


def _change(name: str, wanted: Decimal | None, books: Books) -> Decimal:
    try:
        return change_to(wanted, books)
    except PermanentError as error:
        raise PermanentError(f"{name}: {error}") from error


def _check_the_setting(work: Work, name: str, fund: str, before: Books) -> None:
    """Stop when a withdrawal shows that ``deposited_after_withdrawal`` is set wrongly."""
    after = work.client.books(fund)
    falls = after.deposited < before.deposited
    expected = work.settings.deposited_after_withdrawal
    if falls != (expected == "falls"):
        found = "falls" if falls else "stays"
        raise PermanentError(
            f"{name}: the withdrawal from fund {fund} was made, and shows that Deposited {found} "
            f"here; set deposited_after_withdrawal: {found} in backend_settings before any other "
            f"limit is changed: deposits are computed wrongly with {expected!r}"
        )


@cache
def ignore(component: str) -> None:
    """Say once per process that a component is not for this backend."""
    _log.warning("component %s is ignored: MOAB has no other component than %s", component, DEPOSIT)


_log = logging.getLogger(__name__)


def create(work: Work, task: Task[CreateResource]) -> None:
    """Make what is missing of a resource, finishing what an interrupted run began."""
    placement = task.action.placement
    wanted = checked_deposit(placement.id, task.action.limits)
    missing = containers_to_make(placement, work.now, work.settings.shape)
    own = work.now.accounts.get(placement.id)
    if own is not None:
        TREE.refuse_foreign(placement, own.name, own.organization)
    for container in missing:
        _make(work, task, container.id, container.title, container.organization)
    if own is None:
        _make(work, task, placement.id, placement.title, placement.organization)
    if not work.now.funds_of(placement.id):
        work.write(task, commands.create_fund(placement.id))
        if wanted:
            work.now = replace(work.now, funds=work.client.funds())
    if wanted:
        set_deposit(work, task, placement.id, wanted)


def containers_to_make(placement: Placement, mam: Mam, shape: Shape) -> list[Container]:
    """Return the accounts above that are missing, outermost first. Pure.

    Raises:
        PermanentError: a name is taken by an account that is not ours, or cannot be used.
    """
    TREE.check_names(placement)
    return [c for c in placement.containers if _is_missing(placement, c, mam, shape)]


def _is_missing(placement: Placement, container: Container, mam: Mam, shape: Shape) -> bool:
    existing = mam.accounts.get(container.id)
    if existing is None:
        return True
    if existing.organization != container.id:  # as earlier agents made project accounts
        TREE.refuse_foreign_container(placement.id, container, existing.organization)
    elif container.kind == "project" and not _holds_resources(container.id, mam):
        TREE.refuse_other_kind(placement.id, container, shape.top, shape)
    return False


def _holds_resources(name: str, mam: Mam) -> bool:
    """Whether the accounts of an organization are those of resources, which have funds."""
    children = mam.children(name)
    return bool(children) and all(map(mam.funds_of, children))


def _make(work: Work, task: AnyTask, name: str, title: str, organization: str) -> None:
    work.write(task, commands.create_account(name, title, organization))
    work.now = work.now.with_account(Account(name=name, organization=organization))
    _log.info("made the account %s", name)
