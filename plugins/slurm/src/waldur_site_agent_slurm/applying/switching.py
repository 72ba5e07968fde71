"""Pausing, downscaling and restoring: accounts with the same target share one command."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from waldur_site_agent.backends import Access, SetAccess, TemporaryError
from waldur_site_agent_slurm import commands
from waldur_site_agent_slurm.applying.limiting import usable_account
from waldur_site_agent_slurm.errors import DatabaseUnavailableError
from waldur_site_agent_slurm.qos import (
    RESTRICTED,
    Qos,
    access_of,
    before_restriction,
    is_set_to,
    refuse_unknown,
    restriction,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from waldur_site_agent_slurm.applying.batches import Task
    from waldur_site_agent_slurm.applying.work import Work
    from waldur_site_agent_slurm.qos import (
        Target,
    )


def set_access(work: Work, tasks: Iterable[Task]) -> None:
    """Carry out the access changes of a batch."""
    targets: dict[Task, Target] = {}
    for task in tasks:
        if isinstance(task.action, SetAccess):
            with work.ledger.attempt(task):
                target = _target(work, task, task.action)
                if target is not None:
                    refuse_unknown(task.account, target, work.client.qos_names())
                    targets[task] = target
    for task in targets:
        with work.ledger.attempt(task):
            _free_members(work, task)
    same: defaultdict[Qos, list[Task]] = defaultdict(list)
    for task in work.ledger.alive(targets):
        same[targets[task].qos].append(task)
    for qos, alike in same.items():
        for portion in commands.chunks(task.account for task in alike):
            _switch(work, [task for task in alike if task.account in portion], qos)
    for task in work.ledger.alive(targets):
        with work.ledger.attempt(task):
            _set_members(work, task, targets[task].members)


def _target(work: Work, task: Task, action: SetAccess) -> Target | None:
    """What the account is to get; ``None`` when it has it."""
    account = usable_account(work, task)
    if action.access is not Access.NORMAL:
        target = restriction(action.access, work.settings)
        is_done = is_set_to(account, target.qos)
        return None if is_done and not _with_own_qos(work, task) else target
    if access_of(work.cluster.qos_of(account.name), work.settings) not in RESTRICTED:
        return None
    inherited = work.cluster.qos_of(account.parent or "")
    return before_restriction(action.restore, inherited, work.settings)


def _with_own_qos(work: Work, task: Task) -> list[str]:
    members = work.cluster.accounts[task.account].members
    return [user for user, member in members.items() if member.has_own_qos]


def _free_members(work: Work, task: Task) -> None:
    """Let users with a QOS of their own inherit the account's.

    It would not reach them, and one of them is enough for Slurm to refuse the account's new
    default, and with it the whole command.
    """
    _set_members(work, task, dict.fromkeys(_with_own_qos(work, task), Qos()))


def _set_members(work: Work, task: Task, members: Mapping[str, Qos]) -> None:
    same: defaultdict[Qos, list[str]] = defaultdict(list)
    for user in members.keys() & work.cluster.accounts[task.account].users:
        same[members[user]].append(user)
    for qos, users in same.items():
        for portion in commands.chunks(users):
            work.ledger.writes(task)
            argv = commands.set_member_qos(portion, task.account, qos.names, qos.default, work.only)
            work.client.write(argv, len(portion))


def _switch(work: Work, tasks: Sequence[Task], qos: Qos) -> None:
    """One command for all; one for each when Slurm refuses, which it does because of any."""
    with work.ledger.attempt(*tasks):
        try:
            _write(work, tasks, qos)
        except DatabaseUnavailableError:
            raise
        except TemporaryError:
            if len(tasks) == 1:
                raise
        else:
            return
    for task in work.ledger.alive(tasks):
        with work.ledger.attempt(task):
            _write(work, [task], qos)


def _write(work: Work, tasks: Sequence[Task], qos: Qos) -> None:
    work.ledger.writes(*tasks)
    accounts = sorted(task.account for task in tasks)
    work.client.write(commands.set_access(accounts, qos.names, qos.default, work.only), len(tasks))
