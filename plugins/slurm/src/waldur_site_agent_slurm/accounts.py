"""Making accounts: containers first, then the resource's own, adopting what is evidently ours."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal

from waldur_site_agent.backends import (
    CreateResource,
    DeleteResource,
    PermanentError,
    TemporaryError,
)
from waldur_site_agent.backends.account_tree import Shape, refuse_kept
from waldur_site_agent.backends.command_line import AnyTask, Task
from waldur_site_agent.model.backend import Container, Placement
from waldur_site_agent_slurm import commands, tres
from waldur_site_agent_slurm.account_qos import attach_qos, ensure_qos, remove_qos
from waldur_site_agent_slurm.client import Work
from waldur_site_agent_slurm.commands import NewAccount
from waldur_site_agent_slurm.facts import Account, Cluster
from waldur_site_agent_slurm.members import (
    find_other_defaults,
    in_several_partitions,
    jobs_in_the_way,
    removable,
    remove_users,
    still_there,
    take_rights,
    write_when_jobs_are_over,
)
from waldur_site_agent_slurm.names import TREE, account_name, is_account_name

_log = logging.getLogger(__name__)


def create_accounts(work: Work, tasks: Iterable[Task[CreateResource]]) -> None:
    """Carry out the creations of a batch, one after the other."""
    for task in tasks:
        with work.ledger.attempt(task):
            _create(work, task, task.action)


def accounts_to_make(placement: Placement, cluster: Cluster, shape: Shape) -> list[NewAccount]:
    """Return what is missing of a placement, outermost first. Pure.

    Raises:
        PermanentError: a name is taken by an account that is not ours, or cannot be used.
        TemporaryError: the account below which they are made does not exist.
    """
    TREE.check_names(placement)
    missing = containers_to_make(placement.id, placement.containers, cluster, shape)
    existing = cluster.find(placement.id)
    if existing is None:
        _refuse_foreign_record(placement.id, placement.id, placement.organization, cluster)
        own = NewAccount(placement.id, placement.parent, placement.title, placement.organization)
        missing.append(own)
        _require_parent(placement.id, missing, cluster, shape)
    else:
        refuse_foreign(placement, existing, cluster)
    return missing


def containers_to_make(
    resource: str, containers: Sequence[Container], cluster: Cluster, shape: Shape
) -> list[NewAccount]:
    """Return which of the accounts above a resource are missing, outermost first. Pure.

    Raises:
        PermanentError: a name is taken by an account that is not ours.
        TemporaryError: the account below which they are made does not exist.
    """
    missing = [
        NewAccount(container.id, container.parent, container.title, container.organization)
        for container in containers
        if _container_is_missing(resource, container, cluster, shape)
    ]
    _require_parent(resource, missing, cluster, shape)
    return missing


def _require_parent(
    resource: str, missing: Sequence[NewAccount], cluster: Cluster, shape: Shape
) -> None:
    if missing and missing[0].parent not in cluster.accounts:
        raise TemporaryError(
            f"{resource}: cannot create: the account {missing[0].parent!r} above it does not "
            f"exist; make it, or set another {shape.top_key} in backend_settings"
        )


def refuse_foreign(placement: Placement, existing: Account, cluster: Cluster) -> None:
    """Raise unless an account is the one that an interrupted run for this placement made.

    Raises:
        PermanentError: parent or organization differ: it belongs to somebody else.
        TemporaryError: only the parent differs, as while its project moves.
    """
    if existing.parent != placement.parent:
        above = cluster.find(existing.parent or "")
        is_moving = existing.organization == placement.organization == placement.project_container
        if is_moving and above is not None and above.organization == above.name:
            raise TemporaryError(
                f'{placement.id}: cannot create: Slurm account "{existing.name}" is under '
                f'"{above.name}", not under "{placement.parent}"',
                remedy="if a move of its project was interrupted, membership_sync finishes that; "
                "otherwise put it there by hand",
            )
        raise PermanentError(
            f'{placement.id}: cannot create: Slurm account "{existing.name}" exists under '
            f'"{existing.parent or ""}", not under "{placement.parent}"; rename it or set another '
            "allocation_prefix"
        )
    TREE.refuse_foreign(placement, existing.name, existing.organization)


def _container_is_missing(
    resource: str, container: Container, cluster: Cluster, shape: Shape
) -> bool:
    existing = cluster.find(container.id)
    if existing is None:
        _refuse_foreign_record(resource, container.id, container.organization, cluster)
        return True
    TREE.refuse_foreign_container(resource, container, existing.organization)
    if existing.parent != container.parent:
        TREE.refuse_other_kind(resource, container, existing.parent or "", shape)
        _log.info(
            "the %s account %r is under %r, not under %r; it is used where it is",
            *(container.kind, container.id, existing.parent, container.parent),
        )
    return False


def refuse_coordinators_work(work: Work, resource: str, containers: Iterable[Container]) -> None:
    """Raise if an account that is not in its place may have been made by a coordinator.

    Coordinators of an account may add accounts below it, under any name and with any organization,
    and are coordinators of whatever is made below those.

    Raises:
        PermanentError: somebody is a coordinator where it is, and not where it belongs.
    """
    for container in containers:
        existing = work.now.find(container.id)
        if existing is None or existing.parent == container.parent:
            continue
        people = _coordinators(work, container.id) - _coordinators(work, container.parent)
        if people:
            raise PermanentError(
                f'{resource}: cannot create: the {container.kind} account "{container.id}" is '
                f'under "{existing.parent}", where coordinators may have made it '
                f"({', '.join(sorted(people))})",
                remedy=f'put it under "{container.parent}", or remove it, or end their right: '
                "sacctmgr remove coordinator",
            )


def _coordinators(work: Work, account: str) -> frozenset[str]:
    """The coordinators of an account and of those above it; not all versions list the latter."""
    path: list[str] = []
    name: str | None = account
    while name and name not in path and is_account_name(name):
        path.append(name)
        if name not in work.now.accounts and not work.now.covers(frozenset({name})):
            work.now = work.now.joined(work.client.accounts((name,)))
        found = work.now.find(name)
        name = found.parent if found else None
    return frozenset().union(*work.client.coordinators(path).values()) if path else frozenset()


def _refuse_foreign_record(resource: str, name: str, organization: str, cluster: Cluster) -> None:
    """An account known to slurmdbd, but without an association here, keeps its organization."""
    record = cluster.accounts.get(name)
    if record is not None and record.organization != organization:
        raise PermanentError(
            f'{resource}: cannot create: slurmdbd has an account "{name}" that is not associated '
            f'with this cluster, with organization "{record.organization}", not "{organization}"; '
            "remove it, or set another prefix"
        )


def _create(work: Work, task: Task[CreateResource], action: CreateResource) -> None:
    resource = action.placement.id
    limits = {
        name: tres.whole_amount(name, amount, resource) for name, amount in action.limits.items()
    }
    missing = accounts_to_make(action.placement, work.now, work.settings.shape)
    refuse_coordinators_work(work, resource, action.placement.containers)
    if work.settings.qos_management.enabled:
        ensure_qos(work, task, resource, limits if work.settings.limits_are_on_qos else {})
    if work.settings.limits_are_on_qos:
        limits = {}
    for new in missing:
        make_account(work, task, new, limits if new.name == resource else {})
    if not any(new.name == resource for new in missing):
        _complete_limits(work, task, resource, limits)
    if work.settings.qos_management.enabled:
        attach_qos(work, task, resource)


def make_account(
    work: Work, task: AnyTask, new: NewAccount, limits: Mapping[str, int] | None = None
) -> None:
    """Make one account, with its limits."""
    work.ledger.writes(task)
    work.client.change(commands.add_account(new, limits or {}, work.only))
    work.note(_as_made(new, limits or {}))


def _complete_limits(work: Work, task: AnyTask, resource: str, limits: Mapping[str, int]) -> None:
    found = work.now.accounts[resource].limits
    lacking = {n: v for n, v in limits.items() if not tres.is_set_to(n, found, v)}
    if lacking:
        work.ledger.writes(task)
        work.client.change(commands.set_limits((resource,), lacking, work.only))


def _as_made(new: NewAccount, limits: Mapping[str, int]) -> Account:
    return Account(
        name=new.name,
        parent=new.parent,
        organization=new.organization,
        limits={name: Decimal(amount) for name, amount in limits.items()},
    )


def delete_accounts(work: Work, tasks: Sequence[Task[DeleteResource]]) -> None:
    """Carry out the deletions of a batch."""
    doomed: list[Task[DeleteResource]] = []
    kept = work.settings.shape.kept
    for task in tasks:
        with work.ledger.attempt(task):
            if work.now.find(account_name(task.account, "account")) is not None:
                going = {other.account for other in doomed}
                refuse_to_delete(task.account, kept, going, work.now)
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
    members = {task: removable(work.now.accounts[task.account].users) for task in doomed}
    bound = find_other_defaults(work, {task: users for task, users in members.items() if users})
    keeps = work.settings.soft_delete
    for task in work.ledger.alive(tasks):
        with work.ledger.attempt(task):
            if task in doomed:
                end = _close if keeps else _delete
                end(work, task, members[task], bound.get(task, frozenset()))
            if not keeps:
                _remove_container(work, task, task.action.project_container)


def _delete(work: Work, task: AnyTask, users: frozenset[str], last: frozenset[str]) -> None:
    """Remove an account with its users; ``last``: those without another account."""
    if last != users or in_several_partitions(work, task, last):
        remove_users(work, task, last)
    _remove(work, task, task.account)


def is_closed(account: Account) -> bool:
    """Whether an account is as ``soft_delete`` leaves it: without users, and nothing to spend."""
    return not removable(account.users) and not any(account.limits.values())


def _close(work: Work, task: AnyTask, users: frozenset[str], last: frozenset[str]) -> None:
    """Let everybody out, and leave nothing to spend; ``last``: users without another account."""
    for portion in (last, users - last):
        remove_users(work, task, portion)
    remove_qos(work, task, task.account)
    spent = {name: 0 for name, amount in work.now.accounts[task.account].limits.items() if amount}
    if spent:
        work.ledger.writes(task)
        work.client.change(commands.set_limits((task.account,), spent, work.only))


def refuse_to_delete(
    name: str, kept: Mapping[str, str], going: Collection[str], cluster: Cluster
) -> None:
    """Raise when an account must not be deleted. Pure.

    ``kept`` are the site's own accounts, ``going`` those that will have been deleted before.

    Raises:
        PermanentError: other accounts hang below it, or it is one of the site's own.
    """
    refuse_kept(name, kept)
    children = [child for child in cluster.children(name) if child not in going]
    if children:
        raise PermanentError(
            f"{name}: not deleted: the accounts {', '.join(children)} are below it and would be "
            "removed with it; delete or move them first"
        )


def is_empty_container(account: Account | None, kept: Collection[str], cluster: Cluster) -> bool:
    """Whether an account is a project's account of ours with nothing left in it. Pure.

    Ours is recognised by the organization, which is the account's own name.
    """
    return (
        account is not None
        and account.organization == account.name
        and account.name not in kept
        and not account.users
        and not cluster.children(account.name)
        and not any(  # below a customer's account while the project moves
            other.organization == account.name and other.name != account.name
            for other in cluster.accounts.values()
            if other.associated
        )
    )


def _remove(work: Work, task: AnyTask, name: str) -> None:
    refuse_to_delete(name, work.settings.shape.kept, (), work.now)
    remove_qos(work, task, name)
    work.ledger.writes(task)
    members = len(work.now.accounts[name].users)
    argv = commands.remove_account(name, work.only)
    write_when_jobs_are_over(work, argv, 1 + members)
    work.forget(name)


def _remove_container(work: Work, task: AnyTask, container: str | None) -> None:
    if container is None:
        return
    name = account_name(container, "project account")
    if is_empty_container(work.now.find(name), work.settings.shape.kept, work.now):
        _remove(work, task, name)
