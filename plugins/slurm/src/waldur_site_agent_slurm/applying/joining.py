"""Adding members: new users are introduced to the cluster first, then one command per account."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from waldur_site_agent.backends import AddMembers, PermanentError, TemporaryError
from waldur_site_agent_slurm import commands, usernames
from waldur_site_agent_slurm.applying.limiting import usable_account
from waldur_site_agent_slurm.names import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from waldur_site_agent_slurm.applying.batches import Task
    from waldur_site_agent_slurm.applying.work import Work


def add_members(work: Work, tasks: Iterable[Task]) -> None:
    """Carry out the additions of a batch."""
    exists = cache(work.user_exists)
    joining: dict[Task, frozenset[str]] = {}
    for task in tasks:
        if isinstance(task.action, AddMembers):
            with work.ledger.attempt(task):
                account = usable_account(work, task)
                joining[task] = _servable(work, task, task.action, exists) - account.users
    _introduce(work, joining)
    for task in work.ledger.alive(joining):
        with work.ledger.attempt(task):
            for portion in commands.chunks(joining[task]):
                work.ledger.writes(task)
                argv = commands.add_users(portion, task.account, work.only)
                work.client.write(argv, len(portion))
                work.note_members(task.account, portion)


def _servable(
    work: Work, task: Task, action: AddMembers, exists: Callable[[str], bool]
) -> frozenset[str]:
    servable = set()
    for member in action.members:
        try:
            name = usernames.name_to_add(
                member, work.cluster, work.client.keeps_case, work.system_name
            )
        except PermanentError as error:
            work.ledger.leave_out(task, member, error)
            continue
        if work.settings.require_system_user and not exists(name):
            work.ledger.leave_out(task, member, _waits(name, action.resource))
        else:
            servable.add(name)
    return frozenset(servable)


def _waits(name: str, resource: str) -> TemporaryError:
    return TemporaryError(
        f"{resource}: {name} waits: the operating system does not know this user yet, and Slurm "
        "would refuse the user's jobs; make the user known, or set require_system_user: false"
    )


def _introduce(work: Work, joining: Mapping[Task, frozenset[str]]) -> None:
    """Give users that are new to the cluster their default account.

    ``root`` is closed to them: with DefaultAccount=root sacctmgr also associates them with the
    root account, where no limit would hold them.
    """
    new = frozenset().union(*joining.values()) - work.cluster.users
    default = work.settings.default_account
    for portion in commands.chunks(new):
        concerned = [task for task, users in joining.items() if not users.isdisjoint(portion)]
        with work.ledger.attempt(*concerned):
            if work.cluster.find(default) is None:
                raise TemporaryError(
                    f"the account {default!r} that new users get as their default does not exist "
                    "in the cluster; make it, or set another default_account in backend_settings"
                )
            work.ledger.writes(*concerned)
            closed = default == ROOT
            argv = commands.introduce_users(portion, default, closed=closed, cluster=work.only)
            work.client.write(argv, len(portion))
            work.note_members(default, portion)
