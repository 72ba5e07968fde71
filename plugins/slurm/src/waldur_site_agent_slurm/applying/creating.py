"""Making accounts: containers first, then the resource's own, adopting what is evidently ours."""

from __future__ import annotations

import logging
from decimal import Decimal
from typing import TYPE_CHECKING

from waldur_site_agent.backends import CreateResource, PermanentError, TemporaryError
from waldur_site_agent_slurm import commands, tres
from waldur_site_agent_slurm.commands import NewAccount
from waldur_site_agent_slurm.facts import Account
from waldur_site_agent_slurm.names import account_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from waldur_site_agent.model.placement import Container, Placement
    from waldur_site_agent_slurm.applying.batches import Task
    from waldur_site_agent_slurm.applying.work import Work
    from waldur_site_agent_slurm.facts import Cluster

_log = logging.getLogger(__name__)


def create_accounts(work: Work, tasks: Iterable[Task]) -> None:
    """Carry out the creations of a batch, one after the other."""
    for task in tasks:
        if isinstance(task.action, CreateResource):
            with work.ledger.attempt(task):
                _create(work, task, task.action)


def accounts_to_make(placement: Placement, cluster: Cluster) -> list[NewAccount]:
    """Return what is missing of a placement, outermost first. Pure.

    Raises:
        PermanentError: a name is taken by an account that is not ours, or cannot be used.
        TemporaryError: the account under which customers are made does not exist.
    """
    for kind, name in placement.names():
        account_name(name, f"{kind} account")
    missing = [
        NewAccount(container.id, container.parent, container.title, container.organization)
        for container in placement.containers
        if _container_is_missing(placement, container, cluster)
    ]
    existing = cluster.find(placement.id)
    if existing is None:
        _refuse_foreign_record(placement.id, placement.id, placement.organization, cluster)
        own = NewAccount(placement.id, placement.parent, placement.title, placement.organization)
        missing.append(own)
    else:
        refuse_foreign(placement, existing)
    if missing and missing[0].parent not in cluster.accounts:
        raise TemporaryError(
            f"{placement.id}: cannot create: the account {missing[0].parent!r} above it does not "
            "exist; make it, or set another default_account in backend_settings"
        )
    return missing


def refuse_foreign(placement: Placement, existing: Account) -> None:
    """Raise unless an account is the one that an interrupted run for this placement made.

    Raises:
        PermanentError: parent or organization differ: it belongs to somebody else.
    """
    remedy = "rename it or set another allocation_prefix"
    start = f'{placement.id}: cannot create: Slurm account "{existing.name}" exists'
    if existing.parent != placement.parent:
        raise PermanentError(
            f'{start} under "{existing.parent or ""}", not under "{placement.parent}"; {remedy}'
        )
    if existing.organization != placement.organization:
        raise PermanentError(
            f'{start} with organization "{existing.organization}", '
            f'not "{placement.organization}"; {remedy}'
        )


def _container_is_missing(placement: Placement, container: Container, cluster: Cluster) -> bool:
    existing = cluster.find(container.id)
    if existing is None:
        _refuse_foreign_record(placement.id, container.id, container.organization, cluster)
        return True
    if existing.organization != container.organization:
        raise PermanentError(
            f'{placement.id}: cannot create: the {container.kind} account "{container.id}" exists '
            f'with organization "{existing.organization}", not "{container.organization}", so it '
            f"was not made by this agent; rename it or set another {container.kind}_prefix"
        )
    if existing.parent != container.parent:
        _log.info(
            "the %s account %r is under %r, not under %r; it is used where it is",
            *(container.kind, container.id, existing.parent, container.parent),
        )
    return False


def _refuse_foreign_record(resource: str, name: str, organization: str, cluster: Cluster) -> None:
    """An account known to slurmdbd, but without an association here, keeps its organization."""
    record = cluster.accounts.get(name)
    if record is not None and record.organization != organization:
        raise PermanentError(
            f'{resource}: cannot create: slurmdbd has an account "{name}" that is not associated '
            f'with this cluster, with organization "{record.organization}", not "{organization}"; '
            "remove it, or set another prefix"
        )


def _create(work: Work, task: Task, action: CreateResource) -> None:
    resource = action.placement.id
    limits = {
        name: tres.whole_amount(name, amount, resource) for name, amount in action.limits.items()
    }
    missing = accounts_to_make(action.placement, work.cluster)
    for new in missing:
        own_limits = limits if new.name == resource else {}
        work.ledger.writes(task)
        work.client.write(commands.add_account(new, own_limits, work.only))
        work.note(_as_made(new, own_limits))
    if not any(new.name == resource for new in missing):
        _complete_limits(work, task, resource, limits)


def _complete_limits(work: Work, task: Task, resource: str, limits: Mapping[str, int]) -> None:
    found = work.cluster.accounts[resource].limits
    lacking = {n: v for n, v in limits.items() if not tres.is_set_to(n, found, v)}
    if lacking:
        work.ledger.writes(task)
        work.client.write(commands.set_limits((resource,), lacking, work.only))


def _as_made(new: NewAccount, limits: Mapping[str, int]) -> Account:
    return Account(
        name=new.name,
        parent=new.parent,
        organization=new.organization,
        limits={name: Decimal(amount) for name, amount in limits.items()},
    )
