"""Deleting accounts, and the project's account when nothing is left below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.backends import DeleteResource, PermanentError
from waldur_site_agent_slurm import commands
from waldur_site_agent_slurm.applying.coordinators import take_rights
from waldur_site_agent_slurm.applying.ending_jobs import jobs_in_the_way, still_there
from waldur_site_agent_slurm.applying.leaving import (
    find_other_defaults,
    in_several_partitions,
    removable,
    remove_users,
    write_when_jobs_are_over,
)
from waldur_site_agent_slurm.names import ROOT, account_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from waldur_site_agent_slurm.applying.batches import Task
    from waldur_site_agent_slurm.applying.work import Work
    from waldur_site_agent_slurm.facts import Account, Cluster


def delete_accounts(work: Work, tasks: Iterable[Task]) -> None:
    """Carry out the deletions of a batch."""
    deletions: dict[Task, DeleteResource] = {}
    doomed: list[Task] = []
    default = work.settings.default_account
    for task in tasks:
        if isinstance(task.action, DeleteResource):
            with work.ledger.attempt(task):
                deletions[task] = task.action
                if work.cluster.find(account_name(task.account, "account")) is not None:
                    going = {other.account for other in doomed}
                    refuse_to_delete(task.account, default, going, work.cluster)
                    doomed.append(task)
    rights = take_rights(work, dict.fromkeys(doomed))
    for task, failure in rights.items():
        with work.ledger.attempt(task):
            raise failure  # an account that is made again under this name would have them
    doomed = work.ledger.alive(doomed)
    for task, jobs in jobs_in_the_way(work, dict.fromkeys(doomed), cancel=True).items():
        with work.ledger.attempt(task):
            if jobs:
                raise still_there(work, task.account, jobs, cancelled=True)
    doomed = work.ledger.alive(doomed)
    members = {task: removable(work.cluster.accounts[task.account].users) for task in doomed}
    bound = find_other_defaults(work, {task: users for task, users in members.items() if users})
    for task in work.ledger.alive(deletions):
        with work.ledger.attempt(task):
            if task in doomed:
                last = bound.get(task, frozenset())
                if last != members[task] or in_several_partitions(work, task, last):
                    remove_users(work, task, last)
                _remove(work, task, task.account)
            _remove_container(work, task, deletions[task].project_container)


def refuse_to_delete(
    name: str, default_account: str, going: Collection[str], cluster: Cluster
) -> None:
    """Raise when an account must not be deleted. Pure.

    ``going`` are accounts that will have been deleted before.

    Raises:
        PermanentError: other accounts hang below it, or new users and customers need it.
    """
    if name == default_account:
        raise PermanentError(
            f"{name}: not deleted: it is the default_account of backend_settings, under which "
            "customers are made; whoever asked for this meant another account"
        )
    children = [child for child in cluster.children(name) if child not in going]
    if children:
        raise PermanentError(
            f"{name}: not deleted: the accounts {', '.join(children)} are below it and would be "
            "removed with it; delete or move them first"
        )


def is_empty_container(account: Account | None, default_account: str, cluster: Cluster) -> bool:
    """Whether an account is a project's account of ours with nothing left in it. Pure.

    Ours is recognised by the organization, which is the account's own name.
    """
    return (
        account is not None
        and account.organization == account.name
        and account.name not in (ROOT, default_account)
        and not account.users
        and not cluster.children(account.name)
    )


def _remove(work: Work, task: Task, name: str) -> None:
    refuse_to_delete(name, work.settings.default_account, (), work.cluster)
    work.ledger.writes(task)
    members = len(work.cluster.accounts[name].users)
    argv = commands.remove_account(name, work.only)
    write_when_jobs_are_over(work, argv, 1 + members)
    work.forget(name)


def _remove_container(work: Work, task: Task, container: str | None) -> None:
    if container is None:
        return
    name = account_name(container, "project account")
    if is_empty_container(work.cluster.find(name), work.settings.default_account, work.cluster):
        _remove(work, task, name)
