"""Moving the account of a project, with those of its resources, below another customer's.

Slurm 24.11 loses users on the way when an account moves that has accounts with users below it:
their associations keep the old place in their lineage. slurmctld, once it reads them again, applies
no limit of the account to them, and removing the old customer's account removes them. An account
without accounts below it moves whole. So those of the resources go below the new customer first,
then the project's follows, and then they go back below it.
"""

from __future__ import annotations

from collections.abc import Iterable

from waldur_site_agent.backends import MoveContainer, PermanentError, TemporaryError
from waldur_site_agent.backends.account_tree import refuse_kept
from waldur_site_agent.backends.command_line import AnyTask, Task, listed
from waldur_site_agent_slurm import commands
from waldur_site_agent_slurm.accounts import (
    containers_to_make,
    make_account,
    refuse_coordinators_work,
)
from waldur_site_agent_slurm.client import Work
from waldur_site_agent_slurm.facts import Cluster
from waldur_site_agent_slurm.names import account_name


def move_containers(work: Work, tasks: Iterable[Task[MoveContainer]]) -> None:
    """Carry out the moves of a batch, one after the other."""
    for task in tasks:
        with work.ledger.attempt(task):
            _move(work, task, task.action)


def not_moved(action: MoveContainer, cluster: Cluster) -> str:
    """What a cluster shows instead of what a move asked for; empty where that is there."""
    found = cluster.find(action.resource)
    if found is None or found.parent != action.container.parent:
        return f"it under {'' if found is None else found.parent!r}"
    return listed(f"not below {action.resource}", astray(action, cluster))


def astray(action: MoveContainer, cluster: Cluster) -> tuple[str, ...]:
    """The accounts that belong to the project and are directly below a customer's, sorted."""
    customers = {*action.astray, action.container.parent, action.previous}
    return tuple(
        sorted(
            account.name
            for account in cluster.accounts.values()
            if account.associated
            and account.organization == action.resource
            and account.parent in customers
            and account.name != action.resource
        )
    )


def _move(work: Work, task: Task[MoveContainer], action: MoveContainer) -> None:
    project, parent = action.resource, action.container.parent
    for container in action.containers:
        account_name(container.id, f"{container.kind} account")
    missing = containers_to_make(project, action.containers, work.now, work.settings.shape)
    refuse_coordinators_work(work, project, action.containers[:-1])
    for new in missing:
        make_account(work, task, new)
    found = work.now.accounts[project]
    away = astray(action, work.now)
    if found.parent != parent:
        _refuse(action, work)
        if found.parent != action.previous:
            raise TemporaryError(
                f'{project}: not moved: it is below "{found.parent}" now, not below '
                f'"{action.previous}"; decided anew in the next cycle'
            )
        own = [name for name in work.now.children(project) if work.now.find(name) is not None]
        _put(work, task, own, parent)
        _put(work, task, [project], parent)
        away = tuple(sorted({*away, *own}))
    _put(work, task, away, project)


def _refuse(action: MoveContainer, work: Work) -> None:
    """Raise unless everything below the account is the agent's, and one level deep."""
    project = action.resource
    refuse_kept(project, work.settings.shape.kept)
    for name in work.now.children(project):
        if name == action.container.parent:
            raise PermanentError(f'{project}: not moved: its new parent "{name}" is below it')
        below = work.now.children(name)
        organization = work.now.accounts[name].organization
        if below or organization != project:
            what = (
                f"has accounts below it ({', '.join(below)})"
                if below
                else f'is not the agent\'s (organization "{organization}")'
            )
            raise PermanentError(
                f'{project}: not moved: the account "{name}" below it {what}; move it by hand, see '
                "docs/slurm.md, Projects that move"
            )


def _put(work: Work, task: AnyTask, names: Iterable[str], parent: str) -> None:
    for name in names:
        work.ledger.writes(task)
        work.client.change(commands.move_account(name, parent, work.only))
        work.note_parent(name, parent)
