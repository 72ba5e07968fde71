"""Limits of single members: members of an account with the same change share one command."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from waldur_site_agent.backends import PermanentError, SetMemberLimits, TemporaryError
from waldur_site_agent_slurm import commands, tres
from waldur_site_agent_slurm.applying.limiting import amounts, usable_account
from waldur_site_agent_slurm.facts import Member
from waldur_site_agent_slurm.names import listed_user_name, user_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from waldur_site_agent_slurm.applying.batches import Task
    from waldur_site_agent_slurm.applying.limiting import Change
    from waldur_site_agent_slurm.applying.work import Work


def set_member_limits(work: Work, tasks: Iterable[Task]) -> None:
    """Carry out the changes of members' limits of a batch."""
    same: defaultdict[tuple[str, Change], dict[str, Task]] = defaultdict(dict)
    for task in tasks:
        if isinstance(task.action, SetMemberLimits):
            with work.ledger.attempt(task):
                user, change = _change(work, task, task.action)
                if change:
                    same[task.account, change][user] = task
    for (account, change), alike in same.items():
        for portion in commands.chunks(alike):
            concerned = [alike[user] for user in portion]
            with work.ledger.attempt(*concerned):
                work.ledger.writes(*concerned)
                argv = commands.set_member_limits(portion, account, dict(change), work.only)
                work.client.write(argv, len(portion))


def _change(work: Work, task: Task, action: SetMemberLimits) -> tuple[str, Change]:
    """The user as the cluster lists the member, and what is to be changed."""
    account = usable_account(work, task)
    listed = work.listed_as(action.member, account.users)
    user = listed_user_name(listed) if listed is not None else user_name(action.member)
    found = account.members.get(user, Member()).limits
    change = frozenset(
        (name, amount)
        for name, amount in amounts(action).items()
        if not tres.is_set_to(name, found, amount)
    )
    if change and user not in account.users:
        raise TemporaryError(
            f"{account.name}: no limit can be set for {user}, who is not a member; it is set "
            "when the user has joined"
        )
    if change:
        _refuse_unknown(action, {name for name, _ in change} - work.client.tres_names())
    return user, change


def _refuse_unknown(action: SetMemberLimits, unknown: Iterable[str]) -> None:
    names = ", ".join(repr(name) for name in sorted(unknown))
    if names:
        raise PermanentError(
            f"{action.resource}: no limit can be set for {action.member} on {names}: the cluster "
            "does not count it; compare with 'sacctmgr show tres', add it to "
            "AccountingStorageTRES in slurm.conf or name another component"
        )
